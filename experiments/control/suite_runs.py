"""Many runs as one result: what is there of them, and the statistics of Agarwal et al. 2021 ("Deep reinforcement
learning at the edge of the statistical precipice").

    run folders --collect--> Runs --by_game--> [n_1], [n_2], ... scores, an array a game
                                                  |--resample--> [R, n_1], [R, n_2], ...
                                                  `--iqm, median, profile--> a number, and from those R its interval

Runs that are missing or unfinished have no score; nothing is put in their place.
"""

import csv
import io
import itertools
import json
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from envs.atari import FRAME_SKIP, HUMANS
from experiments.control.curves import curve
from experiments.control.worlds import normalised
from rlkit.errors import DamagedFile
from rlkit.files import read_json
from rlkit.logger import say
from rlkit.saved_config import from_dict, renamed

Cell = tuple[str, str, int]
"""preset, game, seed"""
ByGame = Sequence[NDArray[np.float64]]
"""one array [..., n] a game, of the scores of its n runs; n may differ from game to game"""
Statistic = Callable[[ByGame], NDArray[np.float64]]


@dataclass(frozen=True)
class Run:
    """A planned run, and its final evaluation where it has finished: the mean raw score over `episodes`, its interval
    [low, high] over them, and the score normalised by both columns (None where the game has no published scores).
    """

    preset: str
    game: str
    seed: int
    state: Literal["finished", "unfinished", "missing"] = "missing"
    frames: int = 0
    """emulator frames trained, as of its last evaluation or stop"""
    score: float | None = None
    low: float | None = None
    high: float | None = None
    episodes: int | None = None
    protocol: str = ""
    human_nature: float | None = None
    human_57: float | None = None
    folder: str = ""
    """within the suite's"""


@dataclass(frozen=True)
class Suite:
    """What a report is drawn from."""

    frames: int
    runs: list[Run]
    hardware: list[str] = field(default_factory=list)
    extra: str = ""
    curves: dict[Cell, tuple[NDArray, NDArray]] = field(default_factory=dict)
    """(frames, mean raw score of the training episodes that ended since the point before) [N] of a run"""

    @property
    def presets(self) -> list[str]:
        return list(dict.fromkeys(run.preset for run in self.runs))

    @property
    def games(self) -> list[str]:
        return list(dict.fromkeys(run.game for run in self.runs))

    def cell(self, preset: str, game: str) -> list[Run]:
        """All seeds of a game."""
        return [run for run in self.runs if (run.preset, run.game) == (preset, game)]


# -- what is there ---------------------------------------------------------------------------------------------------


def is_finished(config: dict[str, Any], agent: dict[str, Any]) -> bool:
    """Whether a run, by its config.json and agent.json, was evaluated after its last frame.

    The last update needs no frame of its own, so that up to an update's frames, and a step of all environments, may be
    left.
    """
    update = config["batch_size"] * config["trainer"]["accumulate"] / config["samples_per_step"]
    left = config["frames"] - agent["trained"]["frames"]
    return agent["score"] is not None and left <= FRAME_SKIP * (update + 2 * config["num_envs"])


def read_run(root: Path, folder: str) -> Run:
    """The run of `dqn` that lies in a folder of `root`; with a damaged agent it has not finished.

    Raises DamagedFile for its configuration.
    """
    path = root / folder / "config.json"
    try:
        config = renamed(read_json(path), {"env"})
        names = {"preset": config["preset"], "game": config["env"], "seed": config["seed"]}
        found = from_dict(Run, names | {"state": "unfinished", "folder": folder}, str(path))
    except (DamagedFile, KeyError) as error:
        raise DamagedFile(
            f"{path} is no configuration: {error!r}; resume that run (its checkpoints hold it), or remove its folder"
        ) from error
    path = root / folder / "agent" / "agent.json"
    if not path.exists():
        return found
    try:
        agent = read_json(path)
        values = asdict(found) | {"frames": agent["trained"]["frames"]}
        if is_finished(config, agent):
            score = agent["score"]
            values |= {"state": "finished", "score": score["mean"], **normalised(found.game, score["mean"])}
            values |= {name: score[name] for name in ("low", "high", "episodes", "protocol")}
        return from_dict(Run, values, str(path))
    except (ArithmeticError, DamagedFile, KeyError, TypeError) as error:
        say(f"{path} is damaged, so its run counts as unfinished: {error!r}")
        return found


def collect(root: Path, cells: Iterable[Cell]) -> list[Run]:
    """The planned runs in order, each as far as a run folder in `root` has it; where several do, what got farthest."""
    best: dict[Cell, Run] = {}
    for path in sorted(root.glob("runs/dqn*/*/config.json")):
        run = read_run(root, str(path.parent.relative_to(root)))
        cell = (run.preset, run.game, run.seed)
        if cell not in best or (run.state == "finished", run.frames) >= (
            best[cell].state == "finished",
            best[cell].frames,
        ):
            best[cell] = run
    return [best.get(cell) or Run(*cell) for cell in cells]


