"""Values that change over a run, and the minutes that it has."""

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """From `start` to `end` while a clock runs from `begin` to `begin + duration`; constant before and after.

    The caller says what the clock is: updates, emulator frames, or the share of a run that has passed.
    `Schedule(1.0, 0.1, duration=1e6)(frames)`.
    """

    start: float
    end: float
    begin: float = 0
    duration: float = 1
    shape: Literal["linear", "cosine"] = "linear"

    def __call__(self, now: float) -> float:
        x = min(max((now - self.begin) / self.duration, 0.0), 1.0)
        if self.shape == "cosine":
            x = (1 - math.cos(math.pi * x)) / 2
        return self.start + (self.end - self.start) * x


class Deadline:
    """When a command that was given `minutes` has to end, its last evaluation and save included; 0: never.

    Args:
        began: `time.monotonic()` when the minutes began, by default now.
        runs: how many runs in this process share the minutes; they evaluate one after the other.
    """

    def __init__(self, minutes: float, began: float | None = None, runs: int = 1):
        self.seconds, self.runs = 60 * minutes if minutes else math.inf, runs
        self.end = (time.monotonic() if began is None else began) + self.seconds
        self.evaluation = 0.0 if self.seconds == math.inf else 0.05 * self.seconds
        """seconds that the last evaluation will take: an estimate, until one was measured"""

    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self.end - time.monotonic()

    def share(self, count: int) -> "Deadline":
        """A deadline after 1 / count of the time that is left."""
        return self if self.end == math.inf else Deadline(max(self.left(), 1e-3) / count / 60)

    def in_time(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items (batches of a measurement, say) until the deadline has passed; the first in any case."""
        for number, item in enumerate(items):
            if number and self.left() < 0:
                break
            yield item

    def left_for_loop(self, timer: Mapping[str, float], evaluations: int = 1) -> float:
        """Seconds until the loop has to end, so that `evaluations` evaluations and two saves can follow.

        timer: `Timer.latest`, seconds that "evaluate" and "save" took the last time. At most half of all the time is
        kept for them.
        """
        if self.seconds == math.inf:
            return math.inf
        evaluation = timer.get("evaluate", self.evaluation)
        needed = self.runs * (evaluations * evaluation + 2 * timer.get("save", 0.01 * self.seconds))
        return self.left() - min(1.1 * needed, self.seconds / 2)

    def reached(self, timer: Mapping[str, float], evaluations: int = 1) -> bool:
        """Whether it is time to end the loop."""
        return self.left_for_loop(timer, evaluations) <= 0
