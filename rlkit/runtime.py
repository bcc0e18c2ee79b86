"""The machine: device, threads, seeds.

All randomness of a run comes from one number, by `seed_everything` and `derive_seed`.
"""

import ctypes
import math
import os
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch


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


def rank() -> int:
    """Which of the processes that learn one model this is; alone it is 0."""
    return int(os.environ.get("RANK", 0)) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def derive_seed(seed: int, stream: int, rank: int = 0) -> int:
    """A number in 0 .. 2^30 for one of a run's independent generators; the emulators want 31 bits with room above."""
    return int(np.random.SeedSequence([seed, stream] + [rank] * (rank > 0)).generate_state(1)[0]) >> 2


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


class _Threads:
    """The number of threads of torch and numba: as asked for, or with 0 as many cores as other programs leave idle."""

    count = 1
    idle_cores: Any = None
    """an `IdleCores`, which is asked for the number again and again, where it was left open"""

    def begin(self, asked: int) -> None:
        limit = re.match(r"\d+", os.environ.get("OMP_NUM_THREADS", ""))  # set by who starts several processes
        most = min(asked or int(limit[0] if limit else cores()), cores()) or 1
        self.idle_cores = None
        if not asked and most > 1:
            from rlkit.neighbours import IdleCores

            self.idle_cores = IdleCores(most)
        self.use(self.idle_cores.begin() if self.idle_cores else most)

    def use(self, count: int) -> None:
        import numba

        self.count = count
        torch.set_num_threads(count)
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]

    def look(self) -> None:
        if self.idle_cores and (count := self.idle_cores.look(self.count)) != self.count:
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
    if _threads.idle_cores:
        _threads.idle_cores.most = most
    _threads.use(min(most, _threads.count))


def keep_threads() -> None:
    """Keep the present number of threads: what torch.compile made for it would be compiled anew for another."""
    _threads.idle_cores = None


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


def precision(asked: str, device: torch.device) -> Any:
    """fp32 or bf16: what was asked for, or where that is auto, what is fastest on this device."""
    if asked != "auto":
        return asked
    from rlkit.bf16 import fastest_precision

    return fastest_precision(device)


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
