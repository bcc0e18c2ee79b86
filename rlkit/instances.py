"""Pictures and the things on them: their classes and masks, changed together, and together in a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STRIDE = 32
"""a batch's height and width are multiples of it: pyramids halve them five times"""


class Instances(NamedTuple):
    """A picture, and the things on it."""

    image: NDArray[np.uint8]  # [3, H, W]
    labels: NDArray[np.int64]  # [N], from 1: 0 is the background
    masks: NDArray[np.bool_]  # [N, H, W], none of them empty
    crowd: NDArray[np.bool_]  # [N]: many things in one mask; nothing is learned from it, and it cannot be missed

    @property
    def boxes(self) -> NDArray[np.float32]:
        """[N, 4]: left, top, right, bottom of each mask in pixels, right and bottom just behind it."""
        return boxes_of(self.masks)


class Detections(NamedTuple):
    """What was found on a picture, the surest first."""

    boxes: NDArray[np.float32]  # [N, 4]
    labels: NDArray[np.int64]  # [N]
    scores: NDArray[np.float32]  # [N], 0 .. 1
    masks: NDArray[np.bool_]  # [N, H, W]


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    """[N, 4] of masks [N, H, W], none of them empty."""
    rows, columns = np.asarray(masks.any(2)), np.asarray(masks.any(1))
    height, width = masks.shape[1:]
    left, top = columns.argmax(1), rows.argmax(1)
    right, bottom = width - columns[:, ::-1].argmax(1), height - rows[:, ::-1].argmax(1)
    return np.stack([left, top, right, bottom], 1).astype(np.float32).reshape(-1, 4)


def batch_of(pictures: Sequence[Instances]) -> dict[str, Tensor]:
    """A batch of pictures of any sizes, at the top left of the smallest rectangle that holds all.

    Returns images [B, 3, H, W] uint8; sizes [B, 2] (height, width); and of all N things, crowds left out: boxes
    [N, 4], labels [N], picture [N] (the number of their picture), masks [N, H, W] bool.
    """
    sizes = np.array([picture.image.shape[1:] for picture in pictures])
    height, width = -(-sizes.max(0) // STRIDE) * STRIDE
    images = np.zeros((len(pictures), 3, height, width), np.uint8)
    single = [np.flatnonzero(~picture.crowd) for picture in pictures]
    masks = np.zeros((sum(map(len, single)), height, width), np.bool_)
    first = 0
    for image, picture, (h, w), chosen in zip(images, pictures, sizes, single, strict=True):
        image[:, :h, :w] = picture.image
        masks[first : first + len(chosen), :h, :w] = picture.masks[chosen]
        first += len(chosen)
    return {
        "images": torch.from_numpy(images),
        "sizes": torch.from_numpy(sizes),
        "boxes": torch.from_numpy(boxes_of(masks)),
        "labels": torch.from_numpy(np.concatenate([p.labels[one] for p, one in zip(pictures, single, strict=True)])),
        "picture": torch.from_numpy(np.repeat(np.arange(len(pictures)), list(map(len, single)))),
        "masks": torch.from_numpy(masks),
    }
