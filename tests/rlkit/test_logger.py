"""What a person sees of a run: a bar that fits its terminal, and evaluations in a line each."""

import contextlib
import os
import struct
import sys

import numpy as np
import pytest

from rlkit.evaluate import Scores
from rlkit.logger import Logger


def drawn(columns, monkeypatch, name, values):
    """What the bar of a run leaves on a terminal that is so wide: all that it drew, newest last."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(terminal, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        log = Logger(name, 4_000_000, " frames")
        log._bar.mininterval = 0
        for x in (68_000, 1_800_000, 4_000_016):
            log.scalars(values, x)
            log.advance(x)
            log._bar.refresh()
        log.close()
    text = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody writes there any more
        while more := os.read(master, 100_000):
            text += more
    os.close(master)
    return [line for line in text.decode().replace("\r\n", "\r").split("\r") if line.strip()]


VALUES = {"losses/loss": 0.00123456, "charts/episodic_return": -20.345, "eval/score": 12345.6, "eval/length": 3.0}


@pytest.mark.parametrize("name", ["pong__1__now", "ms_pacman_lr=0.001_batch-size=64__12__now"])
def test_the_bar_keeps_the_score_at_60_columns(name, monkeypatch, tmp_path):
    (tmp_path / name).mkdir()
    lines = drawn(60, monkeypatch, tmp_path / name, VALUES)
    assert all(len(line) < 60 for line in lines), "it would wrap"
    middle = next(line for line in lines if "1.80M" in line)
    assert middle.startswith("45%|") and middle.endswith(" left, return=-20.34, score=12,346")
    assert lines[-1].startswith("100%|"), "the last step may take it past its end"


def test_a_wide_bar_has_name_and_loss(monkeypatch, tmp_path):
    (tmp_path / "pong__1__now").mkdir()
    lines = drawn(120, monkeypatch, tmp_path / "pong__1__now", VALUES)
    assert all(len(line) < 120 for line in lines)
    middle = next(line for line in lines if "1.80M/4.00M" in line)
    assert middle.startswith("pong__1:  45%|") and "return=-20.34, score=12,346, loss=0.001235]" in middle


def scores(*values, left_out=0):
    return Scores(np.array(values, np.float64), np.ones(len(values), np.int64), 0, 1.0, left_out)


def test_scores_print_themselves():
    assert str(scores(1, 1, 1, 1)) == "1.00 (1.00 to 1.00), 4 episodes"
    assert str(scores(-21)) == "-21.0, 1 episode", "of one nobody knows how far another would be"
    assert str(scores(12_000, 12_000)) == "12,000 (12,000 to 12,000), 2 episodes"
    assert str(scores(*[-20.0, -21.0] * 50)).startswith("-20.5 (-20.6 to -20.4), 100")
