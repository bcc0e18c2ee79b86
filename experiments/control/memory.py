"""DQN with a memory, where the present observation does not tell enough.

python -m experiments memory --game popgym:repeat_first_easy                    # --backbone lstm
python -m experiments memory --game tmaze --backbone transformer
python -m experiments memory --game hidden_cartpole --backbone none             # for comparison: no memory
python -m experiments memory --preset flicker --game pong                       # one frame, half of them blank
python -m experiments memory --preset r2d2 --game breakout
python -m experiments memory --resume runs/memory/<run>
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from agents.dqn.experience import Experience
from agents.recurrent.agent import RecurrentConfig, RecurrentDQN
from envs.vector import VectorEnv
from experiments.control import worlds as games
from experiments.control.dqn import after_update, learn, train, wire
from rlkit import run, runtime
from rlkit.logger import Timer
from rlkit.sequences import SequenceReplay
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config:
    """DQN over sequences, with a memory between torso and head. A frame is a step, but in Atari a quarter of one."""

    preset: Literal["small", "flicker", "r2d2"] = "small"
    """defaults: small (tests of memory, minutes on two cores), flicker (Hausknecht and Stone's flickering Atari of
    2015, with a newer learner), r2d2 (Kapturowski et al. 2019, its learner; 28 GB of replay)"""
    resume: str | None = None
    """folder of a run to go on with"""
    torso_from: str | None = None
    """agent or run folder whose torso a new run begins with, as far as it fits"""
    game: str = "popgym:repeat_first_easy"
    """tmaze, hidden_cartpole, popgym:TASK, catch, or any single-player game that ale-py ships"""
    protocol: Literal["nature", "machado"] = "nature"
    """of Atari; machado: sticky actions, no life-loss signal"""
    flicker: float | None = None
    """show single frames instead of stacks of four, and blank them with this probability; images only"""
    seed: int = 1
    together: int = 1
    """runs that learn side by side in this process, with the seeds `seed`, `seed` + 1, ...; each has its own folder"""
    frames: int = 200_000
    """emulator frames in all"""
    minutes: float = 0
    """that this process may take, its last evaluation and save included; 0: no limit"""
    num_envs: int = 16
    """worlds in lock-step"""
    batch_size: int = 32
    """sequences in an update"""
    samples_per_step: float = 64
    """moments after the burn-in for each agent step (a sequence's last `n_step` are only looked ahead to)"""
    replay: int = 300_000
    """agent steps it holds: where it forgets the failures of the beginning, CartPole is unlearned again"""
    period: int = 16
    """moments from one sequence's beginning to the next one's"""
    priority: float = 0.0
    """exponent of prioritised replay; 0: every sequence is as probable"""
    importance: float = 0.4
    """of prioritised replay: how much of that the loss makes up for at the beginning; at the end, all of it"""
    learning_starts: int = 2_000
    """agent steps, all worlds together, before the first update; random play in a new run"""
    epsilon_final: float = 0.02
    epsilon_frames: int = 50_000
    """frames over which epsilon falls from 1 to epsilon_final once learning has started"""
    target_every: int = 100
    """updates between copies into the target network"""
    eval_every: int = 50_000
    """frames between evaluations; the agent's folder is saved then"""
    eval_episodes: int = 48
    save_replay: bool = True
    """save the replay's frames too, for an exact resume, and the states (a transformer's are larger than the frames)"""
    device: str = "auto"
    """cpu, cuda, cuda:1, ..."""
    threads: int = 0
    """CPU threads, for the same numbers again from the same seed; 0: as many as there are idle cores"""
    agent: tyro.conf.OmitArgPrefixes[RecurrentConfig] = field(
        default_factory=lambda: RecurrentConfig(width=0.5, features=64, n_step=5, gamma=0.95, burn_in=4, length=56)
    )
    # steps=0: as many updates as the frames allow
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=0, lr=2e-3, lr_decay="linear", log_every=200)
    )


