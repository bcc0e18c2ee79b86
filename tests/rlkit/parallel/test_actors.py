"""Actors: calls that end, fail, hang or die; who may be one; and that none outlives its driver."""

import os
import signal
import subprocess
import sys
import time

import pytest

from rlkit.errors import NonFiniteLoss
from rlkit.parallel import actors
from rlkit.parallel.actors import LOST, ActorConfig, Actors

pytestmark = pytest.mark.slow


class Adder:
    """Knows who it is, adds, and does what an actor should not."""

    def __init__(self, index: int, start: int):
        self.me = index, start
        self.total = 0

    def add(self, amount: int) -> tuple:
        self.total += amount
        return (*self.me, self.total)

    def pid(self) -> int:
        return os.getpid()

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def fail(self) -> None:
        raise NonFiniteLoss("the loss is nan")


def broken(index: int, start: int) -> Adder:
    raise ValueError("there is no such game")


def all_results(group: Actors, count: int, seconds: float = 60) -> list:
    """Of so many calls, sorted by actor."""
    out, end = [], time.monotonic() + seconds
    while len(out) < count:
        assert time.monotonic() < end
        out += group.results(1.0)
    return sorted(out, key=lambda one: one[0])


def until_idle(group: Actors, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while len(group.idle) < group.cfg.actors:
        assert time.monotonic() < end
        group.results(1.0)


def test_calls_and_what_becomes_of_actors_that_die_hang_or_fail(cluster, capfd):
    with Actors(Adder, ActorConfig(actors=2, actor_timeout=30)) as group:
        for amount, total in ((5, 5), (7, 12)):
            for index in sorted(group.idle):
                group.call(index, "add", group.put(amount))
            assert all_results(group, 2) == [(0, (0, 0, total)), (1, (1, 0, total))]
        assert not group.results() and group.idle == {0, 1} and not group.lost

        group.call(1, "pid")  # killed in the middle of a call: the other does not notice
        [(_, pid)] = all_results(group, 1)
        group.call(0, "add", 1)
        group.call(1, "wait", 60)
        assert all_results(group, 1) == [(0, (0, 0, 13))]
        os.kill(pid, signal.SIGKILL)
        assert all_results(group, 1) == [(1, LOST)] and group.starts == [0, 1]
        assert "actor 1 is lost" in capfd.readouterr().err
        until_idle(group)
        group.call(1, "add", 1)
        assert all_results(group, 1) == [(1, (1, 1, 1))], "another has its place, and nothing of what it had"

        group.call(0, "fail")
        with pytest.raises(NonFiniteLoss, match="the loss is nan"):
            all_results(group, 1)

    with Actors(Adder, ActorConfig(actors=1, actor_timeout=1)) as group:
        group.call(0, "wait", 60)
        assert all_results(group, 1) == [(0, LOST)] and group.lost == 1
        assert "no answer for 1 s" in capfd.readouterr().err
        until_idle(group)
        group.call(0, "add", 2)
        assert all_results(group, 1) == [(0, (0, 1, 2))]


def test_what_cannot_be_an_actor_is_refused_at_the_start(cluster, monkeypatch):
    with pytest.raises(ValueError, match="there is no such game"):
        Actors(broken, ActorConfig(actors=1))
    with pytest.raises(ValueError, match="--actors 9 are more than the 4 CPUs"):
        Actors(Adder, ActorConfig(actors=9))
    with pytest.raises(ValueError, match="--actors 3 of 2 CPUs each are more than the 4 CPUs"):
        Actors(Adder, ActorConfig(actors=3), cpus=2)
    with pytest.raises(ValueError, match=r"--actors 2 of 0\.5 GPUs each are more than the 0 GPUs"):
        Actors(Adder, ActorConfig(actors=2, actor_gpus=0.5))
    ours = actors.versions()
    monkeypatch.setattr(actors, "versions", lambda: ours | {"code": "0.0"})
    with pytest.raises(ValueError, match=f"has code {ours['code']}, and the learner 0[.]0: install the same"):
        Actors(Adder, ActorConfig(actors=1))


def test_without_ray_and_without_a_cluster_it_is_said(monkeypatch):
    class Ray:
        is_initialized = staticmethod(lambda: False)

    began = time.monotonic()
    for address in ("127.0.0.1:9", "nowhere.invalid:6379", "here"):
        with pytest.raises(ConnectionError, match=f"no Ray cluster answers at {address}"):
            actors._connect(Ray, ActorConfig(actors=1, ray=address))
    assert time.monotonic() - began < 3 * actors.ANSWER_SECONDS
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match="extra `ray`"):
        Actors(Adder, ActorConfig(actors=1))


DRIVER = """
from rlkit.parallel.actors import ActorConfig, Actors
from test_actors import Adder, all_results
group = Actors(Adder, ActorConfig(actors=1, object_store_mb=80))
group.call(0, "pid")
print(all_results(group, 1)[0][1], flush=True)
group.call(0, "wait", 600)
all_results(group, 1, 600)
"""


def test_no_actor_outlives_its_driver(tmp_path):
    pytest.importorskip("ray", reason="actors want the extra `ray`")
    path = os.pathsep.join([os.path.dirname(__file__), os.getcwd()])
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout
        pid = int(driver.stdout.readline())
        os.kill(pid, 0)
    finally:
        driver.kill()
        driver.wait()
    end = time.monotonic() + 60
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < end
        time.sleep(0.2)
