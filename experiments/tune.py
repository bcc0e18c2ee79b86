"""Search for better settings of any command that reports a score, through Optuna.

python -m experiments tune dqn --preset classic --env Acrobot-v1 --trials 50 --search trainer.lr=log:1e-5:1e-2
python -m experiments tune images --trials 30 --jobs 2 --search width=0.5:2 augment=flipped,shifted --threads 1
python -m experiments tune --resume runs/tune/<run> --trials 100         # goes on, or joins a search that runs

The first word names the command, and flags that are not this one's own are given to it. Needs the extra `tune`.
"""

import dataclasses
import json
import math
import os
import shlex
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from experiments import __main__ as experiments
from experiments import tune_page
from experiments.tune_actors import check_actors, starter
from experiments.tune_search import Searched, read_search
from experiments.tune_trials import (
    HEARTBEAT,
    Ended,
    OpenTrial,
    counts,
    fail_lost_trials,
    need_optuna,
    new_trial,
    open_study,
)
from rlkit.config import AtLeast, Fixed, check_bounds, fields
from rlkit.files import write_atomically
from rlkit.logger import say
from rlkit.parallel.actors import ActorConfig
from rlkit.run import command, open_run
from rlkit.saved_config import check_fixed, load_config
from rlkit.signals import signals_held


@dataclass
class Config:
    """Search for better settings of a command, in many runs of it."""

    command: Annotated[str, tyro.conf.Positional, Fixed] = ""
    """whose settings are searched"""
    extra: Annotated[tuple[str, ...], tyro.conf.Positional, Fixed] = ()
    """flags of the command for every run: all that are not named here, and what follows `--`"""
    search: Annotated[tuple[str, ...], Fixed] = ()
    """fields of the command: NAME=A,B,C to choose from, NAME=LOW:HIGH for a number, NAME=log:LOW:HIGH for one that
    matters by its order of magnitude"""
    trials: Annotated[int, AtLeast(1)] = 50
    """settings to try, of all processes and all attempts together; those that fail do not count"""
    jobs: Annotated[int, AtLeast(1)] = 1
    """trials at once"""
    seeds: Annotated[tuple[int, ...], Fixed] = (1,)
    """of the command: a trial has a run for each, at once, and the mean of their scores"""
    tag: Annotated[str, Fixed] = ""
    """the score in the command's TensorBoard, of which the last one counts; default: what it is measured by"""
    goal: Annotated[Literal["max", "min", ""], Fixed] = ""
    """whether a good score is high or low; default: by the command"""
    prune: bool = True
    """end a trial that at one of its evaluations has been worse so far than half of the others were at theirs"""
    warmup: Annotated[int, AtLeast(0)] = 1
    """evaluations that every trial may make before it can be ended so"""
    seed: Annotated[int, AtLeast(0)] = 1
    """of the search: which settings it tries"""
    resume: str | None = None
    """folder of a search to go on with, or to join while another process is at it"""
    elsewhere: tyro.conf.OmitArgPrefixes[ActorConfig] = field(default_factory=ActorConfig)


PRESETS = {"tune": Config()}
SCORES: dict[str, tuple[str, Literal["max", "min"]]] = {
    **dict.fromkeys(("dqn", "memory", "pqn", "alphago_rl"), ("eval/score", "max")),
    "alphazero": ("eval/elo", "max"),
    **dict.fromkeys(("alphago_sl", "alphago_rollout"), ("eval/top1", "max")),
    "alphago_value": ("eval/test_mse", "min"),
    "heights": ("eval/difference", "min"),
    "images": ("eval/accuracy", "max"),
    "language_model": ("eval/nats", "min"),
    "translation": ("eval/bleu", "max"),
}
"""what a command is measured by, and which way is better"""
POLL = 0.5
"""seconds between looks at the trials"""
FAILURES = 5
"""in a row, before any has worked, four times as many later: then something is wrong that is not the settings"""


def arranged(args: Sequence[str]) -> list[str]:
    """The same words with this command's own before `--`, and those for the searched command after it."""
    own_flags = {one.flag for one in fields(Config())} - {"--command", "--extra"}
    own: list[str] = []
    others: list[str] = []
    to = own
    for i, word in enumerate(args):
        if word == "--":
            others += args[i + 1 :]
            break
        if word.startswith("--"):
            name = word.partition("=")[0].replace("_", "-")
            to = own if name in own_flags | {"--help", "--no-prune"} else others
        to.append(word)
    return [*own, *(["--", *others] if others else [])]


def checked(cfg: Config) -> tuple[Config, list[Searched]]:
    """With the command's own score where none is named, and paths that hold in any folder; what is searched.

    Raises ValueError for what no trial would take.
    """
    check_bounds(cfg)
    module = experiments.load(cfg.command) if cfg.command in experiments.MODULES else None
    if not hasattr(module, "PRESETS") or cfg.command in ("tune", "suite"):
        raise ValueError(f"name a command first whose runs are measured, not {cfg.command!r}: {', '.join(SCORES)}")
    known: Any = SCORES.get(cfg.command, ("", ""))
    tag, goal = cfg.tag or known[0], cfg.goal or known[1]
    if not tag or not goal:
        raise ValueError(f"what is {cfg.command} measured by? Name its --tag and --goal max or min")
    if not cfg.seeds or len(set(cfg.seeds)) < len(cfg.seeds):
        raise ValueError("--seeds names one at the least, and none twice")
    extra = tuple(map(absolute, cfg.extra))
    for flag in (word.partition("=")[0] for word in extra):
        if flag in ("--resume", "--seed", "--together"):
            raise ValueError(f"{flag} cannot be given to every trial")
    search = read_search(cfg.search, lambda words: experiments.parse(module, words), extra)
    check_actors(cfg.elsewhere.actors, len(cfg.seeds), cfg.jobs, experiments.parse(module, [*extra]))
    return dataclasses.replace(cfg, extra=extra, tag=tag, goal=goal), search


