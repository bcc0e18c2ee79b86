"""How good is it: whole episodes and matches, with intervals."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Scores:
    """Raw scores [N] and lengths [N] (agent steps) of N whole episodes, and what they cost."""

    scores: NDArray[np.float64]
    lengths: NDArray[np.int64]
    capped: int
    """episodes ended by the frame cap"""
    steps_per_second: float

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Bootstrapped interval of the mean (10,000 resamples, fixed seed)."""
        return bootstrap_interval(self.scores, level)

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


def wilson_interval(wins: float, games: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of the probability to win, from `wins` of `games` (a draw is half a win: a little too wide).

    (0, 1) where nothing was played. Raises ValueError unless 0 <= wins <= games and 0 < level < 1.
    """
    if not 0 <= wins <= games or not 0 < level < 1:
        raise ValueError(f"no interval of {wins} wins in {games} games at level {level}")
    if not games:
        return 0.0, 1.0
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle = (wins + z2 / 2) / (games + z2)
    half = math.sqrt(z2 * (wins * (games - wins) / games + z2 / 4)) / (games + z2)
    return middle - half if wins else 0.0, middle + half if wins < games else 1.0


def elo_difference(score: float) -> float:
    """How many Elo points stronger a player is that scores `score` (0 .. 1) against another; infinite at both ends."""
    if score <= 0 or score >= 1:
        return math.copysign(math.inf, score - 0.5)
    return 400 * math.log10(score / (1 - score))


def elo_interval(wins: float, games: int, level: float = 0.95) -> tuple[float, float]:
    """Elo difference at both ends of Wilson's interval. Raises ValueError as `wilson_interval` does."""
    low, high = wilson_interval(wins, games, level)
    return elo_difference(low), elo_difference(high)


def episodes(
    act: Callable[[NDArray[np.uint8]], NDArray[np.int64]],
    envs: Any,
    num_episodes: int,
) -> Scores:
    """Play whole episodes with act(obs [E, ...]) -> actions [E].

    Each environment plays the same number of them: taking the first N to end would favour short ones. So
    num_episodes must be a multiple of envs.num_envs (ValueError).
    """
    if num_episodes % envs.num_envs:
        raise ValueError(f"{num_episodes} episodes do not divide among {envs.num_envs} environments")
    each = num_episodes // envs.num_envs
    scores: list[list[float]] = [[] for _ in range(envs.num_envs)]
    lengths: list[list[int]] = [[] for _ in range(envs.num_envs)]
    capped = steps = 0
    began = time.perf_counter()
    obs = envs.reset()
    while min(map(len, scores)) < each:
        actions = act(obs)
        step = envs.step(actions)
        steps += envs.num_envs
        obs = step.obs
        for e in np.flatnonzero(step.last):
            if len(scores[e]) < each:
                scores[e].append(float(step.score[e]))
                lengths[e].append(int(step.length[e]))
                capped += bool(step.discount_t[e])
    seconds = time.perf_counter() - began
    return Scores(np.concatenate(scores), np.concatenate(lengths), int(capped), steps / seconds)
