"""Threads beside neighbours: other programs on the same cores.

A parallel region waits for its last thread. If a neighbour has displaced that one, a region of microseconds takes a
time slice of milliseconds, and an update of hundreds of regions takes fifty times as long as on one thread. So a
process whose number of threads is left open takes the cores that nobody else uses, and looks again as it goes:

    cores    0  ours  ours  ours  ours  theirs theirs   ours      available = what we use + what lies idle
             1  ours  ours  ours  idle  idle   idle     ours
    threads     2     2     1 ............ 1 .......... 2
                      ^ a neighbour comes                 ^ it has been gone for a while
"""

import math
import os
import threading
import time
from pathlib import Path

from rlkit.logger import say


class Neighbours:
    """Measures what other programs leave of the cores that this process may run on; nothing without /proc/stat."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._then = self._read()

    def _read(self) -> tuple[float, float, float] | None:
        """Seconds by the clock, of our work, and of idleness of our cores."""
        try:
            lines = self._stat.read_text().splitlines()
            ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
            ticks = [int(x) for words in map(str.split, lines) if words[0] in ours for x in words[4:6]]  # idle, iowait
            return time.monotonic(), time.process_time(), sum(ticks) / os.sysconf("SC_CLK_TCK")
        except (AttributeError, IndexError, OSError, ValueError):
            return None

    @property
    def seconds(self) -> float:
        """Since the last call of `available`."""
        return time.monotonic() - self._then[0] if self._then else math.inf

    def available(self) -> float:
        """Cores that we used or that lay idle since the last call, on average."""
        then, now = self._then, self._read()
        self._then = now
        if now is None or then is None or now[0] - then[0] < 0.05:  # the system counts in hundredths
            return math.inf
        used, idle = now[1] - then[1], now[2] - then[2]
        return (used + idle) / (now[0] - then[0])


class IdleCores:
    """How many threads, `most` at the most, fit beside other programs: fewer at once where others came, more after they
    have been gone for a while.
    """

    LOOK, LEAST_PATIENCE, MOST_PATIENCE = 0.25, 1.0, 64.0  # seconds

    def __init__(self, most: int) -> None:
        self.most = most
        self._neighbours = Neighbours()
        self._next, self._patience, self._free_since, self._last_up = 0.0, self.LEAST_PATIENCE, math.inf, -math.inf

    def begin(self) -> int:
        """Threads that fit now, after a tenth of a second of waiting."""
        time.sleep(max(0.0, 0.1 - self._neighbours.seconds))
        count = self._fitting()
        if count < self.most:
            say(f"threads: {count}, as other programs are using {self.most - count} of the {self.most} cores")
        return count

    def _fitting(self) -> int:
        self._next = time.monotonic() + self.LOOK
        available = self._neighbours.available()
        return self.most if available == math.inf else min(self.most, max(1, math.floor(available + 0.25)))

    def look(self, used: int) -> int:
        """Threads that should follow the `used` ones: as a rule as many."""
        now = time.monotonic()
        if now < self._next or threading.current_thread() is not threading.main_thread():
            return used  # OpenMP counts for each thread by itself; those that are not the main one have their own ways
        count = self._fitting()
        if count < used:
            # A program that left soon came back: wait longer the next time. After a long time it was another one.
            soon = now - self._last_up < 2 * self._patience
            self._patience = min(2 * self._patience, self.MOST_PATIENCE) if soon else self.LEAST_PATIENCE
            say(f"threads: {count} instead of {used}, as other programs use the cores too")
        if count <= used:
            self._free_since = math.inf
            return count
        self._free_since = min(self._free_since, now)
        if now - self._free_since < self._patience:
            return used
        self._free_since, self._last_up = math.inf, now
        say(f"threads: {count}, the cores are free again")
        return count
