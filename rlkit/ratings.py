"""Who is stronger: intervals of match results, and Elo ratings."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray


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


@dataclass(frozen=True)
class Ratings:
    """Elo ratings of n players with intervals of their difference to the anchor, whose rating is 0. Prints a table."""

    names: tuple[str, ...]
    elo: NDArray[np.float64]
    """[n]; nan where no chain of games leads to the anchor"""
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    games: NDArray[np.float64]
    """[n] that each played"""
    score: NDArray[np.float64]
    """[n] points from them, draws half"""

    def __getitem__(self, name: str) -> tuple[float, float, float]:
        """(elo, low, high) of a player."""
        i = self.names.index(name)
        return float(self.elo[i]), float(self.low[i]), float(self.high[i])

    def __str__(self) -> str:
        width = max(map(len, ("player", *self.names)))
        lines = [f"{'player':{width}}   games  score     Elo  interval"]
        for i in sorted(range(len(self.names)), key=lambda i: (np.isnan(self.elo[i]), -self.elo[i])):
            score = f"{self.score[i] / self.games[i]:.0%}" if self.games[i] else "-"
            elo = f"{self.elo[i]:+8.0f}  {self.low[i]:+.0f} to {self.high[i]:+.0f}"
            elo = " unknown" if np.isnan(self.elo[i]) else elo
            lines.append(f"{self.names[i]:{width}}{self.games[i]:8.0f}{score:>7}{elo}")
        return "\n".join(lines)


def elo_ratings(
    score: NDArray, games: NDArray, names: Sequence[str] | None = None, anchor: int = 0, level: float = 0.95
) -> Ratings:
    """Ratings from games between pairs: score [n, n] points that i took from j (a draw is half), games [n, n].

    The most probable ones under Bradley and Terry's model (P(i beats j) = 1 / (1 + 10^((elo_j - elo_i) / 400))), by
    Newton's method, with intervals from the curvature there. The prior is one drawn game between every two that met:
    a player that won all is rated finitely (its interval's far end is then the prior's word, not the games'), and two
    players differ by the log odds of (wins + 1/2) to (losses + 1/2), which is Jeffreys' prior and leaves no bias of
    first order (Firth 1993). Drawn games against the anchor instead would add up over a long chain of players, and
    pull its far end down.

    Players without a chain of games to the anchor get nan, and the interval of all numbers. Raises ValueError where
    score[i, j] + score[j, i] is not games[i, j] = games[j, i], where somebody meets itself, or unless 0 < level < 1.
    """
    score, games = np.asarray(score, np.float64), np.asarray(games, np.float64)
    n = len(games)
    names = tuple(map(str, range(n))) if names is None else tuple(names)
    if not score.shape == games.shape == (n, n) or len(names) != n or not 0 <= anchor < n or not 0 < level < 1:
        raise ValueError(f"no ratings of {n} players: score {score.shape}, {len(names)} names, level {level}")
    possible = np.isfinite(games).all() and np.allclose(score + score.T, games) and (score >= 0).all()
    if not possible or (games != games.T).any() or games.trace():
        raise ValueError("score[i, j] + score[j, i] must be games[i, j] = games[j, i], and nobody meets itself")
    met = games > 0
    wins, games_prior = score + met / 2, games + met
    known = np.arange(n) == anchor
    while (wider := known | met[known].any(0)).sum() > known.sum():
        known = wider
    free = known & (np.arange(n) != anchor)
    ratings = np.zeros(n)  # in natural units: log odds
    while True:
        p = 0.5 + 0.5 * np.tanh((ratings[:, None] - ratings) / 2)  # that i beats j
        gradient = (wins - games_prior * p).sum(1)[free]
        weight = games_prior * p * (1 - p)
        covariance = np.linalg.inv((np.diag(weight.sum(1)) - weight)[np.ix_(free, free)])
        step = np.zeros(n)
        step[free] = covariance @ gradient
        change = np.abs(step[:, None] - step)[met & known].max(initial=0)
        if change < 1e-9:
            break
        ratings += step / max(change, 1)  # so short that the likelihood rises with every step, from anywhere
    spread = np.zeros(n)
    spread[free] = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(covariance.diagonal())
    unit = 400 / math.log(10)
    ratings[~known], spread[~known] = math.nan, math.inf
    low, high = (np.where(known, unit * (ratings + sign * spread), sign * math.inf) for sign in (-1, 1))
    return Ratings(names, unit * ratings, low, high, games.sum(1), score.sum(1))
