"""Draw the learning curves of runs.

python -m experiments curves runs/dqn/pong__* --out docs/pong.png       # needs the extra `plot`
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from rlkit.config import AtLeast, check_bounds
from rlkit.files import check_regular, read_json


@dataclass
class Config:
    """One line a run, over its clock and over its wall time; runs of several presets have a colour each."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path = Path("curves.png")
    tag: str = "charts/episodic_return"
    smooth: Annotated[int, AtLeast(1)] = 20
    """points in the running mean"""
    x_label: str = "emulator frames"


def curve(folder: Path, tag: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(clock, minutes since the run began, value) [N] of one tag. Raises FileNotFoundError, DamagedFile, and ValueError
    where it has none.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}: name a run's")
    for path in folder.glob("events.*"):
        check_regular(path)
    events = EventAccumulator(str(folder), {"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    if tag not in tags:
        raise ValueError(f"{folder} has no scalars {tag!r}; it has {', '.join(tags) or 'none'}")
    points = events.Scalars(tag)
    began = events.FirstEventTimestamp()
    x, wall, y = np.array([(p.step, (p.wall_time - began) / 60, p.value) for p in points]).T
    return x, wall, y


def preset(folder: Path) -> str:
    """The preset that a run began with; empty where it says none."""
    path = folder / "config.json"
    return read_json(path).get("preset", "") if path.exists() else ""


def main(cfg: Config) -> Path:
    """Draw and return the picture's path."""
    check_bounds(cfg)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ModuleNotFoundError("pictures need the extra `plot`: pip install -e '.[plot]'") from error
    figure = Figure((10, 3.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    presets = [preset(folder) for folder in cfg.runs]
    several = list(dict.fromkeys(presets)) if len(set(presets)) > 1 else []  # one colour each
    for i, folder in enumerate(cfg.runs):
        x, wall, y = curve(folder, cfg.tag)
        name = folder.name.rsplit("__", 1)[0].replace("__", ", seed ")
        name, color = (f"{presets[i]}: {name}", f"C{several.index(presets[i])}") if several else (name, f"C{i}")
        width = min(cfg.smooth, len(y))
        mean = np.convolve(y, np.ones(width) / width, "valid")
        for axis, clock in zip(axes, (x, wall), strict=True):
            axis.plot(clock[width - 1 :], mean, color=color, label=name)
            axis.plot(clock, y, alpha=0.2, linewidth=0.8, color=color)
    for axis, label in zip(axes, (cfg.x_label, "minutes"), strict=True):
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(cfg.tag)
    axes[0].legend(frameon=False)
    cfg.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(cfg.out, dpi=110)
    return cfg.out
