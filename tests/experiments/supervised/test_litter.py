"""Things cut off a board and laid on a road, both drawn here."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from experiments.supervised.litter import CutOut, cut_outs, mask_on_board, with_litter
from rlkit.instances import Instances


def board(seed=0, size=(140, 120)):
    """White in uneven light, with noise: [H, W, 3]."""
    width, height = size
    light = 150 + 0.5 * np.arange(width) + 0.2 * np.arange(height)[:, None]
    tinted = light[..., None] * [1, 0.97, 0.9]
    return (tinted + np.random.default_rng(seed).normal(0, 1.5, tinted.shape)).clip(0, 255).astype(np.uint8)


def with_thing(points, colour=(30, 90, 160), shadow=0.0):
    """(image, mask of a polygon on it); shadow: how much darker a soft spot beside it is."""
    image = board()
    mask = Image.new("L", image.shape[1::-1])
    ImageDraw.Draw(mask).polygon(points, 255)
    soft = np.asarray(
        mask.transform(mask.size, Image.Transform.AFFINE, (1, 0, -14, 0, 1, -8)).filter(ImageFilter.GaussianBlur(9))
    )
    image = image * (1 - shadow * soft[..., None] / 255)
    mask = np.asarray(mask) > 0
    image[mask] = colour
    return image.astype(np.uint8), mask


BOX = [(50, 40), (90, 45), (84, 80), (46, 74)]


@pytest.mark.parametrize("colour, shadow", [((30, 90, 160), 0), ((20, 20, 20), 0), ((200, 60, 40), 0.35)])
def test_a_thing_is_cut_off_the_board_and_its_shadow(colour, shadow):
    image, truth = with_thing(BOX, colour, shadow)
    mask = mask_on_board(image)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9
    wider = Image.fromarray(np.uint8(255) * truth).filter(ImageFilter.MaxFilter(5))
    assert not mask[np.asarray(wider) == 0].any()  # nor more of the board than a rim


def test_what_cannot_be_cut_out_is_left_out():
    assert mask_on_board(board()) is None
    assert mask_on_board(with_thing([(-1, 30), (60, 30), (60, 90), (-1, 90)])[0]) is None  # reaches the side
    assert (
        mask_on_board(with_thing([(20, 15), (110, 15), (110, 30), (35, 30), (35, 105), (20, 105)])[0]) is None
    )  # no hull
    assert mask_on_board(with_thing([(60, 60), (64, 60), (64, 64), (60, 64)])[0]) is None  # a speck


def test_things_are_split_by_their_number(tmp_path):
    for name in ("glass_03", "glass_21", "glass_22", "metal_39", "paper_00"):
        image = board() if name == "paper_00" else with_thing(BOX)[0]
        Image.fromarray(image).save(tmp_path / f"{name}.jpg", quality=95)
    (tmp_path / "glass_x.jpg").write_bytes(b"no thing")
    assert len(cut_outs(tmp_path, "train")) == len(cut_outs(tmp_path, "test")) == 2
    thing = cut_outs(tmp_path, "train")[0]
    assert thing.pixels.shape[:2] == thing.mask.shape and thing.mask.any(0).all() and thing.mask.any(1).all()
    (tmp_path / "metal_39.jpg").unlink()
    (tmp_path / "glass_22.jpg").unlink()
    with pytest.raises(ValueError, match="no test thing"):
        cut_outs(tmp_path, "test")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        cut_outs(tmp_path / "none", "test")


def test_litter_covers_what_it_lies_on():
    height, width = 80, 128
    masks = np.zeros((2, height, width), bool)
    masks[0, 20:, 30:100] = True
    masks[1, 60:63, 60:63] = True  # small enough to be hidden
    road = Instances(np.full((3, height, width), 100, np.uint8), np.array([2, 3]), masks, np.array([False, True]))
    red = CutOut(np.full((40, 30, 3), (255, 0, 0), np.uint8), np.ones((40, 30), bool))
    counts, hidden, tall = [], 0, {True: [], False: []}
    for seed in range(60):
        seen = with_litter(road, np.random.default_rng(seed), [red], label=4)
        again = with_litter(road, np.random.default_rng(seed), [red], label=4)
        assert all(np.array_equal(a, b) for a, b in zip(seen, again, strict=True))
        added = seen.masks[seen.labels == 4]
        counts.append(len(added))
        assert seen.masks.any((1, 2)).all() and seen.crowd.tolist() == (seen.labels == 3).tolist()
        covered = added.any(0)
        # Exact: red is where the masks are, and but for a blurred edge nowhere else.
        is_red = seen.image[0].astype(int) - seen.image[1] > 40
        assert is_red[covered].sum() >= 0.95 * covered.sum() and is_red[~covered].sum() <= 0.35 * covered.sum()
        assert added.sum(0).max(initial=0) <= 1 and np.array_equal(seen.masks[0], masks[0] & ~covered)
        hidden += 3 not in seen.labels
        for mask in added:
            foot = np.flatnonzero(mask.any(1))[-1]
            tall[foot > height / 2].append(mask.any(0).sum())
    assert set(counts) == {0, 1, 2, 3} and hidden >= 1
    assert np.mean(tall[True]) > 1.2 * np.mean(tall[False])  # near things are larger
    assert (road.image == 100).all() and np.array_equal(road.masks, masks)  # what was given is as it was
