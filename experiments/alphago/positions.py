"""Positions of recorded games as batches for AlphaGo's learners."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from envs.go import patterns
from envs.go.board import HEIGHT, WIDTH
from envs.go.features import alphago_slab, symmetries
from envs.go.game import States
from envs.go.record import GameRecord
from envs.go.replay import Games, gather
from envs.go.sgf import read_collection
from rlkit.augmentations import turn_boards
from rlkit.data import Batch
from rlkit.data_files import files_below
from rlkit.logger import say

TEN = 10
"""moves that are reported together"""


def read(path: str | None, size: int = 0, least_moves: int = 1, least_rating: int = 0) -> Games:
    """The usable games of an SGF collection, or of all in a folder; says what was left out, and why.

    Raises FileNotFoundError, and ValueError where nothing is left.
    """
    if not path:
        raise ValueError(
            "there are no games to learn from: name an SGF collection by --games, or make one by "
            "python -m experiments make_games"
        )
    records: list[GameRecord] = []
    broken = 0
    for file in files(path):
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


def files(path: str | None) -> list[Path]:
    """The SGF collections that a path names: itself, or all in a folder and those inside. Raises FileNotFoundError."""
    folder = Path(path or "")
    if path and folder.is_dir():
        found = [file for file in files_below(folder) if file.suffix.lower() == ".sgf"]
        if not found:
            raise FileNotFoundError(f"{path} has no *.sgf in it")
        return found
    if not path or not folder.is_file():
        raise FileNotFoundError(f"there is no SGF file {path}")
    return [folder]


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


def position_batches(games: Games, index: NDArray[np.int64], batch_size: int, seed: int) -> Callable[[int], Batch]:
    """Batches from some of the moves, with replacement, each under a random symmetry: {"planes" [B, 49, size, size],
    "action" [B], "z" [B]}.
    """
    forward = symmetries(games.game.height)
    backward = np.argsort(forward, 1)  # where each move goes

    def make(number: int) -> Batch:
        rng = np.random.default_rng([seed, number])
        chosen, k = index[rng.integers(len(index), size=batch_size)], rng.integers(8, size=batch_size)
        return {
            "planes": torch.from_numpy(turn_boards(planes(games.states(chosen)), forward[k])),
            "action": torch.from_numpy(backward[k, games.moves[chosen]]),
            "z": torch.from_numpy(games.z(chosen)),
        }

    return make


def pattern_batches(games: Games, index: NDArray[np.int64], batch_size: int, seed: int) -> Callable[[int], Batch]:
    """The same with pattern features, which the symmetries do not change: {"features" [B, A, slots], "candidates"
    [B, A], "action" [B]}.
    """

    def make(number: int) -> Batch:
        chosen = index[np.random.default_rng([seed, number]).integers(len(index), size=batch_size)]
        ids, candidates = patterns.features(games.states(chosen))
        return {
            "features": torch.from_numpy(ids),
            "candidates": torch.from_numpy(candidates),
            "action": torch.from_numpy(games.moves[chosen].astype(np.int64)),
        }

    return make


@dataclass
class MovePredictions:
    """How well moves were predicted: [n] each."""

    number: NDArray[np.int64]
    """moves of the game before it"""
    top1: NDArray[np.bool_]
    top5: NDArray[np.bool_]
    nats: NDArray[np.float32]
    """inf where it was thought impossible"""

    def score(self) -> dict[str, float]:
        """Means; of nats, over the moves that were thought possible."""
        finite = np.isfinite(self.nats)
        return {
            "top1": float(self.top1.mean()),
            "top5": float(self.top5.mean()),
            "nats": float(self.nats[finite].mean()) if finite.any() else float("inf"),
        }

    def table(self) -> str:
        """By move number, ten moves a line."""
        lines = ["moves      positions  top-1  top-5   nats"]
        for ten in np.unique(self.number // TEN):
            here = self.number // TEN == ten
            part = MovePredictions(self.number[here], self.top1[here], self.top5[here], self.nats[here]).score()
            span = f"{TEN * ten + 1:3} - {TEN * ten + TEN:3}"
            lines.append(f"{span}{here.sum():12,}  {part['top1']:.3f}  {part['top5']:.3f}  {part['nats']:.3f}")
        return "\n".join(lines)


@torch.no_grad()
def predict_moves(
    logits_of: Callable[[NDArray[np.int64]], Tensor], games: Games, index: NDArray[np.int64], in_time: Callable = iter
) -> MovePredictions:
    """Hold a policy against the moves [n] of games; logits_of: indices [B] -> logits [B, A] on the CPU.

    in_time: takes and gives parts of the moves, and may give fewer.
    """
    parts = []
    for some in in_time(np.array_split(index, max(1, len(index) // 500))):
        logits = logits_of(some).float()
        action = torch.from_numpy(games.moves[some].astype(np.int64))
        best = logits.topk(min(5, logits.shape[1]))
        right = (best.indices == action[:, None]) & (best.values > -torch.inf)
        parts.append((right[:, 0], right.any(1), F.cross_entropy(logits, action, reduction="none")))
    top1, top5, nats = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return MovePredictions(games.number(index[: len(nats)]), top1, top5, nats)
