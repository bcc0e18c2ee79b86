"""The weakest player that still ends its games: uniformly random, but it keeps its eyes."""

import numpy as np
from numpy.typing import NDArray

from envs.go.position import EMPTY, Position


class RandomPlayer:
    """A move drawn uniformly among the legal ones that fill no eye of its own; a pass when none is left."""

    def __init__(self, seed: int = 0, name: str = "random"):
        self.name = name
        self.new_game(seed)

    def new_game(self, seed: int) -> None:
        """From here on the moves are those of this seed."""
        self._rng = np.random.default_rng(seed)

    def __call__(self, position: Position) -> int:
        sensible = position.legal_moves()[:-1] & ~simple_eyes(position.board, position.to_play).ravel()
        moves = np.flatnonzero(sensible)
        return int(self._rng.choice(moves)) if len(moves) else position.pass_move


def simple_eyes(board: NDArray[np.int8], colour: int) -> NDArray[np.bool_]:
    """Where `board` [H, W] has eyes of `colour`: bool [H, W].

    An eye is an empty point with only own stones beside it, and with at most one diagonal lost to the opponent, or
    none at the edge.
    """
    height, width = board.shape
    off = 3
    padded = np.pad(board, 1, constant_values=off)
    around = {
        (dy, dx): padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] for dy in (-1, 0, 1) for dx in (-1, 0, 1)
    }
    beside = np.stack([around[d] for d in ((-1, 0), (1, 0), (0, -1), (0, 1))])
    diagonal = np.stack([around[d] for d in ((-1, -1), (-1, 1), (1, -1), (1, 1))])
    enclosed = ((beside == colour) | (beside == off)).all(0)
    lost = (diagonal == 3 - colour).sum(0) + (diagonal == off).any(0)
    return (board == EMPTY) & enclosed & (lost < 2)
