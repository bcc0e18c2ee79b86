"""The ladder of opponents that a growing player is measured against, and its Elo curve."""

import contextlib
import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.match import Maker, play_match, summary
from rlkit.evaluate import Ratings, elo_ratings
from rlkit.logger import say
from rlkit.runtime import derive_seed

ENOUGH = 0.9
"""score that leads a rung up"""
CLIMB = 3
"""rungs it plays at most in one evaluation"""


class Ladder:
    """Rungs of growing strength, all results so far, and the ratings that follow from them; the first rung has 0 Elo.

    The player stands at the rung above the highest that it has beaten (`ENOUGH` in a match). Two rungs are compared
    through the player's snapshots only.

    Args:
        rungs: what `make(spec, seed)` turns into players, the weakest first. `gnugo:` ones are left out with a line
            where GNU Go is not installed; all others must be there (FileNotFoundError, ValueError of `make`).
        starts: positions that the games begin from, each with both colours; give half as many as `games`, or players
            without randomness repeat themselves and the intervals are too narrow.
        games: of a match. parallel: of them at once.
    """

    def __init__(
        self,
        rungs: Sequence[str],
        make: Callable[[str, int], Any],
        starts: Sequence[Any],
        games: int = 40,
        seed: int = 0,
        parallel: int = 1,
    ):
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

    @property
    def rung(self) -> int:
        """Where the player stands; 0 is the first."""
        beaten = [r["b"] for r in self.results if r["score"] >= ENOUGH * r["games"]]
        return min(max((self.rungs.index(b) + 1 for b in beaten if b in self.rungs), default=0), len(self.rungs) - 1)

    def play(self, name: str, make_ours: Maker, make_past: Maker | None = None) -> dict[str, float]:
        """Measure the present player under `name`; returns scalars for the log.

        It plays its rung, and the next ones while it wins; then its past self, which is the player of the latest
        evaluation under another name. Ratings come from all results so far. Games that an opponent forfeits (a
        program that died or fell silent) do not count, and a rung that forfeits a whole match is passed; our own
        forfeits are losses. Raises ValueError for the name of a rung, or a past self where nobody has played.
        """
        if name in self.rungs:
            raise ValueError(f"{name!r} is a rung of the ladder; call the player otherwise")
        past = next((r["a"] for r in reversed(self.results) if r["a"] != name), None)
        if make_past and not past:
            raise ValueError("there is no past self: nobody has played on this ladder yet")
        scalars = {}
        for _ in range(CLIMB):
            at = self.rungs[self.rung]
            tag = re.sub(r"[^\w.-]+", "_", at)  # what TensorBoard takes
            make = functools.partial(self.make, at, derive_seed(self.seed, len(self.results)))
            scalars[f"eval/against_{tag}"] = self._match(name, make_ours, at, make)
            if self.rungs[self.rung] == at:
                break
        if make_past and past:
            scalars["eval/against_past"] = self._match(name, make_ours, past, make_past)
        elo, low, high = self.ratings()[name]
        scalars |= {"eval/elo": elo, "eval/elo_low": low, "eval/elo_high": high, "eval/rung": self.rung}
        return {tag: value for tag, value in scalars.items() if math.isfinite(value)}

    def _match(self, a: str, make_a: Maker, b: str, make_b: Maker) -> float:
        """Play it and keep the result; returns the score of a, 0 .. 1, or nan where no game counts."""
        seed = derive_seed(self.seed, len(self.results))
        with contextlib.closing(play_match(make_a, make_b, self.starts, self.games, seed, self.parallel)) as match:
            out = summary(list(match))
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
        return {"results": [dict(r) for r in self.results]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with these results; the rungs may be others by now."""
        self.results = [dict(r) for r in state["results"]]
