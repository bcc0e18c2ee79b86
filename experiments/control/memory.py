"""DQN with a memory, where the present observation does not tell enough.

python -m experiments memory --env popgym:repeat_first_easy                    # --backbone lstm
python -m experiments memory --env tmaze --backbone transformer
python -m experiments memory --env hidden_cartpole --backbone none             # for comparison: no memory
python -m experiments memory --preset flicker --env pong                       # one frame, half of them blank
python -m experiments memory --preset r2d2 --env breakout
python -m experiments memory --resume runs/memory/<run>
"""

import functools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents.dqn.experience import Experience
from agents.recurrent.agent import RecurrentConfig, RecurrentDQN
from experiments.control.dqn import learn, trainer_of
from experiments.control.worlds import ReplayConfig, frame_dtype, full_name, make_envs, repeats
from rlkit.config import AtLeast, Between, Fixed
from rlkit.logger import say
from rlkit.parallel.stream import StreamConfig, check_resume
from rlkit.run import Run, interleave
from rlkit.runtime import derive_seed, rank
from rlkit.schedule import Schedule
from rlkit.sequences import SequenceReplay
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config(ReplayConfig):
    """DQN over sequences, with a memory between torso and head."""

    preset: Annotated[Literal["small", "flicker", "r2d2"], Fixed] = "small"
    """defaults: small (tests of memory, minutes on two cores), flicker (Hausknecht and Stone's flickering Atari of
    2015, with a newer learner), r2d2 (Kapturowski et al. 2019, its learner; 28 GB of replay)"""
    env: str = "popgym:repeat_first_easy"
    frames: int = 200_000
    eval_every: int = 50_000
    eval_episodes: int = 48
    flicker: Annotated[float | None, Between(0, 1), Fixed] = None
    """show single frames instead of stacks of four, and blank them with this probability; images only"""
    batch_size: int = 32
    """sequences in an update"""
    samples_per_step: float = 64
    """moments after the burn-in for each agent step (a sequence's last `n_step` are only looked ahead to)"""
    replay: int = 300_000
    """agent steps it holds: where it forgets the failures of the beginning, CartPole is unlearned again"""
    period: Annotated[int, AtLeast(1), Fixed] = 16
    """moments from one sequence's beginning to the next one's"""
    learning_starts: int = 2_000
    epsilon_final: float = 0.02
    epsilon_frames: int = 50_000
    target_every: int = 100
    save_replay: bool = True
    """save the replay's frames too, for an exact resume, and the states (a transformer's are larger than the frames)"""
    agent: Annotated[tyro.conf.OmitArgPrefixes[RecurrentConfig], Fixed] = field(
        default_factory=lambda: RecurrentConfig(width=0.5, features=64, n_step=5, gamma=0.95, burn_in=4, length=56)
    )
    elsewhere: tyro.conf.OmitArgPrefixes[StreamConfig] = field(default_factory=StreamConfig)
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


def agent_like(cfg: Config, envs: Any, device: Any, precision: Any) -> RecurrentDQN:
    """The agent for these worlds."""
    return RecurrentDQN(envs.obs_shape, envs.num_actions, cfg.agent, device, precision)


def replay_of(
    cfg: Config, agent: RecurrentDQN, envs: Any, capacity: int, num_envs: int, **options: Any
) -> SequenceReplay:
    """A replay of sequences; options: device, seed and path."""
    return SequenceReplay(
        capacity, num_envs, agent.state_size, length=cfg.agent.burn_in + cfg.agent.length, period=cfg.period,
        frame_shape=envs.obs_shape[1:], dtype=frame_dtype(envs), stack=envs.obs_shape[0], gamma=cfg.agent.gamma,
        priority=cfg.priority, masks=0 if envs.mask is None else envs.num_actions, **options,
    )  # fmt: skip


def samples(cfg: Config) -> float:
    """Sequences that are drawn for each step."""
    return cfg.samples_per_step / cfg.agent.length


def build(cfg: Config, run: Run) -> tuple[Trainer, Experience, RecurrentDQN]:
    """The parts of a run: as in dqn.py, but the replay holds sequences."""
    envs = make_envs(cfg, cfg.num_envs, stream=1, training=True)
    agent = agent_like(cfg, envs, run.device, run.precision)
    path = run.folder / "checkpoints" / "replay.ring" if run.folder and cfg.save_replay else None
    seed = derive_seed(cfg.seed, 2, rank())
    replay = replay_of(cfg, agent, envs, cfg.replay, cfg.num_envs, device=run.device, seed=seed, path=path)
    if cfg.learning_starts > (starts := min(cfg.learning_starts, replay.rows * cfg.num_envs)):
        say(f"learning starts after {starts:,} steps, not {cfg.learning_starts:,}: the replay holds no more")
    start = starts * envs.frames_per_step
    experience = Experience(
        envs, agent, replay, batch_size=cfg.batch_size, samples_per_step=samples(cfg), learning_starts=starts,
        epsilon=Schedule(1.0, cfg.epsilon_final, begin=start, duration=cfg.epsilon_frames),
        importance=Schedule(cfg.importance, 1.0, begin=start, duration=max(1, cfg.frames - start)),
        clip_reward=cfg.clip_reward and not cfg.agent.rescale, reward_scale=cfg.reward_scale, repeats=repeats(cfg),
        seed=derive_seed(cfg.seed, 3, rank()), timer=run.timer,
    )  # fmt: skip
    return trainer_of(cfg, run, agent, experience, agent.loss, start, envs.frames_per_step), experience, agent


def main(cfg: Config) -> Path:
    """Train; returns the run's folder, of several the first one's."""
    if cfg.agent.n_step >= cfg.agent.length:
        raise ValueError(f"--length {cfg.agent.length} has no room for --n-step {cfg.agent.n_step}: make it longer")
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("--trainer.mode cudagraph cannot hold sequences that are cut where episodes begin: take eager")
    check_resume(cfg)
    if cfg.elsewhere.actors:
        from experiments.control import apex

        return apex.train(cfg, "memory", functools.partial(apex.build_with, agent_like, replay_of, samples))
    runs = Run.several(replace(cfg, env=full_name(cfg.env)), "memory")
    return interleave([learn(run.cfg, run, build) for run in runs], runs)[0]
