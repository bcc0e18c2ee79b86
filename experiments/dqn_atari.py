"""DQN on Atari.

python -m experiments.dqn_atari --game breakout                       # preset fast: what `make train` does, on Pong
python -m experiments.dqn_atari --preset nature --game breakout       # the 2015 paper to the letter
python -m experiments.dqn_atari --resume runs/dqn_atari/<run>         # goes on where the run was stopped
"""

import copy
import functools
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro

from agents.dqn.agent import DQN, DQNConfig
from agents.dqn.experience import Experience
from envs.atari import EVALUATION_EPSILON, Atari, game_name
from envs.catch import Catch
from envs.vector import VectorEnv
from experiments.parts.players import save_dqn
from rlkit import evaluate, run, runtime
from rlkit.checkpoint import borrow, load_agent_files
from rlkit.logger import Timer, say
from rlkit.replay import Replay
from rlkit.schedule import Schedule
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config:
    """DQN on Atari. Frames are emulator frames: four to an agent's step (one in catch)."""

    preset: Literal["fast", "gpu", "nature"] = "fast"
    """defaults: fast (Double, dueling, 3-step, many envs), gpu (the same for a large one), nature (the 2015 paper)"""
    resume: str | None = None
    """folder of a run to go on with"""
    torso_from: str | None = None
    """agent or run folder (of experiments.images, say) whose torso a new run begins with, as far as it fits"""
    game: str = "pong"
    """any single-player game that ale-py ships, or catch"""
    protocol: Literal["nature", "machado"] = "nature"
    """machado: sticky actions, no life-loss signal"""
    seed: int = 1
    frames: int = 4_000_000
    """emulator frames in all"""
    minutes: float = 0
    """stop after so many minutes of this process; 0: no limit"""
    num_envs: int = 16
    """emulators in lock-step"""
    batch_size: int = 128
    """transitions in an update"""
    samples_per_step: float = 8
    """transitions replayed for each agent step"""
    replay: int = 200_000
    """agent steps it holds, one stored frame each; 7.06 GB of memory a million"""
    learning_starts: int = 5_000
    """agent steps, all environments together, before the first update; random play in a new run"""
    epsilon_final: float = 0.01
    epsilon_frames: int = 400_000
    """frames over which epsilon falls from 1 to epsilon_final once learning has started"""
    target_every: int = 500
    """updates between copies into the target network"""
    eval_every: int = 1_000_000
    """frames between evaluations; the agent's folder is saved then"""
    eval_episodes: int = 10
    save_replay: bool = True
    """save the replay's frames too, for an exact resume: 7.06 GB on disk a million steps held, twice that at most"""
    device: str = "auto"
    """cpu, cuda, cuda:1, ..."""
    threads: int = 0
    """CPU threads; 0: one a core"""
    agent: tyro.conf.OmitArgPrefixes[DQNConfig] = field(
        default_factory=lambda: DQNConfig(double=True, dueling=True, n_step=3)
    )
    # steps=0: as many updates as the frames allow
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(steps=0, lr=2e-4, eps=0.005 / 128, precision="auto")
    )


LEAST: dict[str, float] = {
    "seed": 0, "frames": 1, "minutes": 0, "num_envs": 1, "batch_size": 1, "samples_per_step": 1e-3, "replay": 1,
    "learning_starts": 0, "epsilon_frames": 1, "target_every": 1, "eval_every": 1, "eval_episodes": 1, "threads": 0,
    "agent.n_step": 1, "agent.width": 0.01,
}  # fmt: skip
# What turns frames into updates or shapes what is saved: changed midway, a checkpoint would not fit.
FIXED = (
    "preset", "game", "protocol", "num_envs", "batch_size", "samples_per_step", "learning_starts", "replay", "agent",
    "trainer.accumulate", "trainer.optimizer",
)  # fmt: skip

PRESETS = {
    "fast": Config(),
    # The same agent for a large GPU: the batch grows with the number of emulators, the replay lies on the device.
    "gpu": Config(
        preset="gpu",
        frames=40_000_000,
        num_envs=64,
        batch_size=512,
        replay=1_000_000,
        learning_starts=20_000,
        epsilon_frames=1_000_000,
        target_every=250,
        eval_every=4_000_000,
        save_replay=False,
        device="cuda",
        agent=DQNConfig(double=True, dueling=True, n_step=3),
        trainer=TrainConfig(steps=0, lr=2.5e-4, eps=0.005 / 512, mode="cudagraph", precision="auto"),
    ),
    "nature": Config(
        preset="nature",
        frames=200_000_000,
        num_envs=1,
        batch_size=32,
        replay=1_000_000,
        learning_starts=50_000,
        epsilon_final=0.1,
        epsilon_frames=4_000_000,  # a million of the paper's frames, which are its agent's steps
        target_every=10_000,
        eval_every=10_000_000,
        eval_episodes=30,
        agent=DQNConfig(),
        # The paper sums the batch's gradients, this loss averages them: eps shrinks by the square of the batch.
        trainer=TrainConfig(
            steps=0, optimizer="rmsprop", lr=2.5e-4, eps=0.01 / 32**2, clip=0, log_every=1000, save_every=50_000
        ),
    ),
}


