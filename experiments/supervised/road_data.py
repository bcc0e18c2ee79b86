"""Photographs of roads with cracks and potholes, and litter laid on them; the classes of all obstacles on roads."""

import os
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from experiments.supervised.coco_files import from_masks
from experiments.supervised.label_maps import components, map_file, picture_files, read_label_map
from experiments.supervised.litter import CutOut, cut_outs, with_litter
from rlkit.data import read_whole_image
from rlkit.instances import Instances

CLASSES = ["speed bump", "deterioration", "pothole", "litter"]
"""1 to 4, of drawn roads and of photographs"""
SPEED_BUMP, DETERIORATION, POTHOLE, LITTER = 1, 2, 3, 4
LANE, CRACK, HOLE = 1, 2, 3
"""values of the photographs' label maps"""
TEST_DRIVES = {"386RS124739", "080BDF0070", "010BDF0018", "070BDF0010", "060BDF0030"}
"""Neighbouring frames of a drive are nearly the same, so whole drives are held out: 154 of 764 photographs."""
ROADS, THINGS = "road_cracks_potholes", "litter"
WIDTH = 320
"""pixels of each photograph"""


class RoadPhotographs:
    """764 photographs of 320 x 200 with cracks and potholes, those of some drives: len(pictures), pictures[i].

    pictures[i] -> Instances of the classes CLASSES, none of which is a speed bump. Those of the test have litter on
    them, which is the same each time; to those of training, `with_litter` adds other litter each time.

    folder: has road_cracks_potholes/ (images/, labels/, source_names.txt) and litter/. seed: of the test's litter.
    Raises FileNotFoundError, ValueError.
    """

    names = CLASSES

    def __init__(self, folder: str | Path, split: Literal["train", "test"], seed: int = 0):
        self.split, self.seed, self.folder = split, seed, Path(folder)
        self._files = [
            file
            for file, drive in zip(picture_files(self.folder / ROADS), drives(self.folder / ROADS), strict=True)
            if (drive in TEST_DRIVES) == (split == "test")
        ]

    def __len__(self) -> int:
        return len(self._files)

    def name(self, i: int) -> str:
        return self._files[i].name

    def __getitem__(self, i: int) -> Instances:
        picture = self.without_litter(i)
        return picture if self.split == "train" else self.with_litter(picture, np.random.default_rng([self.seed, i]))

    def without_litter(self, i: int) -> Instances:
        """As it was photographed."""
        image, size = read_whole_image(self._files[i], max_side=1 << 16)
        labels = read_label_map(map_file(self.folder / ROADS, self._files[i]), size, HOLE)
        damage, holes = cracks(labels == CRACK), potholes(labels == HOLE)
        return from_masks(image, [DETERIORATION] * len(damage) + [POTHOLE] * len(holes), damage + holes)

    def with_litter(self, picture: Instances, rng: np.random.Generator) -> Instances:
        """With 0 to 3 things of this split laid on it."""
        return with_litter(picture, rng, self._things, LITTER)

    @cached_property
    def _things(self) -> list[CutOut]:
        return cut_outs(self.folder / THINGS, self.split)


def photographs(split: Literal["train", "test"], folder: str | Path | None = None, seed: int = 0) -> RoadPhotographs:
    """Those in `folder`; None: in the folder ml/ of what the environment's RLKIT_DATA names.

    Raises FileNotFoundError, ValueError.
    """
    if folder is None:
        if "RLKIT_DATA" not in os.environ:
            raise FileNotFoundError(f"where are the photographs? name the folder that has {ROADS}/ and {THINGS}/")
        folder = Path(os.environ["RLKIT_DATA"]) / "ml"
    return RoadPhotographs(folder, split, seed)


def drives(folder: Path) -> list[str]:
    """Of each photograph in the order of numbers: the fourth field of its source's name. Raises OSError, ValueError."""
    file = folder / "source_names.txt"
    if not file.is_file():
        raise FileNotFoundError(f"there is no {file}, which tells from what drive each photograph is")
    lines = file.read_text().splitlines()
    try:
        by_number = {line.split()[0]: line.split()[1].split("_")[3] for line in lines}
        return [by_number[picture.stem] for picture in picture_files(folder)]
    except (IndexError, KeyError) as error:
        raise ValueError(
            f"{file} does not name each photograph, as 0000 1025811_RS_386_386RS169832_08795: {error}"
        ) from error


def cracks(label: NDArray[np.bool_], reach: int = 4, least: int = 40) -> list[NDArray[np.bool_]]:
    """The places of cracks [H, W]: labels are specks along them, and what is within 2 x `reach` pixels is one place.

    The mask is the label dilated by `reach` pixels, its gaps closed; places with under `least` labelled pixels are
    left out.
    """
    from scipy.ndimage import distance_transform_edt as distance  # comes with scikit-learn

    if not label.any():
        return []
    found = []
    for place in components(distance(~label) <= reach):
        if (label & place).sum() >= least:
            rows, columns = (np.flatnonzero(place.any(axis)) for axis in (1, 0))
            # What closing can reach, and a rim of zeros: six times as fast as on the whole picture.
            low = [max(0, x[0] - reach - 1) for x in (rows, columns)]
            piece = place[low[0] : rows[-1] + reach + 2, low[1] : columns[-1] + reach + 2]
            wide = distance(~piece) <= reach
            if not wide.all():
                piece |= distance(wide) > reach
            found.append(place)
    return found


def potholes(label: NDArray[np.bool_], least: int = 12) -> list[NDArray[np.bool_]]:
    """Those of a label [H, W], one by one; specks with fewer pixels are left out."""
    return components(label, least)
