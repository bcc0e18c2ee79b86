"""PQN on Atari: Q-learning without replay and target network.

python -m experiments pqn --env breakout                       # preset fast: for two CPU cores
python -m experiments pqn --preset paper --env breakout        # the paper's numbers: for a GPU and many cores
python -m experiments pqn --resume runs/pqn/<run>         # goes on where the run was stopped
"""

import re
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from agents.pqn.agent import PQN, PQNConfig
from agents.pqn.experience import Experience
from experiments.control.evaluation import Evaluation
from experiments.control.worlds import WorldConfig, full_name, make_envs
from rlkit.config import AtLeast, Between, Fixed
from rlkit.run import Run, interleave
from rlkit.runtime import derive_seed, rank
from rlkit.schedule import Schedule
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config(WorldConfig):
    """PQN on Atari. Frames are cut to whole rollouts."""

    preset: Annotated[Literal["fast", "paper"], Fixed] = "fast"
    """defaults: fast (fewer environments, a falling learning rate), paper (the authors' configuration)"""
    frames: int = 10_000_000
    num_envs: int = 32
    eval_every: int = 2_000_000
    num_steps: Annotated[int, AtLeast(1), Fixed] = 32
    """agent steps of each environment in a rollout"""
    minibatches: Annotated[int, AtLeast(1), Fixed] = 8
    """parts of a rollout, each one update in every epoch"""
    epochs: Annotated[int, AtLeast(1), Fixed] = 2
    """how often each transition is learned"""
    epsilon_final: Annotated[float, Between(0, 1)] = 0.01
    """share of random actions in the end"""
    epsilon_share: Annotated[float, Between(1e-09, 1)] = 0.1
    """share of the frames over which epsilon falls from 1 to epsilon_final"""
    agent: Annotated[tyro.conf.OmitArgPrefixes[PQNConfig], Fixed] = field(default_factory=PQNConfig)
    # steps=0: as many updates as the frames allow
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=0, optimizer="radam", lr=2.5e-4, lr_decay="linear", precision="auto", save_every=5_000
        )
    )


PRESETS = {
    "fast": Config(),
    "paper": Config(
        preset="paper",
        frames=40_000_000,
        num_envs=128,
        minibatches=32,
        epsilon_final=0.001,
        eval_every=4_000_000,
        trainer=TrainConfig(steps=0, optimizer="radam", lr=2.5e-4, log_every=500, save_every=20_000),
    ),
}


def build(cfg: Config, run: Run) -> tuple[Trainer, Experience, PQN]:
    """The parts of a run: worlds, agent, experience (worlds -> rollouts -> batches) and trainer."""
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("--trainer.mode cudagraph takes batches of one shape, and PQN's vary: use eager or compile")
    envs = make_envs(cfg, cfg.num_envs, stream=1, training=True)
    agent = PQN(envs.obs_shape, envs.num_actions, cfg.agent, run.device, run.precision)
    experience = Experience(
        envs, agent, num_steps=cfg.num_steps, epochs=cfg.epochs, minibatches=cfg.minibatches,
        epsilon=Schedule(1.0, cfg.epsilon_final, duration=cfg.epsilon_share * cfg.frames),
        clip_reward=cfg.clip_reward, reward_scale=cfg.reward_scale,
        seed=derive_seed(cfg.seed, 2, rank()), timer=run.timer,
    )  # fmt: skip
    rollout = cfg.num_envs * cfg.num_steps * envs.frames_per_step
    steps = cfg.trainer.steps or cfg.frames // rollout * cfg.epochs * cfg.minibatches // cfg.trainer.accumulate
    if steps < 1:
        raise ValueError(f"--frames {cfg.frames:,} are too few: a single rollout has {rollout:,}")
    trainer = Trainer(
        agent.network,
        agent.loss,
        replace(cfg.trainer, steps=steps, precision=agent.precision),
        run.folder,
        state={"experience": experience},
        clock=("frames", lambda: experience.frames, cfg.frames),
        timer=run.timer,
        deadline=run.deadline,
    )
    return trainer, experience, agent


def learn(cfg: Config, run: Run) -> Generator[None, None, Path]:
    """The loop; returns the run's folder. Yields after each update, for runs that take turns."""
    folder = run.open(re.sub(r"[:/]", "_", cfg.env))
    trainer, experience, agent = build(cfg, run)
    run.resume(trainer)
    evaluation = Evaluation(run, agent, experience)

    for step, _, _ in trainer.run(experience):
        if step % cfg.trainer.log_every == 0:
            trainer.log(experience.stats())
            evaluation.estimate()
        if run.evaluation_due(cfg.eval_every):
            evaluation()
        yield
    evaluation.save()
    yield  # all that learn side by side have saved before one of them plays
    if not run.stopped:
        evaluation(last=True)
    run.close(evaluate=("evaluate", folder))
    return folder


def main(cfg: Config) -> Path:
    """Train; returns the run's folder, of several the first one's."""
    runs = Run.several(replace(cfg, env=full_name(cfg.env)), "pqn")
    return interleave([learn(run.cfg, run) for run in runs], runs)[0]
