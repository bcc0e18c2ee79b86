"""Many games, several seeds, one page: `dqn` on all of them.

python -m experiments suite --envs pong breakout --seeds 1 2 3 --preset fast        # needs the extra `plot`
python -m experiments suite --agents fast nature --frames 10000000 -- --protocol machado --num-envs 8
python -m experiments suite --resume runs/suite/<suite>                  # goes on; finished runs stay
python -m experiments suite --resume runs/suite/<suite> --report-only    # draws what is there so far

What follows `--` goes to every run as it is. The suite's folder gets report.html, scores.csv and scores.json; the runs
lie in its runs/dqn, with curves and checkpoints as any other, but once finished without the gigabytes of their
replays: whoever trains one of them on sees it refilled first.
"""

import dataclasses
import functools
import itertools
import json
import math
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.control import dqn as dqn_atari
from experiments.control import suite_page
from experiments.control import suite_runs as suite
from experiments.control import worlds as games
from experiments.control.suite_runs import Run, Suite
from rlkit import processes
from rlkit.command_line import parse
from rlkit.config import AtLeast, Fixed, check_bounds
from rlkit.files import read_json, write_atomically
from rlkit.logger import say
from rlkit.parallel.actors import ActorConfig, spread
from rlkit.run import command, open_run


@dataclass
class Config:
    """Games x seeds x presets of `dqn`, and a report about them."""

    preset: Annotated[tuple[str, ...], tyro.conf.arg(aliases=("--agents",))] = ("fast",)
    """of `dqn`; several are compared"""
    resume: str | None = None
    """folder of a suite to go on with; games, seeds and presets may be added"""
    report_only: bool = False
    """train nothing: draw what the suite that --resume names has so far"""
    name: str = "suite"
    """of the suite's folder"""
    envs: tuple[str, ...] = ("pong", "breakout")
    seeds: tuple[int, ...] = (1, 2, 3)
    frames: Annotated[int, Fixed] = 4_000_000
    """emulator frames of each run"""
    together: Annotated[int, AtLeast(1)] = 1
    """seeds of a game that learn side by side in one process, where each is one more than that before"""
    extra: Annotated[tuple[str, ...], tyro.conf.Positional, Fixed] = ()
    """after `--`: flags of `dqn` for every run"""
    elsewhere: tyro.conf.OmitArgPrefixes[ActorConfig] = field(default_factory=ActorConfig)

    @property
    def seed(self) -> int:
        """What `open_run` names the folder by."""
        return self.seeds[0]


PRESETS = dict.fromkeys(dqn_atari.PRESETS, Config())
# What the suite itself says, or what would end its runs elsewhere than at `frames`.
OWN = (
    "--preset", "--env", "--seed", "--together", "--frames", "--minutes", "--resume", "--trainer.steps",
    "--torso-from",
)  # fmt: skip


def checked(cfg: Config) -> Config:
    """Names as the runs have them, nothing twice. Raises ValueError for what no run would take."""
    for name in ("envs", "seeds", "preset"):
        if not getattr(cfg, name):
            raise ValueError(f"--{name} is empty: name at least one")
    if unknown := [name for name in cfg.preset if name not in dqn_atari.PRESETS]:
        raise ValueError(f"there is no preset {unknown[0]!r}; choose from {', '.join(dqn_atari.PRESETS)}")
    for word in cfg.extra:
        if (flag := word.partition("=")[0].replace("_", "-")) in OWN:
            raise ValueError(f"{flag} cannot follow `--` in a suite")
    check_bounds(cfg)
    cfg.envs = tuple(dict.fromkeys(map(games.full_name, cfg.envs)))
    cfg.preset, cfg.seeds = tuple(dict.fromkeys(cfg.preset)), tuple(dict.fromkeys(cfg.seeds))
    for preset in cfg.preset:
        words = arguments(cfg, Run(preset, cfg.envs[0], min(cfg.seeds)))
        check_bounds(parse(dqn_atari.PRESETS, words))
    return cfg


def arguments(cfg: Config, cell: Run, together: int = 1) -> list[str]:
    """The command line of a new run, and of those after it that learn together with it."""
    own = [f"--preset={cell.preset}", f"--env={cell.game}", f"--seed={cell.seed}", f"--frames={cfg.frames}"]
    return [*own, *([f"--together={together}"] if together > 1 else []), *cfg.extra]


def companions(todo: list[Run], most: int) -> list[Run]:
    """The first run and, if it is new, the new ones of its preset and game whose seeds follow: at most so many."""
    if todo[0].folder:
        return todo[:1]
    new = {(r.preset, r.game, r.seed): r for r in todo if not r.folder}
    keys = [(todo[0].preset, todo[0].game, todo[0].seed + number) for number in range(most)]
    return [new[key] for key in itertools.takewhile(new.__contains__, keys)]


def collect(cfg: Config, suite_dir: Path) -> list[Run]:
    """All planned runs, as far as they are there."""
    return suite.collect(suite_dir, suite.cells(cfg.preset, cfg.envs, cfg.seeds))


