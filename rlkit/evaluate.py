"""How good is an agent: whole episodes, with intervals."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.runtime import share_cores


@dataclass
class Scores:
    """Raw scores [N] and lengths [N] (agent steps) of N whole episodes, and what they cost."""

    scores: NDArray[np.float64]
    lengths: NDArray[np.int64]
    capped: int
    """episodes ended by the frame cap"""
    steps_per_second: float
    left_out: int = 0
    """episodes that did not end in time: the longer ones, as a rule"""

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Bootstrapped interval of the mean (10,000 resamples, fixed seed)."""
        return bootstrap_interval(self.scores, level)

    def __str__(self) -> str:
        """As `12.3 (10.1 to 14.0), 10 episodes`; one episode says nothing of an interval."""
        low, high = self.interval()
        digits = max(0, 2 - int(math.log10(max(-low, high, 1))))
        mean, low_, high_ = (f"{x:,.{digits}f}" for x in (self.mean, low, high))
        return (
            f"{mean} ({low_} to {high_}), {len(self.scores)} episodes" if len(self.scores) > 1 else f"{mean}, 1 episode"
        )

    def scalars(self) -> dict[str, float]:
        """For the log."""
        low, high = self.interval()
        return {
            "eval/score": self.mean,
            "eval/score_low": low,
            "eval/score_high": high,
            "eval/length": float(self.lengths.mean()),
            "eval/capped": self.capped,
        }


def bootstrap_interval(values: NDArray, level: float = 0.95, resamples: int = 10_000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of values [N]."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (resamples, len(values))).mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def episodes(
    act: Callable[[NDArray, NDArray[np.bool_]], NDArray[np.int64]],
    envs: Any,
    num_episodes: int,
    end: float = math.inf,
) -> Scores:
    """Play whole episodes with act(obs [E, ...], first [E]) -> actions [E]; first: the observation begins an episode.

    Each environment plays the same number of them: taking the first N to end would favour short ones. So
    num_episodes must be a multiple of envs.num_envs (ValueError). Once `time.monotonic()` passes `end`, the episodes
    that have ended by then are returned, which may be none.
    """
    if num_episodes % envs.num_envs:
        raise ValueError(f"{num_episodes} episodes do not divide among {envs.num_envs} environments")
    each = num_episodes // envs.num_envs
    scores: list[list[float]] = [[] for _ in range(envs.num_envs)]
    lengths: list[list[int]] = [[] for _ in range(envs.num_envs)]
    capped = steps = 0
    began = time.perf_counter()
    obs, first = envs.reset(), np.ones(envs.num_envs, bool)
    while min(map(len, scores)) < each and time.monotonic() < end:
        share_cores()
        step = envs.step(act(obs, first))
        steps += envs.num_envs
        obs, first = step.obs, step.first
        for e in np.flatnonzero(step.last):
            if len(scores[e]) < each:
                scores[e].append(float(step.score[e]))
                lengths[e].append(int(step.length[e]))
                capped += bool(step.discount_t[e])
    seconds = time.perf_counter() - began
    ended = np.concatenate(scores), np.concatenate(lengths).astype(np.int64)
    return Scores(*ended, int(capped), steps / seconds, num_episodes - len(ended[0]))
