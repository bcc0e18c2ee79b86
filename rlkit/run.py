"""What every run of every command shares: a folder, a lock, a device, minutes, a resume, last lines.

runs/<experiment>/<name>__<seed>__<time>/ holds config.json, command.txt, checkpoints/, agent/ and the events.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rlkit.config import check_bounds, check_fixed, fields, load_config
from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed
from rlkit.files import check_regular, read_bytes, sweep, write_atomically
from rlkit.processes import signals_interrupt

if TYPE_CHECKING:
    from rlkit.trainer import Trainer

C = TypeVar("C")
T = TypeVar("T")


def cli(main: Callable[[C], Any], parse: Callable[[], C]) -> None:
    """main(parse()), with errors that a user can mend as one line (exit status 1); TRACEBACK=1 shows where.

    A run that an error ends before it has saved anything leaves nothing behind. SIGTERM and SIGHUP interrupt as Ctrl-C
    does: main may catch the KeyboardInterrupt and finish what it has, and the exit status is 128 + the signal's number.
    """
    _begun.clear()
    threading.excepthook = _of_thread
    with signals_interrupt() as stopped:
        cfg = None
        try:
            main(cfg := parse())
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(128 + (*stopped, signal.SIGINT)[0])
        except BaseException as error:
            if not isinstance(error, (NonFiniteLoss, SaveFailed, SystemExit)):
                _take_back()
            _explain(error, cfg)
            raise
    if stopped:
        sys.exit(128 + stopped[0])


def _of_thread(args: Any) -> None:
    """TensorBoard's thread keeps an error of the disk for the next call, which raises it: it is not told twice."""
    if not issubclass(args.exc_type, OSError) or os.environ.get("TRACEBACK"):
        threading.__excepthook__(args)


SIZES = (
    "--num-envs", "--replay", "--batch-size", "--eval-episodes", "--together", "--games", "--channels", "--blocks",
    "--layers", "--width", "--hidden", "--context",
)  # fmt: skip
"""what memory goes by"""


def _explain(error: BaseException, cfg: Any) -> None:
    """Exit with what a user can mend; return for other errors."""
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, TypeError)) and re.search(NO_MEMORY, text)):
        flags = [field.flag for field in fields(cfg) if field.flag in SIZES] if cfg else []
        remedy = f"lower {', '.join(flags)}" if flags else "ask for less"
        error, text = MemoryError(), f"there is not enough memory: {remedy} ({text.partition(chr(10))[0] or 'no more'})"
    mendable = (DamagedFile, MemoryError, ModuleNotFoundError, NonFiniteLoss, OSError, OverflowError, SaveFailed)
    if isinstance(error, (*mendable, ValueError)) and not os.environ.get("TRACEBACK"):
        sys.exit(f"error: {text}\n(TRACEBACK=1 shows where this was raised)")


NO_MEMORY = (
    "allocate memory|out of memory|Storage size calculation overflowed|Overflow when unpacking long|numel: integer"
)
"""what torch says of it"""


_begun: list[tuple[Path, float, dict[str, bytes] | None]] = []
"""runs of this process: folder, when, and its files before it went on with them (None: there was no folder)"""
_FILES = ("config.json", "command.txt", "data.json")


