"""The one place where functions are compiled: kept on disk by the text of their sources, run on several threads.

numba's own cache looks at the file that a function stands in and not at the files of the functions that it calls, so
an edit there would leave stale machine code. It also trusts what it reads, and processes that fill it at the same time
can take each other's files for their own. So compiled functions are kept here:

    compiled-<hash of versions and of all files with such functions>/<function>-<hash of its types and of the CPU>
        sha256 of the rest | pickle of (what it is, machine code)

Files with compiled functions take constants and callees from each other only, which a test enforces. Whatever is
damaged, missing or cannot be written costs time, never the run.
"""

import contextlib
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llvmlite
import numba
import numpy as np
from numba import prange as prange
from numba.core import event, serialize
from numba.core.caching import NullCache
from numba.core.compiler import CompileResult
from numpy.typing import NDArray

config: Any = numba.config
types: Any = numba.types
ROOT = Path(__file__).parent.parent
PACKAGES = ("agents", "envs", "rlkit")
DAY = 86_400.0  # seconds
ELSEWHERE = "NUMBA_CACHE_DIR=FOLDER names another"


def _find_sources() -> dict[Path, bytes]:
    """The text of every file that compiled functions come from."""
    sources = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            with contextlib.suppress(OSError):  # such as an editor's lock, a link to nowhere
                if b"rlkit.compiled import" in (text := path.read_bytes()) or path == Path(__file__):
                    sources[path] = text
    return sources


def _is_private(status: os.stat_result) -> bool:
    """Whether nobody but this user can have written it: loading a compiled function runs it."""
    return not hasattr(os, "geteuid") or (status.st_uid == os.geteuid() and not status.st_mode & 0o022)


