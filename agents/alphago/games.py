"""Games between policies, many in lock-step: all play a move, with one call of each policy's network, then the next.

ply            0  1  2  3  4 ...
games 0, 1     a  b  a  b  a        a is the first policy, b the second: at each ply the games that a moves in
games 2, 3     b  a  b  a  b        go through its network together, then the others through b's
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rlkit.errors import NonFiniteLoss
from rlkit.search.game import Game, States, moves_of

Policy = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""planes [B, C, H, W] -> logits [B, A], or [B, A - 1] of a network that never passes"""
Encode = Callable[[States], NDArray[np.uint8]]
"""states [B, game_size] -> planes [B, C, H, W]"""
Turn = Callable[[int, NDArray[np.int16], NDArray[np.int64]], NDArray[np.int64]]
"""(ply, colours to move [B], their games [B]) -> which policy moves [B]"""


@dataclass
class Played:
    """Games that were played to their ends."""

    moves: list[list[int]]
    """of each game, from where it began"""
    winner: NDArray[np.int8]
    """[games] 1 for Black, 2 for White, 0 for a draw, by the board after the last move"""
    kept: dict[str, NDArray]
    """the positions [n] in which a policy had a choice: "planes" [n, C, H, W], "legal" [n, A] what it drew from,
    "action" [n], "colour" [n] that it had, "game" [n] number of the game; empty where none were asked for"""

    @property
    def z(self) -> NDArray[np.float32]:
        """[n] what the games of the kept positions were worth to the side that moved: 1, -1, 0 for a draw."""
        return worth(self.winner[self.kept["game"]], self.kept["colour"])


def worth(winner: NDArray, colour: NDArray) -> NDArray[np.float32]:
    """What games that `winner` [n] won (0: nobody) are worth to `colour` [n]."""
    return np.where(winner == 0, 0, np.where(winner == colour, 1, -1)).astype(np.float32)


def colours(games: int) -> NDArray[np.int64]:
    """A side's colours [games]: Black in the first half of them, White in the second."""
    return np.where(np.arange(games) < (games + 1) // 2, 1, 2)


def sides(first: NDArray[np.integer]) -> Turn:
    """The turns of two policies: policy 0 has the colours `first` [games], policy 1 the others."""
    return lambda ply, to_play, games: (to_play != first[games]).astype(np.int64)


def _points_first(game: Game, allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The allowed actions [B, num_actions] but for the pass, where there is a point to play on."""
    points, allowed = getattr(game, "points", game.num_actions), allowed.copy()
    allowed[:, points:] &= ~allowed[:, :points].any(1, keepdims=True)
    return allowed


def _draw(rng: np.random.Generator, logits: NDArray[np.floating], allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Actions [B] by the softmax of logits [B, A] over the allowed ones: the largest, once Gumbel noise is added."""
    return np.where(allowed, logits + rng.gumbel(size=allowed.shape), -np.inf).argmax(1)


def openings(game: Game, games: int, moves: int, rng: np.random.Generator) -> States:
    """States [games, game_size] after `moves` random sensible moves, which end no game.

    The second half begins as the first: with `colours`, each side has each opening once with both colours.
    """
    states = game.reset((games + 1) // 2)
    for _ in range(moves):
        after, allowed = states.copy(), _points_first(game, moves_of(game, states))
        game.play(after, _draw(rng, np.zeros(allowed.shape), allowed))
        states = np.where(game.is_over(after)[:, None], states, after)
    return np.concatenate([states, states])[:games]


def play(
    game: Game,
    encode: Encode,
    states: States,
    policies: Sequence[Policy | None],
    turn: Turn,
    rng: np.random.Generator,
    keep: int | None = None,
) -> Played:
    """Play games to their ends: each move is drawn from a policy's softmax over the sensible moves, at temperature 1.

    Args:
        game: the verbs legal, play, outcome, is_over, to_play, and, if it has them, sensible and points.
        states: [games, game_size] to begin from; they become the last ones.
        policies: None stands for one that draws uniformly among the legal points, and passes where there is none.
        keep: the policy whose positions are kept, but for those with one move to choose from: log 1 has no gradient.

    Raises NonFiniteLoss where a network's logits are not finite.
    """
    moves: list[list[int]] = [[] for _ in states]
    kept: dict[str, list[NDArray]] = {}
    live, ply = np.flatnonzero(~game.is_over(states)), 0
    while len(live):
        rows = states[live]
        to_play = game.to_play(rows)
        movers, actions = turn(ply, to_play, live), np.empty(len(live), np.int64)
        for i, policy in enumerate(policies):
            here = np.flatnonzero(movers == i)
            if not len(here):
                continue
            if policy is None:
                allowed = _points_first(game, game.legal(rows[here]))
                actions[here] = _draw(rng, np.zeros(allowed.shape), allowed)
                continue
            planes, allowed = encode(rows[here]), moves_of(game, rows[here])
            logits = policy(planes)
            if not np.isfinite(logits).all():
                raise NonFiniteLoss("the policy's logits are not finite: go back to a checkpoint before that")
            given = logits.shape[1]
            if given < allowed.shape[1]:  # a network that never passes does so where it has to
                allowed = _points_first(game, allowed)
                logits = np.pad(logits, ((0, 0), (0, allowed.shape[1] - given)))
            actions[here] = _draw(rng, logits, allowed)
            if i == keep:
                choice = np.flatnonzero(allowed.sum(1) > 1)
                at = here[choice]
                seen = {"planes": planes[choice], "legal": allowed[choice, :given], "action": actions[at]}
                for name, array in (seen | {"colour": to_play[at], "game": live[at]}).items():
                    kept.setdefault(name, []).append(array)
        for g, action in zip(live.tolist(), actions.tolist(), strict=True):
            moves[g].append(action)
        game.play(rows, actions)
        states[live] = rows
        live, ply = live[~game.is_over(rows)], ply + 1
    value, mover = game.outcome(states)[1], game.to_play(states)
    winner = np.where(value == 0, 0, np.where(value > 0, mover, 3 - mover)).astype(np.int8)
    return Played(moves, winner, {name: np.concatenate(arrays) for name, arrays in kept.items()})
