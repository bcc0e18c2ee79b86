"""Pictures with obstacles on them: where they come from, and the batches that are learned from."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from experiments.supervised import drawn_roads, road_data
from experiments.supervised.coco_files import MAX_SIDE, CocoPictures
from experiments.supervised.label_maps import LabelMaps
from experiments.supervised.road_data import ROADS, RoadPhotographs, photographs
from rlkit.data import Batch, rows
from rlkit.data_files import files_below
from rlkit.instance_augmentations import flipped, recoloured, scaled_and_cropped
from rlkit.instances import Instances, batch_of

TRAINING, TEST = 1, 2
"""first number of the seeds of drawn pictures"""
DRAWN_TESTS = 500
CHANGES = {"flipped": flipped, "scaled_and_cropped": scaled_and_cropped, "recoloured": recoloured}


class Source(Protocol):
    """Pictures by number."""

    @property
    def names(self) -> list[str]:
        """Of the classes 1, 2, ..."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Instances: ...


class DrawnRoads:
    """`count` pictures: number n of a part is always the same one."""

    def __init__(self, part: int, count: int, height: int, width: int):
        self.part, self.count, self.height, self.width = part, count, height, width
        self.names = list(drawn_roads.CLASSES)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Instances:
        return drawn_roads.draw((self.part, number), self.height, self.width)


class Some:
    """The pictures with these numbers of another source."""

    def __init__(self, source: Source, numbers: Sequence[int]):
        self.source, self.numbers, self.names = source, numbers, source.names

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> Instances:
        return self.source[self.numbers[number]]


def load(
    data: str = "drawn",
    path: str | None = None,
    annotations: str | None = None,
    held_out: float = 0.2,
    height: int = 200,
    width: int = 320,
    max_side: int = MAX_SIDE,
) -> tuple[Source, Source]:
    """(pictures to learn from, pictures to test on).

    Args:
        data: drawn, photographs, coco or label-maps.
        path: folder of the pictures; annotations: JSON file of coco.
        held_out: share of coco's and of label maps' pictures to test on.
        height, width: pixels of drawn pictures; max_side: those of the longer side of others, at most.
    Raises FileNotFoundError, ValueError.
    """
    if data == "drawn":
        return DrawnRoads(TRAINING, 2**31, height, width), DrawnRoads(TEST, DRAWN_TESTS, height, width)
    if data == "photographs":
        return photographs("train", path), photographs("test", path)
    if not path or (data == "coco" and not annotations):
        raise ValueError(
            f"--data {data} wants the folder of its pictures as --path, and coco its JSON as --annotations"
        )
    whole = CocoPictures(path, str(annotations), max_side) if data == "coco" else LabelMaps(path, max_side=max_side)
    # By names, not by numbers: where a picture is missing later, the others stay on their side.
    order = sorted(range(len(whole)), key=lambda i: sha256(os.fsencode(whole.name(i))).digest())
    test = round(held_out * len(whole))
    if not 0 < test < len(whole):
        raise ValueError(
            f"--held-out {held_out:g} of {len(whole)} pictures are {test}: there must be some to test on, and others"
        )
    return Some(whole, order[test:]), Some(whole, order[:test])


def longest_side(data: str = "drawn", height: int = 200, width: int = 320, max_side: int = MAX_SIDE, **_: Any) -> int:
    """Pixels of the longer side of the pictures that `load` gives, of coco's and label maps' at most."""
    return {"drawn": max(height, width), "photographs": road_data.WIDTH}.get(data, max_side)


def files(data: str, path: str | None) -> list[Path]:
    """The small ones among those that `load` reads under a path, which say what is on the pictures."""
    if not path or data in ("drawn", "coco"):
        return []
    return files_below((Path(path) / ROADS if data == "photographs" else Path(path)) / "labels")


def training_batches(
    source: Source, batch_size: int, seed: int, augment: Sequence[str] = (), enlarge: int = 1
) -> Callable[[int], Batch]:
    """Batches of pictures, each changed at random: of a finite source in a new order each epoch, of drawn ones always
    new ones.

    enlarge: that of the detector; above 1, pieces of enlarged pictures are learned from, half of them around things.
    """
    changes = [CHANGES[name] for name in augment]
    if enlarge > 1:
        low, high = (0.75, 1.5) if "scaled_and_cropped" in augment else (1, 1)
        pieces = partial(scaled_and_cropped, scale=(low * enlarge, high * enlarge), around=0.5)
        changes = [pieces, *(change for change in changes if change is not scaled_and_cropped)]

    def read(numbers: Sequence[int], rng: np.random.Generator) -> Batch:
        pictures = []
        for number in numbers:
            picture = source[number]
            if isinstance(source, RoadPhotographs):
                picture = source.with_litter(picture, rng)
            for change in changes:
                picture = change(picture, rng)
            pictures.append(picture)
        return batch_of(pictures)

    if isinstance(source, DrawnRoads):

        def drawn(number: int) -> Batch:
            rng = np.random.default_rng([seed, number])
            return read(rng.integers(len(source), size=batch_size).tolist(), rng)

        return drawn

    def pictures(batch: Batch, rng: torch.Generator) -> Batch:
        (own,) = torch.randint(2**62, (1,), generator=rng).tolist()
        return read(batch["number"].tolist(), np.random.default_rng(own))

    return rows({"number": np.arange(len(source))}, batch_size, seed, pictures)
