"""What a person sees of a run: TensorBoard, a progress bar, and a table of where the time went."""

import json
import math
import shlex
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from rlkit.config import CONFIGS


class Timer:
    """Seconds by name. On a GPU a name's time is that of launching its work, except where something waits for it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.latest: dict[str, float] = {}
        """seconds of the latest block of each name"""
        self._began = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.latest[name] = time.perf_counter() - began
            self.seconds[name] += self.latest[name]

    def total(self) -> float:
        """Seconds since it began, without those of other runs that take turns with this one."""
        return time.perf_counter() - self._began - self.seconds.get("other runs", 0.0)

    def table(self) -> str:
        """Where the time went, most first; `other` is what no name covers."""
        total = time.perf_counter() - self._began
        rows = sorted(((name, spent) for name, spent in self.seconds.items() if spent >= 0.05), key=lambda row: -row[1])
        rows.append(("other", max(0.0, total - sum(self.seconds.values()))))
        lines = [f"  {name:<12}{seconds:>9.1f} s{100 * seconds / total:>7.1f} %" for name, seconds in rows]
        return "\n".join(["where the time went", *lines, f"  {'total':<12}{total:>9.1f} s"])


class Logger:
    """Scalars and pictures to TensorBoard, scalars to a progress bar too, over the clock `x_axis`.

    Args:
        folder: of the event files; None writes none.
        total, unit: what the bar counts; 0: no end is known.
        start: where a resumed run goes on; later points of an earlier attempt are purged from TensorBoard.
        progress: draw the bar.
        left: seconds until the loop has to end; the bar's end is where it will be by then, if that is before `total`.
    """

    BAR = {
        "charts/episodic_return": "return", "eval/score": "score", "eval/elo": "Elo", "eval/accuracy": "accuracy",
        "eval/top1": "top-1", "eval/bleu": "BLEU", "eval/nats": "nats", "losses/loss": "loss",
    }  # fmt: skip
    """what the bar shows, of these the first that there are"""
    NARROW = "{percentage:.0f}%|{bar}| {n_fmt}, {remaining} left{postfix}"
    """for fewer than 100 columns; tqdm cuts off what does not fit, and that would be the score"""

    def __init__(
        self,
        folder: Path | None,
        total: float,
        unit: str,
        start: float = 0,
        progress: bool = True,
        left: Callable[[], float] = lambda: math.inf,
    ):
        self._total, self._start, self._left, self._began = int(total), start, left, time.monotonic()
        self._writer: Any = None
        if folder:
            from torch.utils.tensorboard import SummaryWriter

            earlier = any(folder.glob("events.*"))
            self._writer = SummaryWriter(str(folder), purge_step=int(start) + 1 if earlier else None, flush_secs=30)
            if config := CONFIGS.get(folder.absolute()):
                self._describe(json.loads(config), new=not earlier)
        name = folder.name.rpartition("__")[0] if folder else ""  # without the time
        self._bar = tqdm(
            total=int(total) or None,
            desc=name if len(name) < 25 else f"{name[:15]}...{name[-6:]}",
            initial=int(start),
            unit=unit,
            unit_scale=True,
            dynamic_ncols=True,
            smoothing=0.05,
            disable=not progress,
            file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 30,
        )
        self._shown: dict[str, str] = {}

    def _describe(self, config: dict[str, Any], new: bool) -> None:
        """Write settings and command line for TensorBoard's pages HPARAMS (of a new run) and TEXT."""
        from torch.utils.tensorboard.summary import hparams

        settings: dict[str, Any] = {}
        for name, value in config.items():
            inner = value if isinstance(value, dict) else {"": value}
            settings |= {f"{name}.{key}".rstrip("."): inner[key] for key in inner}
        table = "\n".join(f"|{name}|{value}|" for name, value in {"setting": "value", "---": "---", **settings}.items())
        self._writer.add_text("settings", table, int(self._start))
        self._writer.add_text("command", f"    python {shlex.join(sys.orig_argv[1:])}", int(self._start))
        if new:
            plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in settings.items()}
            # Without a list of what is to be shown, TensorBoard begins with the settings in which runs differ.
            self._writer.file_writer.add_summary(hparams(plain, {})[1])

    def scalars(self, values: Mapping[str, Any], x: float) -> None:
        """Write values at clock x; tensors must hold one number (waits for the device)."""
        for tag, value in values.items():
            value = value.item() if isinstance(value, Tensor) else value
            if self._writer:
                self._writer.add_scalar(tag, value, int(x))
            if tag in self.BAR:
                self._shown[tag] = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
        if self._writer and any(tag.startswith("eval/") for tag in values):
            self._writer.flush()  # whoever watches the run sees a score at once, as `tune` does
        shown = {self.BAR[tag]: self._shown[tag] for tag in self.BAR if tag in self._shown}
        self._bar.set_postfix(list(shown.items())[: 2 if self._narrow() else 4], refresh=False)

    def images(self, images: Mapping[str, NDArray[np.uint8]], x: float) -> None:
        """Write pictures [H, W, 3] at clock x."""
        if self._writer:
            for tag, image in images.items():
                self._writer.add_image(tag, image, int(x), dataformats="HWC")

    def advance(self, x: float) -> None:
        """Move the bar to clock x."""
        if (left := self._left()) < math.inf and x > self._start:
            end = int(x + max(left, 0) * (x - self._start) / max(time.monotonic() - self._began, 1e-9))
            self._bar.total = min(end, self._total or end)
        self._bar.bar_format = self.NARROW if self._narrow() else None
        self._bar.update(min(int(x), self._bar.total or int(x)) - self._bar.n)  # past its total tqdm forgets it

    def _narrow(self) -> bool:
        return (
            getattr(self._bar, "ncols", None) or 100
        ) < 100  # of the last drawing; none where it is not on a terminal

    def close(self) -> None:
        """Flush and end."""
        self._bar.close()
        if self._writer:
            self._writer.close()


