"""Where a name becomes a world of one player: Atari's games, the toy, and the worlds that need memory."""

import torch

from envs.atari import EVALUATION_EPSILON, HUMANS, Atari, game_name, human_normalised
from envs.catch import Catch
from envs.vector import VectorEnv

TOYS = ("catch", "tmaze", "hidden_cartpole")


def known(name: str) -> str:
    """The name as runs and agents have it. Raises ValueError for an Atari game that is not there."""
    return game_name(name) if is_atari(name) else name


def is_atari(name: str) -> bool:
    """Whether it is the emulator that has to know it."""
    return name not in TOYS and not name.startswith("popgym:")


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
) -> VectorEnv:
    """The world of a known name; protocol, training, threads and max_frames are Atari's, size is Catch's.

    flicker: hand out single frames, blank with this probability. Raises ValueError, ModuleNotFoundError.
    """
    from envs.memory import Flicker, HiddenCartPole, Popgym, TMaze  # which readers of DQN need not meet

    envs: VectorEnv
    if game == "catch":
        envs = Catch(num_envs, size=size, seed=seed)
    elif game == "tmaze":
        envs = TMaze(num_envs, seed=seed)
    elif game == "hidden_cartpole":
        envs = HiddenCartPole(num_envs, seed=seed)
    elif game.startswith("popgym:"):
        envs = Popgym(game.removeprefix("popgym:"), num_envs, seed=seed)
    else:
        envs = Atari(
            game, num_envs, protocol=protocol, training=training, seed=seed, threads=threads, max_frames=max_frames
        )
    if flicker is None:
        return envs
    if len(envs.obs_shape) != 3:
        raise ValueError(f"--flicker blanks images, and {game} shows numbers: leave it out")
    return Flicker(envs, flicker, seed=seed)


def frame_dtype(envs: VectorEnv) -> torch.dtype:
    """Of what a replay keeps: bytes of images, floats of vectors."""
    return torch.uint8 if len(envs.obs_shape) == 3 else torch.float32


def evaluation_epsilon(game: str, protocol: str) -> float:
    """Random actions in an evaluation."""
    return EVALUATION_EPSILON[protocol] if is_atari(game) else 0.0


def normalised(game: str, score: float) -> dict[str, float | None]:
    """(score - random) / (human - random) by each of HUMANS; None where there are no published scores."""
    return human_normalised(game, score) if is_atari(game) else dict.fromkeys(HUMANS)
