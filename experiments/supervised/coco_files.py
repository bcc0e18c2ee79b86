"""Pictures whose things are told by a JSON of COCO's form, which labelling tools write."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlkit.data import read_whole_image
from rlkit.files import check_regular, read_json
from rlkit.instances import Instances
from rlkit.logger import say

MAX_SIDE = 1333
"""pixels: pictures with a longer side are scaled down to it; the published detectors' bound"""
Size = tuple[int, int]
"""height, width"""


class Thing(NamedTuple):
    """One annotation: what is in the JSON, checked."""

    label: int  # from 1
    crowd: bool
    polygons: list[NDArray[np.float64]]  # each [points, 2] of x, y in pixels; empty where there are runs
    runs: NDArray[np.int64] | None  # lengths of runs down the columns, the first of zeros


class CocoPictures:
    """The pictures that a JSON names: len(pictures), pictures[i] -> Instances, read when asked for.

    folder: of the pictures. names: of the classes 1, 2, ... in the JSON's order, whatever their ids are.
    Skipped, and counted in a line: pictures that are not in the folder, and things without a mask, with fewer than
    three points, without area, or outside their picture. Pictures without any thing stay. What contradicts itself is
    refused: raises FileNotFoundError, and ValueError that names the file and the annotation.
    """

    def __init__(self, folder: str | Path, json: str | Path, max_side: int = MAX_SIDE):
        self.folder, self.json, self.max_side = Path(folder), Path(json), max_side
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        self.names, self._files, self._sizes, self._things, skipped = _read(self.folder, self.json)
        if skipped:
            kinds = ", ".join(f"{count} {kind}" for kind, count in skipped.items())
            say(f"{json}: {skipped.total()} entries are skipped: {kinds}")

    def __len__(self) -> int:
        return len(self._files)

    def name(self, i: int) -> str:
        """The picture's path below the folder."""
        return self._files[i]

    def __getitem__(self, i: int) -> Instances:
        """Raises ValueError for a broken picture, and for one of another size than the JSON says."""
        image, size = read_whole_image(file := self.folder / self._files[i], self.max_side)
        if self._sizes[i] not in (None, size):
            height, width = self._sizes[i] or size
            turned = "; it is turned by its EXIF notes, which the annotations leave out" * (size == (width, height))
            raise ValueError(
                f"{file} has {size[1]} x {size[0]} pixels, upright, and {self.json} says {width} x {height}{turned}: "
                "annotate it anew, or take it out of the JSON"
            )
        things = self._things[i]
        masks = [mask_of(thing, size, image.shape[1:], f"{self.json}: a thing on {self._files[i]}") for thing in things]
        return from_masks(image, [t.label for t in things], masks, [t.crowd for t in things])


def coco(folder: str | Path, json: str | Path, max_side: int = MAX_SIDE) -> tuple[CocoPictures, list[str]]:
    """(pictures, names of their classes from 1). Raises FileNotFoundError, ValueError."""
    pictures = CocoPictures(folder, json, max_side)
    return pictures, pictures.names


def from_masks(
    image: NDArray[np.uint8], labels: Sequence[int], masks: Sequence[NDArray], crowd: Sequence[bool] | None = None
) -> Instances:
    """Instances of these masks, those without any pixel left out."""
    stacked = np.array(masks, np.bool_).reshape(-1, *image.shape[1:])
    keep = np.asarray(stacked.any((1, 2)))
    crowds = np.zeros(len(keep), np.bool_) if crowd is None else np.array(crowd, np.bool_)
    return Instances(image, np.array(labels, np.int64)[keep], stacked[keep], crowds[keep])


# -- masks -------------------------------------------------------------------------------------------------------------


def mask_of(thing: Thing, size: Size, scaled: Sequence[int], place: str) -> NDArray[np.bool_]:
    """[*scaled] of a thing on a picture of `size`, scaled down like it. Raises ValueError that begins with `place`."""
    from PIL import Image

    height, width = scaled
    if thing.runs is None:
        factor = np.array([width / size[1], height / size[0]])
        return np.logical_or.reduce([polygon_mask(points * factor, (height, width)) for points in thing.polygons])
    if (total := int(thing.runs.sum())) != size[0] * size[1]:
        raise ValueError(f"{place}: its runs cover {total} pixels, and the picture has {size[0] * size[1]}: mend it")
    mask = runs_mask(thing.runs, size)
    if size == (height, width):
        return mask
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize((width, height), Image.Resampling.BOX)
    return np.asarray(share) > 127


def polygon_mask(points: NDArray, size: Size) -> NDArray[np.bool_]:
    """[H, W]: the pixels whose centres lie within a polygon [points, 2] of x, y; those outside the picture are cut off.

    Pixel (0, 0) reaches from 0 to 1. Where the polygon crosses itself, inside is where a ray leaves it an odd number
    of times.
    """
    height, width = size
    crossed = np.zeros((height, width + 1), np.bool_)  # whether an odd number of sides begins left of a centre
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, 0), strict=True):
        low, high = sorted((y0, y1))
        rows = np.arange(max(0, math.ceil(low - 0.5)), min(height, math.ceil(high - 0.5)))
        if len(rows):
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            crossed[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)] ^= True
    rows = np.flatnonzero(crossed.any(1))
    crossed[rows] = np.logical_xor.accumulate(crossed[rows], 1)
    return crossed[:, :-1]


