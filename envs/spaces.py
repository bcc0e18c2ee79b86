"""Spaces of gymnasium: which actions and observations can be learned from, and as what."""

import contextlib
import functools
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
    sizes: tuple[int, ...]
    most, hint = MOST_ACTIONS, ""
    if isinstance(space, spaces.Discrete):
        sizes, first, most = (int(space.n),), int(space.start), np.iinfo(np.int16).max  # as a replay keeps them

        def of(number: int) -> Any:
            return np.int64(number + first)

    elif isinstance(space, (spaces.MultiDiscrete, spaces.MultiBinary)):
        nvec = space.nvec if isinstance(space, spaces.MultiDiscrete) else np.full(space.shape, 2)
        start = getattr(space, "start", 0)
        sizes = tuple(nvec.ravel().tolist())

        def of(number: int) -> Any:
            return (np.reshape(np.unravel_index(number, sizes), nvec.shape) + start).astype(space.dtype)

    elif isinstance(space, spaces.Box):
        if bins < 2:
            raise ValueError(f"{name} has continuous actions, {space}: --bins 5 makes five values of each dimension")
        if not space.is_bounded():
            raise ValueError(
                f"{name} has actions without bounds, {space}, which no bins cover: bound them by a wrapper"
            )
        hint = ", or take fewer --bins"
        values = [_binned(*bounds, bins, space.dtype) for bounds in zip(space.low.flat, space.high.flat, strict=True)]
        sizes = tuple(map(len, values))

        def of(number: int) -> Any:
            picks = np.unravel_index(number, sizes) if sizes else ()
            chosen = [one[pick] for one, pick in zip(values, picks, strict=True)]
            return np.array(chosen, space.dtype).reshape(space.shape)

    else:
        raise ValueError(f"{name} has actions {space}: make them Discrete by a wrapper, --wrappers module:Class")
    if math.prod(sizes) > most:
        raise ValueError(
            f"{name} has {math.prod(sizes):,} actions, {space}: at most {most:,} can be told apart; join some by a"
            f" wrapper, --wrappers module:Class{hint}"
        )
    return math.prod(sizes), of


def _binned(low: Any, high: Any, bins: int, dtype: Any) -> NDArray:
    """At most so many different values from low to high."""
    values = np.linspace(float(low), float(high), bins)
    return np.unique((values if np.dtype(dtype).kind == "f" else values.round()).astype(dtype))


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


def reader_of(space: spaces.Space) -> Callable[[Any], NDArray]:
    """A function from observations to arrays: of a Box as they are, of other spaces by gymnasium's `flatten`.

    It raises ValueError, which says in which way an observation lies outside the space. Floats of a Box may be any.
    """
    check = _check_of(space)
    if isinstance(space, spaces.Box):
        return check

    def read(obs: Any) -> NDArray:
        check(obs)
        return np.asarray(spaces.flatten(space, obs))

    return read


def _check_of(space: spaces.Space) -> Callable[[Any], Any]:
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        parts = space.spaces if isinstance(space, spaces.Dict) else dict(enumerate(space.spaces))
        checks = {key: _check_of(part) for key, part in parts.items()}

        def check_parts(obs: Any) -> None:
            for key, check in checks.items():
                try:
                    part = obs[key]
                except (KeyError, IndexError, TypeError):
                    raise ValueError(f"something without {key!r}") from None
                try:
                    check(part)
                except ValueError as error:
                    raise ValueError(f"as {key!r} {error}") from error

        return check_parts
    if isinstance(space, spaces.Box):
        return _check_of_box(space)

    def check(obs: Any) -> None:
        if space.contains(obs):
            return
        with contextlib.suppress(ValueError):  # it asks for the very types, which many environments mix up
            now = np.asarray(obs)
            if now.dtype.kind in "biu" and space.contains(now.astype(space.dtype)):
                return
        raise ValueError(f"{obs}, outside {space}")

    return check


def _check_of_box(space: spaces.Box) -> Callable[[Any], NDArray]:
    shape, dtype, highest = space.shape, np.dtype(space.dtype), space.high.max(initial=0)
    is_low = dtype == np.uint8 and highest < 255

    def check(obs: Any) -> NDArray:
        now = np.asarray(obs)
        if now.shape != shape:
            raise ValueError(f"something of shape {now.shape}, and its space has {shape}")
        if now.dtype != dtype:
            if now.dtype.kind not in "biuf":
                raise ValueError(f"{now.dtype} instead of numbers")
            with np.errstate(all="ignore"):
                cast = now.astype(dtype)
            if dtype.kind != "f" and (cast != now).any():
                raise ValueError(f"{now.dtype} numbers that are none of its space's {dtype}")
            now = cast
        if is_low and (now > highest).any():
            raise ValueError(f"{now.max()}, and its space ends at {highest}")
        return now

    return check


def allowed_of(mask: Any) -> NDArray[np.bool_]:
    """A mask as gymnasium's `sample` takes it, as one value for each numbered action: several are of the dimensions of
    a MultiDiscrete.
    """
    if isinstance(mask, tuple):
        return functools.reduce(np.logical_and.outer, [np.asarray(part, bool) for part in mask]).ravel()
    return np.asarray(mask, bool).ravel()


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
    if not is_picture:
        # Values as they are: as signed numbers, which networks read so, while bytes are read as 0 .. 1.
        dtype = np.dtype(np.int8 if space.dtype == np.bool_ or space.high.max() < 128 else np.int16)

        def planes(obs: NDArray) -> NDArray:
            obs = obs[:, None] if channels_at is None else np.moveaxis(obs, channels_at + 1, 1)
            return np.ascontiguousarray(obs.astype(dtype))

        return View((channels, height, width), dtype, stack or 1, planes)
    size = (resize or height, resize or width)
    rgb = channels == 3 or (channels == 4 and channels_at == 2)  # four in front are pictures of four moments
    mode = "RGB" if colour and rgb else "L"

    def pictures(obs: NDArray) -> NDArray:
        if channels_at is not None:
            obs = np.moveaxis(obs, channels_at + 1, -1)
            # Neither grey nor colours: each channel is a grey picture.
            obs = obs[..., :3] if rgb else np.moveaxis(obs, -1, 1).reshape(-1, height, width)
        seen = [Image.fromarray(np.ascontiguousarray(picture)).convert(mode) for picture in obs]
        out = np.stack([np.asarray(one if one.size == size[::-1] else one.resize(size[::-1], 4)) for one in seen])
        out = np.ascontiguousarray(np.moveaxis(out, -1, 1)) if mode == "RGB" else out
        return out.reshape(-1, *shape)

    shape = (3, *size) if mode == "RGB" else size if rgb or channels == 1 else (channels, *size)
    return View(shape, np.dtype(np.uint8), stack or (4 if rgb or channels == 1 else 1), pictures)


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
