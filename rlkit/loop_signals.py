"""Signals that end a training loop, which saves first."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any


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
        from rlkit.logger import say  # torch comes with it

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


def stop_signals() -> list[int]:
    """SIGINT, SIGTERM and SIGHUP, but those that are ignored (nohup); none outside the main thread, which alone may
    handle them.
    """
    found = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    in_main = threading.current_thread() is threading.main_thread()
    return [s for s in found if in_main and signal.getsignal(s) not in (signal.SIG_IGN, None)]
