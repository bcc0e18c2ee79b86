"""Games reviewed on the page.

{"do": "review", "sgf": TEXT, "game": 1, "player": "alphazero:9x9", "simulations": 200}
        how far it is, again and again; then "analysis": a GameAnalysis
{"do": "sgf"}                      the game that was reviewed last, with its analysis, as SGF
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from envs.go.record import BrokenSGF, GameRecord
from envs.go.sgf import parse
from experiments.go.game_analysis import GameAnalysis, GameSearch
from experiments.go.review_sgf import analysed_sgf
from experiments.page.engines import Engines
from experiments.page.messages import number

MOST = 2_000
"""simulations of a position"""
PERIOD = 0.25
"""seconds between two words about how far it is"""


class Review:
    """Answers a page of reviews. engines: where its players come from."""

    def __init__(self, engines: Engines):
        self.engines = engines
        self.last: tuple[GameRecord, GameAnalysis] | None = None

    def close(self) -> None:
        self.last = None

    def answers(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if message["do"] == "sgf" and self.last:
            yield {"sgf": analysed_sgf(*self.last)}
        elif message["do"] == "review":
            yield from self._review(message)
        else:
            raise ValueError("there is nothing reviewed yet")

    def _review(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        text, spec = message.get("sgf"), str(message.get("player"))
        which = int(number(message, "game", 1, 1_000_000, 1))
        simulations = int(number(message, "simulations", 1, MOST, 200))
        if not isinstance(text, str):
            raise ValueError('"sgf" is the text of a record')
        games = parse(text, "this record")
        if len(games) < which:
            raise BrokenSGF(f"this record has {len(games)} games, and no number {which}")
        player = self.engines.player(spec)
        trained = getattr(player, "info", {}).get("env", {}).get("komi")
        record = games[which - 1]
        search = GameSearch(player, record, simulations, komi=trained, name=spec)
        told = 0.0
        yield {"done": 0, "total": search.total, "games": len(games)}
        while search.step():
            if time.monotonic() > told + PERIOD:
                told = time.monotonic()
                yield {"done": round(search.finished, 1), "total": search.total, "games": len(games)}
        found = search.result()
        self.last = record, found
        yield {"analysis": asdict(found)}