def _make_folder(folder: Path) -> None:
    """Make it, for this user alone. Raises OSError where that cannot be had."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(0o700, exist_ok=True)
    if not _is_private(folder.lstat()) or not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} is not this user's alone")


def _sweep(folder: Path) -> None:
    """Remove what a day without use has left: folders of older sources, files that were never finished."""
    others = (p for p in folder.parent.glob("compiled-*") if re.fullmatch("compiled-[0-9a-f]{16}", p.name))
    for path in [*others, *folder.glob("*.new")]:
        with contextlib.suppress(OSError):  # another process may clear up at the same time
            if path != folder and path.lstat().st_mtime < time.time() - DAY:
                path.unlink() if path.suffix else shutil.rmtree(path)


def _find_folder(sources: dict[Path, bytes]) -> Path | None:
    """Where the compiled forms of these very sources are kept; None where there is no place."""
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    text = hashlib.sha256(repr(versions).encode())
    for path, source in sources.items():
        text.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + hashlib.sha256(source).digest())
    first = Path(config.CACHE_DIR).absolute() if config.CACHE_DIR else Path(__file__).parent / "__pycache__"
    user = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    for base in (first, user / "lecture-rl"):
        folder = base / f"compiled-{text.hexdigest()[:16]}"
        with contextlib.suppress(OSError):
            if base.is_absolute():  # without a home, ~ stays as it is
                _make_folder(folder)
                os.utime(folder)
                _sweep(folder)
                return folder
    return None


SOURCES = _find_sources()
FOLDER = _find_folder(SOURCES)


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # standard error may be closed, or lie on the full disk
        print(text, file=sys.stderr)


def _bundles(kinds: Iterable[Any]) -> list[tuple[str, ...]]:
    """What the text of their types leaves out of NamedTuples, wherever these are defined: module, name and fields."""
    found = []
    for kind in kinds:
        if isinstance(kind, types.BaseNamedTuple):
            found.append((kind.instance_class.__module__, kind.instance_class.__qualname__, *kind.fields))
        found += _bundles(kind) if isinstance(kind, types.BaseTuple) else []
    return found


class _Cache(NullCache):
    """What numba asks for the compiled forms of one function: a file for each, whose name is a hash of what it is."""

    saves = True  # until that fails, for all functions

    def __init__(self, function: Callable) -> None:
        self.name = function.__name__
        self.key = (function.__module__, function.__qualname__, function.__code__.co_code)

    def _entry(self, kinds: Any, codegen: Any) -> tuple[Path, tuple]:
        """The file of this function with arguments of these types on this CPU, and the whole of what it is."""
        key = (*self.key, kinds, _bundles(kinds), codegen.magic_tuple())
        assert FOLDER is not None
        return FOLDER / f"{self.name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}", key

    def load_overload(self, kinds: Any, context: Any) -> CompileResult | None:
        context.refresh()
        if FOLDER is None:
            return None
        path, key = self._entry(kinds, context.codegen())
        try:
            with open(path, "rb") as file:
                checksum, data = file.read(32), file.read()
                if hashlib.sha256(data).digest() != checksum or not _is_private(os.fstat(file.fileno())):
                    return None
            found, parts = serialize.loads(data)
            return CompileResult._rebuild(context, *parts) if found == key else None
        except Exception:  # it was not there, cannot be read, or does not fit: compile it anew
            return None

    def save_overload(self, kinds: Any, compiled: Any) -> None:
        if FOLDER is None or not _Cache.saves or compiled.library.has_dynamic_globals:
            return
        path, key = self._entry(kinds, compiled.codegen)
        data = serialize.dumps((key, compiled._reduce()))
        try:
            _make_folder(FOLDER)  # a process with other sources may have swept it
            handle, new = tempfile.mkstemp(".new", dir=FOLDER)
            try:
                with open(handle, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                os.replace(new, path)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise
        except OSError as error:
            _Cache.saves = False
            _say(f"compiled functions are not kept ({error.strerror or error}: {FOLDER}); {ELSEWHERE}")


def _compile(function: Callable, **options: Any) -> Any:
    """A function that is compiled when it first meets these types of arguments, or loaded if that was done before."""
    dispatcher = numba.njit(**options)(function)
    if Path(function.__code__.co_filename) in SOURCES and hasattr(dispatcher, "_cache"):  # not with NUMBA_DISABLE_JIT
        dispatcher._cache = _Cache(function)
    return dispatcher


def kernel(function: Callable) -> Any:
    """Compile a function without the GIL; one of a file in `agents`, `envs` or `rlkit` is kept on disk.

    It may not allocate: `_nrt=False` takes numba's reference counts out, which cost eight times the work itself where
    small functions hand views of arrays to each other (measured on play-outs). So only Python and other kernels may
    call one: a function compiled with reference counts would count down what was never counted up, and crash.
    """
    return _compile(function, nogil=True, error_model="numpy", _nrt=False)


def inline_kernel(function: Callable) -> Any:
    """A kernel that becomes a part of those that call it: a call hands the arrays of a bundle over one by one, which
    took 50 ns for a search's tree.
    """
    return _compile(function, nogil=True, error_model="numpy", _nrt=False, forceinline=True)


def parallel_kernel(function: Callable) -> Any:
    """Compile a function whose loops over `prange` run on numba's threads, kept on disk. No kernel may call it."""
    return _compile(function, parallel=True)


class _Announce(event.Listener):
    """Says once that a compilation is going on: it is the one thing here that makes a person wait."""

    announced = False

    def on_start(self, event: Any) -> None:
        module = getattr(event.data.get("dispatcher"), "__module__", "")
        if not self.announced and module.startswith(tuple(f"{package}." for package in PACKAGES)):
            self.announced = True
            kept = "kept for the next start" if FOLDER else f"at every start: no folder can keep it; {ELSEWHERE}"
            _say(f"compiling {module} and what else is new, {kept} (seconds) ...")

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announce())

_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_most = _threads  # the most threads there ever were: working memory has room for all of them
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


def parallel_for(function: Callable, games: int, *args: Any, least: int = 256) -> None:
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
        _pool = ThreadPoolExecutor(_threads - 1, thread_name_prefix="kernels")
    edges = [games * i // shares for i in range(shares + 1)]
    rest = [_pool.submit(function, i, edges[i], edges[i + 1], *args) for i in range(1, shares)]
    function(0, edges[0], edges[1], *args)
    for future in rest:
        future.result()
