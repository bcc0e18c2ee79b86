"""Where a name becomes a world of one player: Atari's games, the toy, and the worlds that need memory."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch

from envs.vector import VectorEnv
from rlkit import runtime
from rlkit.config import AtLeast, Between, Divided, Fixed, RunConfig
from rlkit.parallel import all_ranks


@dataclass
class WorldConfig(RunConfig):
    """What every run in a world of one player can be asked for."""

    env: Annotated[str, Fixed] = "pong"
    """a game that ale-py ships (pong), whatever is registered with gymnasium (CartPole-v1, MinAtar/Breakout-v1),
    package.module:Name-v0, module:function, or catch, tmaze, hidden_cartpole, popgym:TASK"""
    env_kwargs: Annotated[tuple[str, ...], Fixed] = ()
    """key=value for the constructor of a gymnasium environment, several with spaces between"""
    wrappers: Annotated[tuple[str, ...], Fixed] = ()
    """module:Class of gymnasium wrappers, the innermost first"""
    vectorization: Literal["sync", "async"] = "sync"
    """gymnasium environments move in this process, or (async) in one process each, for slow ones"""
    stack: Annotated[int, AtLeast(0), Fixed] = 0
    """newest observations of a gymnasium environment that a state is made of; 0: 4 of pictures, else 1"""
    resize: Annotated[int, AtLeast(0), Fixed] = 84
    """side of a gymnasium environment's pictures in pixels; 0: as they come"""
    colour: Annotated[bool, Fixed] = False
    """show a gymnasium environment's pictures in colour"""
    bins: Annotated[int, AtLeast(0), Fixed] = 0
    """values of each dimension of a gymnasium environment's continuous actions, evenly spread"""
    reward_scale: Annotated[float, Fixed] = 1.0
    """what rewards are multiplied by before they are learned from"""
    clip_reward: Annotated[bool, Fixed] = True
    """learn from rewards clipped to -1 .. 1; scores are raw always"""
    protocol: Annotated[Literal["nature", "machado"], Fixed] = "nature"
    """protocol of Atari's games; machado: sticky actions, no life-loss signal"""
    together: Annotated[int, AtLeast(1)] = 1
    """runs that learn side by side in this process, with the seeds `seed`, `seed` + 1, ...; each has its own folder"""
    frames: Annotated[int, AtLeast(1)] = 4_000_000
    """emulator frames in all: four to an agent's step in Atari, one elsewhere"""
    num_envs: Annotated[int, AtLeast(1), Fixed, Divided] = 16
    """worlds in lock-step"""
    eval_every: Annotated[int, AtLeast(1)] = 1_000_000
    """frames between evaluations; the agent's folder is saved then"""
    eval_episodes: Annotated[int, AtLeast(1)] = 10
    """episodes of an evaluation, played at the same time"""


@dataclass
class ReplayConfig(WorldConfig):
    """What every run that learns from a replay can be asked for."""

    torso_from: str | None = None
    """agent or run folder (of `images`, say) whose torso a new run begins with, as far as it fits"""
    batch_size: Annotated[int, AtLeast(1), Fixed, Divided] = 128
    """transitions in an update"""
    samples_per_step: Annotated[float, AtLeast(0.001), Fixed] = 8
    """transitions replayed for each agent step"""
    replay: Annotated[int, AtLeast(1), Fixed, Divided] = 200_000
    """agent steps it holds, one stored frame each; 7.06 GB of memory a million"""
    priority: Annotated[float, Between(0, 1), Fixed] = 0.0
    """exponent of prioritised replay: how much more often surprising transitions are replayed; 0: all as often"""
    importance: Annotated[float, Between(0, 1)] = 0.4
    """of prioritised replay: how much of that the loss makes up for at the beginning; at the end, all of it"""
    learning_starts: Annotated[int, AtLeast(0), Fixed, Divided] = 5_000
    """agent steps, all environments together, before the first update; random play in a new run"""
    epsilon_final: Annotated[float, Between(0, 1)] = 0.01
    """share of random actions in the end"""
    epsilon_frames: Annotated[int, AtLeast(1)] = 400_000
    """frames over which epsilon falls from 1 to epsilon_final once learning has started"""
    repeat_actions: Annotated[float, AtLeast(0)] = 0.0
    """exponent above 1 of how long a random action is kept up (Dabney et al. 2021 have 2),
    for worlds where single random steps lead nowhere; 0: one step"""
    target_every: Annotated[int, AtLeast(1)] = 500
    """updates between copies into the target network"""
    save_replay: bool = True
    """save the replay's frames too, for an exact resume: 7.06 GB on disk a million steps held, twice that at most"""


TOYS = ("catch", "tmaze", "hidden_cartpole")


def full_name(env: Any) -> str:
    """The name as runs and agents have it, of a name or of a callable that returns a gymnasium environment. Raises
    ValueError for one that is not there.
    """
    if env in TOYS or (isinstance(env, str) and env.startswith("popgym:")):
        return env
    from envs import atari, gymnasium_names

    if not isinstance(env, str):
        return gymnasium_names.name_of(env)
    try:
        return atari.game_name(env)
    except ValueError as error:
        if is_atari(env):
            near = gymnasium_names.nearest(env)
            raise ValueError(f"{error}{f'; or {near[0]} of gymnasium?' if near else ''}") from None
    gymnasium_names.maker(env)
    return env


