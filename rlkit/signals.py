"""Signals that end a command."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def signals_interrupt() -> Iterator[list[int]]:
    """SIGINT, SIGTERM and SIGHUP raise KeyboardInterrupt; yields the list that has the number of the one that came."""
    stopped: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        # A closing terminal, or timeout(1), signals twice: the second must not interrupt the saving. Ctrl-C may.
        for s in stop_signals():
            signal.signal(s, signal.default_int_handler if s == signal.SIGINT else signal.SIG_IGN)
        stopped.append(signum)
        raise KeyboardInterrupt

    with _signals_go_to(stop):
        yield stopped


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP wait for the end of this block."""
    came: list[int] = []
    with _signals_go_to(lambda signum, frame: came.append(signum)):
        yield
    for signum in came[:1]:
        signal.raise_signal(signum)


@contextlib.contextmanager
def stopped_by_signals(loop: Any) -> Iterator[None]:
    """The first SIGINT, SIGTERM or SIGHUP sets `stopped` of all loops that are in such a block. Another, half a
    second later, ends at once: what stops a parent and its child together signals the child twice.
    """
    loop.stopped = any(other.stopped for other in _running)  # asked while this one was being built
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[float] = []

    def ask(signum: int, frame: Any) -> None:
        from rlkit.logger import say

        if asked:
            if time.monotonic() > asked[0] + 0.5:
                signal.signal(signum, signal.SIG_DFL)
                signal.raise_signal(signum)
            return
        asked.append(time.monotonic())
        for running in _running:
            running.stopped = True
        say(f"{signal.Signals(signum).name}: saving and ending; once more to end at once")

    _running.append(loop)  # first, so that no signal is lost
    if len(_running) == 1:
        _handlers.update({s: signal.signal(s, ask) for s in stop_signals()})
    try:
        yield
    finally:
        if _running == [loop]:
            for s, handler in _handlers.items():
                signal.signal(s, handler)
        _running.remove(loop)


_running: list[Any] = []
"""loops: a signal is for all of them"""
_handlers: dict[int, Any] = {}
"""the signal handlers from before the first of these loops"""


@contextlib.contextmanager
def _signals_go_to(handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = {s: signal.getsignal(s) for s in stop_signals()}
    for s in before:
        signal.signal(s, handler)
    try:
        yield
    finally:
        for s, old in before.items():
            signal.signal(s, old)


def stop_signals() -> list[int]:
    """SIGINT, SIGTERM and SIGHUP, but those that are ignored (nohup); none outside the main thread, which alone may
    handle them.
    """
    found = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    in_main = threading.current_thread() is threading.main_thread()
    return [s for s in found if in_main and signal.getsignal(s) not in (signal.SIG_IGN, None)]