def runs_mask(runs: NDArray, size: Size) -> NDArray[np.bool_]:
    """[H, W] from run lengths [runs], of zeros and ones in turns, down the columns."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[::-1]).T


def unpacked_runs(text: str) -> NDArray[np.int64]:
    """The run lengths in a string as COCO's tools pack them.

    Each is written in digits of 5 bits, the lowest first, with an offset of 48: bit 5 says that more follow, bit 4 of
    the last one is the sign. From the third on, it is the difference to the one before the last. Source: maskApi.c.
    Raises ValueError.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64:
            raise ValueError(f"{letter!r} is no digit of packed runs")
        value |= (digit & 31) << shift
        shift += 5
        if not digit & 32:
            if digit & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the packed runs end within a number")
    return np.array(runs, np.int64)


# -- the JSON ----------------------------------------------------------------------------------------------------------


def _read(folder: Path, json: Path) -> tuple[list[str], list[str], list[Size | None], list[list[Thing]], Counter[str]]:
    """(classes, files, their sizes, the things on each, what is skipped)."""
    check_regular(json)
    if not json.exists():
        raise FileNotFoundError(f"there is no file {json}")
    try:
        data = read_json(json)
        images, annotations, categories = (list(data[key]) for key in ("images", "annotations", "categories"))
        label_of = {category["id"]: label for label, category in enumerate(categories, 1)}
        names = [str(category["name"]) for category in categories]
        number_of = {image["id"]: n for n, image in enumerate(images)}
        files = [str(image["file_name"]) for image in images]
        sizes = [(int(i["height"]), int(i["width"])) if i.get("height") and i.get("width") else None for i in images]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{json} is no JSON of COCO's form for instances: {what}") from error
    for kind, listed, ids in (("categories", categories, label_of), ("images", images, number_of)):
        if not ids or len(ids) != len(listed):
            raise ValueError(f"{json} has {len(listed)} {kind} with {len(ids)} different ids: each needs its own")
    skipped: Counter[str] = Counter()
    things: list[list[Thing]] = [[] for _ in images]
    for i, annotation in enumerate(annotations):
        place = f"{json}: annotation {annotation.get('id', i) if isinstance(annotation, dict) else i}"
        try:
            number, label = number_of[annotation["image_id"]], label_of[annotation["category_id"]]
            place += f", on {files[number]}"
            thing = _thing(annotation, label, sizes[number])
        except KeyError as error:
            raise ValueError(f"{place} lacks {error}, or names an image or a category that is not listed") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{place}: {error}; mend it, or remove it") from error
        if isinstance(thing, str):
            skipped[thing] += 1
        else:
            things[number].append(thing)
    here = [n for n, file in enumerate(files) if (folder / file).is_file()]
    if not here:
        raise FileNotFoundError(f"{folder} has none of the {len(files)} pictures that {json} names, as {files[0]}")
    if missing := len(files) - len(here):
        first = next(file for n, file in enumerate(files) if n not in set(here))
        skipped[f"pictures that are not in {folder}, as {first}"] = missing
    if annotations and not any(things):
        raise ValueError(f"{json} has {len(annotations)} annotations and not one mask: {dict(skipped)}")
    return names, [files[n] for n in here], [sizes[n] for n in here], [things[n] for n in here], skipped


def _thing(annotation: dict[str, Any], label: int, size: Size | None) -> Thing | str:
    """An annotation, or why it is skipped. Raises TypeError, ValueError, KeyError."""
    shape, crowd = annotation.get("segmentation"), bool(annotation.get("iscrowd", 0))
    if not shape:
        return "without a mask"
    if isinstance(shape, dict):
        given = tuple(int(n) for n in shape["size"])
        if size is not None and given != size:
            raise ValueError(
                f"its runs are for {given[1]} x {given[0]} pixels, and the picture has {size[1]} x {size[0]}"
            )
        counts = shape["counts"]
        runs = unpacked_runs(counts) if isinstance(counts, str) else np.array(counts, np.int64)
        if runs.ndim != 1 or (runs < 0).any() or runs.sum() != math.prod(given):
            raise ValueError(f"its runs cover {runs.sum()} pixels of {given[1]} x {given[0]}")
        return Thing(label, crowd, [], runs) if runs[1::2].sum() else "without area"
    polygons = []
    why = "with fewer than three points"
    for flat in shape:
        points = np.array(flat, np.float64)
        if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError("its polygon is no list of pairs of numbers")
        points = points.reshape(-1, 2)
        if len(points) < 3:
            continue
        (left, top), (right, bottom) = points.min(0), points.max(0)
        x, y = points.T
        if not abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)):
            why = "without area"
        elif right <= 0 or bottom <= 0 or (size is not None and (left >= size[1] or top >= size[0])):
            why = "outside their picture"
        else:
            polygons.append(points)
    return Thing(label, crowd, polygons, None) if polygons else why
