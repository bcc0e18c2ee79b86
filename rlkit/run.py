"""What every run of every command shares: a folder, a lock, a device, minutes, a resume, last lines.

runs/<experiment>/<name>__<seed>__<time>/ holds config.json, command.txt, checkpoints/, agent/ and the events.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import shlex
import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rlkit.config import CONFIGS, check_bounds, with_changes
from rlkit.files import check_regular, read_bytes, sweep, write_atomically
from rlkit.parallel import all_ranks, check_divided
from rlkit.schedule import Deadline

if TYPE_CHECKING:
    from rlkit.trainer import Trainer

T = TypeVar("T")


class Run:
    """One run of a command, and what all runs share.

        run = Run(cfg, "images")              settings checked; seeds, threads, device; the minutes begin
        folder = run.open("digits_cnn")       runs/images/digits_cnn__<seed>__<time>, or the one that --resume names
        trainer = Trainer(model, loss_fn, cfg.trainer, folder, timer=run.timer, deadline=run.deadline)
        run.resume(trainer)
        for step, batch, aux in trainer.run(batches):
            if run.evaluation_due(cfg.eval_every):
                ...
        run.close(evaluate=("images", "--evaluate", folder))

    Args:
        name: of the command, and of the folder that its runs lie in.
        runs: how many runs share this process, and so its minutes.
        began: `time.monotonic()` when the minutes began, by default now.
    """

    folder: Path | None = None
    trainer: "Trainer | None" = None

    def __init__(self, cfg: Any, name: str, runs: int = 1, began: float | None = None):
        from rlkit import runtime  # torch comes with it, which `--help` need not wait for
        from rlkit.logger import Timer

        check_bounds(cfg)
        check_divided(name, cfg)
        self.whole, self.ranks = cfg, all_ranks()
        self.cfg = cfg = self.ranks.share(cfg) if self.ranks else cfg
        self.name, self.beside = name, [self]
        self.deadline = Deadline(cfg.minutes, began, runs)
        self.device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
        self.timer = Timer()

    @classmethod
    def several(cls, cfg: Any, name: str) -> "list[Run]":
        """One run, or `cfg.together` of them with seeds that follow each other. Raises ValueError."""
        check_bounds(cfg)
        if all_ranks() and cfg.together > 1:
            raise ValueError("--together is for one process: start its seeds one by one where torchrun divides a run")
        if cfg.resume and cfg.together > 1:
            raise ValueError("--together is for new runs: each of them goes on by itself, with its own --resume")
        began = time.monotonic()
        alone = [dataclasses.replace(cfg, seed=cfg.seed + number, together=1) for number in range(cfg.together)]
        runs = [cls(one, name, len(alone), began) for one in alone]
        for run in runs:
            run.beside = runs
        return runs

    def open(self, name: str, data: Any = None) -> Path:
        """The folder of this run, see `open_run`."""
        whole = dataclasses.replace(self.whole, resume=self.cfg.resume)
        opened = functools.partial(open_run, whole, self.name, name, data)
        self.folder = self.ranks.open(opened) if self.ranks else opened()
        return self.folder

    def resume(self, trainer: "Trainer") -> bool:
        """Go on from the newest checkpoint, where the run is an old one; whether there was one. Raises DamagedFile."""
        from rlkit.logger import say

        self.trainer = trainer
        loaded = bool(self.cfg.resume) and trainer.load()
        if self.cfg.resume and not loaded:
            say(f"{self.folder} holds no checkpoint: starting at the beginning")
        self._start = trainer.clock[1]()
        return loaded

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """fp32 or bf16: what the trainer's setting means on this device."""
        from rlkit import runtime

        return runtime.precision(self.cfg.trainer.precision, self.device)

    @property
    def count(self) -> int:
        """Processes that learn this run's model."""
        return self.ranks.count if self.ranks else 1

    @property
    def leads(self) -> bool:
        """Whether this process evaluates and speaks, as the first of them does."""
        return not (self.ranks and self.ranks.rank)

    @property
    def stopped(self) -> bool:
        """Whether it is not for this process to evaluate in the end: a signal came to a run, or another rank does."""
        return not self.leads or any(run.trainer is not None and run.trainer.stopped for run in self.beside)

    def evaluation_due(self, every: float) -> bool:
        """Whether the trainer's clock has passed another multiple of `every`, not its end, and minutes remain for an
        evaluation now and for the last one, which follows the loop.
        """
        assert self.trainer, "run.resume(trainer) comes before the loop"
        _, now, end = self.trainer.clock
        multiple = now() // every if now() < end and self.leads else 0
        due = multiple > max(self._start // every, self._evaluated) and self.trainer.goes_on(evaluations=2)
        self._evaluated = multiple if due else self._evaluated
        return due

    _evaluated = 0.0

    def close(self, **commands: tuple) -> None:
        """End the log; print where the time went, how to go on, and further commands by their purpose."""
        from rlkit.logger import say

        if self.trainer:
            self.trainer.close()
        if self.ranks:
            self.ranks.close()
        say(self.timer.table())
        lines = {"go on": (self.name, "--resume", self.folder)} | commands
        width = max(map(len, lines)) + 1
        for purpose, words in lines.items():
            ranks = int(os.environ["LOCAL_WORLD_SIZE"]) if self.ranks and purpose == "go on" else 1
            say(f"{purpose + ':':<{width}} {command(*words, ranks=ranks)}")


def interleave(learners: Sequence[Generator[None, None, T]], runs: Sequence[Run]) -> list[T]:
    """Advance the learner of each run to its end, several of them in turns; returns what they return."""
    if len(runs) > 1:
        from rlkit.interleave import take_turns

        return take_turns(learners, runs)
    while True:
        try:
            next(learners[0])
        except StopIteration as end:
            return [end.value]


begun: list[tuple[Path, float, dict[str, bytes] | None]] = []
"""runs of this process: folder, when, and its files before it went on with them (None: there was no folder)"""
RUN_FILES = ("config.json", "command.txt", "data.json")


def open_run(cfg: Any, command: str, name: str, data: Any = None) -> Path:
    """The folder of a new run, or of the one that cfg.resume names, with config.json and command.txt in it. No other
    process may use it until this one ends.

    data: a rlkit.data_files.DataFiles, whose record is kept there too. Raises ValueError where a resumed run would
    change one of its `Fixed` fields, or its data, which may have moved.
    """
    from rlkit.runtime import threads  # torch comes with it

    kept = None
    if cfg.resume:
        from rlkit.saved_config import check_fixed, load_config  # a new run reads none

        folder = Path(cfg.resume)
        before = load_config(type(cfg), folder)
        kept = {file: read_bytes(folder / file) for file in RUN_FILES if (folder / file).exists()}
        check_fixed(cfg, before, folder)
        if data:
            data.check(folder, before)
    else:
        stem = f"{with_changes(name, cfg)}__{cfg.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
        for again in itertools.count(1):
            folder = Path("runs") / command / (stem if again == 1 else f"{stem}-{again}")
            with contextlib.suppress(FileExistsError):  # begun in the same second
                folder.mkdir(parents=True)
                break
    _lock(folder)
    begun.append((folder.absolute(), time.time(), kept))
    sweep(folder)
    values = dataclasses.asdict(cfg) | {"resume": None, "threads_in_use": threads()}
    config = CONFIGS[folder.absolute()] = json.dumps(values, indent=1)
    write_atomically(folder / "config.json", config.encode())
    if data:
        data.save(folder)
    with open(folder / "command.txt", "a", encoding="utf-8", errors="surrogateescape") as f:
        f.write(shlex.join([sys.executable, *sys.orig_argv[1:]]) + "\n")
    return folder


_locks: list[Any] = []
"""held until this process ends"""


def _lock(run_dir: Path) -> None:
    """Raise ValueError where another process goes on with this run: the two would overwrite each other's files."""
    try:
        import fcntl
    except ImportError:  # not on this system
        return
    check_regular(run_dir / ".lock")
    file = open(run_dir / ".lock", "w")  # noqa: SIM115
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{run_dir} is in use by another process; wait for its end, or begin a new run") from None
    except OSError:  # a file system without locks
        return
    _locks.append(file)


def command(*arguments: Any, ranks: int = 1) -> str:
    """`python -m experiments ARGUMENTS` with this Python, quoted: to be pasted into a shell."""
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    return shlex.join([sys.executable, *torchrun, "-m", "experiments", *map(str, arguments)])
