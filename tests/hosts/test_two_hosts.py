"""Self-play over two hosts whose cable is cut, and that nothing of them is left however that ends.

sudo .venv/bin/python -m pytest tests/hosts -m exhaustive -n0 -s
"""

import importlib.util
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "two_hosts.py"


def missing() -> str:
    """What two hosts want and this machine has not."""
    if not hasattr(os, "geteuid") or os.geteuid():
        return "two hosts on one machine want root"
    tools = [tool for tool in ("ip", "unshare", "nsenter") if not shutil.which(tool)]
    if tools:
        return f"two hosts on one machine want {' and '.join(tools)}, of iproute2 and util-linux"
    command = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "true"]
    if subprocess.run(command, capture_output=True).returncode:
        return "namespaces are not allowed here, to root neither"
    return "" if importlib.util.find_spec("ray") else "actors want the extra `ray`"


pytestmark = [pytest.mark.exhaustive, pytest.mark.skipif(bool(missing()), reason=missing())]


@pytest.fixture
def mark(monkeypatch):
    """A variable in the environment of all that is started."""
    text = secrets.token_hex(16)
    monkeypatch.setenv("TWO_HOSTS", text)
    return f"TWO_HOSTS={text}".encode()


def left(mark: bytes) -> list[str]:
    """Names of the processes with this variable that have not ended."""
    names = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes():
                names.append((process / "comm").read_text())
        except OSError:  # it has ended
            pass
    return names


def test_a_run_over_two_hosts_bears_that_their_cable_is_cut(mark, tmp_path):
    subprocess.run([sys.executable, SCRIPT, "--minutes", "4", "--out", tmp_path], check=True, timeout=600)
    assert not left(mark)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_of_the_hosts_is_left_when_the_script_is_ended(mark, tmp_path, number):
    script = subprocess.Popen([sys.executable, SCRIPT, "--out", tmp_path], stdout=subprocess.PIPE, text=True)
    assert script.stdout
    assert "Ray is on both hosts" in script.stdout.readline() and "raylet\n" in left(mark)
    script.send_signal(number)
    assert script.wait()
    end = time.monotonic() + 30
    while left(mark):
        assert time.monotonic() < end, left(mark)
        time.sleep(0.2)
