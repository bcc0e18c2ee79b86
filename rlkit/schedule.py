"""Values that change over a run."""

import math
from dataclasses import dataclass
from typing import Literal


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