def is_atari(name: str) -> bool:
    """Whether it is the emulator that has to know it."""
    return name not in TOYS and not any(mark in name for mark in "-:/")


def is_gymnasium(name: str) -> bool:
    """Whether gymnasium makes it. Atari's games are shown by the emulator's own vector environment."""
    return not name.startswith("popgym:") and any(mark in name for mark in "-:/")


def make(
    game: str,
    num_envs: int,
    *,
    seed: int,
    protocol: str = "nature",
    training: bool = True,
    threads: int = 1,
    max_frames: int | None = None,
    flicker: float | None = None,
    size: int = 36,
    options: dict[str, Any] | None = None,
    render: bool = False,
) -> VectorEnv:
    """The world of a known name; protocol, training, threads and max_frames are Atari's, size is Catch's, options and
    render (it can draw itself) those of envs/gymnasium.py.

    flicker: hand out single frames, blank with this probability. Raises ValueError, ModuleNotFoundError.
    """
    envs: VectorEnv
    # Imported where they are asked for: a reader of DQN on one of them need not meet the others.
    if game == "catch":
        from envs.catch import Catch

        envs = Catch(num_envs, size=size, seed=seed)
    elif is_gymnasium(game):
        from envs.gymnasium import Gymnasium, Options

        envs = Gymnasium(game, num_envs, options=Options(**options or {}), seed=seed, render=render)
    elif is_atari(game):
        from envs.atari import Atari

        envs = Atari(
            game, num_envs, protocol=protocol, training=training, seed=seed, threads=threads, max_frames=max_frames
        )
    else:
        from envs import memory

        if game.startswith("popgym:"):
            envs = memory.Popgym(game.removeprefix("popgym:"), num_envs, seed=seed)
        else:
            envs = (memory.TMaze if game == "tmaze" else memory.HiddenCartPole)(num_envs, seed=seed)
    if flicker is None:
        return envs
    if len(envs.obs_shape) != 3 or envs.obs_dtype != np.uint8:
        raise ValueError(f"--flicker blanks images, and {game} shows numbers: leave it out")
    from envs.memory import Flicker

    return Flicker(envs, flicker, seed=seed)


def make_envs(cfg: WorldConfig, num_envs: int, stream: int, training: bool) -> VectorEnv:
    """So many of the world that cfg.env names. stream: of random numbers, different for each use."""
    seed, threads = runtime.derive_seed(cfg.seed, stream, runtime.rank()), runtime.threads()
    envs = make(
        cfg.env,
        num_envs,
        seed=seed,
        protocol=cfg.protocol,
        training=training,
        threads=threads,
        flicker=getattr(cfg, "flicker", None),
        options=options_of(cfg),
    )
    if training and (ranks := all_ranks()):
        envs.frames_per_step *= ranks.count  # each of an action here, for the clock is that of all
    return envs


def repeats(cfg: ReplayConfig) -> Any:
    """What keeps exploring actions up in training."""
    if not cfg.repeat_actions:
        return None
    from agents.dqn.exploration import RepeatedActions

    return RepeatedActions(cfg.num_envs, cfg.repeat_actions)


def options_of(cfg: WorldConfig) -> dict[str, Any]:
    """How cfg asks gymnasium's environments to be made and seen."""
    names = ("wrappers", "vectorization", "stack", "resize", "colour", "bins")
    return {"kwargs": cfg.env_kwargs} | {name: getattr(cfg, name) for name in names}


def observations(cfg: WorldConfig) -> str:
    """What the world shows: pictures, planes (of a few cells) or vectors. Makes one where the name does not tell."""
    if not is_gymnasium(name := full_name(cfg.env)):
        return "pictures" if name == "catch" or is_atari(name) else "vectors"
    envs = make(name, 1, seed=0, options=options_of(cfg) | {"vectorization": "sync"})
    envs.close()  # type: ignore[attr-defined]
    return "vectors" if len(envs.obs_shape) == 2 else "pictures" if envs.obs_dtype == np.uint8 else "planes"


def frame_dtype(envs: VectorEnv) -> torch.dtype:
    """Of what a replay keeps."""
    return torch.from_numpy(np.zeros(0, envs.obs_dtype)).dtype


def evaluation_epsilon(game: str, protocol: str) -> float:
    """Random actions in an evaluation."""
    if not is_atari(game):
        return 0.0
    from envs.atari import EVALUATION_EPSILON

    return EVALUATION_EPSILON[protocol]


def normalised(game: str, score: float) -> dict[str, float | None]:
    """(score - random) / (human - random) by each of HUMANS; None where there are no published scores."""
    from envs.atari import HUMANS, human_normalised

    return human_normalised(game, score) if is_atari(game) else dict.fromkeys(HUMANS)
