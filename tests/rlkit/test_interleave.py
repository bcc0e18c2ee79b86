"""Several runs in one process, in turns: each is what it would be alone, and none loses anything to another."""

import dataclasses
import json
import os
import signal
import weakref
from types import SimpleNamespace

import pytest
import torch
from test_dqn import tiny

from experiments.control import dqn as dqn_atari
from rlkit import checkpoint
from rlkit.errors import NonFiniteLoss, SaveFailed
from rlkit.interleave import take_turns
from rlkit.logger import Timer
from rlkit.saved_config import load_config
from rlkit.trainer import Trainer


class Beside:
    """One of several runs, without a folder."""

    device = torch.device("cpu")

    def __init__(self, seed=1, stopped=lambda: False):
        self.cfg, self.timer, self._stopped = SimpleNamespace(seed=seed), Timer(), stopped

    @property
    def stopped(self):
        return self._stopped()


def settings(**more):
    cfg = tiny(frames=560, eval_every=430, eval_episodes=4, **({"target_every": 20} | more))
    # Both draw from the generators that a process shares.
    return dataclasses.replace(
        cfg, agent=dataclasses.replace(cfg.agent, width=0.25, noisy=True, distribution="iqn", atoms=4)
    )


def folders(tmp_path):
    return {load_config(type(settings()), path).seed: path for path in (tmp_path / "runs" / "dqn").iterdir()}


def end(folder):
    path = checkpoint.checkpoints(folder / "checkpoints")[0]
    return checkpoint.load_checkpoint(path)


@pytest.mark.slow
def test_runs_together_are_bit_for_bit_those_that_each_would_be_alone(tmp_path, monkeypatch):
    ends = []
    for place, plan in (("together", [(1, 3)]), ("alone", [(1, 1), (2, 1), (3, 1)])):
        (tmp_path / place).mkdir()
        monkeypatch.chdir(tmp_path / place)
        for seed, count in plan:
            dqn_atari.main(settings(seed=seed, together=count))
        ends.append({seed: end(folder) for seed, folder in folders(tmp_path / place).items()})
    together, alone = ends
    assert sorted(together) == sorted(alone) == [1, 2, 3]
    for seed in (1, 2, 3):
        assert together[seed]["step"] == alone[seed]["step"] > 50
        torch.testing.assert_close(together[seed]["model"], alone[seed]["model"], rtol=0, atol=0)
        assert torch.equal(together[seed]["rng"]["torch"], alone[seed]["rng"]["torch"])
    first, second = (next(iter(together[seed]["model"].values())) for seed in (1, 2))
    assert not torch.equal(first, second)


@pytest.mark.slow
def test_a_signal_stops_all_and_each_goes_on_by_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    update = Trainer.update

    def interrupted(trainer, batch):
        if trainer.step == 24 and "__1__" in trainer.run_dir.name:
            os.kill(os.getpid(), signal.SIGINT)
        return update(trainer, batch)

    monkeypatch.setattr(Trainer, "update", interrupted)
    dqn_atari.main(settings(together=2))
    assert signal.getsignal(signal.SIGINT) is before
    stopped = folders(tmp_path)
    assert {seed: end(folder)["step"] for seed, folder in stopped.items()} == {1: 25, 2: 24}
    assert all((folder / "agent" / "weights.safetensors").exists() for folder in stopped.values())
    monkeypatch.setattr(Trainer, "update", update)
    for folder in stopped.values():
        dqn_atari.main(dataclasses.replace(load_config(type(settings()), folder), resume=str(folder)))
    monkeypatch.chdir((tmp_path / "whole").mkdir() or tmp_path / "whole")
    dqn_atari.main(settings(together=2))
    for seed, folder in folders(tmp_path / "whole").items():
        torch.testing.assert_close(end(stopped[seed])["model"], end(folder)["model"], rtol=0, atol=0)


def test_a_signal_while_one_is_built_stops_it_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build = dqn_atari.build

    def interrupted(cfg, *args):
        if cfg.seed == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return build(cfg, *args)

    monkeypatch.setattr(dqn_atari, "build", interrupted)
    dqn_atari.main(settings(together=2))
    assert {seed: end(folder)["step"] for seed, folder in folders(tmp_path).items()} == {1: 1, 2: 0}


def test_who_has_not_begun_when_a_signal_comes_does_not_begin():
    begun = []

    def learner(name):
        begun.append(name)
        yield
        return name

    runs = [Beside(seed, lambda: "b" in begun) for seed in range(3)]
    assert take_turns([learner("a"), learner("b"), learner("c")], runs) == ["a", "b"]
    assert begun == ["a", "b"]


@pytest.mark.slow
def test_one_that_fails_does_not_end_the_others_nor_keep_its_memory(capfd):
    class Replay:
        pass

    def learner(steps, error=None):
        replay = Replay()
        held.append(weakref.ref(replay))
        for _ in range(steps):
            yield
        if error:
            raise error
        done.append((steps, [number for number, ref in enumerate(held) if ref() is not None]))

    held, done = [], []
    with pytest.raises(NonFiniteLoss, match="first"):
        take_turns(
            [learner(5), learner(2, NonFiniteLoss("first")), learner(9), learner(7, ValueError("second"))],
            [Beside() for _ in range(4)],
        )
    assert done == [(5, [0, 2, 3]), (9, [2])]
    said = capfd.readouterr().err
    assert "run 2 of 4 failed, the others go on: NonFiniteLoss('first')" in said and "run 4 of 4 failed" in said


def test_nor_does_an_error_that_led_to_another_keep_memory():
    class Replay:
        def save(self):
            raise OSError("full")

    def learner():
        replay = Replay()
        held.append(weakref.ref(replay))
        yield
        try:
            replay.save()
        except OSError as error:
            raise SaveFailed("could not write") from error

    def other():
        yield
        yield
        yield

    held = []
    with pytest.raises(SaveFailed):
        take_turns([learner(), other()], [Beside() for _ in range(2)])
    assert held[0]() is None


def test_each_failure_is_said(capfd):
    def learner(steps, error):
        for _ in range(steps):
            yield
        raise error

    with pytest.raises(ValueError, match="first"):
        take_turns(
            [learner(1, ValueError("first")), learner(3, ValueError("the last one"))], [Beside() for _ in range(2)]
        )
    said = capfd.readouterr().err
    assert "run 1 of 2 failed, the others go on: ValueError('first')" in said
    assert "run 2 of 2 failed: ValueError('the last one')" in said


@pytest.mark.slow
def test_a_signal_in_the_last_save_of_one_keeps_all_from_their_games(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save = Trainer.save

    def interrupted(trainer):
        if "__2__" in trainer.run_dir.name and trainer.step == trainer.cfg.steps:
            os.kill(os.getpid(), signal.SIGINT)
        return save(trainer)

    monkeypatch.setattr(Trainer, "save", interrupted)
    dqn_atari.main(dataclasses.replace(settings(together=2), eval_every=10_000))
    for folder in folders(tmp_path).values():
        assert json.loads((folder / "agent" / "agent.json").read_text())["score"] is None


def test_runs_together_are_new_ones(tmp_path):
    with pytest.raises(ValueError, match="--together is for new runs"):
        dqn_atari.main(settings(together=2, resume=str(tmp_path)))
    with pytest.raises(ValueError, match="--together must be at least 1"):
        dqn_atari.main(settings(together=0))