def cells(presets: Iterable[str], games: Iterable[str], seeds: Iterable[int]) -> list[Cell]:
    """The plan: seed by seed, so that all games have one before any has two."""
    return [(preset, game, seed) for seed, preset, game in itertools.product(seeds, presets, games)]


def training_curve(folder: Path) -> tuple[NDArray, NDArray]:
    """(frames, raw score) [N] of a run's training episodes; empty where none has ended yet."""
    try:
        frames, _, score = curve(folder, "charts/episodic_return")
    except ValueError:  # no events so far
        return np.empty(0), np.empty(0)
    return frames, score


def by_game(runs: Iterable[Run], column: str = "score") -> dict[str, NDArray[np.float64]]:
    """The scores [n] of each game's finished runs, raw or normalised; games without any are left out."""
    out: dict[str, list[float]] = {}
    for run in runs:
        if (value := getattr(run, column)) is not None:
            out.setdefault(run.game, []).append(value)
    return {game: np.array(values) for game, values in out.items()}


def hardware() -> str:
    """This machine in words."""
    import torch

    from rlkit import runtime

    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    name = found[1] if found else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{name}, {runtime.cores()} cores; {gpu}; Python {platform.python_version()}, torch {torch.__version__}"


# -- statistics ------------------------------------------------------------------------------------------------------


def iqm(scores: ByGame) -> NDArray[np.float64]:
    """Interquartile mean [...] of all runs of all games: the lowest and the highest quarter of them are left out."""
    together = np.sort(np.concatenate(scores, -1), -1)
    count = together.shape[-1]
    return together[..., count // 4 : count - count // 4].mean(-1)


def median(scores: ByGame) -> NDArray[np.float64]:
    """Median [...] over the games of each game's mean."""
    return np.median(np.stack([runs.mean(-1) for runs in scores], -1), -1)


def profile(scores: ByGame, taus: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share [..., T] of all runs with a score above each of the taus [T]."""
    together = np.concatenate(scores, -1)
    return np.stack([(together > tau).mean(-1) for tau in taus], -1)


def resample(scores: ByGame, resamples: int, seed: int = 0) -> list[NDArray[np.float64]]:
    """Stratified bootstrap [resamples, n] of each game: its own n runs, drawn with replacement."""
    rng = np.random.default_rng(seed)
    return [rng.choice(runs, (resamples, len(runs))) for runs in scores]


def interval(
    statistic: Statistic, scores: ByGame, level: float = 0.95, resamples: int = 10_000
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Percentile interval (low, high) [...] of a statistic, by the stratified bootstrap.

    Where every game has one run it is a point and says nothing: only more seeds show how much they differ.
    """
    low, high = np.quantile(statistic(resample(scores, resamples)), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


def binned(x: NDArray, y: NDArray, edges: NDArray) -> NDArray[np.float64]:
    """Mean [B] of the y whose x lies in each bin (edges[i], edges[i + 1]]; nan where none does."""
    index, count = np.searchsorted(edges, x) - 1, len(edges) - 1
    inside = (index >= 0) & (index < count)
    number = np.bincount(index[inside], minlength=count)
    total = np.bincount(index[inside], y[inside], count)
    return np.divide(total, number, out=np.full(count, np.nan), where=number > 0)


def aggregates(suite: Suite) -> list[dict[str, Any]]:
    """Median and IQM of each preset by each column, with intervals (None where each game has one run), over the games
    that have published scores; how many of these and of their runs are there, and were planned.
    """
    out = []
    for preset, column in itertools.product(suite.presets, HUMANS):
        known = [game for game in suite.games if normalised(game, 0.0)[column] is not None]
        planned = [run for run in suite.runs if run.preset == preset and run.game in known]
        scores = by_game(planned, column)
        row: dict[str, Any] = {"preset": preset, "column": column, "games": len(scores)}
        row["games_planned"] = len(known)
        row["runs"], row["runs_planned"] = sum(map(len, scores.values())), len(planned)
        for name, statistic in (("median", median), ("iqm", iqm)):
            values = list(scores.values())
            row[name] = float(statistic(values)) if values else None
            several = any(len(runs) > 1 for runs in values)
            row[f"{name}_interval"] = [float(end) for end in interval(statistic, values)] if several else None
        out.append(row)
    return out


# -- files -----------------------------------------------------------------------------------------------------------


def to_csv(runs: Iterable[Run]) -> str:
    """One line a planned run; empty cells where there is nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Run)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, runs))
    return text.getvalue()


def to_json(suite: Suite) -> str:
    """Everything but the curves."""
    values = {"frames": suite.frames, "extra": suite.extra, "hardware": suite.hardware}
    values |= {"aggregates": aggregates(suite), "runs": [asdict(run) for run in suite.runs]}
    return json.dumps(values, indent=1)