ATARI = Config(
    frames=4_000_000,
    batch_size=16,
    samples_per_step=8,
    replay=200_000,
    period=20,
    learning_starts=10_000,
    epsilon_final=0.01,
    epsilon_frames=400_000,
    target_every=500,
    eval_every=1_000_000,
    eval_episodes=10,
    agent=RecurrentConfig(torso="nature", features=512, burn_in=10, length=30, n_step=3),
    trainer=TrainConfig(steps=0, lr=2e-4, eps=1e-5, precision="auto"),
)
PRESETS = {
    "small": Config(),
    "flicker": replace(ATARI, preset="flicker", flicker=0.5),
    "r2d2": replace(
        ATARI,
        preset="r2d2",
        frames=200_000_000,
        num_envs=64,
        batch_size=64,
        replay=4_000_000,
        period=40,
        priority=0.9,
        importance=0.6,
        target_every=2_500,
        epsilon_frames=20_000_000,
        eval_every=10_000_000,
        save_replay=False,
        device="cuda",
        agent=replace(ATARI.agent, burn_in=40, length=80, n_step=5, gamma=0.997, rescale=True),
        trainer=TrainConfig(steps=0, lr=1e-4, eps=1e-3, clip=40, precision="auto"),
    ),
}
BOUNDS: dict[str, run.Bound] = {
    "flicker": (0, 1),
    "seed": 0, "together": 1, "frames": 1, "minutes": 0, "num_envs": 1, "batch_size": 1, "samples_per_step": 1e-3,
    "replay": 1, "period": 1, "priority": (0, 1), "importance": (0, 1), "epsilon_final": (0, 1), "learning_starts": 0,
    "epsilon_frames": 1, "target_every": 1, "eval_every": 1, "eval_episodes": 1, "threads": 0, "agent.n_step": 1,
    "agent.width": 0.01, "agent.features": 1, "agent.burn_in": 0, "agent.gamma": (0, 1), "agent.length": 2,
}  # fmt: skip
FIXED = (
    "preset", "game", "protocol", "flicker", "num_envs", "batch_size", "samples_per_step", "learning_starts", "replay",
    "period", "priority", "agent", "trainer.accumulate", "trainer.optimizer",
)  # fmt: skip


def make_envs(cfg: Config, num_envs: int, stream: int, training: bool) -> VectorEnv:
    """The world that cfg.game names."""
    seed, threads = runtime.derive_seed(cfg.seed, stream), runtime.threads()
    return games.make(
        cfg.game, num_envs, seed=seed, protocol=cfg.protocol, training=training, threads=threads, flicker=cfg.flicker
    )


def build(cfg: Config, device: torch.device, run_dir: Path | None = None) -> tuple[Trainer, Experience, RecurrentDQN]:
    """The three parts of a run, wired."""
    timer = Timer()
    envs = make_envs(cfg, cfg.num_envs, stream=1, training=True)
    precision = runtime.fastest_precision(device) if cfg.trainer.precision == "auto" else cfg.trainer.precision
    agent = RecurrentDQN(envs.obs_shape, envs.num_actions, cfg.agent, device, precision)
    replay = SequenceReplay(
        cfg.replay,
        cfg.num_envs,
        agent.state_size,
        length=cfg.agent.burn_in + cfg.agent.length,
        period=cfg.period,
        frame_shape=envs.obs_shape[1:],
        dtype=games.frame_dtype(envs),
        stack=envs.obs_shape[0],
        gamma=cfg.agent.gamma,
        device=device,
        seed=runtime.derive_seed(cfg.seed, 2),
        path=run_dir / "checkpoints" / "replay.ring" if run_dir and cfg.save_replay else None,
        priority=cfg.priority,
    )
    # What is drawn are sequences; and rewards are clipped where values are not rescaled.
    sequences = cfg.samples_per_step / cfg.agent.length
    return wire(cfg, envs, agent, replay, timer, run_dir, sequences, clip_reward=not cfg.agent.rescale)


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    run.within(cfg, BOUNDS)
    if cfg.agent.n_step >= cfg.agent.length:
        raise ValueError(f"--length {cfg.agent.length} has no room for --n-step {cfg.agent.n_step}: make it longer")
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("--trainer.mode cudagraph cannot hold sequences that are cut where episodes begin: take eager")
    parts: dict[str, Any] = {"make_envs": make_envs, "build": build, "follow": after_update(cfg)}
    return train(cfg, partial(learn, experiment="memory", fixed=FIXED, torso_from=cfg.torso_from, **parts))
