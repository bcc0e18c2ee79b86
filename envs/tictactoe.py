"""Tic-tac-toe with the verbs of a game: a toy that a search solves in a blink, and the contract in its smallest form.

A state is 10 numbers: the nine points (0, 1 or 2) from the top left, and the side to move (1 or 2).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.int16]
LINES = np.array(
    [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]]
)  # fmt: skip


class TicTacToe:
    """The verbs, each on many games at once; values are those of the side to move."""

    num_actions, state_size, game_size, planes = 9, 10, 10, 2

    def reset(self, games: int) -> States:
        """Empty boards: [games, 10]."""
        states = np.zeros((games, 10), np.int16)
        states[:, 9] = 1
        return states

    def legal(self, states: States) -> NDArray[np.bool_]:
        """[games, 9]; none where a game is over."""
        return (states[:, :9] == 0) & ~self.outcome(states)[0][:, None]

    def play(self, states: States, actions: NDArray[np.integer]) -> None:
        """Play actions [games] in place. Raises ValueError on a taken point."""
        games = np.arange(len(states))
        if (taken := states[games, actions] != 0).any():
            raise ValueError(f"action {actions[int(taken.argmax())]} is taken: ask legal() first")
        states[games, actions] = states[:, 9]
        states[:, 9] = 3 - states[:, 9]

    def follow(self, games: States, trees: Any, tree: NDArray, node: NDArray, actions: NDArray) -> States:
        """The states after edges of search trees: [edges, 10]. Nothing but the node matters in this game."""
        states = trees.states[tree, node]
        self.play(states, actions)
        return states

    def to_play(self, states: States) -> States:
        """1 or 2: [games]."""
        return states[:, 9].copy()

    def outcome(self, states: States) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """(over [games], value [games]): -1 where the side to move has just lost, else 0."""
        lines = states[:, LINES]
        lost = (lines == 3 - states[:, 9, None, None]).all(2).any(1)
        return lost | (states[:, :9] != 0).all(1), -lost.astype(np.float32)

    def encode(self, states: States) -> NDArray[np.uint8]:
        """Own and the opponent's points: [games, 2, 3, 3]."""
        points = states[:, :9].reshape(-1, 3, 3)
        own = states[:, 9, None, None]
        return np.stack([points == own, points == 3 - own], 1).astype(np.uint8)
