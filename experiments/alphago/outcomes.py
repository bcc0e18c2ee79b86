"""Outcomes of games: which positions a value network learns from, and how it is measured."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agents.alphago.value_data import SampledGames
from envs.go.chains import BLACK
from envs.go.game import Go
from envs.go.replay import UNKNOWN, Games
from experiments.alphago import positions
from rlkit.logger import say
from rlkit.runtime import evaluating


@dataclass
class Outcomes:
    """Games whose outcome is known, with one position of each."""

    games: Games
    kept: NDArray[np.int64]
    """[games] index of the move that the one position stands before"""
    first: NDArray[np.int64]
    """[games] likewise of the first position that the outcome belongs to"""

    def split(self, held_out: float, whole: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(positions to learn from, positions held out), as indices of moves. No game is in both.

        The latter are one a game in any case; whole: the former are all from `first` on, of as many of the same
        games as give about as many positions. Raises ValueError where one of the two is empty.
        """
        order = np.random.default_rng(0).permutation(len(self.games))
        count = round(held_out * len(order))
        test, learned = order[:count], order[count:]
        if not len(test) or not len(learned):
            raise ValueError(f"{held_out:.0%} of {len(order):,} games leave nothing to learn from or to measure on")
        if not whole:
            return self.kept[learned], self.kept[test]
        ends = self.games.begins[1:]
        enough = int(np.searchsorted((ends - self.first)[learned].cumsum(), len(learned))) + 1
        spans = [np.arange(self.first[g], ends[g]) for g in learned[:enough]]
        return np.concatenate(spans), self.kept[test]


def made(sampled: SampledGames, game: Go, most: int) -> Outcomes:
    """The first games that were made, at most so many (0: all)."""
    begins = np.concatenate([[0], sampled.length.cumsum()])
    count = min(most or len(sampled), len(sampled))
    end = begins[count]
    komi = np.full(count, game.komi)
    games = Games(game, sampled.moves[:end], begins[: count + 1], sampled.winner[:count], komi)
    kept = begins[:count] + sampled.kept[:count]
    return Outcomes(games, kept, kept)


def recorded(games: Games, most: int, seed: int) -> Outcomes:
    """Recorded games whose result field tells the winner, at most so many (0: all), with a position drawn from each.

    Only those of the commonest komi: the planes do not tell it. Raises ValueError where none is left.
    """
    known = (games.winner != UNKNOWN) & (np.diff(games.begins) > 0)
    if not known.any():
        raise ValueError("no game has a result that tells the winner: take games with RE[B+...] or RE[W+...]")
    komis, counts = np.unique(games.komi[known], return_counts=True)
    komi = float(komis[counts.argmax()])
    usable = np.flatnonzero(known & (games.komi == komi))
    say(
        f"komi {komi:g}: {len(usable):,} games; left out: {(~known).sum():,} without a result, "
        f"{known.sum() - len(usable):,} of another komi"
    )
    rng = np.random.default_rng(seed)
    chosen = games.select(np.sort(rng.permutation(usable)[: most or None]))
    chosen.game = replace(games.game, komi=komi)
    first = chosen.begins[:-1]
    return Outcomes(chosen, first + rng.integers(np.diff(chosen.begins)), first)


@dataclass
class OutcomePredictions:
    """What a network predicted of positions, and what came: [n] each."""

    number: NDArray[np.int64]
    """moves of the game before the position"""
    colour: NDArray[np.int64]
    """to move"""
    value: NDArray[np.float32]
    z: NDArray[np.float32]

    @property
    def error(self) -> NDArray[np.float32]:
        return (self.value - self.z) ** 2


def predict_outcomes(
    network: nn.Module, games: Games, index: NDArray[np.int64], in_time: Callable = iter
) -> OutcomePredictions:
    """What the network says of the positions before moves [n] of games.

    in_time: takes and gives parts of them, and may give fewer.
    """
    device = next(network.parameters()).device
    with evaluating(network):
        values = [
            network(torch.from_numpy(positions.planes(games.states(some))).to(device)).cpu().numpy()
            for some in in_time(np.array_split(index, -(-len(index) // 500)))
        ]
    index = index[: sum(map(len, values))]
    number = games.number(index)
    colour = np.where(number % 2 == 0, BLACK, 3 - BLACK)
    return OutcomePredictions(number, colour, np.concatenate(values), games.z(index))


def constants(games: Games, index: NDArray[np.int64], of: OutcomePredictions) -> tuple[NDArray, NDArray]:
    """(the best constant, the best for each colour to move), as learned from positions, for the positions `of`: [n]."""
    z, colour = games.z(index), 1 + games.number(index) % 2
    overall = float(z.mean())
    by_colour = {c: float(z[colour == c].mean()) if (colour == c).any() else overall for c in (1, 2)}
    return np.full(len(of.z), overall), np.where(of.colour == 1, by_colour[1], by_colour[2])


def score(
    test: OutcomePredictions, train: OutcomePredictions, constant: NDArray, by_colour: NDArray
) -> dict[str, float]:
    """Mean squared errors, of the constants on the positions held out; and how often the winner was predicted."""
    decided = test.z != 0
    return {
        "test_mse": float(test.error.mean()),
        "train_mse": float(train.error.mean()),
        "constant_mse": float(((constant - test.z) ** 2).mean()),
        "colour_mse": float(((by_colour - test.z) ** 2).mean()),
        "winner": float((np.sign(test.value) == test.z)[decided].mean()) if decided.any() else float("nan"),
    }


def table(test: OutcomePredictions, by_colour: NDArray) -> str:
    """By move number, ten moves a line: the network's error, and that of a constant for each colour to move."""
    lines = ["moves      positions    MSE  constant"]
    for ten in np.unique(test.number // positions.TEN):
        here = test.number // positions.TEN == ten
        first = positions.TEN * ten + 1
        trivial = ((by_colour - test.z)[here] ** 2).mean()
        span = f"{first:3} - {first + positions.TEN - 1:3}"
        lines.append(f"{span}{here.sum():12,}  {test.error[here].mean():.3f}  {trivial:8.3f}")
    return "\n".join(lines)


def by_ten(test: OutcomePredictions) -> dict[str, float]:
    """The same errors for the log."""
    tens = test.number // positions.TEN
    return {
        f"mse_from_move_{positions.TEN * ten + 1}": float(test.error[tens == ten].mean()) for ten in np.unique(tens)
    }
