import errno
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from rlkit import checkpoint, run
from rlkit.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed


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


def test_agent_folder_round_trip_and_damage(tmp_path):
    weights = {"layer.weight": torch.randn(4, 3).t(), "layer.bias": torch.zeros(4)}
    (tmp_path / "run").mkdir()
    checkpoint.save_agent(tmp_path / "run" / "agent", {"kind": "test"}, weights)
    (tmp_path / "run" / "config.json").write_text("{}")
    for path in (tmp_path / "run", tmp_path / "run" / "agent"):
        info, loaded = checkpoint.load_agent_files(path)
        assert info["kind"] == "test"
        torch.testing.assert_close(loaded, weights)
    blob = tmp_path / "run" / "agent" / "weights.safetensors"
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="checksum"):
        checkpoint.load_agent_files(tmp_path / "run")


def test_a_folder_without_an_agent_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="name a run or agent folder"):
        checkpoint.load_agent_files(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has not saved one yet"):
        checkpoint.load_agent_files(tmp_path)


def test_an_agent_killed_between_its_two_files_still_loads(tmp_path, monkeypatch):
    checkpoint.save_agent(tmp_path, {"kind": "old"}, {"w": torch.zeros(1)})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 2)
        checkpoint.save_agent(tmp_path, {"kind": "new"}, {"w": torch.ones(1)})
    assert checkpoint.load_agent_files(tmp_path)[1]["w"].item() == 0


def killed_at(monkeypatch, call):
    """A write_atomically that a kill ends at the call-th."""
    real, calls = checkpoint.write_atomically, []

    def write(path, data):
        calls.append(path)
        if len(calls) == call:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(checkpoint, "write_atomically", write)


def test_the_first_agent_killed_between_its_two_files_is_not_there_yet(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 2)
        checkpoint.save_agent(tmp_path, {"kind": "new"}, {"w": torch.ones(1)})
    with pytest.raises(FileNotFoundError, match=r"holds no agent \(no agent.json\)"):
        checkpoint.load_agent_files(tmp_path)
    checkpoint.save_agent(tmp_path, {"kind": "new"}, {"w": torch.zeros(1)})
    assert checkpoint.load_agent_files(tmp_path)[1]["w"].item() == 0


@pytest.mark.parametrize("saves", [1, 2])
def test_a_reader_that_comes_while_an_agent_is_saved_gets_a_whole_one(tmp_path, monkeypatch, saves):
    def save(i):
        checkpoint.save_agent(tmp_path, {"kind": str(i)}, {"w": torch.full((1,), float(i))})

    def read_json(path):
        for i in range(2, 2 + saves) if not calls else ():  # between the reader's two files
            save(i)
        calls.append(path)
        return real(path)

    save(1)
    real, calls = checkpoint.read_json, []
    monkeypatch.setattr(checkpoint, "read_json", read_json)
    info, weights = checkpoint.load_agent_files(tmp_path)
    # One save: the new description admits the old weights. Two: it does not, and all is read again.
    assert (info["kind"], weights["w"].item(), len(calls)) == {1: ("2", 1.0, 1), 2: ("3", 3.0, 2)}[saves]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    checkpoint.save_agent(tmp_path, {}, {"w": torch.zeros(1), "n": torch.ones((), dtype=torch.int64)})
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteLoss, match="w not finite: the agent was not saved"):
            checkpoint.save_agent(tmp_path, {}, {"w": torch.tensor([bad])})
    assert checkpoint.load_agent_files(tmp_path)[1]["w"].item() == 0


def test_a_full_disk_names_the_agents_folder_and_leaves_the_one_before(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save_agent(tmp_path / "agent", {}, {"w": torch.zeros(1)})
    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(SaveFailed, match=r"agent to .*/agent: .*No space left on device.* Free some space"):
        checkpoint.save_agent(tmp_path / "agent", {}, {"w": torch.ones(1)})
    assert checkpoint.load_agent_files(tmp_path)[1]["w"].item() == 0
    with pytest.raises(SaveFailed, match="begin a new run"):
        checkpoint.save_agent(tmp_path / "gone" / "agent", {}, {"w": torch.ones(1)})
    assert not (tmp_path / "gone").exists()


def layers(count, width):
    def build():
        for _ in range(count):
            built.append(nn.Linear(width, width))
        return nn.Sequential(*built)

    built = []
    return build, built


def test_a_network_is_built_only_in_the_shape_of_its_weights():
    build, _ = layers(3, 4)
    module = checkpoint.rebuild(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), weights := {
        "0.weight": torch.randn(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(3), "1.bias": torch.ones(3),
        "1.running_mean": torch.zeros(3), "1.running_var": torch.ones(3), "1.num_batches_tracked": torch.tensor(5),
    })  # fmt: skip
    assert module(torch.zeros(2, 2)).device.type == "cpu" and torch.equal(module[0].weight, weights["0.weight"])
    own = build().state_dict()
    for count, width, message in ((3, 5, "6 weights do not fit, as 0.bias: .4,. there, .5,. wanted"),
                                  (2, 4, "2 weights do not fit, as 2.bias: .4,. there, none wanted"),
                                  (4, 4, "2 weights do not fit, as 3.bias: none there")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            checkpoint.rebuild(layers(count, width)[0], own)
    for count, width in ((10**9, 4), (1, 10**9)):  # neither the time nor the memory that these would take
        build, built = layers(count, width)
        with pytest.raises(ValueError, match="far larger network"):
            checkpoint.rebuild(build, own)
        assert len(built) < 300 and all(part.weight.is_meta for part in built)


@pytest.mark.parametrize("blob", [b"", b"\xff" * 100, (10).to_bytes(8, "little") + b"{" * 10])
def test_weights_with_a_right_checksum_that_do_not_load_are_a_damaged_file(tmp_path, blob):
    (tmp_path / "weights.safetensors").write_bytes(blob)
    (tmp_path / "agent.json").write_text(json.dumps({"weights_sha256": [hashlib.sha256(blob).hexdigest()]}))
    with pytest.raises(DamagedFile, match="not a whole agent"):
        checkpoint.load_agent_files(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weights_sha256": 3}', "[" * 100_000])
def test_a_broken_description_is_a_damaged_file(tmp_path, text):
    checkpoint.save_agent(tmp_path, {}, {"w": torch.zeros(1)})
    (tmp_path / "agent.json").write_text(text)
    with pytest.raises(DamagedFile, match="not a whole agent"):
        checkpoint.load_agent_files(tmp_path)
