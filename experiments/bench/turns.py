"""Contestants that take turns, and the rows that come of it."""

import atexit
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from rlkit.config import AtLeast


@dataclass
class Config:
    """Measure speed. Peers (the extra `bench`) run in turns with ours."""

    what: Annotated[
        Literal["alphago", "control", "dqn", "go", "neighbours", "nn", "scale", "search"], tyro.conf.Positional
    ] = "dqn"
    """what is measured"""
    against: Path | None = None
    """another checkout of this project: rows in turns with its own, without peers; exit status 1: one is slower here"""
    json: bool = False
    """one JSON object a line instead of a table"""
    env: str = "pong"
    """game that dqn plays, or the only one of control"""
    plan: bool = False
    """of scale: print how many actors feed a learner, instead of measuring"""
    cpus: Annotated[int, AtLeast(2)] = 64
    """of the plan: cores of the cluster"""
    updates: Annotated[float, AtLeast(0)] = 0.0
    """of the plan: updates/s of the learner; 0: six, as one core may make"""
    rounds: Annotated[int, AtLeast(1)] = 5
    """turns of each row; medians are reported. With --against at least 15"""
    seconds: Annotated[float, AtLeast(0.01)] = 6.0
    """length of a turn, about, in seconds"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads of dqn, nn and alphago; 0: those of idle cores. go says itself which figure has one and which two"""
    device: str = "auto"
    """where the networks of dqn, nn and alphago are: cpu, cuda or auto"""


def in_turns(cfg: Config, contestants: dict[str, Callable[[], int]]) -> dict[str, float]:
    """Median units/s of each contestant, a function that does some work and returns how many units it did.

    They take turns of about cfg.seconds, cfg.rounds times, so that a slow minute of the machine hits all alike.
    """
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for work in contestants.values():
        work()  # warm-up
    for _ in range(cfg.rounds):
        for name, work in contestants.items():
            began, units = time.perf_counter(), 0
            while time.perf_counter() - began < cfg.seconds:
                units += work()
            rates[name].append(units / (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in rates.items()}


def report(cfg: Config, bench: str, value: float, unit: str, peer: str = "", peer_value: float | None = None) -> None:
    """Print one row; ratio = value / peer_value."""
    ratio = value / peer_value if peer_value else None
    row = {
        "bench": bench,
        "value": round(value, 4),
        "unit": unit,
        "peer": peer,
        "peer_value": peer_value,
        "ratio": ratio,
    }
    if cfg.json:
        print(json.dumps(row), flush=True)
    else:
        against = f"   {ratio:6.2f} x {peer} ({peer_value:,.1f})" if ratio else ""
        print(f"{bench:<44}{value:>12,.1f} {unit}{against}", flush=True)


def repeat(count: int, thing: Callable[[], Any], units: int) -> Callable[[], int]:
    """A contestant that does one thing, worth `units`, `count` times."""

    def work() -> int:
        for _ in range(count):
            thing()
        return count * units

    return work


def in_process(module: str, script: str, *args: Any) -> Callable[[], int]:
    """A peer as a contestant, in a Python process of its own that sleeps between its turns: it works for each line
    that it reads, and answers with the units done. Raises ModuleNotFoundError where its module is not installed.
    """
    if not importlib.util.find_spec(module):
        raise ModuleNotFoundError("the comparison needs the extra `bench`: pip install -e '.[bench]'")
    command = [sys.executable, "-c", script, *map(str, args)]
    peer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(peer.kill)

    def work() -> int:
        assert peer.stdin and peer.stdout
        print("go", file=peer.stdin, flush=True)
        return int(peer.stdout.readline())

    return work
