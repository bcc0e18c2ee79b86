"""What a world of one player looks like, and what its agent sees of it, as PNG."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from numpy.typing import NDArray
from PIL import Image

from envs.atari import FRAME_SKIP, PRESETS, Atari
from envs.vector import Step, VectorEnv
from experiments.control import worlds

ATARI_RATE = 60 / FRAME_SKIP
"""decisions a second at the console's own speed"""
OTHER_RATE = 15.0
"""of a world that does not say"""
NAMES = {
    "catch": ("left", "stay", "right"),
    "hidden_cartpole": ("left", "right"),
    "CartPole-v0": ("left", "right"),
    "CartPole-v1": ("left", "right"),
    "MountainCar-v0": ("left", "stay", "right"),
    "Acrobot-v1": ("left", "stay", "right"),
    "LunarLander-v3": ("stay", "fire left", "fire", "fire right"),
}
"""of actions, in worlds that do not tell"""

Camera = Callable[[Step | None], list[NDArray[np.uint8]]]
"""What was seen since the last step, the newest last, each [height, width, 3]; of None: a world that has just begun."""


class AtariFrames:
    """A second emulator, whose every frame is seen, in colour. The first one skips three of four and shows the fourth
    in grey; same seed and same actions lead to the same game, with sticky actions too.
    """

    def __init__(self, game: str, protocol: str, seed: int, max_frames: int):
        preset = PRESETS[protocol] | {"life_loss_info": False}
        self._seed, self._ended = seed, False
        self._envs = AtariVectorEnv(
            game, 1, num_threads=1, frameskip=1, stack_num=1, maxpool=False, max_num_frames_per_episode=max_frames,
            reward_clipping=False, use_fire_reset=True, grayscale=False, img_height=210, img_width=160, **preset,
        )  # fmt: skip
        self.actions = np.zeros(1, np.int64)
        """of the next step"""

    def __call__(self, step: Step | None) -> list[NDArray[np.uint8]]:
        if step is None:
            return [self._envs.reset(seed=self._seed)[0][0, 0].copy()]
        if step.first[0]:
            return [self._envs.step(self.actions)[0][0, 0].copy()]
        frames, reward = [], 0.0
        for _ in range(FRAME_SKIP):
            obs, r_t, terminated, truncated, _ = self._envs.step(self.actions)
            frames.append(obs[0, 0].copy())
            reward += float(r_t[0])
            if terminated[0] or truncated[0]:
                break
        assert reward == step.r_t[0], "the emulator that draws has left the one that is played"
        return frames


def camera(envs: VectorEnv, seed: int) -> Camera | None:
    """What draws these worlds, of which there is one; None where there are only numbers. `seed` is what it was made
    with.
    """
    inner: Any = getattr(envs, "envs", envs)  # of envs/memory.py's Flicker, the world that it blanks
    if isinstance(inner, Atari):
        return AtariFrames(inner.game, inner.protocol, seed, inner.max_frames)
    if hasattr(inner, "picture"):
        try:
            inner.picture()
        except ValueError:
            return None
        return lambda step: [inner.picture()]
    return None


def rate_of(envs: VectorEnv) -> float:
    """Decisions a second that people see it at."""
    inner: Any = getattr(envs, "envs", envs)
    return ATARI_RATE if isinstance(inner, Atari) else getattr(inner, "pictures_per_second", None) or OTHER_RATE


def action_names(game: str, envs: VectorEnv) -> list[str]:
    """A name for each action; its number where it has none."""
    inner: Any = getattr(envs, "envs", envs)
    found = inner.action_names if worlds.is_atari(game) else NAMES.get(game.rpartition(":")[2], ())
    return list(found) if len(found) == envs.num_actions else [str(i) for i in range(envs.num_actions)]


def png(pixels: NDArray[np.uint8]) -> str:
    """[H, W], [H, W, 3] or [H, W, 4] as PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode()


def tiles(obs: NDArray) -> NDArray[np.uint8] | None:
    """What a network sees, the frames of obs [stack, (channels,) H, W] side by side, the newest last; None of vectors.

    Three channels are a colour; of others each is a tile, those of a moment below each other.
    """
    if obs.ndim < 3:
        return None
    if obs.dtype != np.uint8:
        obs = (255 * (obs.astype(np.float32) - obs.min()) / max(float(np.ptp(obs)), 1e-9)).astype(np.uint8)
    elif obs.max(initial=0) <= 1:  # planes of zeros and ones
        obs = obs * np.uint8(255)
    if obs.ndim == 3:
        return np.concatenate(list(obs), 1)
    if obs.shape[1] == 3:
        return np.concatenate(list(obs.transpose(0, 2, 3, 1)), 1)
    return np.concatenate([np.concatenate(list(moment), 0) for moment in obs], 1)


def overlay(weights: NDArray) -> NDArray[np.uint8]:
    """Weights [H, W] in 0 .. 1 as red that is opaque where they are great, [H, W, 4]."""
    out = np.zeros((*weights.shape, 4), np.uint8)
    out[..., :3] = 255, 40, 40
    out[..., 3] = 230 * weights
    return out
