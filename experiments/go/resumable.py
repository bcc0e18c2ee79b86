"""What a run of AlphaZero goes on with besides its learner: a text file, and the minutes that it has trained."""

import os
import time
from pathlib import Path


class TextLines:
    """A file that grows by lines, and that a resumed run cuts off where its checkpoint was."""

    def __init__(self, path: Path):
        self.path = path

    def append(self, line: str) -> None:
        with open(self.path, "a", newline="\n") as f:
            f.write(line + "\n")

    def state_dict(self) -> dict[str, int]:
        return {"bytes": self.path.stat().st_size if self.path.exists() else 0}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        if self.path.exists() and self.path.stat().st_size > saved["bytes"]:
            os.truncate(self.path, saved["bytes"])


class TrainingMinutes:
    """Minutes of training, also those before a resume."""

    def __init__(self) -> None:
        self.before, self.began = 0.0, time.monotonic()

    @property
    def here(self) -> float:
        """of this process"""
        return (time.monotonic() - self.began) / 60

    @property
    def all(self) -> float:
        return self.before + self.here

    def state_dict(self) -> dict[str, float]:
        return {"minutes": self.all}

    def load_state_dict(self, saved: dict[str, float]) -> None:
        self.before = saved["minutes"]
