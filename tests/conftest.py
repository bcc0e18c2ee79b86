import pytest

from rlkit import runtime


@pytest.fixture(autouse=True)
def one_thread():
    """Same seed, same numbers: bit for bit on one CPU thread."""
    runtime.setup(seed=0, device="cpu", threads=1)