def _take_back() -> None:
    """Undo the starts of runs that have left nothing since but what every start writes."""
    for run_dir, began, before in _begun:
        files = [path for path in run_dir.rglob("*") if path.is_file() and path.name not in (*_FILES, ".lock")]
        if any(path.stat().st_mtime >= began and not path.name.startswith("events.") for path in files):
            continue
        if before is None:
            shutil.rmtree(run_dir, ignore_errors=True)
        for name, data in (before or {}).items():
            with contextlib.suppress(OSError):  # what is to be told is the error that led here
                if (run_dir / name).read_bytes() != data:
                    write_atomically(run_dir / name, data)
    _begun.clear()


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
        runs: that share this process, and so its minutes.
        began: `time.monotonic()` when the minutes began, by default now.
    """

    folder: Path | None = None
    trainer: "Trainer | None" = None

    def __init__(self, cfg: Any, name: str, runs: int = 1, began: float | None = None):
        from rlkit import runtime  # torch comes with it, which `--help` need not wait for
        from rlkit.logger import Timer

        check_bounds(cfg)
        self.cfg, self.name, self.beside = cfg, name, [self]
        self.deadline = Deadline(cfg.minutes, began, runs)
        self.device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
        self.timer = Timer()

    @classmethod
    def several(cls, cfg: Any, name: str) -> "list[Run]":
        """One run, or `cfg.together` of them with seeds that follow each other. Raises ValueError."""
        check_bounds(cfg)
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
        self.folder = open_run(self.cfg, self.name, name, data)
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
        from rlkit.runtime import fastest_precision

        wanted = self.cfg.trainer.precision
        return fastest_precision(self.device) if wanted == "auto" else wanted

    @property
    def stopped(self) -> bool:
        """Whether a signal has asked this run, or one beside it, to end: nobody will wait for an evaluation then."""
        return any(run.trainer is not None and run.trainer.stopped for run in self.beside)

    def evaluation_due(self, every: float) -> bool:
        """Whether the trainer's clock has passed another multiple of `every`, and minutes remain for an evaluation now
        and for the last one, which follows the loop.
        """
        assert self.trainer, "run.resume(trainer) comes before the loop"
        multiple = self.trainer.clock[1]() // every
        due = multiple > max(self._start // every, self._evaluated) and self.trainer.goes_on(evaluations=2)
        self._evaluated = multiple if due else self._evaluated
        return due

    _evaluated = 0.0

    def close(self, **commands: tuple) -> None:
        """End the log, and say where the time went and how to go on; `commands`: what else to type, by its purpose."""
        from rlkit.logger import say

        if self.trainer:
            self.trainer.close()
        say(self.timer.table())
        lines = {"go on": (self.name, "--resume", self.folder)} | commands
        width = max(map(len, lines)) + 1
        for purpose, words in lines.items():
            say(f"{purpose + ':':<{width}} {command(*words)}")


def open_run(cfg: Any, command: str, name: str, data: Any = None) -> Path:
    """The folder of a new run, or of the one that cfg.resume names, with config.json and command.txt in it. No other
    process may use it until this one ends.

    data: a rlkit.data_files.DataFiles, whose record is kept there too. Raises ValueError where a resumed run would
    change one of its `Fixed` fields, or its data, which may have moved.
    """
    from rlkit.runtime import threads  # torch comes with it

    kept = None
    if cfg.resume:
        folder = Path(cfg.resume)
        before = load_config(type(cfg), folder)
        kept = {file: read_bytes(folder / file) for file in _FILES if (folder / file).exists()}
        check_fixed(cfg, before, folder)
        if data:
            data.check(folder, before)
    else:
        stem = f"{name}__{cfg.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
        for again in itertools.count(1):
            folder = Path("runs") / command / (stem if again == 1 else f"{stem}-{again}")
            with contextlib.suppress(FileExistsError):  # begun in the same second
                folder.mkdir(parents=True)
                break
    _lock(folder)
    _begun.append((folder.absolute(), time.time(), kept))
    sweep(folder)
    values = dataclasses.asdict(cfg) | {"resume": None, "threads_in_use": threads()}
    config = configs[folder.absolute()] = json.dumps(values, indent=1)
    write_atomically(folder / "config.json", config.encode())
    if data:
        data.save(folder)
    with open(folder / "command.txt", "a", encoding="utf-8", errors="surrogateescape") as f:
        f.write(shlex.join([sys.executable, *sys.orig_argv[1:]]) + "\n")
    return folder


configs: dict[Path, str] = {}
"""config.json of the runs of this process, which goes into their checkpoints too"""
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


class Deadline:
    """When a command that was given `minutes` has to be over, its last evaluation and save included; 0: never.

    Args:
        began: `time.monotonic()` when the minutes began, by default now.
        runs: that share them in this process, and evaluate one after the other.
    """

    def __init__(self, minutes: float, began: float | None = None, runs: int = 1):
        self.seconds, self.runs = 60 * minutes if minutes else math.inf, runs
        self.end = (time.monotonic() if began is None else began) + self.seconds
        self.evaluation = 0.0 if self.seconds == math.inf else 0.05 * self.seconds
        """seconds that the last evaluation will take: a guess, until one was measured"""

    def left(self) -> float:
        """Seconds until the end; below 0 behind it."""
        return self.end - time.monotonic()

    def share(self, parts: int) -> "Deadline":
        """One of so many equal parts of the time that is left."""
        return self if self.end == math.inf else Deadline(max(self.left(), 1e-3) / parts / 60)

    def in_time(self, parts: Iterable[T]) -> Iterator[T]:
        """The parts, of a measurement say, until the end has come; the first in any case."""
        for number, part in enumerate(parts):
            if number and self.left() < 0:
                break
            yield part

    def reached(self, timer: Mapping[str, float], evaluations: int = 1) -> bool:
        """Whether no more is left than what follows the loop takes: so many evaluations, and two saves, as long as the
        `timer.latest` of both say; half of the time at most.
        """
        if self.seconds == math.inf:
            return False
        evaluation = timer.get("evaluate", self.evaluation)
        follows = self.runs * (evaluations * evaluation + 2 * timer.get("save", 0.01 * self.seconds))
        return self.left() <= min(1.1 * follows, self.seconds / 2)


def git_hash() -> str:
    """Short hash of the checkout this runs in, with + where it was changed; empty outside one."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def command(*arguments: Any) -> str:
    """`python -m experiments ARGUMENTS` with this Python, quoted: to be pasted into a shell."""
    return shlex.join([sys.executable, "-m", "experiments", *map(str, arguments)])
