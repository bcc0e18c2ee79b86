r"""A search tree that is kept from move to move: a search goes on from what an earlier one found.

    position searched before        root -- a -- b            moves a, b lead to the position to search now
                                      \      \-- c -- ...
                                       d      (b's node becomes the root, and its subtree stays)

How a tree is planted and grown are functions of the players that keep one: `agents/uct`, `alphago` and `alphazero`.
"""

import math
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rlkit.search.game import Position, States
from rlkit.search.trees import Trees

MEMORY = 10**9
"""bytes of the largest tree, for searches that only time ends"""
UNLIMITED = 1 << 30
"""simulations of a search that time ends, or a full tree"""
T = TypeVar("T", bound=Trees)


class KeptTree(Generic[T]):
    """The tree of one position, and of those that moves lead to from there.

    Args:
        plant: (a tree or None, nodes, game, games [1, game_size]) -> the tree, or for None a new one with room for
            `nodes` nodes, begun anew from that state.
        grow: (tree, game, games, goal, end): search on until the root has had `goal` simulations, the tree is full, or
            `time.monotonic()` is `end`.
    """

    def __init__(
        self,
        plant: Callable[[T | None, int, Any, States], T],
        grow: Callable[[T, Any, States, int, float], None],
    ):
        self._plant, self._grow = plant, grow
        self.trees: T | None = None
        self.position: Position | None = None
        """the position at the root; None: no search may go on in this tree"""
        self._last_end = 0

    def forget(self) -> None:
        """The next search begins anew."""
        self.position = None

    def at(self, position: Position, simulations: int | None) -> T:
        """The tree of this position with what earlier searches found, and room for `simulations` (None: MEMORY)."""
        game, _ = position.states()
        most = MEMORY // (2 * game.state_size + 16 * game.num_actions)
        nodes = max(2, most if simulations is None else min(simulations + 1, most))
        trees = self.trees
        if trees is not None and trees.N.shape[1] >= nodes and self._advance(trees, position):
            return trees
        return self.begin(position, nodes)

    def begin(self, position: Position, nodes: int) -> T:
        """The tree of this position, begun anew, with room for `nodes` nodes."""
        game, games = position.states()
        trees, shape = self.trees, (game.num_actions, game.state_size)
        if trees is not None and (trees.N.shape[1] < nodes or (trees.N.shape[2], trees.states.shape[2]) != shape):
            trees = None
        self.trees = self._plant(trees, nodes, game, games)
        self.position, self._last_end = position, game.moves_cap
        return self.trees

    def grow(self, position: Position, goal: int, end: float = math.inf) -> None:
        """Search on in the tree of this position until the root has had `goal` simulations, the tree is full, or
        `time.monotonic()` is `end`.
        """
        assert self.trees is not None
        try:
            game, games = position.states()
            self._grow(self.trees, game, games, goal, end)
        except BaseException:
            self.position = None  # edges wait for their values, and would for ever
            raise

    def analyze(self, position: Position, simulations: int | None, end: float | None) -> T:
        """The tree of this position, after `simulations` more (None: as many as there is room for) or until
        `time.monotonic()` is `end` (None: the tree as it is, without searching).
        """
        if end is None:
            return self.at(position, 0)
        trees = self.at(position, None)
        self.grow(position, int(trees.total[0, 0]) + simulations if simulations else UNLIMITED, end)
        return trees

    def _advance(self, trees: T, position: Position) -> bool:
        """Whether moves lead from the position searched before to this one; the tree then has this one at its root."""
        moves: list[int | None] = []
        before: Position | None = position
        while before is not None and before is not self.position:
            moves.append(before.last_move)
            before = before.parent
        if before is None:
            return False
        if not moves:
            return True
        self.position = None
        game, games = position.states()
        # A game without a near end gets one, later with every move: below an old root it would come too early.
        if game.moves_cap > self._last_end + game.num_actions // 2:
            return False
        if not all(trees.advance(np.array([move]))[0] for move in reversed(moves)):
            return False
        # Komi or the side to move may have been changed on the way, or a side has moved twice.
        same = getattr(before, "komi", None) == getattr(position, "komi", None)
        if not same or not np.array_equal(game.encode(games), game.encode(trees.states[:, 0])):
            return False
        self.position = position
        return True


def end_after(seconds: float | None) -> float:
    """What `time.monotonic()` will be in `seconds` seconds; None: never."""
    return math.inf if seconds is None else time.monotonic() + seconds


def same_moves(a: NDArray[np.bool_] | None, b: NDArray[np.bool_] | None) -> bool:
    """Whether two searches may begin with the same moves; None: all."""
    return a is b or (a is not None and b is not None and np.array_equal(a, b))


def check_limits(simulations: int | None, resign: float | None = None) -> None:
    """Raise ValueError where these cannot be a player's."""
    if simulations is not None and simulations < 1:
        raise ValueError(f"a search needs 1 simulation at least, not {simulations}")
    if resign is not None and not 0 <= resign <= 1:
        raise ValueError(f"resign is a value in 0 .. 1, not {resign}")
