"""Changes of a batch's images [B, C, H, W] of any dtype, each image by itself; boards are turned by `turn_boards`."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlkit.data import Batch, Change


def flipped(images: Tensor, rng: torch.Generator) -> Tensor:
    """Left becomes right in half of them."""
    flip = torch.rand(len(images), generator=rng) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def shifted(images: Tensor, rng: torch.Generator, most: int = 4) -> Tensor:
    """Moved by up to `most` pixels up or down and left or right, zeros coming in: the random crop of a padded image."""
    count, _, height, width = images.shape
    up, left = torch.randint(2 * most + 1, (2, count), generator=rng)
    wide = F.pad(images, (most, most, most, most))
    places = wide.unfold(2, height, 1).unfold(3, width, 1)  # a view [B, C, up, left, H, W]
    return places[torch.arange(count), :, up, left]


def cut_out(images: Tensor, rng: torch.Generator, size: int = 8) -> Tensor:
    """A square of size x size, whose centre may lie anywhere, set to zero (DeVries and Taylor 2017)."""
    count, _, height, width = images.shape
    y = torch.randint(height, (count, 1), generator=rng) - torch.arange(height)
    x = torch.randint(width, (count, 1), generator=rng) - torch.arange(width)
    inside_y, inside_x = ((z >= -(size // 2)) & (z < size - size // 2) for z in (y, x))
    return images.masked_fill((inside_y[:, :, None] & inside_x[:, None])[:, None], 0)


def turned(images: Tensor, rng: torch.Generator) -> Tensor:
    """One of the square's eight symmetries. Raises ValueError for images that are no squares."""
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"images of {images.shape[2]} x {images.shape[3]} cannot be turned: make them square")
    which = torch.randint(8, (len(images),), generator=rng)
    out = images.clone()
    for k in range(8):
        chosen = which == k
        turned_ = images[chosen].rot90(k % 4, (2, 3))
        out[chosen] = turned_ if k < 4 else turned_.flip(3)
    return out


def augment(*changes: Callable[[Tensor, torch.Generator], Tensor], name: str = "image") -> Change:
    """A change of batches: these, one after the other, of the images that lie under `name`."""

    def change(batch: Batch, rng: torch.Generator) -> Batch:
        images = batch[name]
        for one in changes:
            images = one(images, rng)
        return batch | {name: images}

    return change


def turn_boards(planes: NDArray, index: NDArray[np.integer]) -> NDArray:
    """Boards [B, C, H, W], each under a symmetry of its own: the number of point p comes from index[b, p].

    index: [B, H W or more]; what follows the points (a pass) is for policies.
    """
    flat = planes.reshape(*planes.shape[:2], -1)
    out = np.empty(flat.shape, planes.dtype)
    for board, points, turned_ in zip(flat, index[:, : flat.shape[2]], out, strict=True):
        board.take(points, 1, turned_, "clip")  # board by board: 5 times as fast as take_along_axis; "raise" would copy
    return out.reshape(planes.shape)
