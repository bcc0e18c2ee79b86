"""Pictures with label maps, in which each pixel has the number of its class: a thing is what hangs together."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.supervised.coco_files import MAX_SIDE, from_masks
from rlkit.data import read_whole_image
from rlkit.data_files import files_below
from rlkit.files import check_regular
from rlkit.instances import Instances

NOTHING = 255
"""the value of pixels that count for no class, as around the things of VOC and Cityscapes"""


class LabelMaps:
    """The pictures in images/ with a map of the same name (.png) in labels/: len(pictures), pictures[i] -> Instances.

    names.txt: line n names the class whose pixels have the value n; 0 is the background, and 255 is nothing.
    least: parts of a class with fewer pixels in the file are specks, and left out. Things that touch are one.
    Raises FileNotFoundError for what is missing, ValueError.
    """

    def __init__(self, folder: str | Path, least: int = 12, max_side: int = MAX_SIDE):
        self.folder, self.least, self.max_side = Path(folder), least, max_side
        for part in ("images", "labels"):
            if not (self.folder / part).is_dir():
                raise FileNotFoundError(f"there is no folder {self.folder / part}: pictures lie in it, or label maps")
        if not (names := self.folder / "names.txt").is_file():
            raise FileNotFoundError(f"there is no {names}: its line n names the class of value n")
        self.names = [line.strip() for line in names.read_text().splitlines() if line.strip()]
        if not 0 < len(self.names) < NOTHING:
            raise ValueError(f"{names} has {len(self.names)} classes: from 1 to {NOTHING - 1} are possible")
        self._files = picture_files(self.folder)

    def __len__(self) -> int:
        return len(self._files)

    def name(self, i: int) -> str:
        """The picture's path below images/."""
        return self._files[i].relative_to(self.folder / "images").as_posix()

    def __getitem__(self, i: int) -> Instances:
        image, size = read_whole_image(self._files[i], self.max_side)
        labels = read_label_map(map_file(self.folder, self._files[i]), size, len(self.names))
        parts = [components(labels == value, self.least) for value in range(1, len(self.names) + 1)]
        masks = [nearest(mask, image.shape[1:]) for some in parts for mask in some]
        return from_masks(image, [value for value, some in enumerate(parts, 1) for _ in some], masks)


def label_maps(folder: str | Path, least: int = 12, max_side: int = MAX_SIDE) -> tuple[LabelMaps, list[str]]:
    """(pictures, names of their classes from 1). Raises FileNotFoundError, ValueError."""
    pictures = LabelMaps(folder, least, max_side)
    return pictures, pictures.names


def map_file(folder: Path, picture: Path) -> Path:
    return (folder / "labels" / picture.relative_to(folder / "images")).with_suffix(".png")


def picture_files(folder: Path) -> list[Path]:
    """Those in images/, each of which has a label map. Raises FileNotFoundError, ValueError."""
    files = files_below(folder / "images")
    if not files:
        raise ValueError(f"{folder / 'images'} has no pictures")
    if without := [file for file in files if not map_file(folder, file).is_file()]:
        raise FileNotFoundError(
            f"{len(without)} pictures have no label map, as {without[0]}: there is no {map_file(folder, without[0])}"
        )
    return files


def read_label_map(file: Path, size: tuple[int, int], classes: int) -> NDArray[np.int64]:
    """[*size] of values from 0 to `classes`; 255 becomes 0. Raises ValueError that names file and place."""
    from PIL import Image

    check_regular(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its picture is as large
            with Image.open(file, formats=("PNG",)) as image:
                values = np.asarray(image).astype(np.int64)
    except Exception as error:  # its decoders raise whatever comes up
        raise ValueError(f"{file} is no label map that can be read: {error}") from error
    if values.ndim != 2:
        raise ValueError(f"{file} has {values.shape[2]} channels: a label map has the numbers of classes in one")
    if values.shape != size:
        raise ValueError(f"{file} has {values.shape[1]} x {values.shape[0]} pixels, its picture {size[1]} x {size[0]}")
    values[values == NOTHING] = 0
    if (unknown := (values > classes) | (values < 0)).any():
        y, x = np.argwhere(unknown)[0]
        raise ValueError(
            f"{file}: {unknown.sum()} pixels have values that no class has, the first {values[y, x]} in row {y}, "
            f"column {x}: there are {classes} classes"
        )
    return values


def components(mask: NDArray[np.bool_], least: int = 1) -> list[NDArray[np.bool_]]:
    """The parts [H, W] of a mask that hang together, by corners too, and have at least so many pixels."""
    from scipy import ndimage  # comes with scikit-learn

    numbered, _ = ndimage.label(mask, np.ones((3, 3)))
    counts = np.bincount(numbered.ravel())
    return [numbered == n for n in range(1, len(counts)) if counts[n] >= least]


def nearest(mask: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """[*size] of a mask, each pixel from the one below its centre."""
    if mask.shape == size:
        return mask
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(mask.shape, size, strict=True)
    )
    return mask[rows][:, columns]
