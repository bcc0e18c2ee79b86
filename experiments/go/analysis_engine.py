"""KataGo's parallel analysis engine: many questions at once, those of equal priority searched as one batch of trees."""

import hashlib
import json
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs.go.gtp_analysis import lower_bound
from envs.go.position import BLACK, Position, to_vertex
from experiments.go.analysis_queries import Query, Wrong, read_query

TOGETHER = 64
"""positions that are searched as one batch, at most"""
OPEN = 8
"""batches at once, at most: one is put aside where something more urgent comes"""
TURNS = "If provided, must be an array of integers indicating turns to terminate"


@dataclass(eq=False)
class Task:
    """One position of a query."""

    query: Query
    turn: int
    priority: int
    position: Position
    number: int
    """in the order of coming"""
    began: float = 0.0
    report_at: float = math.inf


class Batch:
    """Positions that are searched together."""

    def __init__(self, player: Any, tasks: list[Task]):
        self.tasks: list[Task | None] = [*tasks]
        """by tree; None: answered"""
        self.priority, self.number = tasks[0].priority, tasks[0].number
        goals = np.array([min(task.query.visits - 1, 1 << 40) for task in tasks])
        allowed = np.ones((len(tasks), tasks[0].position.points + 1), np.bool_)
        for row, task in zip(allowed, tasks, strict=True):
            row &= ~task.query.forbidden.get(task.position.to_play, ~row)
        self.searches = player.searches([task.position for task in tasks], goals, allowed)
        now = time.monotonic()
        for task in tasks:
            task.began, task.report_at = now, now + task.query.first_report


class AnalysisEngine:
    """Answers lines of JSON; `write` gets the answers.

    Args:
        player: one with `searches`. visits: of a position whose query does not say; perspective: whose win rates are
            told, BLACK, WHITE or None for the side to move.
    """

    def __init__(
        self,
        player: Any,
        write: Callable[[dict[str, Any]], None],
        *,
        visits: int = 200,
        perspective: int | None = BLACK,
        name: str = "",
        version: str = "0.0",
    ):
        self.player, self.write = player, write
        self.visits, self.perspective, self.name, self.version = visits, perspective, name, version
        self.waiting: list[Task] = []
        self.batches: list[Batch] = []
        self._count = 0

    def run(self, lines: Iterable[str], wait: bool = True) -> None:
        """Answer until the lines end, and, if `wait`, all that was asked is answered."""
        coming: queue.Queue[str | None] = queue.Queue(10_000)

        def read() -> None:
            for line in lines:
                coming.put(line)
            coming.put(None)

        threading.Thread(target=read, daemon=True).start()
        ended = False
        while not ended or (wait and self.busy):
            try:
                while not ended:
                    line = coming.get(block=not self.busy)
                    ended = line is None
                    if line is not None:
                        self.receive(line)
            except queue.Empty:
                pass
            if not ended or wait:
                self.step()

    @property
    def busy(self) -> bool:
        """Whether something is still to be answered."""
        return bool(self.waiting or self.batches)

    def receive(self, line: str) -> None:
        """Take a line: a question for later, an action, or something else, which is answered by an error."""
        line = line.strip()
        if not line:
            return
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            self.write({"error": f"{error} - could not parse input line as json request: {line[:500]}"})
            return
        if not isinstance(values, dict):
            self.write({"error": f"Request line was valid json but was not an object, ignoring: {line[:500]}"})
        elif not isinstance(values.get("id"), str):
            self.write({"error": 'Request must have a string "id" field'})
        else:
            try:
                self._act(values) if isinstance(values.get("action"), str) else self._ask(values)
            except Wrong as error:
                self.write({"error": str(error), "field": error.field, "id": values["id"]})
            except Exception as error:  # whatever a query is made of, the next one is answered
                self.write({"error": f"{type(error).__name__}: {error}"[:500], "id": values["id"]})

    def _ask(self, values: dict[str, Any]) -> None:
        query = read_query(values, self.visits, self.perspective)
        height, width = values["boardYSize"], values["boardXSize"]
        if hasattr(self.player, "can_play") and not self.player.can_play(height, width):
            raise Wrong("boardXSize", f"{self.name or 'This agent'} cannot play on {width} x {height}: choose another")
        for name, message in query.warnings:
            self.write({"warning": message, "field": name, "id": query.id})
        for turn, priority, position in query.turns:
            self.waiting.append(Task(query, turn, priority, position, self._count))
            self._count += 1
        self.waiting.sort(key=lambda task: (-task.priority, task.number))

    def _act(self, values: dict[str, Any]) -> None:
        action = values["action"]
        if action == "query_version":
            values |= {"version": self.version, "git_hash": "<omitted>"}
        elif action == "query_models":
            model = {"name": self.name, "internalName": self.name, "maxBatchSize": TOGETHER, "version": 1}
            values["models"] = [model | {"usesHumanSLProfile": False, "usingFP16": "false"}]
        elif action == "clear_cache":
            if getattr(self.player, "heads", None):
                self.player.heads.known.clear()
        elif action in ("terminate", "terminate_all"):
            self._terminate(values, action == "terminate_all")
        else:
            known = "'query_version', 'query_models', 'clear_cache', 'terminate' or 'terminate_all'"
            raise Wrong("action", f"'action' field must be {known}")
        self.write(values)

    def _terminate(self, values: dict[str, Any], everything: bool) -> None:
        name, turns = values.get("terminateId"), values.get("turnNumbers")
        if not everything and not isinstance(name, str):
            raise Wrong("terminateId", 'Requests for a terminate action must have a string "terminateId" field')
        if "turnNumbers" in values and not (isinstance(turns, list) and all(type(turn) is int for turn in turns)):
            raise Wrong("turnNumbers", TURNS)

        def meant(task: Task) -> bool:
            return (everything or task.query.id == name) and (turns is None or task.turn in turns)

        for waiting in filter(meant, self.waiting):
            nothing = {"isDuringSearch": False, "noResults": True}
            self.write({"id": waiting.query.id, "turnNumber": waiting.turn, **nothing})
        self.waiting = [task for task in self.waiting if not meant(task)]
        for batch in self.batches:
            for g, task in enumerate(batch.tasks):
                if task and meant(task):
                    self._finish(batch, g)
        self._forget_answered()

    def step(self) -> None:
        """Search on, with one call of the network, in what is most urgent; write the answers that are ready."""
        urgent = max(self.batches, key=lambda batch: (batch.priority, -batch.number), default=None)
        first = self.waiting[0] if self.waiting else None
        if first and (urgent is None or (first.priority > urgent.priority and len(self.batches) < OPEN)):
            size = first.position.height, first.position.width
            together = [
                task
                for task in self.waiting
                if task.priority == first.priority and (task.position.height, task.position.width) == size
            ][:TOGETHER]
            taken = {id(task) for task in together}
            self.waiting = [task for task in self.waiting if id(task) not in taken]
            try:
                urgent = Batch(self.player, together)
            except Exception as error:
                self._failed(together, error)
                return
            self.batches.append(urgent)
        if urgent is None:
            return
        try:
            going = urgent.searches.step()
            now = time.monotonic()
            for g, task in enumerate(urgent.tasks):
                if task is None:
                    continue
                done = urgent.searches.trees.total[g, 0] >= urgent.searches.goal[g]
                if not going or done or now >= task.began + task.query.seconds:
                    self._finish(urgent, g)
                elif now >= task.report_at:
                    task.report_at = now + task.query.report_every
                    self.write(answer(task, urgent.searches, g, True))
        except Exception as error:
            self.batches.remove(urgent)
            self._failed([task for task in urgent.tasks if task], error)
        self._forget_answered()

    def _finish(self, batch: Batch, g: int) -> None:
        task, batch.tasks[g], batch.searches.goal[g] = batch.tasks[g], None, 0
        assert task is not None
        self.write(answer(task, batch.searches, g, False))

    def _forget_answered(self) -> None:
        self.batches = [batch for batch in self.batches if any(batch.tasks)]

    def _failed(self, tasks: list[Task], error: Exception) -> None:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        for task in tasks:
            story = f"{type(error).__name__}: {error}"[:500]
            self.write({"error": story, "id": task.query.id, "turnNumber": task.turn, "isDuringSearch": False})