def train(cfg: Config, suite_dir: Path) -> None:
    """Perform the runs that have not finished, in the plan's order; one that fails does not stop the others."""
    spent: dict[str, tuple[float, float]] = {}  # seconds and frames of each preset, in this process
    plan = collect(cfg, suite_dir)
    todo = [cell for cell in plan if cell.state != "finished"]
    while todo:
        cell, group = todo[0], companions(todo, cfg.together)
        name = f"{cell.game}, seed {' and '.join(str(r.seed) for r in group)}, {cell.preset}"
        say(f"=== run {plan.index(cell) + 1} of {len(plan)}: {name}{time_left(spent, todo, cfg.frames)}")
        todo = [r for r in todo if r not in group]
        began = time.monotonic()
        words = [f"--resume={cell.folder}"] if cell.folder else arguments(cfg, cell, len(group))
        try:
            failed = processes.run_command("experiments", ["dqn", *words], suite_dir)
        finally:
            drop_replays(cfg, suite_dir)
        if failed:
            say(f"{name} failed; its own message stands above")
            continue
        if cell.frames < cfg.frames / 2:  # of few frames the start and the evaluation would be most of the price
            seconds, frames = spent.get(cell.preset, (0.0, 0.0))
            spent[cell.preset] = seconds + time.monotonic() - began, frames + len(group) * (cfg.frames - cell.frames)


class RunActor:
    """Performs runs in an actor's process."""

    def __init__(self, suite_dir: Path, index: int, start: int):
        self.suite_dir = suite_dir

    def do(self, words: tuple[str, ...]) -> int:
        return processes.run_command("experiments", ["dqn", *words], self.suite_dir)


def train_elsewhere(cfg: Config, suite_dir: Path) -> None:
    """The same by actors, several at once: their machines need this folder under the same path."""
    todo, groups = [cell for cell in collect(cfg, suite_dir) if cell.state != "finished"], {}
    while todo:
        cell, group = todo[0], companions(todo, cfg.together)
        words = (f"--resume={cell.folder}",) if cell.folder else tuple(arguments(cfg, cell, len(group)))
        groups[words] = f"{cell.game}, seed {' and '.join(str(r.seed) for r in group)}, {cell.preset}"
        todo = [r for r in todo if r not in group]
    patient = dataclasses.replace(cfg.elsewhere, actor_timeout=math.inf)
    if not groups:
        return
    say(f"=== {len(groups)} runs, {min(len(groups), cfg.elsewhere.actors)} at once")
    for words, failed in spread(functools.partial(RunActor, suite_dir.absolute()), groups, patient):
        say(f"=== {groups[words]}: {'failed' if failed else 'finished'}")
        drop_replays(cfg, suite_dir)


def drop_replays(cfg: Config, suite_dir: Path) -> None:
    """Remove the gigabytes that finished runs leave."""
    for done in (r for r in collect(cfg, suite_dir) if r.state == "finished"):
        (suite_dir / done.folder / "checkpoints" / "replay.ring").unlink(missing_ok=True)


def time_left(spent: dict[str, tuple[float, float]], todo: list[Run], frames: int) -> str:
    """How long the runs to do will take, at the speed of their preset so far (or of all); empty before the first."""
    if not spent:
        return ""
    everything = tuple(map(sum, zip(*spent.values(), strict=True)))
    rates = [spent.get(cell.preset, everything) for cell in todo]
    seconds = sum((frames - cell.frames) * s / max(f, 1) for cell, (s, f) in zip(todo, rates, strict=True))
    return (
        f"; about {seconds / 3600:.1f} h to the end" if seconds > 5400 else f"; about {seconds / 60:.0f} min to the end"
    )


def report(cfg: Config, suite_dir: Path) -> Suite:
    """Write report.html, scores.csv and scores.json from what is there."""
    runs, machines = collect(cfg, suite_dir), suite_dir / "hardware.json"
    whole = Suite(
        cfg.frames,
        runs,
        read_json(machines, list) if machines.exists() else [],
        shlex.join(cfg.extra),
        {(r.preset, r.game, r.seed): suite.training_curve(suite_dir / r.folder) for r in runs if r.folder},
    )
    texts: dict[str, Callable[[], str]] = {
        "scores.csv": lambda: suite.to_csv(runs),
        "scores.json": lambda: suite.to_json(whole),
        "report.html": lambda: suite_page.page(whole),
    }
    for name, text in texts.items():
        write_atomically(suite_dir / name, text().encode())
    return whole


def main(cfg: Config) -> Path:
    """Train what is missing and draw the report; returns the suite's folder. Raises ValueError where runs failed."""
    suite_page.figure(1, 1)  # whoever cannot draw should know before the training
    if cfg.report_only and not cfg.resume:
        raise ValueError("--report-only draws what a suite has: name its folder with --resume")
    cfg = checked(cfg)
    if cfg.report_only:
        suite_dir = Path(cfg.resume or "")
    else:
        suite_dir = open_run(cfg, "suite", cfg.name)
        machines = suite_dir / "hardware.json"
        known = read_json(machines, list) if machines.exists() else []
        write_atomically(machines, json.dumps(list(dict.fromkeys([*known, suite.hardware()])), indent=1).encode())
        try:
            (train_elsewhere if cfg.elsewhere.actors else train)(cfg, suite_dir)
        except KeyboardInterrupt:
            say(f"stopped; go on: {command('suite', '--resume', suite_dir)}")
            return suite_dir
    runs = report(cfg, suite_dir).runs
    say(f"report: {suite_dir / 'report.html'}")
    if (done := sum(r.state == "finished" for r in runs)) < len(runs) and not cfg.report_only:
        again = shlex.join(["--resume", str(suite_dir)])
        raise ValueError(f"{len(runs) - done} of {len(runs)} runs have not finished; {again} tries again")
    return suite_dir
