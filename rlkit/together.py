"""Several runs in one process, in turns.

run 1   start, update |                       | update |          ...
run 2                 | start, update |                | update | ...      a GPU may still be at work on run 1
"""

import contextlib
import gc
import inspect
import traceback
from collections import deque
from collections.abc import Generator, Iterable
from typing import TypeVar

import torch

from rlkit.logger import say
from rlkit.runtime import random_state, set_random_state

T = TypeVar("T")


def together(runs: Iterable[Generator[bool, bool, T]], device: torch.device) -> list[T]:
    """Advance each run to its next yield, and again, until all have ended; returns what they return.

    Each has random states and on a GPU a stream of its own, so that it learns what it would alone. One that fails does
    not end the others; the first error is raised after them. Runs yield whether they were asked to stop, and are sent
    whether any was: then those that have not begun do not begin.
    """
    going = deque(enumerate(runs, start=1))
    alone = len(going) == 1
    streams = {number: torch.cuda.Stream() if device.type == "cuda" and not alone else None for number, _ in going}
    states = dict.fromkeys(streams, {} if alone else random_state(device))
    results: dict[int, T] = {}
    failed: Exception | None = None
    stopped = False
    while going:
        number, run = going.popleft()
        new = inspect.getgeneratorstate(run) == inspect.GEN_CREATED
        if stopped and new:
            continue
        if not alone:
            set_random_state(states[number], device)
        try:
            with torch.cuda.stream(stream) if (stream := streams[number]) else contextlib.nullcontext():
                stopped |= next(run) if new else run.send(stopped)
            going.append((number, run))
        except StopIteration as end:
            results[number] = end.value
        except Exception as error:
            if going or failed:
                say(f"run {number} of {len(streams)} failed{', the others go on' if going else ''}: {error!r}")
            if going:
                _forget(error)
            failed = failed or error
        if not alone:
            states[number] = random_state(device)
    if failed:
        raise failed
    return [results[number] for number in sorted(results)]


def _forget(error: BaseException) -> None:
    """Make room: what a failed run held hangs on the frames of its error, and of those that led to it."""
    chain: list[BaseException | None] = [None]
    while error not in chain:
        traceback.clear_frames(error.__traceback__)
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    gc.collect()
