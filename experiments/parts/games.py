"""Where a name becomes a world of one player: Atari's games, the toy, and the worlds that need memory."""

from envs.atari import EVALUATION_EPSILON, Atari, game_name
from envs.catch import Catch
from envs.vector import VectorEnv

NAMES = (
    "any single-player game that ale-py ships, catch, tmaze, hidden_cartpole, popgym:TASK (as popgym:repeat_first_easy)"
)


def known(name: str) -> str:
    """The name as runs and agents have it. Raises ValueError for an Atari game that is not there."""
    return game_name(name) if is_atari(name) else name


def is_atari(name: str) -> bool:
    """Whether it is the emulator that has to know it."""
    return name not in ("catch", "tmaze", "hidden_cartpole") and not name.startswith("popgym:")


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
        return TMaze(num_envs, seed=seed)
    elif game == "hidden_cartpole":
        return HiddenCartPole(num_envs, seed=seed)
    elif game.startswith("popgym:"):
        return Popgym(game.removeprefix("popgym:"), num_envs, seed=seed)
    else:
        envs = Atari(
            game, num_envs, protocol=protocol, training=training, seed=seed, threads=threads, max_frames=max_frames
        )
    return envs if flicker is None else Flicker(envs, flicker, seed=seed)


def evaluation_epsilon(game: str, protocol: str) -> float:
    """Random actions in an evaluation."""
    return EVALUATION_EPSILON[protocol] if is_atari(game) else 0.0
