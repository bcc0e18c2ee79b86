"""Draw the learning curves of runs.

python -m experiments curves runs/dqn/pong__* --out docs/pong.png       # needs the extra `plot`
python -m experiments curves runs/dqn/* --tag eval/score losses/loss --x frames --csv curves.csv

Runs that differ in their seed alone share a colour: the mean of these, and a band from the lowest to the highest.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from rlkit.config import AtLeast, check_bounds
from rlkit.files import check_regular, read_json
from rlkit.saved_config import renamed


@dataclass
class Config:
    """Learning curves of runs, each setting with the mean and the range of its seeds, the highest in the end first."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    out: Path = Path("curves.png")
    tag: tuple[str, ...] = ("charts/episodic_return",)
    """scalars of TensorBoard, a row of the picture for each"""
    x: Literal["both", "frames", "minutes"] = "both"
    """what they are drawn over: the clock of the run, its wall time, or one beside the other"""
    apart: bool = False
    """draw each world in a column of its own: scores of different ones have no common scale"""
    smooth: Annotated[int | None, AtLeast(1)] = None
    """points in the running mean; default: 20, and of evaluations 1"""
    csv: Path | None = None
    """file to write all points into, as they are"""
    x_label: str = "emulator frames"


@dataclass
class Curve:
    """One tag of a run: clock, minutes since the run began and value [N], and the value smoothed [M]."""

    folder: Path
    tag: str
    frames: NDArray
    minutes: NDArray
    value: NDArray
    smoothed: NDArray

    def over(self, x: str) -> NDArray:
        """frames or minutes [M] of the smoothed values: the last that each of them is the mean of."""
        return getattr(self, x)[-len(self.smoothed) :]


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


def smoothed_curve(folder: Path, tag: str, smooth: int | None) -> Curve:
    """One tag of a run, with the running mean over so many points. Raises as `curve` does."""
    frames, minutes, value = curve(folder, tag)
    width = min(smooth or (1 if tag.startswith("eval/") else 20), len(value))
    return Curve(folder, tag, frames, minutes, value, np.convolve(value, np.ones(width) / width, "valid"))


HEAD = ("command", "env", "preset")
"""what a run is called by first"""
NO_SETTING = ("seed", "resume", "threads_in_use", "minutes", "together", "trainer.progress")
"""what may differ between runs of the same setting"""


def setting(folder: Path) -> dict[str, Any]:
    """What a run's config.json says, but for its seed and how it was run; the folder's name where it has none."""
    path = folder / "config.json"
    if not path.exists():
        return {"command": folder.name}
    flat: dict[str, Any] = {"command": folder.absolute().parent.name}
    for name, value in renamed(read_json(path), {"env"}).items():
        inner = value.items() if isinstance(value, dict) else ()
        flat |= {f"{name}.{key}": one for key, one in inner} or {name: value}
    return {name: value for name, value in flat.items() if name not in NO_SETTING}


def seed(folder: Path) -> str:
    """Of a run; empty where it says none."""
    path = folder / "config.json"
    return str(read_json(path).get("seed", "")) if path.exists() else ""


def names(settings: Sequence[dict[str, Any]]) -> list[str]:
    """What tells settings apart: command, env and preset as far as they differ, and among those that share these, each
    field that does. A preset's own numbers are not told beside its name.
    """
    heads = [tuple(one.get(name) for name in HEAD) for one in settings]
    out = []
    for one, head in zip(settings, heads, strict=True):
        alike = [other for other, theirs in zip(settings, heads, strict=True) if theirs == head]
        parts = [str(one.get(name)) for name in HEAD if _differs(settings, name) and one.get(name) not in (None, "")]
        parts += [f"{name}={_text(one[name])}" for name in one if name not in HEAD and _differs(alike, name)]
        out.append(" ".join(parts) or str(one.get("env") or one["command"]))
    return out


def _differs(settings: Sequence[dict[str, Any]], name: str) -> bool:
    return len({json.dumps(one.get(name), default=str) for one in settings}) > 1


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def grouped(curves: Sequence[Curve], called: Mapping[Path, str]) -> list[tuple[str, list[Curve]]]:
    """The curves of each setting with its name, those first that ended highest in the mean over their seeds.

    called: what runs of the same setting share, by folder.
    """
    groups: dict[str, list[Curve]] = {}
    for one in curves:
        groups.setdefault(called[one.folder], []).append(one)
    return sorted(groups.items(), key=lambda group: -final(group[1]))


def final(curves: Sequence[Curve]) -> float:
    """Mean of the last smoothed values."""
    return float(np.mean([one.smoothed[-1] for one in curves]))


