"""Positions of recorded games as batches for AlphaGo's learners."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from envs.go.board import HEIGHT, WIDTH
from envs.go.features import alphago_slab, symmetries
from envs.go.game import States
from envs.go.record import GameRecord
from envs.go.replay import Games, gather
from envs.go.sgf import read_collection
from rlkit.data import Batch
from rlkit.logger import say

__all__ = ["Games", "drawn", "planes", "read", "split"]


def read(path: str | None, size: int = 0, least_moves: int = 1, least_rating: int = 0) -> Games:
    """The usable games of an SGF collection, or of all in a folder; says what was left out, and why.

    Raises FileNotFoundError, and ValueError where nothing is left.
    """
    if not path:
        raise ValueError(
            "there are no games to learn from: name an SGF collection by --games, or make one by "
            "python -m experiments.make_games"
        )
    folder = Path(path)
    files = sorted(folder.rglob("*.sgf")) if folder.is_dir() else [folder]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"there is no SGF file {path}" if not folder.is_dir() else f"{path} has no *.sgf in it")
    records: list[GameRecord] = []
    broken = 0
    for file in files:
        collection = read_collection(file, on_error="skip")
        records += collection
        broken += len(collection.skipped)
    try:
        games, left_out = gather(records, size or None, least_moves, least_rating)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    left_out += Counter({"broken records": broken})
    reasons = ", ".join(f"{count:,} for {reason}" for reason, count in left_out.items() if count)
    say(f"{path}: {len(games):,} games, {len(games.moves):,} moves" + (f"; left out: {reasons}" if reasons else ""))
    return games


def split(games: Games, held_out: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(moves to learn from, moves held out), as indices: whole games, the same ones for every learner and seed.

    Raises ValueError where one of the two is empty.
    """
    order = np.random.default_rng(0).permutation(len(games))
    out = np.zeros(len(games), np.bool_)
    out[order[: round(held_out * len(games))]] = True
    test = out[games.of]
    if test.all() or not test.any():
        raise ValueError(f"{held_out:.0%} of {len(games):,} games leave nothing to learn from or to measure on")
    return np.flatnonzero(~test), np.flatnonzero(test)


def planes(states: States) -> NDArray[np.uint8]:
    """AlphaGo's 49 planes of positions: [n, 49, size, size]."""
    return alphago_slab(states, int(states[0, HEIGHT]), int(states[0, WIDTH]), colour_plane=True)


def drawn(games: Games, index: NDArray[np.int64], batch_size: int, seed: int) -> Callable[[int], Batch]:
    """Batches from some of the moves, with replacement, each under a random symmetry: {"planes" [B, 49, size, size],
    "action" [B], "z" [B]}.
    """
    size = games.game.height
    forward = symmetries(size)
    backward = np.argsort(forward, 1)  # where each move goes

    def make(number: int) -> Batch:
        rng = np.random.default_rng([seed, number])
        chosen, k = index[rng.integers(len(index), size=batch_size)], rng.integers(8, size=batch_size)
        flat = planes(games.states(chosen)).reshape(batch_size, -1, size * size)
        turned = np.take_along_axis(flat, forward[k, None, :-1], 2)
        return {
            "planes": torch.from_numpy(turned.reshape(batch_size, -1, size, size)),
            "action": torch.from_numpy(backward[k, games.moves[chosen]]),
            "z": torch.from_numpy(games.z(chosen)),
        }

    return make
