"""Values that change over a run, and the minutes that it has."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """From `start` to `end` while a clock runs from `begin` to `begin + over`; constant before and after.

    The caller says what the clock is: updates, emulator frames, or the share of a run that is over.
    `Schedule(1.0, 0.1, over=1e6)(frames)`.
    """

    start: float
    end: float
    begin: float = 0
    over: float = 1
    shape: Literal["linear", "cosine"] = "linear"

    def __call__(self, now: float) -> float:
        x = min(max((now - self.begin) / self.over, 0.0), 1.0)
        if self.shape == "cosine":
            x = (1 - math.cos(math.pi * x)) / 2
        return self.start + (self.end - self.start) * x


class Deadline:
    """When a command that was given `minutes` has to be over, its last evaluation and save included; 0: never.

    Args:
        began: `time.monotonic()` when the minutes began, by default now.
        runs: that share them in this process, and evaluate one after the other.
    """

    def __init__(self, minutes: float, began: float | None = None, runs: int = 1):
        self.seconds, self.runs = 60 * minutes if minutes else math.inf, runs
        self.end = (time.monotonic() if began is None else began) + self.seconds
        self.evaluation = 0.0 if self.seconds == math.inf else 0.05 * self.seconds
        """seconds that the last evaluation will take: a guess, until one was measured"""

    def left(self) -> float:
        """Seconds until the end; below 0 behind it."""
        return self.end - time.monotonic()

    def share(self, parts: int) -> "Deadline":
        """One of so many equal parts of the time that is left."""
        return self if self.end == math.inf else Deadline(max(self.left(), 1e-3) / parts / 60)

    def in_time(self, parts: Iterable[T]) -> Iterator[T]:
        """The parts, of a measurement say, until the end has come; the first in any case."""
        for number, part in enumerate(parts):
            if number and self.left() < 0:
                break
            yield part

    def reached(self, timer: Mapping[str, float], evaluations: int = 1) -> bool:
        """Whether no more is left than what follows the loop takes: so many evaluations, and two saves, as long as the
        `timer.latest` of both say; half of the time at most.
        """
        if self.seconds == math.inf:
            return False
        evaluation = timer.get("evaluate", self.evaluation)
        follows = self.runs * (evaluations * evaluation + 2 * timer.get("save", 0.01 * self.seconds))
        return self.left() <= min(1.1 * follows, self.seconds / 2)
