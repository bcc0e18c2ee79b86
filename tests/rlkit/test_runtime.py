"""Threads beside neighbours, and deadlines: with a clock and a machine of the test's own."""

import math
import os
import threading
from types import SimpleNamespace

import pytest
import torch

from rlkit import runtime
from rlkit.logger import Logger
from rlkit.neighbours import IdleCores, Neighbours
from rlkit.runtime import _Threads
from rlkit.schedule import Deadline
from rlkit.trainer import TrainConfig, Trainer


class Clock:
    """Instead of the module `time`."""

    now = cpu = 0.0

    def monotonic(self):
        return self.now

    perf_counter = monotonic

    def process_time(self):
        return self.cpu

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("rlkit.neighbours.time", clock)
    monkeypatch.setattr("rlkit.schedule.time", clock)
    monkeypatch.setattr("rlkit.logger.time", clock)
    return clock


def test_what_we_used_and_what_lay_idle_is_ours(clock, tmp_path, monkeypatch):
    """On cores 0 and 2 of four; a hundredth of a second is a tick."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    stat = tmp_path / "stat"

    def write(idle0, wait0, idle1, idle2):
        rows = (("cpu", 9, 9), ("cpu0", idle0, wait0), ("cpu1", idle1, 0), ("cpu2", idle2, 0), ("intr", 7, 7))
        stat.write_text("".join(f"{name} 1 2 3 {idle} {wait} 4 5 6 0 0\n" for name, idle, wait in rows))

    write(1000, 100, 500, 2000)
    neighbours = Neighbours(stat)
    clock.now, clock.cpu = 2.0, 0.5
    write(1050, 110, 900, 2090)  # .6 s and .9 s idle in 2 s, and we have worked for .5 s
    assert neighbours.available() == pytest.approx((0.6 + 0.9 + 0.5) / 2)
    clock.now, clock.cpu = 3.0, 2.5
    assert neighbours.available() == pytest.approx(2.0), "both cores were ours, none was idle"
    stat.write_text("nothing that is known here\n")
    clock.now = 4.0
    assert Neighbours(tmp_path / "none").available() == math.inf


@pytest.fixture
def machine(clock, monkeypatch):
    """(threads of a process on four cores, a function: go on for so many seconds with so many cores for us)."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runtime, "cores", lambda: 4)
    monkeypatch.setattr(_Threads, "use", lambda self, count: setattr(self, "count", count))
    threads, now = _Threads(), SimpleNamespace(cores=4.0)
    neighbours = SimpleNamespace(available=lambda: now.cores, seconds=1.0)
    monkeypatch.setattr("rlkit.neighbours.Neighbours", lambda: neighbours)

    def go(seconds, cores):
        now.cores = cores
        for _ in range(int(seconds * 10)):
            clock.now += 0.1
            threads.look()
        return threads.count

    return threads, go, now


def test_threads_make_room_at_once_and_come_back_after_a_while(machine, capsys):
    threads, go, now = machine
    now.cores = 2.7
    threads.begin(0)
    assert threads.count == 2 and "threads: 2" in capsys.readouterr().err, "as many as are idle at the start"
    assert go(0.9, 4.0) == 2 and go(1.0, 3.9) == 4, "free for a second"
    assert go(0.5, 1.1) == 1, "and down in half of one"
    assert go(0.9, 4.0) == 1 and go(0.5, 0.4) == 1 and go(0.9, 4.0) == 1, "a moment is not enough"
    assert capsys.readouterr().err.splitlines() == [
        "threads: 4, the cores are free again",
        "threads: 1 instead of 4, as other programs use the cores too",
    ]


def test_threads_wait_longer_where_they_came_back_too_early(machine):
    threads, go, _ = machine
    threads.begin(0)
    changes = []
    for _ in range(50):  # a neighbour who rests for a moment now and then
        go(1, 1.0)
        before = threads.count
        changes.append(go(1.5, 4.0) != before)
    assert changes[0] and sum(changes) < 3
    assert go(9, 4.0) == 4 and go(1000, 4.0) == 4
    assert go(1, 1.0) == 1 and go(2, 4.0) == 4, "a neighbour who comes after a long time is another one"


