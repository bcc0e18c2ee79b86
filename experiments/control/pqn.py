"""PQN on Atari: Q-learning without replay and target network.

python -m experiments pqn --game breakout                       # preset fast: for two CPU cores
python -m experiments pqn --preset paper --game breakout        # the paper's numbers: for a GPU and many cores
python -m experiments pqn --resume runs/pqn/<run>         # goes on where the run was stopped
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from agents.pqn.agent import PQN, PQNConfig
from agents.pqn.experience import Experience
from experiments.control import dqn as dqn_atari
from rlkit import run, runtime
from rlkit.logger import Timer
from rlkit.schedule import Schedule
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config:
    """PQN on Atari. Frames are emulator frames: four to an agent's step (one in catch)."""

    preset: Literal["fast", "paper"] = "fast"
    """defaults: fast (fewer environments, a falling learning rate), paper (the authors' configuration)"""
    resume: str | None = None
    """folder of a run to go on with"""
    game: str = "pong"
    """any single-player game that ale-py ships, or catch"""
    protocol: Literal["nature", "machado"] = "nature"
    """machado: sticky actions, no life-loss signal"""
    seed: int = 1
    together: int = 1
    """runs that learn side by side in this process, with the seeds `seed`, `seed` + 1, ...; each has its own folder"""
    frames: int = 10_000_000
    """emulator frames in all, cut to whole rollouts"""
    minutes: float = 0
    """that this process may take, its last evaluation and save included; 0: no limit"""
    num_envs: int = 32
    """emulators in lock-step"""
    num_steps: int = 32
    """agent steps of each environment in a rollout"""
    minibatches: int = 8
    """parts of a rollout, each one update in every epoch"""
    epochs: int = 2
    """how often each transition is learned"""
    epsilon_final: float = 0.01
    epsilon_share: float = 0.1
    """share of the frames over which epsilon falls from 1 to epsilon_final"""
    eval_every: int = 2_000_000
    """frames between evaluations; the agent's folder is saved then"""
    eval_episodes: int = 10
    device: str = "auto"
    """cpu, cuda, cuda:1, ..."""
    threads: int = 0
    """CPU threads, for the same numbers again from the same seed; 0: as many as there are idle cores"""
    agent: tyro.conf.OmitArgPrefixes[PQNConfig] = field(default_factory=PQNConfig)
    # steps=0: as many updates as the frames allow
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=0, optimizer="radam", lr=2.5e-4, lr_decay="linear", precision="auto", save_every=5_000
        )
    )


BOUNDS: dict[str, run.Bound] = {
    "seed": 0, "together": 1, "frames": 1, "minutes": 0, "num_envs": 1, "num_steps": 1, "minibatches": 1, "epochs": 1,
    "epsilon_share": (1e-9, 1), "epsilon_final": (0, 1), "eval_every": 1, "eval_episodes": 1, "threads": 0,
    "agent.width": 0.01, "agent.gamma": (0, 1), "agent.lambda_": (0, 1),
}  # fmt: skip
# What turns frames into updates or shapes what is saved: changed midway, a checkpoint would not fit.
FIXED = (
    "preset", "game", "protocol", "num_envs", "num_steps", "minibatches", "epochs", "agent", "trainer.accumulate",
    "trainer.optimizer",
)  # fmt: skip

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


def build(cfg: Config, device: torch.device, run_dir: Path | None = None) -> tuple[Trainer, Experience, PQN]:
    """The three parts of a run, wired."""
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("--trainer.mode cudagraph takes batches of one shape, and PQN's vary: use eager or compile")
    timer = Timer()
    envs = dqn_atari.make_envs(cfg, cfg.num_envs, stream=1, training=True)  # type: ignore[arg-type]
    precision = runtime.fastest_precision(device) if cfg.trainer.precision == "auto" else cfg.trainer.precision
    agent = PQN(envs.obs_shape, envs.num_actions, cfg.agent, device, precision)
    experience = Experience(
        envs,
        agent,
        epsilon=Schedule("frames", 1.0, cfg.epsilon_final, over=cfg.epsilon_share * cfg.frames),
        num_steps=cfg.num_steps,
        epochs=cfg.epochs,
        minibatches=cfg.minibatches,
        seed=runtime.derive_seed(cfg.seed, 2),
        timer=timer,
    )
    rollout = cfg.num_envs * cfg.num_steps * envs.frames_per_step
    steps = cfg.frames // rollout * cfg.epochs * cfg.minibatches // cfg.trainer.accumulate
    if steps < 1 and not cfg.trainer.steps:
        raise ValueError(f"--frames {cfg.frames:,} are too few: a single rollout has {rollout:,}")
    trainer = Trainer(
        agent.network,
        agent.loss,
        replace(cfg.trainer, steps=cfg.trainer.steps or steps, precision=precision),
        run_dir,
        state={"experience": experience},
        clock=("frames", lambda: experience.frames, cfg.frames),
        timer=timer,
    )
    return trainer, experience, agent


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    run.within(cfg, BOUNDS)
    parts: dict[str, Any] = {"make_envs": dqn_atari.make_envs, "build": build, "follow": lambda *_: None}
    return dqn_atari.train(cfg, partial(dqn_atari.learn, experiment="pqn", fixed=FIXED, **parts))
