"""Whole runs in environments of gymnasium: their failures, their resume, rewards, presets and packages."""

import copy
import dataclasses
import functools
import re

import gym_toys
import numpy as np
import pytest
import torch

from envs.gymnasium_names import name_of
from experiments.__main__ import load, parse
from experiments.control import dqn, memory, pqn
from rlkit import evaluate
from rlkit.checkpoint import checkpoints
from rlkit.command_line import cli
from rlkit.errors import ExperienceFailed
from rlkit.run import Run
from rlkit.saved_agents import load_agent_files
from rlkit.saved_config import load_config

SMALL = {"num_envs": 4, "eval_episodes": 2, "eval_every": 10_000, "device": "cpu", "threads": 1, "seed": 1}
REPLAY = SMALL | {
    "batch_size": 16,
    "samples_per_step": 4,
    "replay": 2000,
    "learning_starts": 200,
    "epsilon_frames": 500,
}


def small(command, env, **kw):
    """A configuration of dqn, memory or pqn that ends within a second or two."""
    preset = {dqn: "classic", memory: "small", pqn: "fast"}[command]
    base = copy.deepcopy(command.PRESETS[preset])
    sizes = SMALL | {"num_steps": 16, "minibatches": 2, "epsilon_share": 0.5} if command is pqn else REPLAY
    if command is memory:
        sizes = sizes | {"agent": dataclasses.replace(base.agent, burn_in=2, length=8, n_step=2), "period": 8}
    trainer = {"progress": False, "precision": "fp32", "save_every": 10, "log_every": 10} | kw.pop("trainer", {})
    trainer = dataclasses.replace(base.trainer, **trainer)
    return dataclasses.replace(base, **({"env": env, "frames": 640} | sizes | kw), trainer=trainer)


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    """Runs lie in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gym_toys.Breaks, "healed", False)


# -- failures ----------------------------------------------------------------------------------------------------------


def run_line(*args):
    """Run a command line as `python -m experiments` does."""
    command = load(args[0])
    cli(command.main, lambda: parse(command, list(args[1:])))


@pytest.mark.slow
@pytest.mark.parametrize("command", [dqn, memory, pqn])
def test_an_error_in_the_middle_costs_nothing_and_the_run_goes_on(command, tmp_path, monkeypatch, capfd):
    cfg = small(command, "gym_toys:Breaks", env_kwargs=("what=step", "when=120"))
    with pytest.raises(ExperienceFailed, match=r"environment 0 \(gym_toys:Breaks\) raised ZeroDivisionError") as caught:
        cli(command.main, lambda: cfg)
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert "at step " in str(caught.value)
    assert str(caught.value).endswith(f" is saved, go on with --resume {folder.relative_to(tmp_path)}")
    causes = [caught.value]
    while causes[-1].__cause__:
        causes.append(causes[-1].__cause__)
    assert isinstance(causes[-1], ZeroDivisionError)  # their traceback is shown with ours
    saved = checkpoints(folder / "checkpoints")
    assert saved and (folder / "config.json").exists()
    monkeypatch.setattr(gym_toys.Breaks, "healed", True)
    assert command.main(dataclasses.replace(load_config(type(cfg), folder), resume=folder)) == folder
    assert load_agent_files(folder)[0]["score"]["mean"] == 5.0
    assert "4 environments begin new episodes" in capfd.readouterr().err


def test_an_error_while_a_checkpoint_is_written_is_kept_for_the_next_batch(tmp_path):
    """The step that is on its way is received when a run is saved: then it fails there."""
    cfg = small(dqn, "gym_toys:Breaks", env_kwargs=("what=step", "when=70"), trainer={"save_every": 1})
    with pytest.raises(ExperienceFailed, match="speed of nothing"):
        dqn.main(cfg)
    (folder,) = (tmp_path / "runs/dqn").iterdir()
    newest, *_ = checkpoints(folder / "checkpoints")
    assert int("".join(filter(str.isdigit, newest.stem))) > 5


def test_an_error_in_an_evaluation_saves_the_run(tmp_path, monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("in a game")

    monkeypatch.setattr(evaluate, "episodes", fails)
    cfg = small(dqn, "CartPole-v1", eval_every=400, trainer={"save_every": 1000})
    with pytest.raises(ExperienceFailed, match=r"in a game; step_.* is saved, go on with --resume runs/dqn/CartPole"):
        dqn.main(cfg)
    (folder,) = (tmp_path / "runs/dqn").iterdir()
    assert checkpoints(folder / "checkpoints")


@pytest.mark.parametrize("what", ["reset", "constructor"])
def test_what_fails_before_a_run_leaves_none(what, tmp_path):
    with pytest.raises(RuntimeError, match=r"in reset, at step 0|its constructor raised OSError\('no licence'\)"):
        run_line("dqn", "--preset", "classic", "--env", "gym_toys:Breaks", "--env-kwargs", f"what={what}", "when=0")
    assert not [*(tmp_path / "runs").rglob("*.json")]


ONE_LINE = {
    "CartPole": "no Atari game 'CartPole'.*or CartPole-v1 of gymnasium",
    "CartPol-v1": "did you mean CartPole-v1",
    "CartPole-v1 --preset fast": "backbone nature sees images.*preset classic",
    "Pendulum-v1": "--bins 5",
    "gym_toys:Odd --env-kwargs observes=minigrid": "--wrappers minigrid.wrappers:ImgObsWrapper",
    "gym_toys:Odd --env-kwargs observes=text": "--wrappers module:Class",
    "gym_toys:Odd --env-kwargs acts=acts_dict": "--wrappers module:Class",
    "CartPole-v1 --env-kwargs size=3": "does not fit its --env-kwargs.*size",
    "CartPole-v1 --env-kwargs size": "key=value, not 'size'",
    "CartPole-v1 --wrappers nowhere:X": "wrapper nowhere:X: No module named 'nowhere'",
    "CartPole-v1 --wrappers gym_toys:X": "has no attribute 'X'",
    "nowhere:X-v0": "No module named 'nowhere'; is it installed, or in this folder",
    "gym_toys:missing": "pip install box3d",
    "gym_toys:number": "made a int, which is no gymnasium.Env",
    "MinAtar/Breakout-v1 --normalise --backbone minatar": "--normalise is for vectors",
}


@pytest.mark.parametrize("line", ONE_LINE)
def test_what_a_user_can_mend_is_one_line(line, tmp_path):
    if line.startswith("MinAtar"):
        pytest.importorskip("minatar")
    env, *more = line.split()
    preset = [] if "--preset" in more else ["--preset", "classic"]
    with pytest.raises(SystemExit) as ended:
        run_line("dqn", *preset, "--env", env, *more, "--device", "cpu")
    said, hint = str(ended.value.code).splitlines()
    assert said.startswith("error: ") and "TRACEBACK=1" in hint
    assert re.search(ONE_LINE[line], said), said
    assert not [*(tmp_path / "runs").rglob("*.json")]


# -- resume ------------------------------------------------------------------------------------------------------------


def prepared(cfg, folder):
    run = Run(cfg, "x")
    run.folder = folder
    return run


def parts_of(command, cfg, folder, stop=None):
    trainer, experience, agent = command.build(cfg, prepared(cfg, folder))
    if stop:
        for step, _, _aux in trainer.run(experience):
            if step % 4 == 0 and hasattr(agent, "sync"):
                agent.sync(trainer.model)
            if step == stop:
                trainer.save()
                break
    return trainer, experience, agent


@pytest.mark.parametrize("world", ["CartPole-v1", "Taxi-v4"])
@pytest.mark.parametrize("command", [dqn, memory, pqn])
def test_resume_is_exact_but_for_the_episodes_which_begin_anew_as_it_says(command, world, tmp_path, capsys):
    cfg = small(command, world, **({} if command is pqn else {"save_replay": True}))
    stop = 3 if command is pqn else 10  # in the middle of a rollout's minibatches
    trainer, experience, agent = parts_of(command, cfg, tmp_path / "run", stop)
    again, other, copied = parts_of(command, cfg, tmp_path / "run")
    assert again.load()
    assert "4 environments begin new episodes" in capsys.readouterr().err
    assert again.step == stop and other.frames == experience.frames > 0
    assert other.envs.mask is None or (other._mask == other.envs.mask).all()
    assert world != "CartPole-v1" or abs(np.asarray(other._obs)).max() <= 0.05  # where its episodes begin
    states = [(agent.network, copied.network)]
    states += [(agent.target, copied.target)] if command is not pqn else []
    for one, two in states:
        for name, value in one.state_dict().items():
            torch.testing.assert_close(two.state_dict()[name], value, rtol=0, atol=0)
    if command is pqn:
        batches = next(experience), next(other)  # what was left of the rollout
    else:
        rows = experience.replay.count - 1
        for one, two in zip(experience.replay._columns, other.replay._columns, strict=True):
            np.testing.assert_array_equal(one[:rows], two[:rows])
        at = np.arange(16), np.arange(16) % 4
        at = (at[0] // 8 * 8, at[1]) if command is memory else at
        batches = experience.replay.batch_at_moments(*at), other.replay.batch_at_moments(*at)
    for name, value in batches[0].items():
        torch.testing.assert_close(batches[1][name], value, rtol=0, atol=0)
    losses = [trainer.update(batches[0])["loss"], again.update(batches[1])["loss"]]
    assert losses[0] == losses[1]
    for one, two in zip(agent.network.parameters(), copied.network.parameters(), strict=True):
        assert torch.equal(one, two)  # the optimiser went on too
    for _ in range(40):
        next(other)
    assert other.frames > experience.frames


# -- what is learned from ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "clip", "kept"), [(1.0, False, {0, 1, 2, 3}), (0.5, False, {0, 0.5, 1, 1.5}), (0.5, True, {0, 0.5, 1})]
)
def test_rewards_are_scaled_then_clipped_and_scores_are_raw(scale, clip, kept):
    make = functools.partial(gym_toys.Told, gym_toys.SPACES["box"], np.zeros((4, 3), np.float32))
    cfg = small(dqn, name_of(make), reward_scale=scale, clip_reward=clip)
    _, experience, _ = dqn.build(cfg, prepared(cfg, None))
    next(experience)
    assert set(np.unique(experience.replay.reward[: experience.replay.count])) == kept
    assert {score for score, _ in experience.episodes.finished} == {6.0}
    cfg = small(pqn, cfg.env, reward_scale=scale, clip_reward=clip)
    _, experience, _ = pqn.build(cfg, prepared(cfg, None))
    r_t, nothing = np.array([[1.0], [2.0], [3.0]], np.float32), np.zeros((3, 1), np.float32)
    target = experience._targets(r_t, nothing, nothing, nothing.astype(bool))  # all of them terminals
    assert set(target.flatten().tolist()) == kept - {0}


@pytest.mark.slow
def test_a_callable_trains_from_python_and_its_normalised_agent_comes_back(tmp_path):
    class Far(gym_toys.Endings):
        def _obs(self):
            return super()._obs() * np.float32([1, 0.001]) + np.float32([0, 5000])

    cfg = small(dqn, Far)
    cfg = dataclasses.replace(cfg, agent=dataclasses.replace(cfg.agent, normalise=True))
    folder = dqn.main(cfg)
    assert folder.name.startswith("callable_") and load_config(type(cfg), folder).env.startswith("callable/")
    info, weights = load_agent_files(folder)
    assert info["env"]["options"]["stack"] == 0
    mean = weights["torso.mean"].tolist()
    assert 0 < mean[0] < 6 and mean[1] == pytest.approx(5000, abs=1) and weights["torso.count"] > 500


# -- packages that users bring, by one command each --------------------------------------------------------------------

BROUGHT = {
    "minatar": "minatar MinAtar/Breakout-v1",
    "minigrid": "minatar MiniGrid-Empty-5x5-v0 --wrappers minigrid.wrappers:ImgObsWrapper --env-kwargs max_steps=20",
    "highway_env": "classic highway-fast-v0 --env-kwargs config={'duration':2,'vehicles_count':2,'lanes_count':2}",
    "Box2D": "classic LunarLander-v3 --normalise",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("package", BROUGHT)
def test_a_package_from_pypi_trains_by_one_command(package, tmp_path):
    pytest.importorskip(package)
    frames = 60 if package == "highway_env" else 320  # which is slow
    sizes = f"--frames {frames} --learning-starts {frames // 2} --num-envs 4 --batch-size 16 --samples-per-step 2"
    preset, env, *more = BROUGHT[package].split()
    line = ["dqn", "--preset", preset, "--env", env, *more, *sizes.split()]
    line += ["--eval-episodes", "1", "--device", "cpu", "--threads", "1", "--trainer.no-progress"]
    run_line(*line)
    (folder,) = (tmp_path / "runs/dqn").iterdir()
    assert load_agent_files(folder)[0]["score"]["episodes"] == 1
