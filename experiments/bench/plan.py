"""How many actors feed a learner of AlphaZero, what fills the link between them, and how old their weights are.

A learner that makes u updates/s with batches of B, each position drawn r times, uses up u B / r positions a second. An
actor has G games at once and plays a move in each in a call of T seconds: G e evaluations (e for a position), and then
what it sends, g bytes a position, and fetches, W bytes of weights, on its link. A call of n actors is worth
C = n G r / B updates, and

    u = min(u0, C / T, C / (T + (C - m) / u0))        u0 the learner's own; it waits for the rest of its time
    lag = u T / K versions, at most L                 K updates a version, L the bound
    to the learner    g u B / r bytes/s
    from it           W u / K bytes/s for each machine, which fetches a version once

The third is the bound on the lag: while calls are under way the learner can make m = (L + 1) K - 1 updates, and what is
left of C when these have ended it makes while nobody plays.

`simulate` does the same with actors and a learner that sleep, through the `Stream` that a run has.
"""

import functools
import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from rlkit.parallel.stream import Piece, Stream, StreamConfig


@dataclass(frozen=True)
class Cluster:
    """What the formulas know; the defaults are AlphaZero's on 9x9 (6 blocks of 64), an actor a core."""

    updates: float = 6.0
    """a second that the learner makes where it need not wait; not measured: give your own"""
    batch: int = 256
    reuse: float = 4.0
    games: int = 64
    """of an actor"""
    each: float = 34.0
    """evaluations for a position"""
    evaluations: float = 1230.0
    """a second of an actor"""
    position: int = 600
    """bytes of a position"""
    weights: int = 1_950_000
    """bytes of a version"""
    publish_every: int = 10
    max_lag: int = 4
    bandwidth: float = 1.25e9
    """bytes a second of a link; 10 gigabits"""
    machine: int = 32
    """actors on a machine"""

    @property
    def call(self) -> float:
        """Seconds of an actor's call."""
        return self.games * self.each / self.evaluations + (self.games * self.position + self.weights) / self.bandwidth


@dataclass(frozen=True)
class Rates:
    """What comes of it."""

    updates: float
    waits: float
    """share of the learner's time"""
    lag: float
    """versions, in the mean"""
    received: float
    sent: float
    """bytes a second, to and from the learner"""
    bound: str
    """what holds up the rest: the learner, actors, lag, link"""


def predicted(it: Cluster, actors: int) -> Rates:
    """By the formulas above."""
    machines = -(-actors // it.machine)
    a_position, an_update = it.batch / it.reuse, machines * it.weights / it.publish_every
    worth, meanwhile = actors * it.games / a_position, (it.max_lag + 1) * it.publish_every - 1
    bounds = {
        "the learner": it.updates,
        "actors": worth / it.call,
        "lag": worth / (it.call + (worth - meanwhile) / it.updates) if worth > meanwhile else math.inf,
        "link": it.bandwidth / max(it.position * a_position, an_update),
    }
    bound = min(bounds, key=lambda name: bounds[name])
    u = bounds[bound]
    lag = min(it.max_lag, u * it.call / it.publish_every)
    return Rates(u, 1 - u / it.updates, lag, u * a_position * it.position, u * an_update, bound)


def table(cpus: int, updates: float) -> str:
    """The plan for so many cores, one of them the learner's, which makes so many updates/s (0: those of a core)."""
    it = Cluster(updates=updates or Cluster.updates)
    lines = [
        f"{it.games} games an actor, {it.evaluations:g} evaluations/s each, a call of {it.call:.1f} s; learner"
        f" {it.updates:g} updates/s; a version each {it.publish_every} updates, at most {it.max_lag} behind",
        "actors   updates/s   learner waits   lag, versions   to it, MB/s   from it, MB/s   held up by",
    ]
    for n in sorted({*(2**i for i in range(20) if 2**i < cpus), cpus - 1}):
        r = predicted(it, n)
        row = f"{n:6}{r.updates:12.2f}{r.waits:15.0%}{r.lag:16.1f}{r.received / 1e6:14.2f}{r.sent / 1e6:16.2f}"
        lines.append(f"{row}   {r.bound}")
    if predicted(it, cpus - 1).bound == "lag":
        wide = math.ceil(it.updates * it.call / it.max_lag)
        lines.append(f"--publish-every {wide} would let the learner make all its updates within the same lag")
    return "\n".join(lines)


# -- the same with actors and a learner that sleep ---------------------------------------------------------------------


class Sleeper:
    """An actor that takes as long as one would."""

    def __init__(self, it: Cluster, index: int, start: int):
        self.it = it

    def begin(self, start: int) -> None:
        """As an actor does that has a run to go on with."""

    def play(self, weights: Any, version: int, share: float) -> Piece:
        began = time.perf_counter()
        time.sleep(self.it.call * share)
        games = round(self.it.games * share)
        return Piece(games, version, time.perf_counter() - began)


def simulate(it: Cluster, actors: int, seconds: float) -> tuple[float, float]:
    """(updates/s, mean lag in versions) that come of it in so many seconds, once the first calls have ended."""
    cfg = StreamConfig(actors=actors, publish_every=it.publish_every, max_lag=it.max_lag)
    stream = Stream(functools.partial(Sleeper, it), torch.nn.Linear(1, 1), cfg)
    due, begun, first, start = 0.0, False, 0, time.monotonic()
    a_call = it.games * actors * it.reuse / it.batch  # updates that a call of all actors is worth
    while not begun or time.monotonic() < start + seconds:
        if not begun and time.monotonic() > start + 4 * it.call:
            begun, start, first = True, time.monotonic(), stream.updates
            stream.lags.clear()
        if due >= 1 and not stream.behind:
            due -= 1
            stream.updates += 1
            time.sleep(1 / it.updates)
            pieces = stream.after_update(due <= a_call)
        else:
            pieces = stream.take(due <= a_call)
        due += sum(piece.content for _, piece in pieces) * it.reuse / it.batch
    rate = (stream.updates - first) / (time.monotonic() - start)
    stream.close()
    return rate, sum(stream.lags) / max(1, len(stream.lags))
