"""Actors: objects in other processes, on this machine or on a Ray cluster, that are called without waiting.

    with Actors(make, ActorConfig(actors=2)) as actors:       # each is what make(index, start) returns, made there
        for index in actors.idle:
            actors.call(index, "play", weights)
        for index, result in actors.results():
            ...

An actor has one call at a time. One that dies, or does not answer in time, is replaced by make(index, start + 1): what
it had not handed back is lost, and nothing comes twice. Ray ends the actors of a process that ends, however it ends.
"""

import dataclasses
import functools
import hashlib
import logging
import math
import os
import platform
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from rlkit.config import AtLeast
from rlkit.logger import say

T = TypeVar("T", bound=Hashable)
LOST = object()
"""in place of the result of a call"""
ROOT = Path(__file__).parent.parent.parent
SOURCES = "rlkit", "agents", "envs", "experiments"
START_SECONDS = 120
"""for actors to begin, where there are CPUs for them: they import torch, and may compile kernels"""
MOST_FAILURES = 5
"""losses of an actor in a row without a result between them, or of those who had the same thing to do"""
ANSWER_SECONDS = 10
"""for a cluster to answer at its address"""


@dataclass
class ActorConfig:
    """How many other processes share the work, and where."""

    actors: Annotated[int, AtLeast(0)] = 0
    """processes that share the work, by Ray; 0: this one alone"""
    ray: str | None = None
    """address of a Ray cluster, as HOST:6379, whose machines the actors run on; default: this machine"""
    actor_timeout: Annotated[float, AtLeast(1)] = 600.0
    """seconds after which an actor that has not answered is given up and replaced"""
    object_store_mb: Annotated[int, AtLeast(80)] = 200
    """megabytes for what is under way between processes, where Ray runs on this machine alone"""
    actor_gpus: Annotated[float, AtLeast(0)] = 0.0
    """share of a GPU that each actor has, 0.25 say; 0: actors play on CPUs"""


@functools.cache
def versions() -> dict[str, str]:
    """What must be the same where experience is made and where it is learned from."""
    import torch

    code = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            code.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return {"code": code.hexdigest()[:12], "torch": torch.__version__, "Python": platform.python_version()}


