"""Is this checkout slower than another one? Each row of a benchmark, in turns with the same row of the other.

python -m experiments bench dqn --against ../before --seconds 1       # exit status 1: some row is slower

Two processes stay alive, one a checkout, and only one of them works at any time:

    this     import, build, warm up   wait ..................   turn   wait ........   turn ...
    other    has not begun ........   import, build, warm up   wait   turn   turn     wait ...

Each runs its own checkout's `experiments.bench.WHAT`, as it stands there, from that folder (with its `.venv`, if it has
one). Only `in_turns`, `report` and `in_process` of its turns.py are replaced by what `serve` below holds, so that a
checkout needs nothing that was written for this. `in_turns` then takes the turns that it is asked for over a pipe,
and a benchmark goes on to its next group of rows when all turns of this one are over in both processes. Other
people's programs and the starts of processes are left out.

A row is a contestant of that name in the same group of both. Its ratio is the median over TURNS pairs of turns of
this checkout's speed / the other's; it is not slower if the bootstrapped 95 % interval of that median reaches REACHED.
On a busy machine one row of a dozen comes out slower where nothing has changed: measure it again, with longer turns.
"""

import contextlib
import dataclasses
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.turns import Config  # beside this, the other checkout's process needs nothing of ours

ROOT = Path(__file__).parents[2]
TURNS = 15
"""of each row at least"""
REACHED = 0.97
LEFT_OUT = ("peer", "moves_of_a_rollout", "first_answer", "first_move", "_start")
"""functions of a benchmark that measure other people's programs, or the start of a process"""


def serve(what: str, settings: dict[str, Any]) -> None:
    """In a checkout's own process: run its benchmark, a turn for each line read (null: go on), a JSON line for each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a benchmark may print
    names: list[str] = []
    rates: dict[str, float] = {}
    reported: list[tuple[str, float]] = []

    def say(answer: Any) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    def begin_group(following: list[str] | None) -> None:
        """Say how the rows measured so far are called in the benchmark's reports, and which follow (None: none)."""
        first = reported[0][0] if reported else what
        titles = {value: title for title, value in reversed(reported)}
        say([{name: titles.get(rates.get(name, -1.0), f"{first}: {name}") for name in names}, following])
        names[:] = following or []
        rates.clear()
        reported.clear()

    def in_turns(cfg: Config, contestants: dict[str, Callable[[], int]]) -> dict[str, float]:
        ours = {name: work for name, work in contestants.items() if callable(work)}
        for work in ours.values():
            work()  # warm-up
        begin_group(list(ours))
        while (name := json.loads(sys.stdin.readline())) is not None:
            began, units = time.perf_counter(), 0
            while time.perf_counter() - began < cfg.seconds:
                units += ours[name]()
            rates[name] = units / (time.perf_counter() - began)
            say(rates[name])
        return {name: rates.get(name, 1.0) for name in contestants}

    def left_out(*_: Any) -> float:
        return 1.0  # not callable: no contestant

    turns: Any = importlib.import_module("experiments.bench.turns")
    turns.in_turns, turns.in_process = in_turns, left_out
    turns.report = lambda cfg, bench, value, *_: reported.append((bench, value))
    bench = importlib.import_module(f"experiments.bench.{what}")  # which imports those by name
    for name in LEFT_OUT:
        if hasattr(bench, name):
            setattr(bench, name, left_out)
    bench.main(turns.Config(what=what, **settings))
    begin_group(None)


class Checkout:
    """The process of a checkout; `rows`: those of the group that it stands at, None at the end."""

    def __init__(self, root: Path, what: str, settings: dict[str, Any]) -> None:
        own = root / ".venv" / "bin" / "python"
        python = str(own) if root != ROOT and own.exists() else sys.executable
        code = f"import runpy; runpy.run_path({__file__!r})['serve']({what!r}, {settings!r})"
        environment = os.environ | {"PYTHONPATH": str(root)}
        self.root = root
        self.process = subprocess.Popen(
            [python, "-c", code], cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.labels, self.rows = self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"the benchmark of {self.root} ended with status {self.process.wait()}: see above")
        return json.loads(line)

    def turn(self, name: str | None) -> Any:
        """Units/s of a row; None: on to the next group, which answers with labels and rows."""
        print(json.dumps(name), file=self.process.stdin, flush=True)
        return self._answer()

    def go_on(self) -> None:
        if self.rows is not None:
            self.labels, self.rows = self.turn(None)


def interval(ratios: list[float]) -> tuple[float, float]:
    """Bootstrapped 95 % interval of the median."""
    picks = np.random.default_rng(0).integers(len(ratios), size=(10_000, len(ratios)))
    low, high = np.quantile(np.median(np.asarray(ratios)[picks], axis=1), (0.025, 0.975))
    return float(low), float(high)


def report(cfg: Config, bench: str, ratios: list[float], only_in: Path | None = None) -> bool:
    """Print a row; whether it is slower."""
    low, high = interval(ratios) if ratios else (np.inf, np.inf)
    numbers = {"ratio": float(np.median(ratios)), "low": low, "high": high} if ratios else {"only_in": str(only_in)}
    if cfg.json:
        print(json.dumps({"bench": bench, **numbers, "not_slower": high >= REACHED if ratios else None}), flush=True)
    elif ratios:
        verdict = "not slower" if high >= REACHED else "SLOWER"
        print(f"{bench:<64}{numbers['ratio']:>8.3f}   {low:.3f} to {high:.3f}   {verdict}", flush=True)
    else:
        print(f"{bench:<64}not compared: only in {only_in}", flush=True)
    return high < REACHED


def main(cfg: Config) -> None:
    """All rows of cfg.what in turns with the checkout cfg.against. Raises ValueError; SystemExit if a row is slower."""
    from rlkit import runtime

    assert cfg.against
    other = cfg.against.resolve()
    if cfg.what == "neighbours" or not (other / "experiments" / "bench" / f"{cfg.what}.py").is_file():
        raise ValueError(f"there is nothing to take turns with in {other}/experiments/bench/{cfg.what}.py")
    # Other settings are passed on where they are not the defaults: their names may be new.
    given = {f.name: value for f in dataclasses.fields(cfg) if (value := getattr(cfg, f.name)) != f.default}
    settings = {name: value for name, value in given.items() if name not in ("what", "json", "against", "rounds")}
    settings |= {"seconds": cfg.seconds, "threads": cfg.threads or runtime.cores()}  # not what lies idle: the same
    verdicts = []
    with contextlib.ExitStack() as stack:
        sides = []
        for root in (ROOT, other):
            sides.append(Checkout(root, cfg.what, settings))
            stack.callback(sides[-1].process.kill)
        here, there = sides
        while here.rows is not None or there.rows is not None:
            rows = {side: side.rows or [] for side in sides}
            ratios: dict[str, list[float]] = {name: [] for name in rows[here] if name in rows[there]}
            for number in range(max(TURNS, cfg.rounds)):
                for name in ratios:
                    rates = {side: side.turn(name) for side in (sides if number % 2 else sides[::-1])}
                    ratios[name].append(rates[here] / rates[there])
            for side in sides:
                side.go_on()
            verdicts += [report(cfg, here.labels[name], ratios[name]) for name in ratios]
            for side in sides:
                for name in rows[side]:
                    if name not in ratios:
                        report(cfg, side.labels[name], [], side.root)
    if not verdicts:
        raise ValueError(f"{other} has no row in common with this checkout")
    if any(verdicts):
        sys.exit(1)
