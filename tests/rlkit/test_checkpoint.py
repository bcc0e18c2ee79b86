import errno
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from rlkit import checkpoint, run
from rlkit.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from rlkit.errors import DamagedFile


def test_round_trip_and_only_the_newest_three_are_kept(tmp_path):
    (tmp_path / ".step_000000000007.ckpt.123").write_bytes(b"left by a kill")
    for step in (5, 20, 900, 1000):
        save_checkpoint(tmp_path, step, {"step": step, "w": torch.full((3,), float(step)), "rng": 2**100})
    assert [p.name for p in checkpoints(tmp_path)] == [f"step_{s:012d}.ckpt" for s in (1000, 900, 20)]
    assert sorted(os.listdir(tmp_path)) == sorted(p.name for p in checkpoints(tmp_path)), "nothing else is left behind"
    state = load_checkpoint(checkpoints(tmp_path)[0])
    assert state["step"] == 1000 and state["rng"] == 2**100 and state["w"].tolist() == [1000.0] * 3


def test_later_steps_of_a_run_that_was_given_up_do_not_push_out_the_new_one(tmp_path):
    for step in (100, 200, 300):
        save_checkpoint(tmp_path, step, {})
    path = save_checkpoint(tmp_path, 150, {"new": True})
    assert checkpoints(tmp_path) == [path, tmp_path / "step_000000000100.ckpt"] and load_checkpoint(path)["new"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_damage_is_noticed(tmp_path, damage):
    path = save_checkpoint(tmp_path, 1, {"w": torch.randn(1000)})
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        data = data[:-100]
    elif damage == "flip":
        data[len(data) // 2] ^= 1
    else:
        data = bytearray()
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match="truncated or altered"):
        load_checkpoint(path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    path = save_checkpoint(tmp_path, 1, {"x": Evil()})
    with pytest.raises(Exception, match=r"[Ww]eights.only|Unsupported"):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


def test_a_full_disk_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "file"
    checkpoint.write_atomically(path, b"old")

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


SAVER = """
import sys, torch
from pathlib import Path
from rlkit.checkpoint import save_checkpoint
for step in range(10**6):
    save_checkpoint(Path(sys.argv[1]), step, {"step": step, "w": torch.full((300_000,), float(step))})
    print(step, flush=True)
"""


@pytest.mark.slow
def test_kill_9_in_the_middle_of_saving_loses_at_most_one_save(tmp_path):
    rng = random.Random(0)
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3):
            child.stdout.readline()
        time.sleep(rng.random() * 0.02)
        child.send_signal(signal.SIGKILL)
        reported = [2, *map(int, child.stdout.read().split())][-1]
        child.wait()
        newest = load_checkpoint(checkpoints(tmp_path)[0])  # raises if it is not whole
        assert newest["step"] >= reported
        assert newest["w"].unique().tolist() == [float(newest["step"])]
        for old in tmp_path.iterdir():
            old.unlink()


def test_a_run_belongs_to_one_process(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    code = "import sys, pathlib, rlkit.run as run; run._lock(pathlib.Path(sys.argv[1])); print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout.readline() == "1\n"
        with pytest.raises(ValueError, match="in use by another process"):
            run._lock(tmp_path)
        other.kill()
    run._lock(tmp_path)
    run._lock(tmp_path)  # the same process may
