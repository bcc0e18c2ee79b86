"""Catch: a ball falls, a paddle must be under it. A toy with the same interface and image size as Atari.

Osband et al. 2020, "Behaviour Suite for Reinforcement Learning". Optimal play scores 1 in every episode, random
play about -0.6 on the board of 10 x 5.
"""

import numpy as np
from numpy.typing import NDArray

from envs.vector import LockStep, Step


class Catch(LockStep):
    """E games of Catch in lock-step; each draws `rows` x `columns` cells on frames of `size` x `size` pixels.

    Actions: 0 left, 1 stay, 2 right. The reward comes when the ball reaches the paddle's row: 1 caught, -1 missed.
    `size` of 36 and more feeds the image networks.
    """

    num_actions = 3
    obs_dtype = np.uint8
    protocol = "catch"

    def __init__(
        self, num_envs: int = 1, *, rows: int = 10, columns: int = 5, size: int = 84, stack: int = 4, seed: int = 0
    ):
        if min(rows, columns) < 2 or size < max(rows, columns):
            raise ValueError(f"Catch needs at least 2 x 2 cells and a pixel a cell, not {rows} x {columns} on {size}")
        super().__init__(num_envs)
        self.rows, self.columns, self.size = rows, columns, size
        self.obs_shape = (stack, size, size)
        self._rng = np.random.default_rng(seed)
        self._ball = np.zeros((num_envs, 2), np.int64)  # row, column
        self._paddle = np.zeros(num_envs, np.int64)
        self._obs = np.zeros((num_envs, *self.obs_shape), np.uint8)
        # pixel -> cell, for drawing at any size
        self._row_of = np.arange(size) * rows // size
        self._column_of = np.arange(size) * columns // size

    def reset(self) -> NDArray[np.uint8]:
        """Begin new episodes everywhere; returns obs [E, stack, size, size]."""
        self._episodes.restart()
        self._begin(np.ones(self.num_envs, bool))
        return self._obs.copy()

    def _move(self, actions: NDArray[np.int64]) -> Step:
        first = self._episodes.ended
        self._paddle = np.where(first, self._paddle, np.clip(self._paddle + actions - 1, 0, self.columns - 1))
        self._ball[:, 0] += ~first
        last = self._ball[:, 0] == self.rows - 1
        r_t = np.where(last, np.where(self._ball[:, 1] == self._paddle, 1.0, -1.0), 0.0)
        self._obs = np.roll(self._obs, -1, axis=1)
        self._obs[:, -1] = self._draw()
        if first.any():
            self._begin(first)
        return self._episodes.step(self._obs.copy(), np.where(first, 0, r_t), np.where(last & ~first, 0, 1), last)

    def state_dict(self) -> dict:
        """All of the game: it resumes exactly."""
        return {
            "ball": self._ball.tolist(),
            "paddle": self._paddle.tolist(),
            "obs": self._obs.tobytes(),
            "rng": self._rng.bit_generator.state,
            "episodes": self._episodes_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state_dict` was taken."""
        self._ball, self._paddle = np.array(state["ball"]), np.array(state["paddle"])
        self._obs = np.frombuffer(state["obs"], np.uint8).reshape(self._obs.shape).copy()
        self._rng.bit_generator.state = state["rng"]
        self._load_episodes(state["episodes"])

    def _begin(self, where: NDArray[np.bool_]) -> None:
        n = int(where.sum())
        self._ball[where, 0] = 0
        self._ball[where, 1] = self._rng.integers(self.columns, size=n)
        self._paddle[where] = self.columns // 2
        self._obs[where] = 0
        self._obs[where, -1] = self._draw()[where]

    def _draw(self) -> NDArray[np.uint8]:
        cells = np.zeros((self.num_envs, self.rows, self.columns), np.uint8)
        e = np.arange(self.num_envs)
        cells[e, self._ball[:, 0], self._ball[:, 1]] = 255
        cells[e, self.rows - 1, self._paddle] = 255
        return cells[:, self._row_of][:, :, self._column_of]