def mean_and_range(curves: Sequence[Curve], x: str) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """x, mean, lowest and highest [200] of several runs, as far as all of them go."""
    begin, end = max(one.over(x)[0] for one in curves), min(one.over(x)[-1] for one in curves)
    grid = np.linspace(begin, max(begin, end), 200)
    values = np.stack([np.interp(grid, one.over(x), one.smoothed) for one in curves])
    return grid, values.mean(0), values.min(0), values.max(0)


def colors(called: Sequence[str]) -> dict[str, Any]:
    """One for each setting; of many, from bright to dark."""
    from matplotlib import colormaps

    few = len(called) <= 10
    return {name: f"C{i}" if few else colormaps["viridis"](1 - i / len(called)) for i, name in enumerate(called)}


def draw(axis: Any, groups: Sequence[tuple[str, list[Curve]]], x: str, color_of: Mapping[str, Any]) -> None:
    """Of each setting the mean over its seeds with their range, and each of them thinly; of a single run its points."""
    for rank, (name, curves) in enumerate(groups):
        color = color_of[name]
        many = f" ({len(curves)} seeds)" if len(curves) > 1 else ""
        label = f"{name}{many}: {final(curves):.4g}" if rank < 20 else None
        if len(curves) > 1:
            grid, mean, low, high = mean_and_range(curves, x)
            axis.plot(grid, mean, color=color, label=label)
            axis.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)
            for one in curves:
                axis.plot(one.over(x), one.smoothed, alpha=0.3, linewidth=0.8, color=color)
        else:
            (one,) = curves
            axis.plot(one.over(x), one.smoothed, color=color, label=label)
            axis.plot(getattr(one, x), one.value, alpha=0.2, linewidth=0.8, color=color)
    axis.grid(alpha=0.3)


def write_csv(path: Path, rows: Sequence[Sequence[tuple[str, list[Curve]]]]) -> None:
    """All points: one line each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["tag", "setting", "seed", "run", "frames", "minutes", "value"])
        for name, curves in (group for groups in rows for group in groups):
            for one in curves:
                for frames, minutes, value in zip(one.frames, one.minutes, one.value, strict=True):
                    run = seed(one.folder), one.folder
                    writer.writerow([one.tag, name, *run, int(frames), round(minutes, 4), value])


def found(cfg: Config, tag: str) -> list[Curve]:
    """The curves of the runs that have this tag; the others are named. Raises ValueError where none has it."""
    curves, without = [], []
    for folder in cfg.runs:
        try:
            curves.append(smoothed_curve(folder, tag, cfg.smooth))
        except ValueError as error:
            without.append(str(error))
    if not curves:
        raise ValueError(without[0] if without else "name the folders of runs")
    for line in without:
        print(line)
    return curves


def main(cfg: Config) -> Path:
    """Draw and return the picture's path."""
    check_bounds(cfg)
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    except ImportError as error:
        raise ModuleNotFoundError("pictures need the extra `plot`: pip install -e '.[plot]'") from error
    over = ("frames", "minutes") if cfg.x == "both" else (cfg.x,)
    settings = [setting(folder) for folder in cfg.runs]
    called = dict(zip(cfg.runs, names(settings), strict=True))
    world = {folder: cfg.apart * str(one.get("env")) for folder, one in zip(cfg.runs, settings, strict=True)}
    columns = [(name, x) for name in sorted({*world.values()}) for x in over]
    rows = [grouped(found(cfg, tag), called) for tag in cfg.tag]
    color_of = colors(list(dict.fromkeys(name for groups in rows for name, _ in groups)))
    width = 5 if len(columns) <= 3 else 3.2
    figure = Figure((width * len(columns), 3.6 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), sharey=False if cfg.apart else "row", squeeze=False)
    for tag, groups, line in zip(cfg.tag, rows, axes, strict=True):
        for i, ((name, x), axis) in enumerate(zip(columns, line, strict=True)):
            shown = [group for group in groups if world[group[1][0].folder] == name]
            draw(axis, shown, x, color_of)
            axis.set_xlabel(cfg.x_label if x == "frames" else x)
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 50k, 1M
            if cfg.apart and len(shown) == 1:
                axis.set_title(axis.get_legend_handles_labels()[1][0], fontsize="small")
            elif shown and (cfg.apart or not i):
                axis.legend(frameon=False, fontsize="small")
        line[0].set_ylabel(tag)
        for name, curves in groups:
            print(f"{tag} {final(curves):.4g}  {name}, seed {', '.join(seed(one.folder) for one in curves)}")
    cfg.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(cfg.out, dpi=110)
    if cfg.csv:
        write_csv(cfg.csv, rows)
    return cfg.out
