"""The ladder of opponents that a growing player is measured against, and its Elo curve."""

import contextlib
import functools
import itertools
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.go.matches import Maker, play_match, summary
from rlkit.logger import say
from rlkit.ratings import Ratings, elo_ratings
from rlkit.runtime import derive_seed

ENOUGH = 0.9
"""score that leads a rung up"""
CLIMB = 3
"""rungs it plays at most in one evaluation"""


class EloLadder:
    """Rungs of growing strength, all results so far, and the ratings that follow from them; the first rung has 0 Elo.

    The player stands at the rung above the highest that it has beaten (`ENOUGH` in a match). Two rungs are compared
    through the player's snapshots only.

    Args:
        rungs: what `make(spec, seed)` turns into players, the weakest first. `gnugo:` ones are left out with a line
            where GNU Go is not installed; all others must be there (FileNotFoundError, ValueError of `make`).
        starts: positions that the games begin from, each with both colours; give half as many as `games`, or players
            without randomness repeat themselves and the intervals are too narrow.
        games: of a match. parallel: of them at once. varied: positions for matches against a past self.
    """

    def __init__(
        self,
        rungs: Sequence[str],
        make: Callable[[str, int], Any],
        starts: Sequence[Any],
        games: int = 40,
        seed: int = 0,
        parallel: int = 1,
        varied: Sequence[Any] = (),
    ):
        self.varied = list(varied or starts)
        self.make, self.starts, self.games, self.seed, self.parallel = make, list(starts), games, seed, parallel
        self.rungs: list[str] = []
        for spec in rungs:
            try:
                getattr(make(spec, seed), "close", lambda: None)()
            except FileNotFoundError as error:
                if not spec.startswith("gnugo:"):
                    raise
                say(f"the ladder goes without {spec}: {error}")
            else:
                self.rungs.append(spec)
        if not self.rungs or not self.starts or games < 1:
            raise ValueError("a ladder needs a rung that can play, a position to start from and a game at least")
        self.results: list[dict[str, Any]] = []
        """of each match in turn: a against b, games that count, score of a in points"""
        self.past: str | None = None
        """the name of the past self, whose weights the caller holds"""

    @property
    def rung(self) -> int:
        """Where the player stands; 0 is the first."""
        beaten = [r["b"] for r in self.results if r["score"] >= ENOUGH * r["games"]]
        return min(max((self.rungs.index(b) + 1 for b in beaten if b in self.rungs), default=0), len(self.rungs) - 1)

    def play(
        self,
        name: str,
        make_ours: Maker,
        past: tuple[str, Maker] | None = None,
        stop: Callable[[], bool] = bool,
        end: float = math.inf,
    ) -> dict[str, float]:
        """Measure the present player under `name`; returns scalars for the log.

        It plays its rung, and the next ones while it wins; then its past self, from the varied positions: two networks
        would play one game again and again. Ratings come from all results so far. Games that an opponent forfeits (a
        program that died or fell silent) do not count, and a rung that forfeits a whole match is passed; our own
        forfeits are losses. Raises ValueError for the name of a rung.

        past: the name under which it was measured, and its maker. stop: asked between games; if it says so, the match
        at hand does not count, and no other is played. end: of `time.monotonic()`; games that have not ended by then
        are left out.
        """
        if name in self.rungs:
            raise ValueError(f"{name!r} is a rung of the ladder; call the player otherwise")
        scalars = {}
        for _ in range(CLIMB):
            at = self.rungs[self.rung]
            tag = re.sub(r"[^\w.-]+", "_", at)  # what TensorBoard takes
            make = functools.partial(self.make, at, derive_seed(self.seed, len(self.results)))
            scalars[f"eval/against_{tag}"] = self._match(name, make_ours, at, make, self.starts, stop, end)
            if self.rungs[self.rung] == at or stop() or time.monotonic() > end:
                break
        if past and past[0] != name and not stop():
            scalars["eval/against_past"] = self._match(name, make_ours, *past, self.varied, stop, end)
        ratings = self.ratings()
        if name in ratings.names:
            elo, low, high = ratings[name]
            scalars |= {"eval/elo": elo, "eval/elo_low": low, "eval/elo_high": high, "eval/rung": self.rung}
        return {tag: value for tag, value in scalars.items() if math.isfinite(value)}

    def _match(
        self, a: str, make_a: Maker, b: str, make_b: Maker, starts: Sequence[Any], stop: Callable, end: float
    ) -> float:
        """Play it and keep the result; returns the score of a, 0 .. 1, or nan where no game counts."""
        seed = derive_seed(self.seed, len(self.results))
        match = play_match(make_a, make_b, list(starts), self.games, seed, self.parallel, end)
        with contextlib.closing(match):
            played = []
            for game in match:
                played.append(game)
                if stop():
                    return math.nan
        if len(played) < self.games:
            say(f"{a} against {b}: {len(played)} of {self.games} games ended in time")
        if not played:
            return math.nan
        out = summary(played)
        for loser, theirs in itertools.groupby(sorted(out["forfeits"], key=lambda f: f["loser"]), lambda f: f["loser"]):
            lost = list(theirs)
            say(f"{a} against {b}: {a if loser == 'a' else b} forfeited {len(lost)} games, first: {lost[0]['story']}")
        void = sum(forfeit["loser"] == "b" for forfeit in out["forfeits"])
        games, score = out["games"] - void, out["score"] * out["games"] - void
        self.results.append({"a": a, "b": b, "games": games, "score": score})
        return score / games if games else math.nan

    def ratings(self) -> Ratings:
        """Of all that have played, relative to the first rung."""
        names = list(dict.fromkeys([self.rungs[0], *(name for r in self.results for name in (r["a"], r["b"]))]))
        score, games = np.zeros((2, len(names), len(names)))
        for r in self.results:
            a, b = names.index(r["a"]), names.index(r["b"])
            score[a, b] += r["score"]
            score[b, a] += r["games"] - r["score"]
            games[a, b] += r["games"]
            games[b, a] += r["games"]
        return elo_ratings(score, games, names)

    def table(self) -> str:
        """All players with games, score, Elo and interval, the strongest first."""
        return str(self.ratings())

    def state_dict(self) -> dict[str, Any]:
        return {"results": [dict(r) for r in self.results], "past": self.past}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with these results; the rungs may be others by now."""
        self.results, self.past = [dict(r) for r in state["results"]], state["past"]
