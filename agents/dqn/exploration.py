"""Exploration that keeps to an action for a while, where single random steps lead nowhere."""

import numpy as np
from numpy.typing import NDArray

from agents.dqn.agent import random_actions


class RepeatedActions:
    """epsilon-z-greedy: with probability epsilon a random action begins, and is kept up for n steps, n drawn with
    probability proportional to n^-exponent.

    Source: Dabney et al. 2021, "Temporally-Extended epsilon-Greedy Exploration", section 4; there the exponent is 2.
    """

    LONGEST = 10_000

    def __init__(self, num_envs: int, exponent: float):
        if exponent <= 1:
            raise ValueError(
                f"--repeat-actions must be above 1 (or 0: off), not {exponent:g}: durations have no law then"
            )
        self.exponent = exponent
        self.action, self.left = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)

    def __call__(
        self,
        greedy: NDArray[np.int64],
        num_actions: int,
        epsilon: float,
        rng: np.random.Generator,
        first: NDArray[np.bool_],
        mask: NDArray[np.bool_] | None,
    ) -> NDArray[np.int64]:
        """Actions [E]: the greedy ones [E], or what an exploration has begun with; where an episode begins (`first`
        [E]), or mask [E, actions] forbids it, that is over.
        """
        size = len(greedy)
        self.left[first] = 0
        if mask is not None:
            self.left[~mask[np.arange(size), self.action]] = 0
        begins = (self.left == 0) & (rng.random(size) < epsilon)
        self.action = np.where(begins, random_actions(rng, (size, num_actions), mask), self.action)
        self.left = np.where(begins, np.minimum(rng.zipf(self.exponent, size), self.LONGEST), self.left)
        explores = self.left > 0
        self.left -= explores
        return np.where(explores, self.action, greedy)

    def state_dict(self) -> dict:
        return {"action": self.action.tolist(), "left": self.left.tolist()}

    def load_state_dict(self, state: dict) -> None:
        self.action, self.left = np.array(state["action"]), np.array(state["left"])
