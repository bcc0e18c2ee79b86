"""The machine: device, threads, seeds.

All randomness of a run comes from one number, by `seed_everything` and `derive_seed`.

A parallel region waits for its last thread. If a neighbour has displaced that one, a region of microseconds takes a
time slice of milliseconds, and an update of hundreds of regions takes fifty times as long as on one thread. So a
process whose number of threads is left open takes the cores that nobody else uses, and looks again as it goes:

    cores    0  ours  ours  ours  ours  theirs theirs   ours      available = what we use + what lies idle
             1  ours  ours  ours  idle  idle   idle     ours
    threads     2     2     1 ............ 1 .......... 2
                      ^ a neighbour comes                 ^ it has been gone for a while
"""

import ctypes
import math
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from rlkit.logger import say


def cores() -> int:
    """CPU cores that this process may use: its affinity and its container's quota, whichever is less."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):
        pass
    return max(count, 1)


def derive_seed(seed: int, stream: int) -> int:
    """A number in 0 .. 2^30 for one of a run's independent generators; the emulators want 31 bits with room above."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0]) >> 2


def seed_everything(seed: int) -> None:
    """Seed python, numpy and torch. A run's other generators get `derive_seed` of the same number."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """The states of the random generators of python, numpy and torch, which a run shares with its whole process."""
    name, state, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if device.type == "cuda" else None,
        "numpy": [name, np.asarray(state).tolist(), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the generators back to where `random_state` found them."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"])
    np.random.set_state(tuple(state["numpy"]))
    random.setstate(state["python"])


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory. By default every batch-sized tensor goes back to the kernel when freed and
    is page-faulted in again by the next update: a fifth of a CPU update at batch 128. Elsewhere this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    m_trim_threshold, m_mmap_threshold = -1, -3
    mallopt(m_mmap_threshold, 1 << 30)
    mallopt(m_trim_threshold, (1 << 31) - 1)


class Neighbours:
    """Measures what other programs leave of the cores that this process may run on; nothing without /proc/stat."""

    def __init__(self, stat: Path = Path("/proc/stat")) -> None:
        self._stat = stat
        self._then = self._read()

    def _read(self) -> tuple[float, float, float] | None:
        """Seconds by the clock, of our work, and of idleness of our cores."""
        try:
            lines = self._stat.read_text().splitlines()
            ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
            ticks = [int(x) for words in map(str.split, lines) if words[0] in ours for x in words[4:6]]  # idle, iowait
            return time.monotonic(), time.process_time(), sum(ticks) / os.sysconf("SC_CLK_TCK")
        except (AttributeError, IndexError, OSError, ValueError):
            return None

    @property
    def seconds(self) -> float:
        """Since the last call of `available`."""
        return time.monotonic() - self._then[0] if self._then else math.inf

    def available(self) -> float:
        """Cores that we used or that lay idle since the last call, on average."""
        then, now = self._then, self._read()
        self._then = now
        if now is None or then is None or now[0] - then[0] < 0.05:  # the system counts in hundredths
            return math.inf
        used, idle = now[1] - then[1], now[2] - then[2]
        return (used + idle) / (now[0] - then[0])


class _Threads:
    """The number of threads of torch and numba: as asked for, or with 0 as many cores as other programs leave idle."""

    LOOK, LEAST_PATIENCE, MOST_PATIENCE = 0.25, 1.0, 64.0  # seconds

    def __init__(self) -> None:
        self.most = self.count = 1
        self.open = False
        self._neighbours = Neighbours()
        self._next = self._patience = self._free_since = self._last_up = 0.0

    def begin(self, asked: int) -> None:
        limit = re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", ""))  # set by who starts several processes
        self.most = min(asked or int(limit[0] if limit else cores()), cores()) or 1
        self.open = not asked and self.most > 1
        self._patience, self._free_since, self._last_up = self.LEAST_PATIENCE, math.inf, -math.inf
        count = self.most
        if self.open:
            time.sleep(max(0.0, 0.1 - self._neighbours.seconds))
            count = self._fitting()
            if count < self.most:
                say(f"threads: {count}, as other programs are using {self.most - count} of the {self.most} cores")
        self.use(count)

    def use(self, count: int) -> None:
        import numba

        self.count = count
        torch.set_num_threads(count)
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]

    def _fitting(self) -> int:
        self._next = time.monotonic() + self.LOOK
        available = self._neighbours.available()
        return self.most if available == math.inf else min(self.most, max(1, math.floor(available + 0.25)))

    def look(self) -> None:
        """Fewer threads at once where others came; more after they have been gone for a while."""
        now = time.monotonic()
        if not self.open or now < self._next or threading.current_thread() is not threading.main_thread():
            return  # OpenMP counts for each thread by itself; those that are not the main one have their own ways
        count = self._fitting()
        if count < self.count:
            # A program that left soon came back: wait longer the next time. After a long time it was another one.
            soon = now - self._last_up < 2 * self._patience
            self._patience = min(2 * self._patience, self.MOST_PATIENCE) if soon else self.LEAST_PATIENCE
            say(f"threads: {count} instead of {self.count}, as other programs use the cores too")
            self.use(count)
        if count <= self.count:
            self._free_since = math.inf
            return
        self._free_since = min(self._free_since, now)
        if now - self._free_since >= self._patience:
            self._free_since, self._last_up = math.inf, now
            say(f"threads: {count}, the cores are free again")
            self.use(count)


_threads = _Threads()


def threads() -> int:
    """CPU threads of torch's and numba's operations now."""
    return _threads.count


def share_cores() -> None:
    """Adapt the number of threads, if it was left open, to what other programs leave. For loops, between two pieces of
    work: it looks four times a second at most, and costs nothing in between.
    """
    _threads.look()


def limit_threads(most: int) -> None:
    """At most `most` threads from now on, where more would not pay."""
    _threads.most = most
    _threads.use(min(most, _threads.count))


def keep_threads() -> None:
    """Keep the present number of threads: what torch.compile made for it would be compiled anew for another."""
    _threads.open = False


def setup(seed: int, device: str = "auto", threads: int = 0) -> torch.device:
    """Prepare the process: seeds, torch's and numba's threads, malloc. Returns the device.

    threads: their number (at most the cores), and then the same seed gives the same numbers; 0: as many as there are
    idle cores, which `share_cores` looks at again later.
    """
    keep_freed_memory()
    seed_everything(seed)
    _threads.begin(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"(cpu|cuda)(:\d+)?", device):
        raise ValueError(f"there is no device {device!r}: it is cpu, cuda, cuda:1 and so on, or auto")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"there is no device {device!r}: torch sees no GPU; use --device cpu")
    if device.startswith("cuda"):
        torch.cuda.set_device(device if ":" in device else 0)  # streams, graphs and random states go by the current one
        torch.set_float32_matmul_precision("high")  # TF32
    return torch.device(device)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout and gradients, with running statistics, until the end of the block; then the mode it had."""
    share_cores()
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """`count` threads for torch's operations, until the end of the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_onednn_bf16: bool | None = None
"""what `onednn_has_bf16` found"""


def onednn_has_bf16() -> bool:
    """Whether oneDNN, which does a CPU's fast convolutions and LSTMs, can learn in bf16 here. Found once, by doing it:
    that depends on more than the processor (ONEDNN_MAX_CPU_ISA), and some have the forward pass alone.
    """
    global _onednn_bf16
    if _onednn_bf16 is None:
        if torch.compiler.is_compiling():  # traced, every attempt seems to succeed: no is what always works
            return False
        with torch.inference_mode(False), torch.enable_grad():
            _onednn_bf16 = _learns_in_bf16()
    return _onednn_bf16


def _learns_in_bf16() -> bool:
    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, requires_grad=True)

    x, w, state = ones(1, 16, 4, 4).to(torch.bfloat16), ones(16, 16, 3, 3).to(torch.bfloat16), torch.ones(1, 1, 16)
    weights = [ones(64, 16), ones(64, 16), ones(64), ones(64)]
    try:  # what calls oneDNN by name; then that before which torch asks it too little, or nothing
        with torch.no_grad():
            torch.ops.mkldnn._convolution_pointwise(x, w, None, [1, 1], [1, 1], [1, 1], 1, "relu", [], "")
        torch.autograd.grad(torch.conv2d(x, w, padding=1).sum(), (x, w))
        with torch.autocast("cpu", torch.bfloat16):
            out, *_ = torch.lstm(ones(1, 2, 16), (state, state), weights, True, 1, 0.0, True, False, True)
        torch.autograd.grad(out.sum(), weights)
    except (AttributeError, RuntimeError):  # AttributeError: a torch without oneDNN
        return False
    return True


@contextmanager
def kernels_for(precision: str, device: torch.device) -> Iterator[None]:
    """Forward and backward passes in this precision work until the end of the block, if need be by torch's own, slower
    kernels: where oneDNN cannot learn in bf16, it is switched off meanwhile, for all threads.
    """
    own = precision == "bf16" and device.type == "cpu" and not onednn_has_bf16()
    before = torch.backends.mkldnn.enabled
    if own:
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


def fastest_precision(device: torch.device) -> Literal["fp32", "bf16"]:
    """bf16 where the device multiplies it natively (GPUs since 2020, CPUs with AVX512-BF16 or AMX), else fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # recent torch has it
    native = able.get("avx512_bf16") or able.get("amx_bf16")
    return "bf16" if native and onednn_has_bf16() else "fp32"