class Actors:
    """`cfg.actors` objects of make(index, start), each in a process of its own.

    Args:
        make: a function that a worker can import, with arguments that can be pickled.
        cpus: cores of each actor.

    Raises ModuleNotFoundError without Ray; ValueError for more actors than CPUs, other versions than here, and actors
    that do not begin; ConnectionError where no cluster answers.
    """

    def __init__(self, make: Callable[[int, int], Any], cfg: ActorConfig, cpus: int = 1):
        self.cfg, self.make, self.cpus = cfg, make, cpus
        self.ray = _ray()
        self._began = _connect(self.ray, cfg)
        self.starts = [0] * cfg.actors
        """of each actor, how many there were before it"""
        self.idle: set[int] = set()
        self.lost = 0
        self._failures = [0] * cfg.actors
        """of each, how many in a row were lost without a result"""
        self._error: Exception | None = None
        """of a call, to be raised next"""
        self._handles: list[Any] = [None] * cfg.actors
        self._calls: dict[Any, tuple[int, float]] = {}
        """calls under way: actor, and `time.monotonic()` when it is given up"""
        self._beginning: dict[int, float] = {}
        """actors that have not answered yet, and when they should have: they may wait for a CPU for ever"""
        try:
            resources = self.ray.cluster_resources()
            for what, each in (("CPU", cpus), ("GPU", cfg.actor_gpus)):
                if cfg.actors * each > (there := resources.get(what, 0)):
                    of = "" if each == 1 else f" of {each:g} {what}s each"
                    raise ValueError(f"--actors {cfg.actors}{of} are more than the {there:g} {what}s there are")
            for index in range(cfg.actors):
                self._begin(index)
            end = time.monotonic() + START_SECONDS
            while len(self.idle) < cfg.actors:
                self.results(1.0)
                if time.monotonic() > end:
                    missing = cfg.actors - len(self.idle)
                    late = f"did not begin within {START_SECONDS} s"
                    raise ValueError(f"{missing} of {cfg.actors} actors {late}: are all CPUs (or GPUs) in use?")
        except BaseException:
            self.close()
            raise

    def _begin(self, index: int) -> None:
        host = self.ray.remote(num_cpus=self.cpus, num_gpus=self.cfg.actor_gpus, max_restarts=0)(_Host)
        self._handles[index] = host.remote()
        begun = self._handles[index].begin.remote(self.make, index, self.starts[index], self.cpus)
        self._calls[begun] = index, math.inf
        self._beginning[index] = time.monotonic() + START_SECONDS

    def put(self, value: Any) -> Any:
        """One copy of a value for all actors: the reference that `call` takes in its place."""
        return self.ray.put(value)

    def call(self, index: int, method: str, *args: Any) -> None:
        """Begin a call of an idle actor's method."""
        self.idle.remove(index)
        reference = self._handles[index].call.remote(method, *args)
        self._calls[reference] = index, time.monotonic() + self.cfg.actor_timeout

    def results(self, seconds: float = 0.0) -> list[tuple[int, Any]]:
        """(actor, result) of the calls that have ended, after `seconds` at most; LOST for an actor that was lost.

        Raises, once what has ended before is handed over, what a call has raised; and RuntimeError for an actor that
        is lost again and again.
        """
        out: list[tuple[int, Any]] = []
        for reference in [] if self._error else self._ended(seconds):
            index, _ = self._calls.pop(reference)
            try:
                result = self.ray.get(reference)
                if index in self._beginning:
                    self._check(result)
            except self.ray.exceptions.RayTaskError as error:
                self._error = error.cause if isinstance(error.cause, Exception) else error
            except self.ray.exceptions.RayError as error:
                out += self._replace(index, type(error).__name__)
            except ValueError as error:
                self._error = error
            else:
                self.idle.add(index)
                if index in self._beginning:
                    del self._beginning[index]
                else:
                    self._failures[index] = 0
                    out.append((index, result))
        for reference, (index, end) in list(self._calls.items()):
            # What has ended on another machine, and was not fetched yet, is no silence.
            if time.monotonic() > end and not self.ray.wait([reference], timeout=0, fetch_local=False)[0]:
                del self._calls[reference]
                out += self._replace(index, f"no answer for {self.cfg.actor_timeout:g} s")
        for index, late in self._beginning.items():
            if time.monotonic() > late:
                say(f"actor {index} has not begun for {START_SECONDS} s: are its CPUs in use, or lost?")
                self._beginning[index] = time.monotonic() + START_SECONDS
        if self._error and not out:
            raise self._error
        return out

    def _ended(self, seconds: float) -> list[Any]:
        """References of the calls that have ended: of one at the least, if it takes no longer than `seconds`."""
        calls = list(self._calls)
        if calls and self.ray.wait(calls, timeout=seconds)[0]:
            return self.ray.wait(calls, num_returns=len(calls), timeout=0)[0]
        return []

    def _check(self, theirs: dict[str, str]) -> None:
        for what, ours in versions().items():
            if theirs[what] != ours:
                raise ValueError(
                    f"an actor on {theirs['host']} has {what} {theirs[what]}, and the learner {ours}: install the same"
                )

    def _replace(self, index: int, why: str) -> list[tuple[int, Any]]:
        hand = "" if index in self._beginning else ", with what it had in hand"
        say(f"actor {index} is lost ({why}){hand}; another takes its place")
        self.lost += 1
        self.ray.kill(self._handles[index])
        self._failures[index] += 1
        if self._failures[index] == MOST_FAILURES:
            self._error = RuntimeError(f"actor {index} was lost {MOST_FAILURES} times without a result: {why}")
        else:
            self.starts[index] += 1
            self._begin(index)
        return [(index, LOST)]

    def close(self) -> None:
        """End the actors, and Ray where it was begun here."""
        for handle in filter(None, self._handles):
            self.ray.kill(handle)
        self._handles, self._calls, self.idle = [], {}, set()
        if self._began:
            self.ray.shutdown()

    def __enter__(self) -> "Actors":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def spread(
    make: Callable[[int, int], Any], items: Iterable[T], cfg: ActorConfig, cpus: int = 1
) -> Iterator[tuple[T, Any]]:
    """(item, made.do(item)) as they end, each done by an actor that is idle; what a lost actor had goes to another.

    Raises RuntimeError for an item that MOST_FAILURES actors were lost with.
    """
    waiting, doing, losses = deque(items), dict[int, T](), Counter[T]()
    cfg = dataclasses.replace(cfg, actors=min(cfg.actors, len(waiting)))
    with Actors(make, cfg, cpus) as actors:
        while waiting or doing:
            for index in sorted(actors.idle)[: len(waiting)]:
                doing[index] = waiting.popleft()
                actors.call(index, "do", doing[index])
            for index, result in actors.results(1.0):
                if index not in doing:  # lost before it had begun
                    continue
                item = doing.pop(index)
                if result is LOST:
                    losses[item] += 1
                    if losses[item] == MOST_FAILURES:
                        raise RuntimeError(f"{MOST_FAILURES} actors were lost with {item}")
                    waiting.appendleft(item)
                else:
                    yield item, result


class _Host:
    """An actor's process."""

    def begin(self, make: Callable[[int, int], Any], index: int, start: int, cpus: int) -> dict[str, str]:
        """Make the object; returns the versions here."""
        from rlkit import compiled, runtime

        runtime.setup(runtime.derive_seed(1 + index, start), "cpu", cpus)  # of torch: noisy layers draw from it
        compiled.set_threads(1)
        self.made = make(index, start)
        return versions() | {"host": socket.gethostname()}

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self.made, method)(*args)


def _ray() -> Any:
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # A run of a suite gets SIGTERM when its actor is gone, and saves; Ray would kill it first.
        os.environ.setdefault("RAY_kill_child_processes_on_worker_exit", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("actors want Ray: pip install ray, or this project with its extra `ray`") from error
    return ray


def _connect(ray: Any, cfg: ActorConfig) -> bool:
    """Join the cluster, or begin one on this machine; whether it has to be ended here."""
    if ray.is_initialized():
        return False
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if cfg.ray:
        host, _, port = cfg.ray.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
        except (OSError, ValueError, OverflowError) as error:
            raise ConnectionError(f"no Ray cluster answers at {cfg.ray} ({error}): HOST:6379 is wanted") from None
        options |= {"address": cfg.ray}
    else:
        from rlkit.runtime import cores

        options |= {"address": "local", "num_cpus": cores(), "include_dashboard": False}
        options |= {"object_store_memory": cfg.object_store_mb * 2**20}
    ray.init(**options)
    if main:  # Ray takes SIGTERM for itself
        for number, handler in before.items():
            signal.signal(number, handler)
    return True
