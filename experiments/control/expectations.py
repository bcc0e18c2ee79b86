"""When one may expect to see something of a run, by what runs before it did."""

import time

from experiments.control.worlds import WorldConfig
from rlkit.config import with_changes
from rlkit.logger import say

MARKS = {
    ("fast", "pong"): {"began to rise": (600_000, 1_300_000), "passed 0": (1_900_000, 2_800_000)},
    ("frugal", "pong"): {"began to rise": (200_000, 400_000)},
}
"""(preset, env) -> what the training return did, and between which frames, in the three runs of docs/results.md"""


class Expectation:
    """Says once, after ten seconds of learning, when a new run of an unchanged preset will reach its marks."""

    def __init__(self, cfg: WorldConfig):
        self.marks = {} if cfg.resume or with_changes("", cfg) else MARKS.get((cfg.preset, cfg.env), {})
        self._began: tuple[float, int] | None = None

    def __call__(self, frames: int) -> None:
        """frames: so far; to be called now and then while the run learns."""
        now, (then, before) = time.monotonic(), self._began or (time.monotonic(), frames)
        self._began = (then, before)
        if now - then >= 10 and self.marks:
            rate, begins = (frames - before) / (now - then), "in three runs like this one the return"
            for what, (low, high) in self.marks.items():
                sooner, later = ((mark - frames) / rate / 60 for mark in (low, high))
                say(f"{begins} {what} after {low:,} to {high:,} frames: here in {sooner:.0f} to {later:.0f} minutes")
            self.marks = {}
