"""Random changes of a picture and the things on it: image, masks and crowds together."""

import math

import numpy as np
from numpy.typing import NDArray

from rlkit.instances import Instances


def chosen(picture: Instances, keep: NDArray) -> Instances:
    """The same picture with these of its things alone. keep: [N] bool, or numbers."""
    return picture._replace(labels=picture.labels[keep], masks=picture.masks[keep], crowd=picture.crowd[keep])


def flipped(picture: Instances, rng: np.random.Generator) -> Instances:
    """Left becomes right in half of them."""
    if rng.random() < 0.5:
        return picture
    image, masks = picture.image[:, :, ::-1], picture.masks[:, :, ::-1]
    return picture._replace(image=np.ascontiguousarray(image), masks=np.ascontiguousarray(masks))


def scaled_and_cropped(
    picture: Instances,
    rng: np.random.Generator,
    size: tuple[int, int] | None = None,
    scale: tuple[float, float] = (0.75, 1.5),
    around: float = 0.0,
) -> Instances:
    """Scaled by a factor from this range, and a piece of `size` (height, width; None: as before) from a random place;
    what is too small lies at a random place on its mean colour.

    around: share of the pieces that are around one of the things, where there are any. Things of which less than a
    tenth or than 4 pixels remain visible are dropped.
    """
    from PIL import Image

    height, width = picture.image.shape[1:]
    factor = math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
    middle = None  # (row, column), shares of the picture
    if around and len(picture.masks) and rng.random() < around:
        left, top, right, bottom = picture.boxes[rng.integers(len(picture.masks))]
        middle = ((top + bottom) / 2 / height, (left + right) / 2 / width)
    begins, ends, places = [], [], []  # (row, column): the piece that is seen, in pixels of the picture; where it lies
    out_size = size or (height, width)
    for axis, (before, after) in enumerate(zip((height, width), out_size, strict=True)):
        scaled = max(1, round(before * factor))
        seen = min(scaled, after)
        low, high = 0, scaled - seen
        if middle:
            low, high = max(low, int(middle[axis] * scaled) - seen + 1), min(high, int(middle[axis] * scaled))
        begin = rng.integers(low, high + 1) * before / scaled
        begins.append(begin)
        ends.append(min(begin + seen * before / scaled, before))  # rounding could lead out of it
        first = rng.integers(after - seen + 1)
        places.append(slice(first, first + seen))
    piece_size = (places[0].stop - places[0].start, places[1].stop - places[1].start)
    box = (begins[1], begins[0], ends[1], ends[0])
    whole = Image.fromarray(np.ascontiguousarray(picture.image.transpose(1, 2, 0)))
    piece = np.asarray(whole.resize(piece_size[::-1], Image.Resampling.BILINEAR, box))
    image = np.empty((3, *out_size), np.uint8)
    image[:] = picture.image.mean((1, 2)).round()[:, None, None]
    image[:, places[0], places[1]] = piece.transpose(2, 0, 1)
    rows, columns = (
        np.floor(begin + (np.arange(count) + 0.5) * (end - begin) / count).astype(np.int64)
        for begin, end, count in zip(begins, ends, piece_size, strict=True)
    )
    masks = np.zeros((len(picture.masks), *out_size), np.bool_)
    masks[:, places[0], places[1]] = picture.masks.take(rows, 1).take(columns, 2)
    left, before = masks.sum((1, 2)), picture.masks.sum((1, 2))
    keep = left >= np.maximum(4, 0.1 * factor**2 * before)
    return chosen(picture._replace(image=image, masks=masks), keep)


def recoloured(picture: Instances, rng: np.random.Generator, strength: float = 1.0) -> Instances:
    """Another brightness, contrast, saturation and tint, in some with blur and in some with noise.

    strength: 1 changes brightness by a third, contrast and saturation by up to 30 %, each channel by about 5 %.
    """
    from PIL import Image, ImageFilter

    image = picture.image
    if rng.random() < 0.3 * min(strength, 1):
        radius = rng.uniform(0.3, 1) * strength
        blurred = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).filter(
            ImageFilter.GaussianBlur(radius)
        )
        image = np.asarray(blurred).transpose(2, 0, 1)
    brightness, contrast, saturation = np.exp(rng.uniform(-0.3, 0.3, 3) * strength)
    tint = np.exp(0.05 * strength * rng.standard_normal(3))
    grey = np.array([0.299, 0.587, 0.114])
    # All four are linear in the pixels, so they are one matrix and one constant.
    matrix = (saturation * np.eye(3) + (1 - saturation) * grey) * (brightness * contrast * tint)[:, None]
    mean = float(grey @ image.mean((1, 2)))
    constant = brightness * (1 - contrast) * mean * tint
    flat = np.ascontiguousarray(image).reshape(3, -1).astype(np.float32)
    changed = matrix.astype(np.float32) @ flat
    changed += constant.astype(np.float32)[:, None]
    if rng.random() < 0.5:
        sigma = np.float32(rng.uniform(1, 6) * strength)
        changed += sigma * rng.standard_normal(changed.shape, np.float32)
    return picture._replace(image=changed.clip(0, 255, out=changed).astype(np.uint8).reshape(image.shape))
