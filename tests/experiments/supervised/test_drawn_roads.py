"""Drawn roads: the same again from one seed, masks that are what is seen, and as hard as they are said to be."""

import hashlib

import numpy as np
import pytest

from experiments.supervised.drawn_roads import CLASSES, SMALLEST, draw


def digest(picture):
    return hashlib.sha256(b"".join(part.tobytes() for part in picture)).hexdigest()


def grown(masks):
    """Masks [N, H, W], one pixel larger on each side."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    across = padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
    return masks | padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | across


@pytest.fixture(scope="module")
def pictures():
    return [draw((22, number)) for number in range(60)]


def test_one_seed_is_one_picture():
    seeds = [0, 1, (0, 1), (1, 1), [5, 2**40]]
    digests = [digest(draw(seed)) for seed in seeds]
    draw(99)
    assert [digest(draw(seed)) for seed in seeds] == digests
    assert len(set(digests)) == len(seeds)


def check(picture, height, width):
    count = len(picture.labels)
    assert picture.image.dtype == np.uint8 and picture.image.shape == (3, height, width) and picture.image.std() > 5
    assert picture.labels.dtype == np.int64 and 1 <= count <= 6 and set(picture.labels) <= {1, 2, 3, 4}
    assert picture.masks.dtype == np.bool_ and picture.masks.shape == (count, height, width)
    assert picture.masks.sum(0).max() == 1  # what lies in front is seen, what lies behind is not
    assert picture.crowd.dtype == np.bool_ and picture.crowd.shape == (count,) and not picture.crowd.any()
    boxes = picture.boxes
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= SMALLEST and picture.masks.sum((1, 2)).min() >= 12


def test_a_picture_has_what_it_says(pictures):
    for picture in pictures:
        check(picture, 200, 320)
    counts = np.bincount(np.concatenate([picture.labels for picture in pictures]), minlength=5)[1:]
    assert counts.min() > 0.15 * counts.sum() and len(counts) == len(CLASSES)
    assert {len(picture.labels) for picture in pictures} == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 200), (150, 75), (320, 512), (1100, 1000)])
def test_any_size(height, width):
    for seed in range(8 if height * width < 10**6 else 1):
        check(draw(seed, height, width), height, width)


def test_too_small_to_be_drawn():
    with pytest.raises(ValueError, match="at least 64"):
        draw(0, 63, 320)


def test_small_things_and_things_that_touch(pictures):
    small, touching, alike, total = 0, 0, 0, 0
    for picture in pictures:
        sides = picture.boxes[:, 2:] - picture.boxes[:, :2]
        small += (sides.prod(1) < 24 * 24).sum()
        meet = np.einsum("nhw,mhw->nm", grown(picture.masks).astype(np.float32), picture.masks.astype(np.float32)) > 0
        np.fill_diagonal(meet, False)
        touching += meet.any(1).sum()
        alike += (meet & (picture.labels[:, None] == picture.labels)).any(1).sum()
        total += len(sides)
    assert 0.25 < small / total < 0.5  # a third of them, about
    assert touching / total > 0.4
    assert 0.35 < alike / total < 0.7  # connected pixels of one class are not one thing
