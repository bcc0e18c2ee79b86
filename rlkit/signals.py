"""Signals that end a command."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

from rlkit.loop_signals import stop_signals


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
def _signals_go_to(handler: Callable[[int, Any], None]) -> Iterator[None]:
    before = {s: signal.getsignal(s) for s in stop_signals()}
    for s in before:
        signal.signal(s, handler)
    try:
        yield
    finally:
        for s, old in before.items():
            signal.signal(s, old)
