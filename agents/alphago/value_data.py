"""Positions with their outcomes for the value network: one of a game, because those of one game are too much alike.

    ply       0 .......... U-2       U-1            U ................ T
              supervised policy      random move    learned policy, to the end, which is z
                                                 ^ the one position that is kept

Source: Silver et al. 2016, Methods, "Value network: regression".
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from agents.alphago.games import Encode, Policy, play
from rlkit.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from rlkit.errors import DamagedFile
from rlkit.search.game import Game


@dataclass
class SampledGames:
    """Games with the position of each that is kept, as arrays."""

    moves: NDArray[np.int16]
    """[moves] of all games, one after the other"""
    length: NDArray[np.int64]
    """[games]"""
    winner: NDArray[np.int8]
    """[games] 1 for Black, 2 for White, 0 for a draw"""
    kept: NDArray[np.int64]
    """[games] U, the moves before the position; the game went on from there"""

    def __len__(self) -> int:
        return len(self.length)


def sample(
    game: Game, encode: Encode, supervised: Policy, learned: Policy, games: int, most: int, rng: np.random.Generator
) -> SampledGames:
    """Play games in lock-step, with U drawn from 1 .. most in each: U - 1 moves by the supervised policy, a uniformly
    random legal one, the rest by the learned policy.

    Games that were over by then are left out, so that fewer come back. The random move is a point where there is one:
    the paper's players do not pass.
    """
    U = rng.integers(1, most + 1, games)

    def turn(ply: int, to_play: NDArray, rows: NDArray) -> NDArray[np.int64]:
        return 1 + np.sign(ply - (U[rows] - 1))

    played = play(game, encode, game.reset(games), (supervised, None, learned), turn, rng)
    length = np.array([len(moves) for moves in played.moves], np.int64)
    reached = np.flatnonzero(length > U)
    flat = [played.moves[g] for g in reached]
    moves = np.fromiter((move for one in flat for move in one), np.int16, int(length[reached].sum()))
    return SampledGames(moves, length[reached], played.winner[reached], U[reached])


class Store:
    """Sets of games, one after the other, in one checksummed file, which is replaced as a whole or not at all.

    header: the settings that the games were made with, in plain values; it is saved with them.
    """

    def __init__(self, folder: Path, header: dict[str, Any] | None = None):
        self.folder, self.header = folder, header or {}
        self.sets, self.games = 0, 0
        self._added: list[SampledGames] = []
        self._saved = -1

    def add(self, games: SampledGames) -> None:
        self._added.append(games)
        self.sets, self.games = self.sets + 1, self.games + len(games)

    def all(self) -> SampledGames:
        """All games so far. Raises ValueError where there is nothing."""
        if not self.games:
            raise ValueError(f"{self.folder} has no games yet")
        names = SampledGames.__dataclass_fields__
        whole = SampledGames(*(np.concatenate([getattr(one, name) for one in self._added]) for name in names))
        self._added = [whole]
        return whole

    def save(self) -> None:
        """Write the file if anything is new. Raises OSError."""
        if self.sets != self._saved and self.games:
            arrays = {name: torch.from_numpy(array) for name, array in vars(self.all()).items()}
            save_checkpoint(self.folder, self.sets, {"header": self.header, "arrays": arrays}, keep=1)
            self._saved = self.sets

    def load(self) -> bool:
        """Go on from the file; False where there is none. Raises DamagedFile, and ValueError for other games."""
        if not (files := checkpoints(self.folder)):
            return False
        saved = load_checkpoint(files[0])
        try:
            header, arrays = saved["header"], {name: tensor.numpy() for name, tensor in saved["arrays"].items()}
            self._added = [SampledGames(**arrays)]
        except (KeyError, TypeError) as error:
            raise DamagedFile(f"{files[0]} holds no games: {error!r}") from error
        if self.header and header != self.header:
            raise ValueError(f"{self.folder} has games made by {header}, not by {self.header}: begin a new run")
        self.header, self.games = header, len(self._added[0])
        self.sets = self._saved = int(files[0].stem.removeprefix("step_"))
        return True
