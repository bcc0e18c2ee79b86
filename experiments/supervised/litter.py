"""Things photographed on a white board: cut out, and laid on pictures of roads."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlkit.data import read_whole_image
from rlkit.data_files import files_below
from rlkit.instance_augmentations import chosen
from rlkit.instances import Instances

FIRST_TEST_NUMBER = 22
"""Photographs NAME_NUMBER from this number on are of things for tests, the others of things to learn from. What is
photographed several times (a cup: trash_22, 26 and 36; a tin: metal_22, 26) is on one side."""


class CutOut(NamedTuple):
    """A thing without its board."""

    pixels: NDArray[np.uint8]  # [h, w, 3]
    mask: NDArray[np.bool_]  # [h, w], which touches all four sides


# -- off the board -----------------------------------------------------------------------------------------------------


def cut_outs(folder: str | Path, split: str) -> list[CutOut]:
    """The things of a split, train or test, as far as they can be cut out, in the order of their names.

    Raises FileNotFoundError, and ValueError where there is none.
    """
    if not (folder := Path(folder)).is_dir():
        raise FileNotFoundError(f"there is no folder {folder} of things on a white board, as glass_03.jpg")
    found = []
    for file in files_below(folder):
        number = file.stem.rpartition("_")[2]
        if file.suffix == ".jpg" and number.isdecimal() and (int(number) >= FIRST_TEST_NUMBER) == (split == "test"):
            image = read_whole_image(file, 256)[0].transpose(1, 2, 0)
            if (mask := mask_on_board(image)) is not None:
                rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
                inside = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
                found.append(CutOut(image[inside], mask[inside]))
    if not found:
        raise ValueError(f"{folder} has no {split} thing NAME_NUMBER.jpg that stands out from a white board")
    return found


def board_colours(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """[H, W, 3]: the light on the board, a quadratic in x and y through most of what lies along the sides."""
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)
    rim = np.ones((height, width), bool)
    band = max(2, min(height, width) // 12)
    rim[band:-band, band:-band] = False
    inputs, outputs = terms[rim][::4], image[rim][::4].astype(np.float64)  # a quarter of it tells as much
    used = np.ones(len(inputs), bool)
    for _ in range(6):  # shadows and what reaches the side lie far off, and are left out step by step
        weights = np.linalg.lstsq(inputs[used], outputs[used], rcond=None)[0]
        off = np.abs(outputs - inputs @ weights).max(1)
        used = off < max(12, float(np.median(off)))
    return terms @ weights


def mask_on_board(image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """[H, W]: the one thing on the board; None where it reaches a side, fills the picture, or is in pieces.

    A thing has another colour than the board, is much darker or lighter, or has sharp edges: a shadow has none of it.
    Whole are those with 78 % of their convex hull; of 240 photographs a quarter is, and was looked at.
    """
    from scipy import ndimage  # comes with scikit-learn
    from scipy.spatial import ConvexHull

    ratio = (image / np.maximum(board_colours(image), 20)).clip(0.02, 3)
    light = ratio.mean(2)
    smooth = ndimage.gaussian_filter(ratio, (1.2, 1.2, 0))
    colour = np.abs(smooth / smooth.mean(2, keepdims=True) - 1).max(2)
    soft = ndimage.gaussian_filter(light, 0.6)
    sharp = ndimage.gaussian_gradient_magnitude(light, 0.8)
    mask = (colour > 0.14) | (soft < 0.5) | (soft > 1.25) | (sharp > 0.045)
    cross = ndimage.generate_binary_structure(2, 1)
    mask = ndimage.binary_closing(np.pad(mask, 6), cross, 3)[6:-6, 6:-6]
    mask = ndimage.binary_opening(np.pad(ndimage.binary_fill_holes(mask), 3, "edge"), cross, 2)[3:-3, 3:-3]
    mask = ndimage.binary_erosion(mask, border_value=1)  # the board shines through at the edge
    numbered, _ = ndimage.label(mask)
    counts = np.bincount(numbered.ravel())
    counts[0] = 0
    area = counts.max()
    if not 0.01 * mask.size < area < 0.55 * mask.size or area < 0.9 * counts.sum():
        return None
    mask = numbered == counts.argmax()
    if np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean() >= 0.01:
        return None
    rows = np.flatnonzero(mask.any(1))
    left, right = mask[rows].argmax(1), mask.shape[1] - mask[rows][:, ::-1].argmax(1)
    corners = np.concatenate([np.stack([rows + down, x], 1) for down in (0, 1) for x in (left, right)])
    return mask if area > 0.78 * ConvexHull(corners).volume else None


# -- onto the road -----------------------------------------------------------------------------------------------------


def with_litter(
    picture: Instances, rng: np.random.Generator, things: Sequence[CutOut], label: int, most: int = 3
) -> Instances:
    """A picture of a road with 0 to `most` things laid on it, which get this label.

    They are smaller further up, 3 to 20 % of the width at the bottom, and lie turned, flattened, in the light of their
    place and with a shadow. What they cover, other masks lose; what is left with under a tenth or 4 pixels is dropped.
    """
    image, masks = picture.image.copy(), list(picture.masks)
    for _ in range(rng.integers(most + 1)):
        covered = _lay(image, rng, things[int(rng.integers(len(things)))])
        masks = [mask & ~covered for mask in masks] + [covered]
    added = len(masks) - len(picture.masks)
    stacked = np.array(masks, np.bool_).reshape(-1, *image.shape[1:])
    before = [*picture.masks.sum((1, 2)), *stacked[len(picture.masks) :].sum((1, 2))]
    keep = stacked.sum((1, 2)) >= np.maximum(4, 0.1 * np.array(before))
    labels = np.concatenate([picture.labels, np.full(added, label)])
    return chosen(Instances(image, labels, stacked, np.concatenate([picture.crowd, np.zeros(added, np.bool_)])), keep)


def _lay(image: NDArray[np.uint8], rng: np.random.Generator, thing: CutOut) -> NDArray[np.bool_]:
    """Draw a thing at a random place of an image [3, H, W], in place; returns the pixels that are its own [H, W]."""
    from PIL import Image, ImageFilter

    height, width = image.shape[1:]
    down = rng.uniform(0.15, 0.95)  # where its foot is; far things are small, and the road is narrow there
    across = 0.5 + rng.uniform(-1, 1) * (0.1 + 0.36 * down)
    length = max(9.0, width * np.exp(rng.uniform(np.log(0.04), np.log(0.2))) * (0.25 + 0.75 * down))
    whole = Image.fromarray(np.dstack([thing.pixels, np.uint8(255) * thing.mask]))
    if rng.random() < 0.5:
        whole = whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    whole = whole.rotate(rng.uniform(0, 360), Image.Resampling.BILINEAR, expand=True)
    whole = whole.crop(whole.getchannel("A").getbbox())
    factor, flat = length / max(whole.size), rng.uniform(0.55, 1)
    size = max(3, round(whole.width * factor)), max(3, round(whole.height * factor * flat))
    whole = whole.resize(size, Image.Resampling.BOX if factor < 1 else Image.Resampling.BILINEAR)
    left, top = round(across * width - size[0] / 2), round(down * height - size[1])
    pad = round(0.5 * length) + 4
    x0, y0 = max(0, left - pad), max(0, top - pad)
    ground = image[:, y0 : top + size[1] + pad, x0 : left + size[0] + pad].astype(np.float32)  # all that changes
    canvas = Image.new("RGBA", ground.shape[:0:-1])
    canvas.paste(whole, (left - x0, top - y0))
    colours = np.asarray(canvas)[:, :, :3].transpose(2, 0, 1).astype(np.float32)
    solid = canvas.getchannel("A")
    alpha = np.asarray(solid.filter(ImageFilter.GaussianBlur(0.4)), np.float32) / 255
    near = ground.mean((1, 2))
    light = (near.mean() / 150) ** 0.7 * np.exp(rng.uniform(-0.25, 0.25))
    colours *= (np.clip(light, 0.3, 1.3) * (near / max(1, near.mean())) ** 0.5).astype(np.float32)[:, None, None]
    shadow = Image.new("L", canvas.size)
    aside = rng.normal(0, 0.12, 2) * size[1] + (0, 0.08 * size[1])
    shadow.paste(solid, (round(aside[0]), round(aside[1])))
    dark = np.asarray(shadow.filter(ImageFilter.GaussianBlur(float(0.04 * length + 0.6))), np.float32) / 255
    ground *= 1 - dark * np.float32(rng.uniform(0.2, 0.65))
    ground += alpha * (colours - ground)
    here = slice(y0, y0 + ground.shape[1]), slice(x0, x0 + ground.shape[2])
    image[:, here[0], here[1]] = ground.clip(0, 255).astype(np.uint8)
    covered = np.zeros((height, width), np.bool_)
    covered[here] = alpha > 0.5
    return covered