class EpisodeStats:
    """Raw score and length of the newest training episodes, and how fast the agent steps, as scalars for the log."""

    def __init__(self) -> None:
        self.finished: deque[tuple[float, int]] = deque(maxlen=100)
        self._new = 0  # episodes that scalars() has not reported yet
        self._at = (0.0, 0)  # seconds and steps at its last call

    def add(self, step: Mapping[str, NDArray]) -> None:
        """Take the episodes that ended in a step of all environments (envs/vector.py)."""
        for e in np.flatnonzero(step["last"]):
            self.finished.append((float(step["score"][e]), int(step["length"][e])))
            self._new += 1

    def mean_length(self) -> float:
        """Agent steps of the newest episodes; 0 where none has ended."""
        return float(np.mean([length for _, length in self.finished] or 0))

    def scalars(self, steps: int, epsilon: float) -> dict[str, float]:
        """Means over the episodes since the last call, epsilon, and agent steps a second of `steps` so far."""
        now, (then, before) = time.perf_counter(), self._at
        out = {"charts/epsilon": epsilon}
        if then:
            out["charts/SPS"] = (steps - before) / max(now - then, 1e-9)
        self._at = (now, steps)
        if self._new:
            new = list(self.finished)[-self._new :]
            out["charts/episodic_return"] = float(np.mean([score for score, _ in new]))
            out["charts/episodic_length"] = float(np.mean([length for _, length in new]))
            self._new = 0
        return out

    def state_dict(self) -> dict:
        return {"finished": list(self.finished), "new": self._new}

    def load_state_dict(self, state: dict) -> None:
        self.finished = deque((tuple(row) for row in state["finished"]), maxlen=100)
        self._new = state["new"]


def say(text: str) -> None:
    """Print a line without tearing the bar."""
    with suppress(OSError):  # the terminal was closed: the run can still save
        if not silent:
            tqdm.write(text, file=sys.stderr)


silent = False
"""whether this process is one of several, and another speaks"""


def to_numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    """All one-number tensors of a dict as floats, in one transfer (waits for the device)."""
    names = [k for k, v in values.items() if v.numel() == 1]
    if not names:
        return {}
    stacked = torch.stack([values[k].detach().float().reshape(()) for k in names])
    return dict(zip(names, stacked.tolist(), strict=True))
