import gc
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the commands that tests start, as the workers share the cores

from rlkit import compiled, runtime


@pytest.fixture(autouse=True)
def one_thread():
    """Same seed, same numbers: bit for bit on one CPU thread."""
    runtime.setup(seed=0, device="cpu", threads=1)


@pytest.fixture
def resident():
    """A function: megabytes of memory that this process holds."""

    def megabytes():
        gc.collect()
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    return megabytes


@pytest.fixture
def threads():
    """A function: sets the number of threads over many games, for this test only."""
    before = compiled._threads
    yield compiled.set_threads
    compiled.set_threads(before)


@pytest.fixture
def learning_seed(request):
    """What a test of learning adds to its seed: 0, or the numbers that tests/seeds.py wants."""
    return getattr(request, "param", 0)
