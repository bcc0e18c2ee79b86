"""What a command line is: flags to a configuration, a signal to an end, an error to one line.

cli(main, lambda: parse(PRESETS))
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import tyro

from rlkit.config import fields
from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed
from rlkit.files import write_atomically
from rlkit.run import RUN_FILES, begun
from rlkit.saved_config import load_config
from rlkit.signals import signals_interrupt

C = TypeVar("C")


def parse(presets: dict[str, C], args: list[str] | None = None, fitting: Callable[[C], str] | None = None) -> C:
    """The configuration that a command line asks for.

    `--preset NAME` chooses the defaults (where it is left out, that which `fitting` says for the first one's settings
    with the flags of this command line, or the first), `--resume PATH` takes those of a run; all other flags override
    them. Unknown flags are refused.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", choices=list(presets))
    first.add_argument("--resume", type=Path)
    known, _ = first.parse_known_args(args)
    words = sys.argv[1:] if args is None else args
    name = known.preset or next(iter(presets))
    if fitting and not (known.preset or known.resume or {"-h", "--help"} & {*words}):
        name = fitting(tyro.cli(type(presets[name]), args=args, default=presets[name]))
    default = presets[name]
    if known.resume:
        default = load_config(type(default), known.resume)
    about = f"{type(default).__doc__}\n\nPresets: {', '.join(presets)}."
    return tyro.cli(type(default), args=args, default=default, description=about)


def cli(main: Callable[[C], Any], parse: Callable[[], C]) -> None:
    """main(parse()), with errors that a user can mend as one line (exit status 1); TRACEBACK=1 shows where.

    A run that an error ends before it has saved anything leaves nothing behind. SIGTERM and SIGHUP interrupt as Ctrl-C
    does: main may catch the KeyboardInterrupt and finish what it has, and the exit status is 128 + the signal's number.
    """
    begun.clear()
    threading.excepthook = _of_thread
    with signals_interrupt() as stopped:
        cfg = None
        try:
            main(cfg := parse())
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(128 + (*stopped, signal.SIGINT)[0])
        except BaseException as error:
            if isinstance(error, MemoryError):
                traceback.clear_frames(error.__traceback__)  # what filled the memory hangs on them
            if not isinstance(error, (NonFiniteLoss, SaveFailed, SystemExit)):
                _take_back()
            _explain(error, cfg)
            raise
    if stopped:
        sys.exit(128 + stopped[0])


def _of_thread(args: Any) -> None:
    """TensorBoard's thread keeps an error of the disk for the next call, which raises it: it is not printed twice."""
    if not issubclass(args.exc_type, OSError) or os.environ.get("TRACEBACK"):
        threading.__excepthook__(args)


SIZES = (
    "--num-envs", "--replay", "--batch-size", "--eval-episodes", "--together", "--games", "--channels", "--blocks",
    "--layers", "--width", "--hidden", "--context",
)  # fmt: skip
"""flags of sizes that memory depends on"""


def _explain(error: BaseException, cfg: Any) -> None:
    """Exit with one line for errors that a user can mend; return for others."""
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
"""in torch's messages where memory has run out"""


def _take_back() -> None:
    """Remove (or restore) the folders of runs that have written nothing but what every run writes when it begins."""
    for run_dir, began, before in begun:
        files = [path for path in run_dir.rglob("*") if path.is_file() and path.name not in (*RUN_FILES, ".lock")]
        if any(path.stat().st_mtime >= began and not path.name.startswith("events.") for path in files):
            continue
        if before is None:
            shutil.rmtree(run_dir, ignore_errors=True)
        for name, data in (before or {}).items():
            with contextlib.suppress(OSError):  # the error to report is the one that led here
                if (run_dir / name).read_bytes() != data:
                    write_atomically(run_dir / name, data)
    begun.clear()