def answer(task: Task, searches: Any, g: int, during: bool) -> dict[str, Any]:
    """A response: what a search has found about a position, in the perspective that its query asks for."""
    query, position = task.query, task.position
    found = searches.analysis(g, "MovesOwnership" in query.include)
    mine = query.perspective in (None, position.to_play)
    sign = 1 if mine else -1
    size = position.height, position.width

    def rated(entry: dict[str, Any]) -> dict[str, Any]:
        rate, low = entry["winrate"], lower_bound(entry["winrate"], entry["visits"])
        rate, low = (rate, low) if mine else (1 - rate, 1 - low)
        score, stdev = sign * entry.get("score", 0.0), entry.get("score_stdev", 0.0)
        numbers = {
            "winrate": rate, "lcb": low, "utility": 2 * rate - 1, "utilityLcb": 2 * low - 1,
            "scoreLead": score, "scoreMean": score, "scoreSelfplay": score, "scoreStdev": stdev,
        }  # fmt: skip
        return {"visits": entry["visits"], **{name: round(float(value), 6) for name, value in numbers.items()}}

    def points(values: Any, factor: int = 1) -> list[float]:
        return [round(factor * float(value), 6) for value in values.ravel()]

    moves = []
    for order, move in enumerate(found["moves"]):
        line = (move["pv"] or [move["move"]])[: query.pv_length]
        info = rated(move) | {"move": to_vertex(move["move"], *size), "order": order, "prior": round(move["prior"], 6)}
        info["pv"] = [to_vertex(a, *size) for a in line]
        if "ownership" in move and "MovesOwnership" in query.include:
            info["ownership"] = points(move["ownership"], sign)
        moves.append(info)
    out = {"id": query.id, "isDuringSearch": during, "turnNumber": task.turn, "moveInfos": moves}
    root = rated(found) | {"currentPlayer": "B" if position.to_play == BLACK else "W"}
    out["rootInfo"] = root | hashes(position)
    if "Ownership" in query.include and "ownership" in found:
        out["ownership"] = points(found["ownership"], sign)
    if "Policy" in query.include:
        out["policy"] = points(found["policy"])
    return out


def hashes(position: Position) -> dict[str, str]:
    """Of the stones and the side to move; "symHash" is the same for positions that are turned or mirrored."""

    def digest(board: Any) -> str:
        text = repr((board.shape, position.to_play)).encode() + board.tobytes()
        return hashlib.blake2b(text, digest_size=16).hexdigest().upper()

    boards = [np.rot90(board, turns) for board in (position.board, position.board.T) for turns in range(4)]
    return {"thisHash": digest(position.board), "symHash": min(map(digest, boards))}
