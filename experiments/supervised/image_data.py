"""Images and their classes: scikit-learn's digits, Fashion-MNIST, or a folder for each class."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlkit.augmentations import augment, cut_out, flipped, shifted, turned
from rlkit.data import Change, image_files, read_idx, read_image, read_images
from rlkit.data_files import is_leftover
from rlkit.logger import say

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""where Debian's package dataset-fashion-mnist has its files"""
FASHION = ["T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
Labelled = tuple[Tensor, Tensor]
"""images [N, C, H, W] uint8, labels [N] int64"""


def load(
    data: str = "digits",
    path: str | None = None,
    image_size: int = 0,
    channels: int = 0,
    held_out: float = 0.2,
    split: int = 0,
) -> tuple[Labelled, Labelled, list[str]]:
    """(to learn from, held out, names of the classes).

    Args:
        data: digits, fashion-mnist, or folder. path: of the four idx files, or of the classes' folders.
        image_size: pixels of height and width; 0: as they are (of a folder: 32).
        channels: grey images are repeated to this number; 0: one (of a folder: three, in colour).
        held_out, split: share that is not learned from, where the data have no test part of their own, and its seed.
    Raises FileNotFoundError, ValueError.
    """
    if image_size < 0 or channels < 0 or not 0 < held_out < 1:
        raise ValueError("--image-size and --channels are at least 0, and --held-out is a share between 0 and 1")
    if data == "digits":
        parts, names = [digits()], [str(digit) for digit in range(10)]
    elif data == "fashion-mnist":
        folder = Path(path) if path else FASHION_FOLDER
        parts, names = [fashion(folder, "train"), fashion(folder, "t10k")], FASHION
    elif data == "folder" and path:
        parts, names = folders(Path(path), image_size or 32, 3 if channels in (0, 3) else 1)
    else:
        raise ValueError(f"there are no images {data!r}: take digits, fashion-mnist, or folder with a --path")
    if len(parts) == 1:
        parts = apart(*parts[0], held_out, split)
    training, test = ((fitted(torch.from_numpy(x), image_size, channels), torch.from_numpy(y)) for x, y in parts)
    return training, test, names


def digits() -> tuple[NDArray, NDArray]:
    """1,797 handwritten digits of 8 x 8 pixels, which scikit-learn carries."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.rint(data.images[:, None] * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)


def files(data: str, path: str | None) -> list[Path]:
    """Those that `load` reads; none for the digits. Raises FileNotFoundError, ValueError."""
    if data == "fashion-mnist":
        folder = Path(path) if path else FASHION_FOLDER
        return [file for part in ("train", "t10k") for file in fashion_files(folder, part)]
    if data == "folder" and path:
        return [file for part in parts_of(Path(path)) for some in image_files(part)[0].values() for file in some]
    return []


def fashion_files(folder: Path, part: str) -> list[Path]:
    """Of its images and of its labels, packed or not. Raises FileNotFoundError."""
    found = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        packed, plain = folder / f"{part}-{kind}.gz", folder / f"{part}-{kind}"
        if not packed.is_file() and not plain.is_file():
            raise FileNotFoundError(
                f"there is no {packed.name} in {folder}: on Debian and Ubuntu, apt-get install dataset-fashion-mnist; "
                "elsewhere name the folder of the four files by --path"
            )
        found.append(packed if packed.is_file() else plain)
    return found


def fashion(folder: Path, part: str) -> tuple[NDArray, NDArray]:
    """A part (train or t10k) of Fashion-MNIST, or of what else comes in such files: 28 x 28 pixels, ten classes.

    Source: Xiao et al. 2017. Raises FileNotFoundError, ValueError.
    """
    arrays = [read_idx(file) for file in fashion_files(folder, part)]
    images, labels = arrays
    if images.ndim != 3 or images.dtype != np.uint8 or labels.shape != images.shape[:1] or not len(labels):
        raise ValueError(f"{folder}: {part} has images {list(images.shape)} and labels {list(labels.shape)}")
    if labels.max() >= len(FASHION):
        raise ValueError(f"{folder}: {part} has a label {labels.max()}, where 0 to {len(FASHION) - 1} were expected")
    return images[:, None], labels.astype(np.int64)


def subfolders(path: Path) -> list[Path]:
    """Of a folder, without leftovers; none where there is no folder."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not is_leftover(p)) if path.is_dir() else []


def parts_of(path: Path) -> list[Path]:
    """A folder of classes, or the two in it, train and test, that have them. Raises ValueError for other parts."""
    inside = [p.name for p in subfolders(path)]
    if {"train", "test"} <= set(inside):
        return [path / "train", path / "test"]
    if "train" in inside and (other := {"val", "valid", "validation", "dev"} & set(inside)):
        raise ValueError(f"{path} has train and {min(other)}, which are no classes: name the part to measure on test")
    if len(inside) == 1:
        raise ValueError(f"{path} has one class alone, {inside[0]}: name the folder in which those of all classes are")
    return [path]


def folders(path: Path, size: int, channels: int) -> tuple[list[tuple[NDArray, NDArray]], list[str]]:
    """The images in `path`, or in its folders train and test, which must have the same classes."""
    parts = parts_of(path)
    if len(parts) > 1 and (others := sorted({p.name for p in subfolders(path)} - {"train", "test"})):
        say(f"{path}: {', '.join(others)} is left out, beside train and test")
    read = [read_images(part, (size, size), channels) for part in parts]
    if different := set(read[0][1]) ^ set(read[-1][1]):
        raise ValueError(f"{path}: train and test have not the same classes, {sorted(different)[0]!r} is in one alone")
    return [(table["image"], table["label"]) for table, _ in read], read[0][1]


def apart(images: NDArray, labels: NDArray, share: float, seed: int) -> list[tuple[NDArray, NDArray]]:
    """Two parts; the second one has that share of each class, rounded. Raises ValueError where it has nothing."""
    rng, chosen = np.random.default_rng(seed), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        chosen[rows[: round(share * len(rows))]] = True
    if not chosen.any() or chosen.all():
        raise ValueError(f"{len(labels)} images are too few to hold {share:.0%} of each class out")
    return [(images[rows], labels[rows]) for rows in (~chosen, chosen)]


def fitted(images: Tensor, image_size: int, channels: int) -> Tensor:
    """Scaled to a side and repeated to channels; 0: as they are. The copies of a grey channel share its memory."""
    size = (image_size, image_size)
    if image_size and images.shape[2:] != size:
        parts = (
            F.interpolate(part.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
            for part in images.split(1000)  # all at once they would take four times their memory
        )
        images = torch.cat(list(parts))
    return images.expand(-1, channels, -1, -1) if channels else images


def random_changes(names: Sequence[str], side: int) -> Change | None:
    """The augmentations of these names for images whose shorter side has `side` pixels; None for no names."""
    changes: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
        "flipped": flipped,
        "shifted": partial(shifted, most=max(1, side // 8)),
        "cut_out": partial(cut_out, size=max(2, side // 4)),
        "turned": turned,
    }
    return augment(*(changes[name] for name in names)) if names else None


def read_files(files: Sequence[str], in_shape: Sequence[int]) -> Tensor:
    """Single images as a network wants them: [N, *in_shape] uint8. Raises FileNotFoundError, ValueError."""
    channels, height, width = in_shape
    images = [read_image(file, (height, width), 3 if channels == 3 else 1) for file in files]
    return torch.from_numpy(np.stack(images)).expand(-1, channels, -1, -1)
