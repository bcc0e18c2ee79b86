"""What a person sees of a run: a bar that fits its terminal, and evaluations in a line each."""

import contextlib
import json
import os
import shlex
import struct
import sys
import weakref

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG, parse_session_start_info_plugin_data
from tqdm import tqdm

from rlkit.config import CONFIGS
from rlkit.evaluate import Scores
from rlkit.logger import Logger


def drawn(columns, monkeypatch, name, values):
    """What the bar of a run leaves on a terminal that is so wide: all that it drew, newest last."""
    pty, fcntl, termios = map(pytest.importorskip, ("pty", "fcntl", "termios"))
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(terminal, "w") as stderr, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        patch.setattr(tqdm, "_instances", weakref.WeakSet())  # a bar that is open elsewhere would move this one down
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


def test_tensorboard_has_the_settings_and_the_command(tmp_path):
    """Once as hyperparameters, which cannot change there, and as text each time that a run goes on."""
    folder = tmp_path / "toy__1__now"
    CONFIGS[folder] = json.dumps({"env": "catch", "few": [1, 2], "trainer": {"lr": 0.25, "ema": None}, "double": True})
    for start in (0, 70):
        log = Logger(folder, 100, " frames", start, progress=False)
        log.scalars({"eval/score": 1.5}, start + 5)
        log.close()
    events = EventAccumulator(str(folder), {"tensors": 0, "scalars": 0})
    events.Reload()
    assert [path.is_dir() for path in folder.iterdir()] == [False, False], "no run of its own, as add_hparams makes one"
    assert [point.step for point in events.Scalars("eval/score")] == [5, 75]
    shown = parse_session_start_info_plugin_data(events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content)
    values = {name: getattr(value, value.WhichOneof("kind")) for name, value in shown.hparams.items()}
    assert values == {"env": "catch", "few": "[1, 2]", "trainer.lr": 0.25, "trainer.ema": "None", "double": 1.0}
    tables = events.Tensors("settings/text_summary")
    assert [table.step for table in tables] == [0, 70]
    assert "|setting|value|\n|---|---|\n|env|catch|\n" in tables[0].tensor_proto.string_val[0].decode()
    assert (
        shlex.join(sys.orig_argv[1:]).encode() in events.Tensors("command/text_summary")[0].tensor_proto.string_val[0]
    )


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