def test_a_fixed_number_stays(machine, monkeypatch):
    threads, go, now = machine
    for asked, expected in ((3, 3), (9, 4)):
        now.cores = 1.0
        threads.begin(asked)
        assert threads.count == expected == go(9, 1.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "2,1")
    threads.begin(0)
    assert go(1, 4.0) <= 2 == go(9, 4.0), "who starts several processes says so"
    threads.begin(4)
    assert threads.count == 4, "the flag goes before"
    threads.begin(0)
    now.cores = 4.0
    other = threading.Thread(target=go, args=(9, 1.0))
    other.start()
    other.join()
    assert threads.count <= 2


def test_what_was_compiled_keeps_its_threads(monkeypatch):
    monkeypatch.setattr(runtime._threads, "idle_cores", IdleCores(2))
    monkeypatch.setattr(torch, "compile", lambda loss: loss)
    Trainer(torch.nn.Linear(1, 1), lambda m, b: (m(b["x"]).sum(), {}), TrainConfig(mode="compile"))
    assert runtime._threads.idle_cores is None


def test_a_deadline_leaves_time_for_what_follows(clock):
    deadline = Deadline(2)
    assert deadline.left() == 120 and not deadline.reached({})
    clock.now = 120 - 1.1 * (6 + 2 * 1.2) - 0.1  # a guess: 5 % for evaluation, 1 % for each of two saves
    assert not deadline.reached({}) and deadline.left_for_loop({}) == pytest.approx(0.1)
    clock.now += 0.2
    assert deadline.reached({}) and not deadline.reached({"evaluate": 2, "save": 0.1})
    clock.now = 61
    assert deadline.reached({"evaluate": 1000}) and not deadline.reached({"evaluate": 5}, evaluations=2)
    assert list(deadline.in_time(range(3))) == [0, 1, 2]
    assert deadline.share(4).left() == pytest.approx(59 / 4)
    clock.now = 121
    assert list(deadline.in_time(range(3))) == [0], "something is measured in any case"
    assert not Deadline(0).reached({"evaluate": 1e9}) and Deadline(0).share(2).left() == math.inf
    assert Deadline(0).left_for_loop({}) == math.inf


def test_the_loop_ends_with_its_deadline(clock, tmp_path):
    """Ten seconds an update, twenty an evaluation: 580 s are left for updates of ten minutes."""
    model = torch.nn.Linear(1, 1)
    deadline = Deadline(10)
    cfg = TrainConfig(steps=1000, save_every=1000, progress=False)
    trainer = Trainer(model, lambda m, b: (m(b["x"]).sum(), {}), cfg, tmp_path, deadline=deadline)
    trainer.timer.latest = {"evaluate": 20, "save": 0}

    def batches():
        while True:
            clock.now += 10
            yield {"x": torch.ones(1, 1)}

    evaluated = []
    for step, _, _ in trainer.run(batches()):
        if step % 8 == 0 and trainer.goes_on(evaluations=2):
            clock.now += 20
            evaluated.append(step)
    trainer.timer("evaluate")
    assert evaluated == [8, 16, 24, 32, 40] and trainer.step == 48 and clock.now == 580
    assert not trainer.stopped, "so that an evaluation follows"
    trainer.close()


def test_the_bar_ends_where_the_time_will(clock):
    left = SimpleNamespace(seconds=math.inf)
    log = Logger(None, 1000, " frames", 100, progress=False, left=lambda: left.seconds)
    clock.now = 10.0
    log.advance(200)
    assert log._bar.total == 1000
    left.seconds = 20.0  # 10 frames a second
    log.advance(200)
    assert log._bar.total == 400
    left.seconds = 1e6
    log.advance(200)
    assert log._bar.total == 1000
    log.close()
