"""Spaces of gymnasium: which actions and observations can be learned from, and as what."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from PIL import Image

MOST_ACTIONS = 4096
SMALLEST_PICTURE = 36


def numbered_actions(space: spaces.Space, bins: int, name: str) -> tuple[int, Callable[[int], Any]]:
    """(how many actions, a function from their numbers to what `step` takes). Raises ValueError."""
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return int(space.n), lambda number: np.int64(number + start)
    if isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        nvec = space.nvec if isinstance(space, spaces.MultiDiscrete) else np.full(space.shape, 2)
        start = getattr(space, "start", 0)
        sizes = tuple(nvec.ravel().tolist())

        def of(number: int) -> NDArray:
            return (np.reshape(np.unravel_index(number, sizes), nvec.shape) + start).astype(space.dtype)

    elif isinstance(space, spaces.Box):
        if bins < 2:
            raise ValueError(f"{name} has continuous actions, {space}: --bins 5 makes five values of each dimension")
        if not space.is_bounded():
            raise ValueError(
                f"{name} has actions without bounds, {space}, which no bins cover: bound them by a wrapper"
            )
        values = np.linspace(space.low, space.high, bins)  # [bins, *shape]
        sizes = (bins,) * math.prod(space.shape)

        def of(number: int) -> NDArray:
            picks = np.reshape(np.unravel_index(number, sizes), (1, *space.shape))
            return np.take_along_axis(values, picks, 0)[0].astype(space.dtype)

    else:
        raise ValueError(f"{name} has actions {space}: make them Discrete by a wrapper, --wrappers module:Class")
    if math.prod(sizes) > MOST_ACTIONS:
        raise ValueError(
            f"{name} has {math.prod(sizes):,} actions, {space}: at most {MOST_ACTIONS:,} can be told apart; join some"
            " by a wrapper, or take fewer --bins"
        )
    return math.prod(sizes), of


def is_image(space: spaces.Space) -> bool:
    """Whether its elements are rows and columns of bytes or of booleans."""
    return isinstance(space, spaces.Box) and space.dtype in (np.uint8, np.bool_) and len(space.shape) in (2, 3)


def check_observations(space: spaces.Space, name: str) -> None:
    """Raise ValueError for observations that no network here takes."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = dict(space.spaces if isinstance(space, spaces.Dict) else enumerate(space.spaces))
        for key, part in parts.items():
            if is_image(part) or not part.is_np_flattenable or isinstance(part, spaces.Text):
                kind = "an image" if is_image(part) else f"{part}"
                hint = "minigrid.wrappers:ImgObsWrapper" if "image" in parts else "module:Class"
                raise ValueError(
                    f"{name} observes several things, and {key!r} among them is {kind}: choose one by a wrapper, as"
                    f" with --wrappers {hint}"
                )
            check_observations(part, name)
    elif not space.is_np_flattenable or isinstance(space, spaces.Text):
        raise ValueError(f"{name} observes {space}: turn it into numbers by a wrapper, --wrappers module:Class")


class View(NamedTuple):
    """How a batch of observations becomes frames."""

    shape: tuple[int, ...]
    """of a frame"""
    dtype: np.dtype
    stack: int
    of: Callable[[NDArray], NDArray]
    """[E, *the space's shape] -> [E, *shape]"""


def view_of(space: spaces.Box, stack: int, resize: int, colour: bool) -> View:
    """Pictures, planes or vectors, as envs/gymnasium.py tells them apart, where the options are explained."""
    if not is_image(space):
        features = math.prod(space.shape)
        return View((features,), np.dtype(np.float32), stack or 1, lambda obs: _vectors(obs, features))
    channels_at = channel_axis(space.shape)
    height, width = (side for axis, side in enumerate(space.shape) if axis != channels_at)
    channels = 1 if channels_at is None else space.shape[channels_at]
    is_picture = space.dtype == np.uint8 and space.high.max() == 255 and min(height, width) >= SMALLEST_PICTURE
    if not is_picture or channels not in (1, 3, 4):
        # Values as they are: as signed numbers, which networks read so, while bytes are read as 0 .. 1.
        dtype = np.dtype(np.int8 if space.dtype == np.bool_ or space.high.max() < 128 else np.int16)

        def planes(obs: NDArray) -> NDArray:
            obs = obs[:, None] if channels_at is None else np.moveaxis(obs, channels_at + 1, 1)
            return np.ascontiguousarray(obs.astype(dtype))

        return View((channels, height, width), dtype, stack or 1, planes)
    size = (resize or height, resize or width)
    mode = "RGB" if colour and channels > 1 else "L"

    def pictures(obs: NDArray) -> NDArray:
        obs = obs if channels_at is None else np.moveaxis(obs, channels_at + 1, -1)
        obs = obs[..., 0] if channels == 1 and channels_at is not None else obs[..., :3] if channels == 4 else obs
        seen = [Image.fromarray(np.ascontiguousarray(picture)).convert(mode) for picture in obs]
        out = np.stack([np.asarray(one if one.size == size[::-1] else one.resize(size[::-1], 4)) for one in seen])
        return np.ascontiguousarray(np.moveaxis(out, -1, 1)) if mode == "RGB" else out

    return View((3, *size) if mode == "RGB" else size, np.dtype(np.uint8), stack or 4, pictures)


def _vectors(obs: NDArray, features: int) -> NDArray:
    return obs.reshape(len(obs), features).astype(np.float32)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Which axis of an image counts its channels: that beside two equal sides, else the shorter of the outer ones."""
    if len(shape) == 2:
        return None
    a, b, c = shape
    if (a == b) != (b == c):
        return 2 if a == b else 0
    return 2 if c <= a else 0
