"""A run's folder through bad luck: what is lost comes back, what did not begin leaves nothing."""

import dataclasses
import errno
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from experiments.__main__ import MODULES, load
from experiments.control.dqn_presets import PRESETS
from experiments.supervised import images
from rlkit import command_line, run
from rlkit.config import check_bounds, flag, with_changes
from rlkit.errors import DamagedFile
from rlkit.saved_config import from_dict, load_config
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config:
    preset: str = "small"
    resume: str | None = None
    seed: int = 1
    rate: float = 0.5
    some: float | None = None
    few: tuple[float, ...] = (1.0, 2.0)
    kind: Literal["a", "b"] = "a"
    shuffle: bool = True
    batch_size: int = 2
    trainer: TrainConfig = field(default_factory=lambda: TrainConfig(steps=4, save_every=2, progress=False))


def train(cfg):
    run_dir = run.open_run(cfg, "toy", "toy")
    model = nn.Linear(1, 1)
    trainer = Trainer(model, lambda m, b: (m(b["x"]).square().mean(), {}), cfg.trainer, run_dir)
    if cfg.resume:
        trainer.load()
    for _ in trainer.run([{"x": torch.ones(2, 1)}] * cfg.trainer.steps):
        pass
    trainer.close()
    return run_dir


@pytest.fixture
def trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return train(Config(rate=0.25, few=(3.0,)))


# -- numbers and types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_no_number_is_nan_or_infinite(bad):
    for change in ({"rate": bad}, {"some": bad}, {"few": (1.0, bad)}, {"trainer": TrainConfig(ema=bad)}):
        name = flag(next(iter(change)))
        with pytest.raises(ValueError, match=rf"{name}\S* must be finite, not "):
            check_bounds(Config(**change))
    check_bounds(Config())


@pytest.mark.parametrize("change", [{"ema": 1.5}, {"eps": -1.0}, {"momentum": 2.0}, {"weight_decay": -1.0}])
def test_a_trainers_numbers_have_bounds(change):
    with pytest.raises(ValueError, match=f"--trainer.{next(iter(change)).replace('_', '-')} must be"):
        check_bounds(Config(trainer=TrainConfig(**change)))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "1"}, {"seed": 1.5}, {"seed": None}, {"seed": True}, {"rate": "x"}, {"rate": False}, {"some": [1]},
        {"few": 3}, {"few": ["x"]}, {"few": {}}, {"kind": "c"}, {"kind": []}, {"shuffle": 1}, {"preset": {}},
        {"trainer": 3}, {"trainer": {"lr": "fast"}}, {"trainer": {"optimizer": "lbfgs"}}, {"trainer": None},
    ],
)  # fmt: skip
def test_values_of_another_type_are_a_damaged_configuration(change, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(change))
    with pytest.raises(
        DamagedFile, match=rf"config.json: {next(iter(change))}\b.* cannot be|config.json: lr cannot|opt"
    ):
        load_config(Config, tmp_path)


def test_a_configuration_survives_json():
    cfg = Config(some=3.0, rate=2, few=(1.0,), kind="b")
    assert from_dict(Config, json.loads(json.dumps(dataclasses.asdict(cfg))), "") == cfg


# -- what is lost and comes back ---------------------------------------------------------------------------------------


def spoil(path, how):
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "dangling":
        path.symlink_to("nowhere")
    elif how != "missing":
        path.write_text({"empty": "", "deep": "[" * 100_000, "type": '{"rate": "x"}', "key": '{"rape": 1}'}[how])


@pytest.mark.parametrize("how", ["missing", "empty", "deep", "type", "key", "pipe", "dangling"])
def test_a_lost_configuration_comes_back_from_a_checkpoint(trained, capsys, how):
    before = (trained / "config.json").read_bytes()
    spoil(trained / "config.json", how)
    cfg = load_config(Config, trained)
    assert cfg == Config(rate=0.25, few=(3.0,))
    assert capsys.readouterr().err.count("written anew from") == 1 and (trained / "config.json").read_bytes() == before
    assert train(dataclasses.replace(cfg, resume=str(trained))) == trained
    assert "resumed at step 4" in (said := capsys.readouterr().err) and "anew" not in said