def make_envs(cfg: Config, num_envs: int, stream: int, training: bool) -> VectorEnv:
    """The world that cfg.game names."""
    seed = runtime.derive_seed(cfg.seed, stream)
    if cfg.game == "catch":
        return Catch(num_envs, size=36, seed=seed)
    threads = cfg.threads or runtime.cores()
    return Atari(cfg.game, num_envs, protocol=cfg.protocol, training=training, seed=seed, threads=threads)


def build(cfg: Config, device: torch.device, run_dir: Path | None = None) -> tuple[Trainer, Experience, DQN]:
    """The three parts of a run, wired."""
    timer = Timer()
    envs = make_envs(cfg, cfg.num_envs, stream=1, training=True)
    precision = runtime.fastest_precision(device) if cfg.trainer.precision == "auto" else cfg.trainer.precision
    agent = DQN(envs.obs_shape, envs.num_actions, cfg.agent, device, precision)
    replay = Replay(
        cfg.replay,
        cfg.num_envs,
        envs.obs_shape[1:],
        n_step=cfg.agent.n_step,
        gamma=cfg.agent.gamma,
        device=device,
        seed=runtime.derive_seed(cfg.seed, 2),
        path=run_dir / "checkpoints" / "replay.ring" if run_dir and cfg.save_replay else None,
    )
    start = cfg.learning_starts * envs.frames_per_step
    experience = Experience(
        envs,
        agent,
        replay,
        epsilon=Schedule("frames", 1.0, cfg.epsilon_final, begin=start, over=cfg.epsilon_frames),
        batch_size=cfg.batch_size,
        samples_per_step=cfg.samples_per_step,
        learning_starts=cfg.learning_starts,
        seed=runtime.derive_seed(cfg.seed, 3),
        timer=timer,
    )
    samples = (cfg.frames - start) / envs.frames_per_step * cfg.samples_per_step
    steps = int(samples / cfg.batch_size / cfg.trainer.accumulate)
    if steps < 1 and not cfg.trainer.steps:
        raise ValueError(f"--frames {cfg.frames:,} leaves nothing to learn: {start:,} are for filling the replay")
    trainer = Trainer(
        agent.network,
        agent.loss,
        replace(cfg.trainer, steps=cfg.trainer.steps or steps, precision=precision),
        run_dir,
        state={"experience": experience, "target": agent.target},
        clock=("frames", lambda: experience.frames, cfg.frames),
        timer=timer,
    )
    return trainer, experience, agent


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    began = time.monotonic()
    cfg.game = cfg.game if cfg.game == "catch" else game_name(cfg.game)
    run.at_least(cfg, LEAST)
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    if cfg.torso_from:
        load_agent_files(Path(cfg.torso_from))  # what is not there should leave no run behind
    eval_envs = make_envs(cfg, cfg.eval_episodes, stream=4, training=False)
    run_dir = run.start(cfg, "dqn_atari", cfg.game, FIXED)
    trainer, experience, agent = build(cfg, device, run_dir)
    if cfg.resume and not trainer.load():
        say(f"{run_dir} holds no checkpoint: starting at the beginning")
    if cfg.torso_from and not trainer.step:
        say(f"torso: {borrow(agent.network.torso, Path(cfg.torso_from), 'torso.')}")
        agent.sync(agent.network)

    player = copy.copy(agent)  # what is evaluated and saved
    player.network = trainer.averaged  # type: ignore[assignment]

    def evaluation() -> None:
        # First without a score: the games take a while, and the weights should outlive a kill.
        save_dqn(run_dir / "agent", player, cfg, experience.frames)
        rng, epsilon = np.random.default_rng(cfg.seed), EVALUATION_EPSILON[cfg.protocol]
        act = functools.partial(player.act, epsilon=epsilon, rng=rng)
        with trainer.timer("evaluate"):
            scores = evaluate.episodes(act, eval_envs, cfg.eval_episodes)
        trainer.log(scores.scalars())
        save_dqn(run_dir / "agent", player, cfg, experience.frames, scores)

    next_eval = (experience.frames // cfg.eval_every + 1) * cfg.eval_every
    for step, _, _ in trainer.run(experience):
        if step % cfg.target_every == 0:
            agent.sync(trainer.model)
        if step % cfg.trainer.log_every == 0:
            trainer.log(experience.stats())
        if experience.frames >= next_eval and step < trainer.cfg.steps:  # the last one follows the loop
            next_eval += cfg.eval_every
            evaluation()
        if cfg.minutes and time.monotonic() - began > 60 * cfg.minutes:
            trainer.save()
            break
    if trainer.stopped:  # whoever stops a run does not want to wait for games
        save_dqn(run_dir / "agent", player, cfg, experience.frames)
    else:
        evaluation()
    trainer.close()
    say(trainer.timer.table())
    say(f"go on:    {sys.executable} -m experiments.dqn_atari --resume {run_dir}")
    say(f"evaluate: {sys.executable} -m experiments.evaluate {run_dir}")
    return run_dir


if __name__ == "__main__":
    run.cli(main, lambda: run.parse(PRESETS))
