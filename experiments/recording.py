"""One episode of an agent as a video."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.atari import Atari
from envs.vector import Step, VectorEnv
from experiments.control import worlds

ATARI_FRAMES = 18_000
FRAMES_PER_SECOND = 15
SMALLEST = 210
"""rows of a picture; smaller ones are enlarged by a whole number"""


def record(
    agent: Any, env: dict[str, Any], protocol: str, epsilon: float, seed: int, path: Path, max_frames: int | None = None
) -> float:
    """Write one episode as a video; returns its score. Raises ValueError for a world without pictures."""
    game, drawn = env["game"], worlds.is_gymnasium(env["game"])
    envs = worlds.make(
        game, 1, seed=seed, protocol=protocol, training=False, max_frames=max_frames or ATARI_FRAMES,
        flicker=env.get("flicker"), size=agent.obs_shape[-1], options=env.get("options"), render=drawn,
    )  # fmt: skip
    obs = envs.reset()
    picture = camera(envs, obs, game, protocol, seed, max_frames or ATARI_FRAMES)
    frames = [picture(None, None)]  # before the file is there, so that a world without pictures leaves none
    try:
        import imageio.v2 as imageio

        writer = imageio.get_writer(path, fps=FRAMES_PER_SECOND, macro_block_size=2)
    except ImportError as error:
        raise ModuleNotFoundError("videos need the extra `video`: pip install -e '.[video]'") from error
    rng, first, last = np.random.default_rng(seed), np.ones(1, bool), False
    with writer:
        while not last:
            actions = agent.act(obs, epsilon, rng, first, envs.mask)
            step = envs.step(actions)
            writer.append_data(frames.pop())
            frames.append(picture(actions, step))
            obs, first, last = step.obs, step.first, bool(step.last[0])
        writer.append_data(frames.pop())
    return float(step.score[0])


def camera(
    envs: VectorEnv, obs: NDArray, game: str, protocol: str, seed: int, max_frames: int
) -> Callable[[NDArray | None, Step | None], NDArray[np.uint8]]:
    """A function that draws the world after a step, [height, width, 3]; of None, None: as it begins."""
    if worlds.is_gymnasium(game):
        return lambda actions, step: enlarged(envs.picture())  # type: ignore[attr-defined]
    if not worlds.is_atari(game):
        if len(envs.obs_shape) != 3:
            raise ValueError(f"{game} has no pictures: leave --video out")
        return lambda actions, step: enlarged(np.stack([(step.obs if step else obs)[0, -1]] * 3, -1))
    # A second emulator draws in colour: same seed, same actions.
    options: dict[str, Any] = {"protocol": protocol, "training": False, "seed": seed, "max_frames": max_frames}
    atari = Atari(game, 1, color_size=(210, 160), **options)

    def draw(actions: NDArray | None, step: Step | None) -> NDArray[np.uint8]:
        if actions is None or step is None:
            return atari.reset()[0, -1]
        seen = atari.step(actions)
        assert seen.r_t[0] == step.r_t[0], "the emulator that draws has left the one that is played"
        return seen.obs[0, -1]

    return draw


def enlarged(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 3] by the whole number that gives it at least SMALLEST rows."""
    times = max(1, -(-SMALLEST // picture.shape[0]))
    return picture.repeat(times, 0).repeat(times, 1)
