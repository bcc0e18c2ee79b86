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
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed
from rlkit.files import check_regular, read_bytes, read_json, sweep, write_atomically
from rlkit.processes import signals_interrupt

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
    "num_envs", "replay", "batch_size", "eval_episodes", "together", "games", "channels", "blocks", "layers", "width",
    "hidden", "context",
)  # fmt: skip
"""fields that memory goes by"""


def _explain(error: BaseException, cfg: Any) -> None:
    """Exit with what a user can mend; return for other errors."""
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, TypeError)) and re.search(NO_MEMORY, text)):
        flags = [flag(name) for name in SIZES if hasattr(cfg, name) or hasattr(getattr(cfg, "agent", None), name)]
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


def field(cfg: Any, name: str) -> Any:
    """The value of cfg.lr or, for `trainer.lr`, of cfg.trainer.lr."""
    return functools.reduce(getattr, name.split("."), cfg)


def flag(name: str) -> str:
    """How the command line calls a field; an agent's stand there without a prefix."""
    return "--" + re.sub("_(?=.)", "-", name.removeprefix("agent."))


TRAINER_BOUNDS: dict[str, Bound] = {
    "steps": 0, "lr": 0, "eps": 0, "momentum": (0, 1), "weight_decay": 0, "lr_warmup": 0, "lr_final": 0, "clip": 0,
    "accumulate": 1, "ema": (0, 1), "log_every": 1, "save_every": 1,
}  # fmt: skip


def within(cfg: Any, bounds: Mapping[str, Bound]) -> None:
    """Raise ValueError where a field is below its bound or not between its two, or one of a `trainer` below its own,
    and where any number is not finite. None, which stands for a default, is within every bound.
    """
    _check_finite(cfg)
    if hasattr(cfg, "trainer"):
        bounds = {f"trainer.{name}": bound for name, bound in TRAINER_BOUNDS.items()} | dict(bounds)
    for name, bound in bounds.items():
        value, (low, high) = field(cfg, name), bound if isinstance(bound, tuple) else (bound, math.inf)
        if value is not None and not low <= value <= high:
            wanted = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise ValueError(f"{flag(name)} must be {wanted}, not {value}")


def _check_finite(cfg: Any, prefix: str = "") -> None:
    for f in dataclasses.fields(cfg):
        value, name = getattr(cfg, f.name), prefix + f.name
        if dataclasses.is_dataclass(value):
            _check_finite(value, f"{name}.")
        elif any(
            isinstance(x, float) and not math.isfinite(x) for x in (value if isinstance(value, tuple) else [value])
        ):
            raise ValueError(f"{flag(name)} must be finite, not {value}")


def load_config(kind: type[C], run_dir: Path) -> C:
    """The configuration of a run; a lost config.json is written anew from the newest whole checkpoint.

    Raises FileNotFoundError, DamagedFile, and ValueError for keys that `kind` does not have.
    """
    path = Path(run_dir) / "config.json"
    try:
        return _config_from(kind, read_json(path), path)
    except (DamagedFile, OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        if found := _recovered(kind, path, f"{path} is missing" if missing else str(error)):
            return found
        raise FileNotFoundError(f"{run_dir} is no run: it has no config.json") if missing else error from None


def _config_from(kind: type[C], values: dict[str, Any], path: Path) -> C:
    return from_dict(kind, {name: value for name, value in values.items() if name != "threads_in_use"}, str(path))


def _recovered(kind: type[C], path: Path, why: str) -> C | None:
    """Write config.json anew from a checkpoint of its run, and say so; None where none has a fitting one."""
    from rlkit.checkpoint import checkpoints, load_checkpoint  # torch comes with it
    from rlkit.logger import say

    for folder in [*path.parent.glob("checkpoints"), *path.parent.glob("*/checkpoints")]:
        for saved in checkpoints(folder):
            with contextlib.suppress(DamagedFile, ValueError):
                if text := load_checkpoint(saved).get("config"):
                    cfg = _config_from(kind, json.loads(text), saved)
                    write_atomically(path, text.encode())
                    say(f"{why}; written anew from {saved}")
                    return cfg
    return None


def from_dict(kind: type[C], values: dict[str, Any], where: str) -> C:
    """A dataclass (and the dataclasses in it) from plain values. Raises DamagedFile for values of other types than its
    fields', ValueError for unknown keys.
    """
    hints = get_type_hints(kind)
    if unknown := set(values) - set(hints):
        raise ValueError(
            f"{where} has unknown keys: {', '.join(sorted(unknown))}; is it a run of another experiment, or version?"
        )
    return kind(**{key: _restored(hints[key], value, f"{where}: {key}") for key, value in values.items()})


def _restored(hint: Any, value: Any, where: str) -> Any:
    """What JSON has for a field of this type."""
    kind, inner = get_origin(hint), get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if kind is tuple and isinstance(value, list):  # JSON has lists only
        return tuple(_restored(inner[0], item, where) for item in value)
    for one in inner if kind in (Union, UnionType) else ():
        with contextlib.suppress(DamagedFile):
            return _restored(one, value, where)
    if type(value) is hint or (hint is float and type(value) is int) or (kind is Literal and value in inner):
        return value
    raise DamagedFile(f"{where} cannot be {value!r}")


def start(
    cfg: Any,
    experiment: str,
    name: str,
    fixed: tuple[str, ...] = ("preset",),
    root: str = "runs",
    data: Any = None,
) -> Path:
    """The folder of a new run, or of the one that cfg.resume names, with config.json and command.txt in it.

    data: a rlkit.data_files.DataFiles, whose record is kept there too. Raises ValueError where a resumed run would
    change one of its `fixed` fields, or its data, which may have moved.
    """
    from rlkit.runtime import threads  # torch comes with it

    if cfg.resume:
        run_dir = Path(cfg.resume)
        before = load_config(type(cfg), run_dir)
        kept = {name: read_bytes(run_dir / name) for name in _FILES if (run_dir / name).exists()}
        for name in fixed:
            if (old := field(before, name)) != field(cfg, name):
                raise ValueError(f"{flag(name)} cannot change when a run goes on: {run_dir} has {old}; begin a new run")
        if data:
            data.check(run_dir, before)
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
    sweep(run_dir)
    values = dataclasses.asdict(cfg) | {"resume": None, "threads_in_use": threads()}
    config = configs[run_dir.absolute()] = json.dumps(values, indent=1)
    write_atomically(run_dir / "config.json", config.encode())
    if data:
        data.save(run_dir)
    with open(run_dir / "command.txt", "a", encoding="utf-8", errors="surrogateescape") as f:
        f.write(shlex.join([sys.executable, *sys.orig_argv[1:]]) + "\n")
    return run_dir


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
