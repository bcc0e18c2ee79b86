"""The interface of a game for a search, and of one of its positions for people and players."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rlkit.search.trees import Trees

States = NDArray[np.int16]
RESIGN = -1
"""what a player returns instead of a move"""


class Game(Protocol):
    """A two-player, zero-sum game whose sides alternate, as verbs on many games at once.

    States are rows [games, game_size]; a search keeps their first `state_size` numbers in a node. Values are those of
    the side to move, in -1 .. 1. A game may have more, and is asked whether it has: `sensible` (see `moves_of`),
    `points`, `ownership`, `score`.
    """

    @property
    def num_actions(self) -> int: ...

    @property
    def state_size(self) -> int: ...

    @property
    def planes(self) -> int:
        """Of `encode`."""

    @property
    def moves_cap(self) -> int:
        """The most moves of a game."""

    def reset(self, games: int) -> States:
        """New games."""

    def legal(self, states: States) -> NDArray[np.bool_]:
        """[games, num_actions]; none where a game is over."""

    def play(self, states: States, actions: NDArray[np.integer]) -> None:
        """Play legal actions [games] in place."""

    def states_after(
        self, games: States, trees: Trees, tree: NDArray[np.int64], node: NDArray[np.int64], actions: NDArray[np.int64]
    ) -> States:
        """The states after edges of search trees whose roots are `games`: [edges, game_size]."""

    def to_play(self, states: States) -> NDArray[np.int16]:
        """1 for who began, 2 for the other: [games]."""

    def is_over(self, states: States) -> NDArray[np.bool_]:
        """[games]"""

    def outcome(self, states: States) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """(over [games], value [games]): 0 where a game goes on."""

    def encode(self, states: States) -> NDArray[np.uint8]:
        """What a network sees: [games, planes, height, width]."""


class Position(Protocol):
    """One position and the moves that led there. Immutable."""

    @property
    def parent(self) -> "Position | None":
        """The position before `last_move`; None at the first position that is known."""

    @property
    def last_move(self) -> int | None: ...

    @property
    def is_over(self) -> bool: ...

    def states(self) -> tuple[Game, States]:
        """This position for the functions of `Game`: (game, states [1, game_size])."""

    def play(self, move: int) -> "Position":
        """The position after a legal move."""


def moves_of(game: Game, states: States) -> NDArray[np.bool_]:
    """The moves that are worth a look, [games, num_actions]: `sensible` ones where a game can tell (in Go those that
    fill no own true eye), else all legal ones.
    """
    moves: NDArray[np.bool_] = getattr(game, "sensible", game.legal)(states)
    return moves
