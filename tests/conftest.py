import gc
import os
import sys

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


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of one node of this machine, with CPUs for four actors; nodes can be added and removed."""
    ray = pytest.importorskip("ray", reason="actors want the extra `ray`")
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 4, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch:  # what actors make is defined in tests
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        nodes = Cluster(initialize_head=True, head_node_args=head)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()
