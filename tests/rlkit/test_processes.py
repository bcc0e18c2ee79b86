"""Signals, and commands in processes of their own."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlkit import command_line, processes, signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
STOPS = ("SIGINT", "SIGTERM", "SIGHUP")
CHILD = """
import pathlib, signal, sys, time

def save(number, frame):
    pathlib.Path("saved").write_text(signal.Signals(number).name)
    sys.exit(7)

for s in (signal.SIGINT, signal.SIGTERM):
    signal.signal(s, save)
pathlib.Path("ready").touch()
time.sleep(100)
"""


def say_to_us(name):
    os.kill(os.getpid(), getattr(signal, name))


def wait_for(path):
    for _ in range(3000):
        if path.exists() and (path.name == "ready" or path.read_text()):
            return path.read_text()
        time.sleep(0.01)
    raise TimeoutError(path)


@pytest.fixture
def handlers():
    """Restores them, and says whether they are as they were."""
    before = {name: signal.getsignal(getattr(signal, name)) for name in STOPS}
    yield lambda: before == {name: signal.getsignal(getattr(signal, name)) for name in STOPS}
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize("name", STOPS)
def test_a_signal_interrupts_once_and_gives_the_status(name, handlers, capsys):
    def main(finish):
        try:
            say_to_us(name)
            time.sleep(100)
        except KeyboardInterrupt:
            say_to_us("SIGTERM")  # a terminal that closes says it twice: what was begun is finished
            say_to_us("SIGHUP")
            finish()

    def interrupted():
        raise KeyboardInterrupt

    for finish in (list, interrupted):
        with pytest.raises(SystemExit) as end:
            command_line.cli(main, lambda finish=finish: finish)
        assert end.value.code == 128 + getattr(signal, name) and handlers()
    assert capsys.readouterr().err == "stopped\n"  # the first has said what it had to say


def test_what_is_ignored_stays_ignored(handlers):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    command_line.cli(lambda _: say_to_us("SIGHUP"), lambda: None)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_thread_sets_no_handlers(handlers):
    done = []
    thread = threading.Thread(target=lambda: command_line.cli(lambda _: done.append(handlers()), lambda: None))
    thread.start()
    thread.join()
    assert done == [True]


def test_held_signals_come_at_the_end_of_the_block():
    steps = []

    def main(_):
        with signals.signals_held():
            say_to_us("SIGTERM")
            steps.append("written")
        time.sleep(100)

    with pytest.raises(SystemExit) as end:
        command_line.cli(main, lambda: None)
    assert steps == ["written"] and end.value.code == 143


@pytest.mark.parametrize("name", STOPS)
@pytest.mark.slow
def test_a_process_is_told_to_save_and_waited_for(name, tmp_path):
    (tmp_path / "child.py").write_text(CHILD)

    def stop():
        wait_for(tmp_path / "ready")
        say_to_us(name)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SystemExit) as end:
        command_line.cli(lambda _: processes.run_command("child", [], tmp_path), lambda: None)
    thread.join()
    assert end.value.code == 128 + getattr(signal, name) and (tmp_path / "saved").read_text() == "SIGTERM"


def test_a_process_ends_by_itself(tmp_path):
    (tmp_path / "child.py").write_text("import sys; sys.exit(int(sys.argv[1]))")
    assert processes.run_command("child", ["3"], tmp_path) == 3


def test_a_process_is_terminated_where_we_are_killed(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    code = (
        f"import pathlib; from rlkit import processes as p; p.run_command('child', [], pathlib.Path({str(tmp_path)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2]) as ours:
        wait_for(tmp_path / "ready")
        ours.kill()
    assert wait_for(tmp_path / "saved") == "SIGTERM"


def test_a_terminal_that_was_closed_ends_no_run(monkeypatch):
    from rlkit.logger import say

    class Closed:
        def write(self, text):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Closed())
    say("saving and ending")
