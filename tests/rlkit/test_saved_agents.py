"""Agents on disk: saved whole or not at all, and read again only where their files belong together."""

import errno
import hashlib
import json

import pytest
import torch
from torch import nn

from rlkit import checkpoint, saved_agents
from rlkit.errors import DamagedFile, NonFiniteLoss, SaveFailed


def test_agent_folder_round_trip_and_damage(tmp_path):
    weights = {"layer.weight": torch.randn(4, 3).t(), "layer.bias": torch.zeros(4)}
    (tmp_path / "run").mkdir()
    checkpoint.save_agent(tmp_path / "run" / "agent", {"kind": "test"}, weights)
    (tmp_path / "run" / "config.json").write_text("{}")
    for path in (tmp_path / "run", tmp_path / "run" / "agent"):
        info, loaded = saved_agents.load_agent_files(path)
        assert info["kind"] == "test"
        torch.testing.assert_close(loaded, weights)
    blob = tmp_path / "run" / "agent" / "weights.safetensors"
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="checksum"):
        saved_agents.load_agent_files(tmp_path / "run")


def test_a_folder_without_an_agent_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="name a run or agent folder"):
        saved_agents.load_agent_files(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has not saved one yet"):
        saved_agents.load_agent_files(tmp_path)


def test_an_agent_killed_between_its_two_files_still_loads(tmp_path, monkeypatch):
    checkpoint.save_agent(tmp_path, {"kind": "old"}, {"w": torch.zeros(1)})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        killed_at(patch, 2)
        checkpoint.save_agent(tmp_path, {"kind": "new"}, {"w": torch.ones(1)})
    assert saved_agents.load_agent_files(tmp_path)[1]["w"].item() == 0


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
        saved_agents.load_agent_files(tmp_path)
    checkpoint.save_agent(tmp_path, {"kind": "new"}, {"w": torch.zeros(1)})
    assert saved_agents.load_agent_files(tmp_path)[1]["w"].item() == 0


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
    real, calls = saved_agents.read_json, []
    monkeypatch.setattr(saved_agents, "read_json", read_json)
    info, weights = saved_agents.load_agent_files(tmp_path)
    # One save: the new description admits the old weights. Two: it does not, and all is read again.
    assert (info["kind"], weights["w"].item(), len(calls)) == {1: ("2", 1.0, 1), 2: ("3", 3.0, 2)}[saves]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    checkpoint.save_agent(tmp_path, {}, {"w": torch.zeros(1), "n": torch.ones((), dtype=torch.int64)})
    for bad in (float("nan"), float("inf")):
        with pytest.raises(NonFiniteLoss, match="w not finite: the agent was not saved"):
            checkpoint.save_agent(tmp_path, {}, {"w": torch.tensor([bad])})
    assert saved_agents.load_agent_files(tmp_path)[1]["w"].item() == 0


def test_a_full_disk_names_the_agents_folder_and_leaves_the_one_before(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoint.save_agent(tmp_path / "agent", {}, {"w": torch.zeros(1)})
    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(SaveFailed, match=r"agent to .*/agent: .*No space left on device.* Free some space"):
        checkpoint.save_agent(tmp_path / "agent", {}, {"w": torch.ones(1)})
    assert saved_agents.load_agent_files(tmp_path)[1]["w"].item() == 0
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
    module = saved_agents.rebuild(lambda: nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), weights := {
        "0.weight": torch.randn(3, 2), "0.bias": torch.ones(3), "1.weight": torch.ones(3), "1.bias": torch.ones(3),
        "1.running_mean": torch.zeros(3), "1.running_var": torch.ones(3), "1.num_batches_tracked": torch.tensor(5),
    })  # fmt: skip
    assert module(torch.zeros(2, 2)).device.type == "cpu" and torch.equal(module[0].weight, weights["0.weight"])
    own = build().state_dict()
    for count, width, message in ((3, 5, "6 weights do not fit, as 0.bias: .4,. there, .5,. wanted"),
                                  (2, 4, "2 weights do not fit, as 2.bias: .4,. there, none wanted"),
                                  (4, 4, "2 weights do not fit, as 3.bias: none there")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            saved_agents.rebuild(layers(count, width)[0], own)
    for count, width in ((10**9, 4), (1, 10**9)):  # neither the time nor the memory that these would take
        build, built = layers(count, width)
        with pytest.raises(ValueError, match="far larger network"):
            saved_agents.rebuild(build, own)
        assert len(built) < 300 and all(part.weight.is_meta for part in built)


@pytest.mark.parametrize("blob", [b"", b"\xff" * 100, (10).to_bytes(8, "little") + b"{" * 10])
def test_weights_with_a_right_checksum_that_do_not_load_are_a_damaged_file(tmp_path, blob):
    (tmp_path / "weights.safetensors").write_bytes(blob)
    (tmp_path / "agent.json").write_text(json.dumps({"weights_sha256": [hashlib.sha256(blob).hexdigest()]}))
    with pytest.raises(DamagedFile, match="not a whole agent"):
        saved_agents.load_agent_files(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weights_sha256": 3}', "[" * 100_000])
def test_a_broken_description_is_a_damaged_file(tmp_path, text):
    checkpoint.save_agent(tmp_path, {}, {"w": torch.zeros(1)})
    (tmp_path / "agent.json").write_text(text)
    with pytest.raises(DamagedFile, match="not a whole agent"):
        saved_agents.load_agent_files(tmp_path)
