"""A run on disk and its command line.

runs/<experiment>/<name>__<seed>__<time>/ holds config.json, command.txt, checkpoints/, agent/ and the events.
"""

import argparse
import contextlib
import dataclasses
import functools
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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin, get_type_hints

from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed

C = TypeVar("C")
T = TypeVar("T")
Bound = float | tuple[float, float]
"""the least of a number, or its least and most"""


def parse(presets: dict[str, C], args: list[str] | None = None) -> C:
    """The configuration that a command line asks for.

    `--preset NAME` chooses the defaults (the first preset where it is left out), `--resume PATH` takes those of a
    run; all other flags override them. Unknown flags are refused. The dataclass needs the fields `preset` and
    `resume`.
    """
    import tyro

    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=list(presets), default=next(iter(presets)))
    first.add_argument("--resume", type=Path)
    known, _ = first.parse_known_args(args)
    default = presets[known.preset]
    if known.resume:
        default = load_config(type(default), known.resume)
    return tyro.cli(type(default), args=args, default=default)


def cli(main: Callable[[C], Any], parse: Callable[[], C]) -> None:
    """main(parse()), with errors that a user can mend as one line (exit status 1); TRACEBACK=1 shows where.

    A run that an error ends before it has saved anything leaves nothing behind.
    """
    _begun.clear()
    try:
        main(parse())
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BaseException as error:
        if not isinstance(error, (NonFiniteLoss, SaveFailed, SystemExit)):
            _take_back()
        _explain(error)
        raise


def _explain(error: BaseException) -> None:
    """Exit with what a user can mend; return for other errors."""
    mendable = (DamagedFile, MemoryError, ModuleNotFoundError, NonFiniteLoss, OSError, OverflowError, SaveFailed)
    if isinstance(error, (*mendable, ValueError)) and not os.environ.get("TRACEBACK"):
        sys.exit(f"error: {error}\n(TRACEBACK=1 shows where this was raised)")


_begun: list[tuple[Path, float, dict[str, bytes] | None]] = []
"""runs of this process: folder, when, and its files before it went on with them (None: there was no folder)"""
_FILES = ("config.json", "command.txt")


def _take_back() -> None:
    """Undo the starts of runs that have left nothing since but what every start writes."""
    for run_dir, began, before in _begun:
        files = [path for path in run_dir.rglob("*") if path.is_file() and path.name not in (*_FILES, ".lock")]
        if any(path.stat().st_mtime >= began and not path.name.startswith("events.") for path in files):
            continue
        if before is None:
            shutil.rmtree(run_dir, ignore_errors=True)
        for name, data in (before or {}).items():
            (run_dir / name).write_bytes(data)
    _begun.clear()


def field(cfg: Any, name: str) -> Any:
    """The value of cfg.lr or, for `trainer.lr`, of cfg.trainer.lr."""
    return functools.reduce(getattr, name.split("."), cfg)


def flag(name: str) -> str:
    """How the command line calls a field; an agent's stand there without a prefix."""
    return "--" + re.sub("_(?=.)", "-", name.removeprefix("agent."))


TRAINER_BOUNDS: dict[str, Bound] = {"steps": 0, "log_every": 1, "save_every": 1, "accumulate": 1, "lr": 0, "clip": 0}


def within(cfg: Any, bounds: Mapping[str, Bound]) -> None:
    """Raise ValueError where a field is below its bound or not between its two, or one of a `trainer` below its own."""
    if hasattr(cfg, "trainer"):
        bounds = {f"trainer.{name}": bound for name, bound in TRAINER_BOUNDS.items()} | dict(bounds)
    for name, bound in bounds.items():
        value, (low, high) = field(cfg, name), bound if isinstance(bound, tuple) else (bound, math.inf)
        if not low <= value <= high:
            wanted = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise ValueError(f"{flag(name)} must be {wanted}, not {value}")


def load_config(kind: type[C], run_dir: Path) -> C:
    """The configuration of a run. Raises FileNotFoundError, and ValueError for keys that `kind` does not have."""
    path = Path(run_dir) / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{run_dir} is no run: it has no config.json")
    try:
        values = json.loads(path.read_text())
        values.pop("threads_in_use", None)  # for people
        return from_dict(kind, values, str(path))
    except (AttributeError, TypeError, json.JSONDecodeError) as error:
        raise DamagedFile(f"{path} is no configuration: {error}") from error


def from_dict(kind: type[C], values: dict[str, Any], where: str) -> C:
    """A dataclass (and the dataclasses in it) from plain values; unknown keys are refused."""
    hints = get_type_hints(kind)
    if unknown := set(values) - set(hints):
        raise ValueError(
            f"{where} has unknown keys: {', '.join(sorted(unknown))}; is it a run of another experiment, or version?"
        )

    def restored(hint: Any, value: Any) -> Any:
        if dataclasses.is_dataclass(hint):
            return from_dict(hint, value, where)  # type: ignore[arg-type]
        return tuple(value) if get_origin(hint) is tuple else value  # JSON has lists only

    return kind(**{key: restored(hints[key], value) for key, value in values.items()})


def start(cfg: Any, experiment: str, name: str, fixed: tuple[str, ...] = ("preset",), root: str = "runs") -> Path:
    """The folder of a new run, or of the one that cfg.resume names, with config.json and command.txt in it.

    Raises ValueError where a resumed run would change one of its `fixed` fields.
    """
    from rlkit.checkpoint import write_atomically  # torch comes with both
    from rlkit.runtime import threads

    if cfg.resume:
        run_dir = Path(cfg.resume)
        before = load_config(type(cfg), run_dir)
        kept = {name: (run_dir / name).read_bytes() for name in _FILES if (run_dir / name).exists()}
        for name in fixed:
            if (old := field(before, name)) != field(cfg, name):
                raise ValueError(f"{flag(name)} cannot change when a run goes on: {run_dir} has {old}; begin a new run")
    else:
        kept = None
        stem = f"{name}__{cfg.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
        for again in itertools.count(1):
            run_dir = Path(root) / experiment / (stem if again == 1 else f"{stem}-{again}")
            with contextlib.suppress(FileExistsError):  # begun in the same second
                run_dir.mkdir(parents=True)
                break
    _lock(run_dir)
    _begun.append((run_dir.absolute(), time.time(), kept))
    config = dataclasses.asdict(cfg) | {"resume": None, "threads_in_use": threads()}
    write_atomically(run_dir / "config.json", json.dumps(config, indent=1).encode())
    with open(run_dir / "command.txt", "a", encoding="utf-8", errors="surrogateescape") as f:
        f.write(shlex.join([sys.executable, *sys.orig_argv[1:]]) + "\n")
    return run_dir


_locks: list[Any] = []
"""held until this process ends"""


def _lock(run_dir: Path) -> None:
    """Raise ValueError where another process goes on with this run: the two would overwrite each other's files."""
    try:
        import fcntl
    except ImportError:  # not on this system
        return
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


def perform(module: str, arguments: list[str], folder: Path) -> int:
    """The exit status of `python -m module arguments`, in a process of its own, in `folder`.

    Raises KeyboardInterrupt where one came meanwhile, once the process has saved and ended.
    """
    root = Path(__file__).parents[1]
    paths = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", module, *arguments]
    # In a process group of its own it hears of a signal once, from here: the first lets it save, a second ends it.
    process = subprocess.Popen(command, cwd=folder, env=os.environ | {"PYTHONPATH": paths}, start_new_session=True)
    stopped = False
    while True:
        try:
            code = process.wait()
            break
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            stopped = True
    if stopped:
        raise KeyboardInterrupt
    return code
