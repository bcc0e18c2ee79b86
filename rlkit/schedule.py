"""Values that change over a run, each on a clock with a name."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """From `start` to `end` while `clock` runs from `begin` to `begin + over`; constant before and after.

    Clocks: `step` counts updates, `frames` emulator frames, `share` is 0 at a run's beginning and 1 at its end.
    `Schedule("frames", 1.0, 0.1, over=1e6)(frames)`.
    """

    clock: str
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
