"""Compiled functions of the worlds: cached by the text of their sources, run over many games on several threads.

numba's own cache looks at the file that a function stands in and not at the files of the functions that it calls, so
an edit there would leave stale machine code. Here the cache's folder carries a hash of every file below `envs/` that
has such functions in it (they take constants and callees from each other only, which a test enforces).
"""

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import event
from numpy.typing import NDArray

config: Any = numba.config
HERE = Path(__file__).parent


def _folder() -> str:
    """Where the compiled forms of these very sources lie. Those of older ones go after a day without use."""
    text = hashlib.sha256(numba.__version__.encode())
    for path in sorted(HERE.rglob("*.py")):
        if b"envs.compiled import" in (source := path.read_bytes()) or path == Path(__file__):
            text.update(path.relative_to(HERE).as_posix().encode() + b"\0" + source + b"\0")
    base = Path(config.CACHE_DIR) if config.CACHE_DIR else HERE / "__pycache__"
    try:
        base.mkdir(parents=True, exist_ok=True)
        writable = os.access(base, os.W_OK)
    except OSError:
        writable = False
    if not writable:  # installed for all users
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lecture-rl"
    folder = base / f"compiled-{text.hexdigest()[:16]}"
    for old in base.glob("compiled-*"):
        with contextlib.suppress(FileNotFoundError):  # another process may clear up at the same time
            if old != folder and old.stat().st_mtime < time.time() - 86_400:
                shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    return str(folder)


FOLDER = _folder()


def kernel(function: Callable) -> Any:
    """Compile a function on its first call, for good: without the GIL, cached on disk.

    It may not allocate: `_nrt=False` takes numba's reference counts out, which cost eight times the work itself where
    small functions hand views of arrays to each other (measured on play-outs). So only Python and other kernels may
    call one: a function compiled with reference counts would count down what was never counted up, and crash.
    """
    options: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
    before, config.CACHE_DIR = config.CACHE_DIR, FOLDER  # numba reads it while it decorates
    try:
        return numba.njit(**options)(function)
    finally:
        config.CACHE_DIR = before


class _Tell(event.Listener):
    """Says once that a compilation is going on: it is the one thing here that makes a person wait."""

    told = False

    def on_start(self, event: Any) -> None:
        module = getattr(event.data.get("dispatcher"), "__module__", "")
        if not self.told and module.startswith(("envs.", "rlkit.")):
            self.told = True
            print(f"compiling {module} and what else is new, kept for the next start (seconds) ...", file=sys.stderr)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Tell())

_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_most = _threads  # that there ever were: working memory has room for so many
_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """A forked child has none of its parent's threads, and would wait for them for ever."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def set_threads(count: int) -> None:
    """How many threads the verbs over many games use from now on, at least 1."""
    global _threads, _most, _pool
    if count != _threads:
        _threads, _most, _pool = max(1, count), max(_most, count), None


def scratch(size: int) -> NDArray[np.int16]:
    """Working memory for a verb: [threads, 4, size]."""
    return np.empty((_most, 4, size), np.int16)


def over(function: Callable, games: int, *args: Any, least: int = 256) -> None:
    """Call function(slot, begin, end, *args) for consecutive shares of range(games), each on a thread of its own.

    The slot, in 0 .. threads - 1, says which part of the working memory a share may use. A hand-over to a thread
    takes about 30 us, so each gets at least `least` games.
    """
    global _pool
    shares = max(1, min(_threads, games // least))
    if shares == 1:
        function(0, 0, games, *args)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(_threads - 1, thread_name_prefix="envs")
    edges = [games * i // shares for i in range(shares + 1)]
    rest = [_pool.submit(function, i, edges[i], edges[i + 1], *args) for i in range(1, shares)]
    function(0, edges[0], edges[1], *args)
    for future in rest:
        future.result()