def absolute(word: str) -> str:
    """A path, or a flag with a path behind `=`, that means the same in the folder of a trial."""
    flag, equals, path = word.partition("=") if word.startswith("--") else ("", "", word)
    looks_like_one = os.sep in path or "." in path  # a preset may share its name with a folder
    return f"{flag}{equals}{Path(path).absolute()}" if looks_like_one and Path(path).exists() else word


def open_search(cfg: Config) -> Path:
    """The folder of a new search, or of the one to go on with, which other processes may be at."""
    if not cfg.resume:
        return open_run(cfg, "tune", cfg.command)
    folder = Path(cfg.resume)
    check_fixed(cfg, load_config(Config, folder), folder)
    write_atomically(folder / "config.json", json.dumps(dataclasses.asdict(cfg) | {"resume": None}, indent=1).encode())
    return folder


def search_on(cfg: Config, folder: Path, study: Any, search: Sequence[Searched], start: Callable[..., Any]) -> None:
    """Try settings until there are enough trials. Raises ValueError where none of them works."""
    at_once = cfg.elsewhere.actors // len(cfg.seeds) or cfg.jobs
    running: list[OpenTrial] = []
    failed: list[str] = []
    looked = -math.inf
    try:
        while True:
            with signals_held():
                for trial in [*running]:
                    if ended := trial.poll():
                        running.remove(trial)
                        failed = [*failed, ended.error] if ended.state in ("FAIL", "LOST") else []
                        say_how_it_ended(cfg, study, trial, ended)
                if time.monotonic() > looked + HEARTBEAT:
                    fail_lost_trials(study)
                    looked = time.monotonic()
                done, others = counts(study)
                if len(failed) >= (4 * FAILURES if done else FAILURES):
                    raise ValueError(f"{len(failed)} trials in a row failed, the last with: {failed[-1]}")
                for _ in range(min(at_once - len(running), cfg.trials - done - others)):
                    new, words = new_trial(study, search, cfg.seed)
                    running.append(OpenTrial(study, new, folder / "trials" / str(new.number), cfg.tag))
                    running[-1].start(cfg.command, [*cfg.extra, *words], cfg.seeds, start)
                if not running and done >= cfg.trials:
                    return
            time.sleep(POLL)
    finally:
        stop(running)


def say_how_it_ended(cfg: Config, study: Any, trial: OpenTrial, ended: Ended) -> None:
    """One line about a trial."""
    settings = " ".join(f"{name}={tune_page.short(value)}" for name, value in trial.trial.params.items())
    value = "" if ended.value is None else f" {ended.value:.4g}"
    how = {"COMPLETE": f"{cfg.tag}{value}", "PRUNED": f"pruned at{value}"}.get(ended.state, f"failed: {ended.error}")
    say(f"trial {trial.trial.number} ({counts(study)[0]} of {cfg.trials}), {trial.seconds:.0f} s, {settings}: {how}")


def stop(trials: list[OpenTrial]) -> None:
    """Have open trials save and end, to be tried again; Ctrl-C meanwhile ends them at once."""
    for trial in trials:
        trial.interrupt("LOST")
    while trials:
        try:
            trials[0].wait()
        except KeyboardInterrupt:
            for trial in trials:
                trial.signal(signal.SIGKILL)
            continue
        with signals_held():
            trials.pop(0).poll()


def main(cfg: Config) -> Path:
    """Search; returns the search's folder, with study.db, report.html and the trials' runs."""
    optuna = need_optuna()
    cfg, search = checked(cfg)
    with starter(cfg.elsewhere) as start:
        folder = open_search(cfg)
        pruner = optuna.pruners.MedianPruner(n_warmup_steps=cfg.warmup) if cfg.prune else optuna.pruners.NopPruner()
        study = open_study(folder / "study.db", cfg.goal, pruner)
        if not study.get_trials(deepcopy=False) and all(one.default is not None for one in search):
            study.enqueue_trial({one.name: one.default for one in search})  # what is there to be beaten
        stopped = False
        try:
            search_on(cfg, folder, study, search, start)
        except KeyboardInterrupt:
            stopped = True
        finally:
            report(cfg, folder, study, search)
        if stopped:
            say(f"stopped; go on: {command('tune', '--resume', folder)}")
        return folder


def report(cfg: Config, folder: Path, study: Any, search: Sequence[Searched]) -> None:
    """Write report.html, and print the best settings as a command line."""
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    line = ""
    if complete:
        best = study.best_trial
        line = command(cfg.command, *cfg.extra, *(word for one in search for word in one.words(best.params[one.name])))
        own = {one.name: one.default for one in search}
        before = next((f"; by default {trial.value:.6g}" for trial in complete if trial.params == own), "")
        say(f"best: trial {best.number}, {cfg.tag} {best.value:.6g}{before}\n{line}")
    title = shlex.join(["tune", cfg.command, *cfg.extra, "--search", *cfg.search])
    write_atomically(folder / "report.html", tune_page.page(study, title, cfg.tag, line).encode())
    say(f"report: {folder / 'report.html'}")
