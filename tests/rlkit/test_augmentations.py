"""Augmentations of images, by hand."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from rlkit.augmentations import (
    augment,
    cut_out,
    flipped,
    shifted,
    turned,
)

dtypes = pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(count, height, width, dtype=torch.uint8, channels=2):
    """Every pixel another number, from 1 on."""
    return (
        (torch.arange(channels * height * width) + 1)
        .reshape(1, channels, height, width)
        .repeat(count, 1, 1, 1)
        .to(dtype)
    )


@dtypes
def test_flipped_turns_half_of_them(dtype):
    images = numbered(400, 3, 5, dtype)
    out = flipped(images, rng())
    mirror = torch.tensor(images[0].numpy()[:, :, ::-1].copy())
    kinds = Counter("same" if torch.equal(x, images[0]) else "mirror" if torch.equal(x, mirror) else "?" for x in out)
    assert set(kinds) == {"same", "mirror"} and 150 < kinds["mirror"] < 250
    assert out.dtype == dtype and torch.equal(images, numbered(400, 3, 5, dtype))


@dtypes
def test_shifted_moves_by_all_offsets_and_keeps_the_content(dtype):
    images = numbered(1500, 9, 11, dtype, channels=2)
    out = shifted(images, rng())
    assert out.shape == images.shape and out.dtype == dtype
    wide = np.pad(images[0].numpy(), ((0, 0), (4, 4), (4, 4)))
    moves = Counter()
    for image in out.numpy():
        y, x = np.argwhere(image[0] == 50)[0]  # the middle, at 4, 5
        moves[y - 4, x - 5] += 1
        top, left = 8 - y, 9 - x
        assert np.array_equal(image, wide[:, top : top + 9, left : left + 11])
    assert set(moves) == set(itertools.product(range(-4, 5), repeat=2))


def test_shifted_by_a_chosen_number_and_by_none():
    images = numbered(200, 3, 3)
    assert torch.equal(shifted(images, rng(), most=0), images)
    centre = [tuple(np.argwhere(x[0] == 5)[0]) for x in shifted(images, rng(), most=1).numpy()]
    assert set(centre) == set(itertools.product(range(3), repeat=2))


@dtypes
@pytest.mark.parametrize("size", [1, 4, 5])
def test_cut_out_is_a_square_that_may_hang_over_the_edge(dtype, size):
    images = torch.ones(1200, 3, 8, 10, dtype=dtype)
    out = cut_out(images, rng(), size)
    assert out.dtype == dtype and images.all() and torch.equal(out.amin(1), out.amax(1))
    corners = set()
    for image in out[:, 0].numpy():
        ys, xs = np.nonzero(image == 0)
        height, width = np.ptp(ys) + 1, np.ptp(xs) + 1
        assert len(ys) == height * width  # a rectangle, and smaller than the square at an edge only
        assert height == size or (height < size and (ys.min() == 0 or ys.max() == 7))
        assert width == size or (width < size and (xs.min() == 0 or xs.max() == 9))
        assert height >= (size + 1) // 2 and width >= (size + 1) // 2  # its centre is inside
        corners.add((int(ys.min()), int(ys.max()), int(xs.min()), int(xs.max())))
    assert len(corners) == 80  # every pixel has been a centre


def test_turned_gives_all_eight_symmetries():
    images = numbered(800, 3, 3)
    out = turned(images, rng())
    square = images[0].numpy()
    eight = [np.rot90(s, k, (1, 2)).tobytes() for s in (square, square[:, :, ::-1]) for k in range(4)]
    assert len(set(eight)) == 8
    kinds = Counter(x.numpy().tobytes() for x in out)
    assert set(kinds) == set(eight) and min(kinds.values()) > 60
    assert torch.equal(images, numbered(800, 3, 3))
    with pytest.raises(ValueError, match="3 x 4 cannot be turned"):
        turned(numbered(2, 3, 4), rng())


def test_augment_changes_one_name_in_order():
    def plus(images, rng):
        return images + torch.randint(1, 9, (), generator=rng)

    def doubled(images, rng):
        return images * 2

    batch = {"image": torch.zeros(2, 1, 1, 1, dtype=torch.int64), "label": torch.arange(2)}
    out = augment(plus, doubled, plus)(batch, rng(3))
    again = rng(3)
    a, b = torch.randint(1, 9, (), generator=again), torch.randint(1, 9, (), generator=again)
    assert out["image"].flatten().tolist() == [2 * a + b] * 2
    assert out["label"] is batch["label"] and not batch["image"].any()
    assert set(augment(doubled, name="board")({"board": torch.ones(1)}, rng())) == {"board"}
