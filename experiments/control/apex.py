"""DQN with actors in other processes (Ape-X, Horgan et al. 2018).

python -m experiments apex --env pong --actors 2                    # all that dqn has, in more processes
python -m experiments apex --env pong --actors 64 --num-envs 512 --ray HOST:6379   # on a cluster
"""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from agents.dqn.actors import Actor, ActorExperience, ladder
from agents.dqn.agent import DQN
from experiments.control import dqn
from experiments.control.dqn_presets import Config as DQNConfig
from experiments.control.dqn_presets import fitting_preset as fitting_preset
from experiments.control.worlds import frame_dtype, full_name, make_envs, repeats
from rlkit.parallel.stream import Stream, StreamConfig
from rlkit.replay import Replay
from rlkit.run import Run, interleave
from rlkit.runtime import derive_seed
from rlkit.schedule import Schedule
from rlkit.trainer import Trainer


@dataclass
class Config(DQNConfig):
    """DQN in any world of one player, lived in by actors. Each environment explores at a rate of its own
    (`--epsilon-final` and `--epsilon-frames` are not used).
    """

    elsewhere: tyro.conf.OmitArgPrefixes[StreamConfig] = field(default_factory=lambda: StreamConfig(actors=2))


PRESETS = {
    name: Config(**{one.name: getattr(preset, one.name) for one in fields(preset)})
    for name, preset in dqn.PRESETS.items()
}


def replay_of(cfg: Any, agent: DQN, envs: Any, capacity: int, num_envs: int, **options: Any) -> Replay:
    """An actor's replay; options: device, seed and path."""
    return Replay(
        capacity, num_envs, envs.obs_shape[1:], dtype=frame_dtype(envs), stack=envs.obs_shape[0],
        n_step=cfg.agent.n_step, gamma=cfg.agent.gamma, priority=cfg.priority,
        masks=0 if envs.mask is None else envs.num_actions, **options,
    )  # fmt: skip


def make_actor(cfg: Any, agent_like: Callable, index: int, start: int) -> Actor:
    """The actor of this number: its share of the environments, and an agent like the learner's."""
    mine = np.array_split(np.arange(cfg.num_envs), cfg.elsewhere.actors)[index]
    share = replace(cfg, num_envs=len(mine))

    def make(start: int) -> tuple[Any, DQN, Any, int]:
        stream = 10 + index + cfg.elsewhere.actors * start
        envs = make_envs(share, share.num_envs, stream=1_000 + stream, training=True)
        agent = agent_like(cfg, envs, "cuda" if cfg.elsewhere.actor_gpus else "cpu", "fp32")
        return envs, agent, repeats(share), derive_seed(cfg.seed, 1_000_000 + stream)

    return Actor(make, ladder(cfg.num_envs)[mine], start)


def build_with(
    agent_like: Callable, replay_of: Callable, samples: Callable[[Any], float], cfg: Any, run: Run
) -> tuple[Trainer, ActorExperience, DQN]:
    """The parts of a run, as in dqn.py: but experience comes from actors, and each has a replay.

    samples: of a configuration, what is drawn for each step.
    """
    if run.ranks:
        raise ValueError("--actors serve one learner: leave torchrun out")
    envs = make_envs(cfg, 1, stream=1, training=True)
    agent = agent_like(cfg, envs, run.device, run.precision)
    shares = [len(share) for share in np.array_split(np.arange(cfg.num_envs), cfg.elsewhere.actors)]
    folder = run.folder / "checkpoints" if run.folder and cfg.save_replay else None
    replays = [
        replay_of(
            cfg, agent, envs, cfg.replay * share // cfg.num_envs, share, device=run.device,
            seed=derive_seed(cfg.seed, 2_000 + index), path=folder / f"replay_{index}.ring" if folder else None,
        )
        for index, share in enumerate(shares)
    ]  # fmt: skip
    starts = min(cfg.learning_starts, sum(replay.rows * replay.num_envs for replay in replays))
    start = starts * envs.frames_per_step
    experience = ActorExperience(
        Stream(functools.partial(make_actor, cfg, agent_like), agent.network, cfg.elsewhere), replays,
        frames_per_step=envs.frames_per_step, batch_size=cfg.batch_size, samples_per_step=samples(cfg),
        learning_starts=starts, clip_reward=cfg.clip_reward and not getattr(cfg.agent, "rescale", False),
        reward_scale=cfg.reward_scale, timer=run.timer,
        importance=Schedule(cfg.importance, 1.0, begin=start, duration=max(1, cfg.frames - start)),
    )  # fmt: skip
    trainer = dqn.trainer_of(cfg, run, agent, experience, agent.loss, start, envs.frames_per_step)
    return trainer, experience, agent


def train(cfg: Any, name: str, build: Callable) -> Path:
    """Train with actors; returns the run's folder. build: `build_with` what the command's are."""
    if not 0 < cfg.elsewhere.actors <= cfg.num_envs:
        actors = cfg.elsewhere.actors
        raise ValueError(f"--actors {actors} cannot share {cfg.num_envs} worlds: take from 1 to --num-envs")
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("--trainer.mode cudagraph cannot hold the replays of actors: take eager")
    if cfg.together > 1:
        raise ValueError("--together is for one process: start runs with actors one by one")
    with contextlib.ExitStack() as stack:

        def built(cfg: Any, run: Run) -> tuple[Trainer, ActorExperience, DQN]:
            parts = build(cfg, run)
            stack.callback(parts[1].stream.close)
            return parts

        runs = Run.several(replace(cfg, env=full_name(cfg.env)), name)
        return interleave([dqn.learn(run.cfg, run, built) for run in runs], runs)[0]


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    return train(
        cfg, "apex", functools.partial(build_with, dqn.agent_like, replay_of, lambda cfg: cfg.samples_per_step)
    )
