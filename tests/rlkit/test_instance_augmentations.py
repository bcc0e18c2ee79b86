"""Image and masks change together, and what is no longer seen is gone."""

import numpy as np
import pytest

from rlkit.instance_augmentations import chosen, flipped, recoloured, scaled_and_cropped
from rlkit.instances import Instances


def painted(seed, height=48, width=64):
    """Things on black, each a rectangle of its own colour [60 n, 255 - 60 n, 90], where its mask is."""
    rng = np.random.default_rng(seed)
    image, masks = np.zeros((3, height, width), np.uint8), np.zeros((4, height, width), bool)
    for n in range(4):
        y, x = rng.integers(0, 18), rng.integers(0, 6) + 16 * n
        masks[n, y : y + rng.integers(8, 30), x : x + rng.integers(6, 11)] = True
        image[:, masks[n]] = np.array(colour(n))[:, None]
    return Instances(image, np.arange(1, 5), masks, np.array([False, False, True, False]))


def colour(n):
    return 60 * n, 255 - 60 * n, 90


def inner(mask):
    """Its pixels whose neighbours belong to it as well: no resampling mixes their colour."""
    wide = np.pad(mask, 2)
    return np.logical_and.reduce(
        [wide[y : y + mask.shape[0], x : x + mask.shape[1]] for y in range(5) for x in range(5)]
    )


def check_colours(picture):
    """The inner pixels of each mask have their thing's colour, and none outside."""
    for label, mask in zip(picture.labels, picture.masks, strict=True):
        pixels = picture.image[:, inner(mask)].T.astype(int)
        assert (np.abs(pixels - colour(label - 1)) <= 2).all()
        assert mask[(np.abs(picture.image.astype(int) - np.reshape(colour(label - 1), (3, 1, 1))) <= 2).all(0)].all()


@pytest.mark.parametrize(
    "change, loses",
    [
        (flipped, False),
        (scaled_and_cropped, True),
        (lambda p, rng: scaled_and_cropped(p, rng, size=(96, 70), scale=(0.4, 0.6)), False),
        (lambda p, rng: scaled_and_cropped(p, rng, size=(31, 33), scale=(1, 2.5)), True),
    ],
)
def test_masks_go_with_the_pixels(change, loses):
    seen = []
    for seed in range(40):
        picture = painted(seed)
        changed = change(picture, np.random.default_rng(seed))
        check_colours(changed)
        assert changed.crowd.tolist() == (changed.labels == 3).tolist() and changed.masks.any((1, 2)).all()
        assert changed.masks.shape[1:] == changed.image.shape[1:] and changed.image.dtype == np.uint8
        again = change(picture, np.random.default_rng(seed))
        assert all(np.array_equal(a, b) for a, b in zip(changed, again, strict=True))
        seen.append(len(changed.labels))
    assert sum(seen) > 40 and (min(seen) < 4) == loses


def test_flips_are_their_own_inverse_and_half_of_all():
    picture = painted(1)
    changed = [flipped(picture, np.random.default_rng(seed)) for seed in range(400)]
    turned = [c for c in changed if not np.array_equal(c.image, picture.image)]
    assert 160 <= len(turned) <= 240
    assert all(np.array_equal(c.masks[:, :, ::-1], picture.masks) for c in turned)


def test_a_factor_of_one_changes_nothing_and_of_two_doubles():
    picture = painted(2)
    same = scaled_and_cropped(picture, np.random.default_rng(0), scale=(1, 1))
    assert all(np.array_equal(a, b) for a, b in zip(same, picture, strict=True))
    twice = scaled_and_cropped(picture, np.random.default_rng(0), size=(96, 128), scale=(2, 2))
    assert np.array_equal(twice.masks, picture.masks.repeat(2, 1).repeat(2, 2))


def test_pieces_around_things():
    picture = painted(2)
    picture = chosen(picture, np.arange(1))
    held = {0.0: 0, 1.0: 0}
    for around in held:
        for seed in range(100):
            piece = scaled_and_cropped(picture, np.random.default_rng(seed), (20, 24), scale=(1.5, 3), around=around)
            held[around] += len(piece.labels)
    assert held[1.0] == 100 and held[0.0] < 60


def test_what_is_left_of_a_thing_must_be_a_tenth_and_four_pixels():
    image, masks = np.zeros((3, 10, 40), np.uint8), np.zeros((2, 10, 40), bool)
    masks[0, :, :20] = True
    masks[1, 0, 36:39] = True  # three pixels, whole
    picture = Instances(image, np.array([1, 2]), masks, np.zeros(2, bool))
    left = {}
    for seed in range(200):
        piece = scaled_and_cropped(picture, np.random.default_rng(seed), size=(10, 20), scale=(1, 1))
        assert 2 not in piece.labels
        columns = piece.masks.any((0, 1)).sum()
        left[int(columns)] = len(piece.labels)
    assert left == {0: 0} | dict.fromkeys(range(2, 21), 1)  # 2 of its 20 columns are a tenth
    none = scaled_and_cropped(chosen(picture, np.zeros(2, bool)), np.random.default_rng(1))
    assert none.masks.shape == (0, 10, 40) and none.boxes.shape == (0, 4)


def test_colours_change_everywhere_alike_and_shapes_do_not():
    rng = np.random.default_rng(3)
    picture = painted(3)._replace(image=rng.integers(0, 256, (3, 48, 64), dtype=np.uint8))
    means = []
    for seed in range(200):
        changed = recoloured(picture, np.random.default_rng(seed))
        assert changed.image.shape == (3, 48, 64) and changed.image.dtype == np.uint8
        assert changed.masks is picture.masks
        assert np.corrcoef(changed.image.ravel(), picture.image.ravel())[0, 1] > 0.3
        means.append(changed.image.mean((1, 2)))
    assert np.std(means, 0).min() > 8 and abs(np.mean(means) - 127) < 10
    unchanged = [recoloured(picture, np.random.default_rng(seed), strength=0).image for seed in range(9)]
    assert all(np.abs(image.astype(int) - picture.image).max() <= 1 for image in unchanged)
