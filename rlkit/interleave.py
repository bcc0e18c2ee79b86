"""Several runs in one process, in turns.

run 1   begin, update |                       | update |          ...
run 2                 | begin, update |                | update | ...      a GPU may still be at work on run 1
"""

import contextlib
import gc
import inspect
import time
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import torch

from rlkit.logger import say
from rlkit.runtime import random_state, seed_everything, set_random_state

T = TypeVar("T")


def take_turns(learners: Sequence[Generator[None, None, T]], runs: Sequence[Any]) -> list[T]:
    """Advance the learner of each run to its next yield, and again, until all have ended; returns what they return.

    Each has random states and on a GPU a stream of its own, so that it learns what it would alone. One that fails does
    not end the others; the first error is raised after them. Those that have not begun when a run is asked to stop do
    not begin.
    """
    device = runs[0].device
    going = deque(zip(range(1, len(runs) + 1), learners, runs, strict=True))
    streams, states = {}, {}
    for number, _, run in going:
        streams[number] = torch.cuda.Stream() if device.type == "cuda" else None
        seed_everything(run.cfg.seed)
        states[number] = random_state(device)
    paused: dict[int, float] = {}  # when each last yielded
    results: dict[int, T] = {}
    failed: Exception | None = None
    while going:
        number, learner, run = going.popleft()
        if run.stopped and inspect.getgeneratorstate(learner) == inspect.GEN_CREATED:
            continue
        set_random_state(states[number], device)
        run.timer.seconds["other runs"] += time.perf_counter() - paused.get(number, time.perf_counter())
        try:
            with torch.cuda.stream(stream) if (stream := streams[number]) else contextlib.nullcontext():
                next(learner)
            going.append((number, learner, run))
        except StopIteration as end:
            results[number] = end.value
        except Exception as error:
            if going or failed:
                say(f"run {number} of {len(runs)} failed{', the others go on' if going else ''}: {error!r}")
            if going:
                _release(error)
            failed = failed or error
        states[number], paused[number] = random_state(device), time.perf_counter()
    if failed:
        raise failed
    return [results[number] for number in sorted(results)]


def _release(error: BaseException) -> None:
    """Free the memory of a failed run, which the frames of its error, and of those that led to it, keep alive."""
    chain: list[BaseException | None] = [None]
    while error not in chain:
        traceback.clear_frames(error.__traceback__)
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    gc.collect()