def test_a_lost_configuration_without_a_checkpoint_is_an_error(trained):
    for path in (trained / "checkpoints").iterdir():
        path.write_bytes(b"")
    (trained / "config.json").write_text("")
    with pytest.raises(DamagedFile, match=r"config\.json is no JSON"):
        load_config(Config, trained)
    (trained / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is no run: it has no config\.json"):
        load_config(Config, trained)


@pytest.mark.parametrize("call", range(1, 5))
def test_a_resume_that_fails_on_a_full_disk_leaves_the_configuration_whole(trained, monkeypatch, call):
    before, command = ((trained / name).read_bytes() for name in ("config.json", "command.txt"))
    real, calls = os.fsync, []

    def full(fd):
        calls.append(fd)
        if len(calls) >= call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(fd)

    def resume():
        cfg = load_config(Config, trained)
        more = dataclasses.replace(cfg.trainer, steps=8)
        return dataclasses.replace(cfg, resume=str(trained), rate=0.75, trainer=more)

    def in_place(path, data):  # what a full disk makes of it
        path.open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(Path, "write_bytes", in_place)
    with pytest.raises(SystemExit, match="No space left"):
        command_line.cli(train, resume)
    after = load_config(Config, trained)
    assert after.rate in (0.25, 0.75)
    if call == 1:
        assert (trained / "config.json").read_bytes() == before and (trained / "command.txt").read_bytes() == command
    assert not [path for path in trained.rglob(".*") if path.name != ".lock"]


def test_a_resume_that_fails_takes_back_only_what_it_changed(trained, monkeypatch):
    kept = {name: (trained / name).read_bytes() for name in ("config.json", "command.txt")}

    def fail(cfg):
        run.open_run(cfg, "toy", "toy")
        raise ValueError("no")

    for rate in (0.25, 0.75):
        with pytest.raises(SystemExit, match="error: no"):
            command_line.cli(fail, lambda rate=rate: Config(resume=str(trained), rate=rate, few=(3.0,)))
        assert {name: (trained / name).read_bytes() for name in kept} == kept


@pytest.mark.parametrize("name", [".lock", "command.txt"])
def test_a_pipe_in_a_files_place_is_refused(trained, name):
    (trained / name).unlink()
    os.mkfifo(trained / name)
    with pytest.raises(DamagedFile, match=f"{name} is no regular file; remove it"):
        run.open_run(Config(resume=str(trained)), "toy", "toy")


def test_a_start_sweeps_what_a_kill_left(trained):
    (trained / ".config.json.123").touch()
    run.open_run(Config(resume=str(trained)), "toy", "toy")
    assert not (trained / ".config.json.123").exists()


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, name",
    [
        ({}, "pong"),
        ({"env": "breakout", "seed": 7, "minutes": 3.0, "frames": 9, "threads": 1, "eval_every": 9}, "pong"),
        ({"save_replay": False, "trainer": {"steps": 3, "log_every": 5, "progress": False, "save_every": 9}}, "pong"),
        ({"trainer": {"lr": 1e-3}}, "pong_lr=0.001"),
        ({"agent": {"double": False, "munchausen": True}, "batch_size": 64}, "pong_batch-size=64_no-double_munchausen"),
        ({"torso_from": "runs/images/some"}, "pong_torso-from=runs-images-some"),
        ({"torso_from": "a/" * 40, "trainer": {"lr": 1.0}}, "pong_more"),
        ({"replay": 123_456, "batch_size": 64, "target_every": 77, "trainer": {"lr": 1e-3, "clip": 1.0}},
         "pong_batch-size=64_replay=123456_target-every=77_lr=0.001_more"),
    ],
)  # fmt: skip
def test_a_name_carries_what_differs_from_the_preset(change, name):
    cfg = PRESETS["frugal"]
    for key, value in change.items():
        value = dataclasses.replace(getattr(cfg, key), **value) if isinstance(value, dict) else value
        cfg = dataclasses.replace(cfg, **{key: value})
    assert with_changes("pong", cfg) == name


def test_what_a_name_says_already_is_not_said_again():
    cfg = images.PRESETS["digits"]
    assert with_changes("digits_vgg", dataclasses.replace(cfg, backbone="vgg")) == "digits_vgg"
    assert with_changes("toy", Config(rate=0.25)) == "toy", "no presets stand beside it"


def test_presets_stand_beside_their_configuration():
    """Where `with_changes` looks for them."""
    for command in map(load, MODULES):
        for cfg in getattr(command, "PRESETS", {}).values():
            assert hasattr(sys.modules[type(cfg).__module__], "PRESETS")


def test_a_runs_folder_has_the_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = dataclasses.replace(PRESETS["fast"], batch_size=64, seed=3)
    assert run.open_run(cfg, "dqn", "pong").name.rsplit("__", 2)[:2] == ["pong_batch-size=64", "3"]
