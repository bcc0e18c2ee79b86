"""Replay of sequences, each with the state in which a recurrent network came to its beginning.

    row       0 . . . . . . . 40 . . . . . . . 80 . . . . . .          period 40: a state is kept at 0, 40, 80
    sequence  [ burn-in | learned ............ ]                       length 80
                               [ burn-in | learned ............ ]
    first     x . . . . . x . . . . . . x                              episodes begin anywhere: there the state is reset

Source: Kapturowski et al. 2019 (R2D2), section 3; there sequences end with their episode, here the next one follows.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.replay import Replay


class SequenceReplay(Replay):
    """A `Replay` of which sequences of `length` moments are drawn.

    Args:
        state_size: numbers of a network's state. length: moments of a sequence, burn-in and all; one begins every
            `period` moments.
        priority: as in `Replay`; a sequence has one.
    The others are `Replay`'s; returns over several steps are made of a sequence by its learner.
    """

    def __init__(
        self, capacity: int, num_envs: int, state_size: int, *, length: int = 80, period: int = 40, **options: Any
    ):
        rows = capacity // num_envs // period * period  # so that a sequence's row is always a multiple
        if rows < length + period + options.get("stack", 4):
            raise ValueError(
                f"a replay of {capacity} frames is too small for sequences of {length} moments, one each {period}, in"
                f" {num_envs} environments: raise its capacity, or lower the period"
            )
        super().__init__(rows * num_envs, num_envs, n_step=length - 1, **options)
        self.length, self.period = length, period
        self.states = torch.zeros(self.rows // period, num_envs, state_size, device=self.device)
        self._divide(options.get("path"), period, self.states[0].nbytes)

    @property
    def nbytes(self) -> int:
        """Memory when full."""
        return super().nbytes + self.states.nbytes

    def add(self, *row: NDArray, state: Tensor) -> None:  # type: ignore[override]
        """Write one row as `Replay.add` does, and state [E, state_size] before it."""
        if self.count % self.period == 0:
            self.states[self.count % self.rows // self.period] = state
        super().add(*row)

    def draw_moments(self, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Times and environments [B] of sequences, uniform over all that are complete."""
        low, high = (-(-bound // self.period) for bound in self._bounds())
        if high <= low:
            raise ValueError(f"no sequence of {self.length} moments to sample yet: {self!r}")
        time = self._rng.integers(low, high, batch_size) * self.period
        return time, self._rng.integers(self.num_envs, size=batch_size)

    def batch_at_moments(self, time: NDArray[np.int64] | Tensor, env: NDArray[np.int64] | Tensor) -> dict[str, Tensor]:
        """Sequences that start at rows `time` [B] of `env` [B].

        Returns s [B, T, stack, *frame_shape], a int64, r_t, discount_t (gamma included) float32, first, last bool, all
        [B, T], and state [B, state_size]; with masks also mask bool [B, T, actions]. Where last is True no
        transition starts.
        """
        time, env = (torch.as_tensor(x, device=self.device) for x in (time, env))
        times = time[:, None] + torch.arange(self.length, device=self.device)
        envs = env[:, None].expand_as(times)
        at = times % self.rows * self.num_envs + envs
        action, age, reward, discount, last = (column.view(-1)[at] for column in self._on_device[:5])
        return {
            "s": self._stacks(times.flatten(), envs.flatten()).unflatten(0, times.shape),
            "a": action.long(),
            "r_t": reward,
            "discount_t": discount * self.gamma,
            "first": age == 0,
            "last": last,
            "state": self.states[time % self.rows // self.period, env],
        } | (self._masks_at("mask", times, envs) if self.masks else {})

    def _startable(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.repeat(rows[:, None] % self.period == 0, self.num_envs, 1)

    def _chunk(self, chunk: int) -> list[Tensor]:
        states = self._chunk_rows // self.period
        return [*super()._chunk(chunk), self.states[chunk * states : (chunk + 1) * states]]
