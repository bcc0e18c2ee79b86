"""Data on disk and in memory to endless shuffled batches, in an order that resumes.

    batches = Batches(rows({"image": images, "label": labels}, 128, seed=1, change=augment(flip, shifted)))
    for step, batch, aux in trainer.run(batches): ...

What a batch holds depends on its number and the seed alone. So a run that goes on from batch 1,000 needs no more than
that number, and a thread may make the next batches while the present one is learned from.
"""

import gzip
import math
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rlkit.files import check_regular

Batch = dict[str, Tensor]
Change = Callable[[Batch, torch.Generator], Batch]


class Batches:
    """Endless: make(0), make(1), ... `drawn` counts those handed out, and is all that is saved.

    ahead: batches that a thread makes in advance; pin: into pinned memory, from where a GPU copies without waiting.
    """

    def __init__(self, make: Callable[[int], Batch], ahead: int = 0, pin: bool = False):
        self.make, self.ahead, self.pin, self.drawn = make, ahead, pin, 0
        self._thread = ThreadPoolExecutor(1, "batches") if ahead > 0 else None
        self._coming: deque[tuple[int, Future[Batch]]] = deque()

    @classmethod
    def for_device(cls, make: Callable[[int], Batch], device: torch.device) -> "Batches":
        """Where the learner is a GPU, made in advance and pinned; a CPU has nothing to do meanwhile but the same."""
        gpu = device.type == "cuda"
        return cls(make, ahead=4 * gpu, pin=gpu)

    def __iter__(self) -> Iterator[Batch]:
        while True:
            batch = self._next()
            self.drawn += 1
            yield batch

    def _next(self) -> Batch:
        if self._thread is None:
            return self._made(self.drawn)
        if self._coming and self._coming[0][0] != self.drawn:  # loaded in between
            self._coming.clear()
        while len(self._coming) <= self.ahead:
            number = self.drawn + len(self._coming)
            self._coming.append((number, self._thread.submit(self._made, number)))
        return self._coming.popleft()[1].result()

    def _made(self, number: int) -> Batch:
        batch = self.make(number)
        return {name: x.pin_memory() for name, x in batch.items()} if self.pin else batch

    def state_dict(self) -> dict[str, int]:
        return {"drawn": self.drawn}

    def load_state_dict(self, saved: dict[str, int]) -> None:
        self.drawn = saved["drawn"]


# -- what a batch may be -----------------------------------------------------------------------------------------------


def _generator(seed: int, number: int) -> torch.Generator:
    (mixed,) = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed) & (2**63 - 1))


def rows(
    arrays: Mapping[str, NDArray | Tensor], batch_size: int, seed: int, change: Change | None = None
) -> Callable[[int], Batch]:
    """Rows of arrays [N, ...] in a new random order each epoch: name -> [batch_size, ...].

    An epoch has N // batch_size batches; which rows are left over differs from epoch to epoch. change: on the whole
    batch, with a generator of its own. Raises ValueError where the arrays are no table, or have too few rows.
    """
    tensors = {name: torch.as_tensor(x) for name, x in arrays.items()}
    lengths = {name: len(x) for name, x in tensors.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"arrays of different lengths are no table: {lengths}")
    number_of_rows = next(iter(lengths.values()))
    if not 0 < batch_size <= number_of_rows:
        raise ValueError(
            f"batches of {batch_size} cannot be drawn from {number_of_rows} rows: take from 1 to {number_of_rows}"
        )
    in_epoch = number_of_rows // batch_size
    held: list[tuple[int, Tensor]] = []

    def make(number: int) -> Batch:
        epoch, i = divmod(number, in_epoch)
        if not held or held[0][0] != epoch:
            order = np.random.default_rng([seed, epoch]).permutation(number_of_rows)
            held[:] = [(epoch, torch.from_numpy(order))]
        index = held[0][1][i * batch_size : (i + 1) * batch_size]
        batch = {name: x[index] for name, x in tensors.items()}
        return batch if change is None else change(batch, _generator(seed, number))

    return make


def windows(tokens: NDArray, length: int, batch_size: int, seed: int) -> Callable[[int], Batch]:
    """Pieces of a long row [N] from random places: {"tokens": [batch_size, length] int64}.

    Raises ValueError where the row is shorter than a piece, and for batches of nothing.
    """
    if length < 1 or batch_size < 1:
        raise ValueError(f"{batch_size} pieces of {length} tokens are no batch: take at least one of each")
    if len(tokens) < length:
        raise ValueError(f"a text of {len(tokens)} tokens has no piece of {length}: take a shorter context")

    def make(number: int) -> Batch:
        begins = np.random.default_rng([seed, number]).integers(len(tokens) - length + 1, size=batch_size)
        return {"tokens": torch.from_numpy(tokens[begins[:, None] + np.arange(length)].astype(np.int64))}

    return make


Tokens = Sequence[int]


def padded(sequences: Sequence[Tokens]) -> Tensor:
    """[B, longest] int64, zeros behind the ends."""
    out = np.zeros((len(sequences), max(map(len, sequences))), np.int64)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(out)


def pairs(sides: Mapping[str, Sequence[Tokens]], batch_tokens: int, seed: int) -> Callable[[int], Batch]:
    """Rows of sequences of about equal length, so that little is padding: name -> [B, longest] int64, padded by 0.

    A batch has as many rows as stay within `batch_tokens` with padding (one at the least); every row comes once an
    epoch. Raises ValueError where there is none.
    """
    count = {len(side) for side in sides.values()}
    if len(count) != 1 or count == {0}:
        raise ValueError(f"sides of {sorted(count)} sequences are no pairs")
    lengths = np.stack([[len(s) for s in side] for side in sides.values()])
    longest = lengths.max(0)
    held: list[tuple[int, list[NDArray]]] = []

    def plan(epoch: int) -> list[NDArray]:
        """The rows of each batch: sorted by length with some noise, cut, and the pieces shuffled."""
        rng = np.random.default_rng([seed, epoch])
        order = np.argsort(longest + rng.random(len(longest)) * 2, kind="stable")
        cuts, most, first = [], 0, 0
        for i, row in enumerate(order):
            most = max(most, int(longest[row]))
            if i > first and (i + 1 - first) * most > batch_tokens:
                cuts.append(i)
                first, most = i, int(longest[row])
        pieces = np.split(order, cuts)
        return [pieces[i] for i in rng.permutation(len(pieces))]

    # Epochs differ a little in their number of batches: they are counted from the beginning.
    begins: list[int] = [0]

    def make(number: int) -> Batch:
        while not held or not begins[held[0][0]] <= number < begins[held[0][0]] + len(held[0][1]):
            if not held or number < begins[held[0][0]]:
                epoch = 0
            else:
                epoch = held[0][0] + 1
                if epoch == len(begins):
                    begins.append(begins[-1] + len(held[0][1]))
            held[:] = [(epoch, plan(epoch))]
        rows = held[0][1][number - begins[held[0][0]]]
        return {name: padded([side[i] for i in rows]) for name, side in sides.items()}

    return make


# -- augmentations: a batch's images [B, C, H, W] of any dtype, each image changed by itself ---------------------------


def flipped(images: Tensor, rng: torch.Generator) -> Tensor:
    """Left becomes right in half of them."""
    flip = torch.rand(len(images), generator=rng) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def shifted(images: Tensor, rng: torch.Generator, most: int = 4) -> Tensor:
    """Moved by up to `most` pixels up or down and left or right, zeros coming in: the random crop of a padded image."""
    count, _, height, width = images.shape
    up, left = torch.randint(2 * most + 1, (2, count), generator=rng)
    wide = F.pad(images, (most, most, most, most))
    places = wide.unfold(2, height, 1).unfold(3, width, 1)  # a view [B, C, up, left, H, W]
    return places[torch.arange(count), :, up, left]


def cut_out(images: Tensor, rng: torch.Generator, size: int = 8) -> Tensor:
    """A square of size x size, whose centre may lie anywhere, set to zero (DeVries and Taylor 2017)."""
    count, _, height, width = images.shape
    y = torch.randint(height, (count, 1), generator=rng) - torch.arange(height)
    x = torch.randint(width, (count, 1), generator=rng) - torch.arange(width)
    inside_y, inside_x = ((z >= -(size // 2)) & (z < size - size // 2) for z in (y, x))
    return images.masked_fill((inside_y[:, :, None] & inside_x[:, None])[:, None], 0)


def turned(images: Tensor, rng: torch.Generator) -> Tensor:
    """One of the square's eight symmetries. Raises ValueError for images that are no squares."""
    if images.shape[2] != images.shape[3]:
        raise ValueError(f"images of {images.shape[2]} x {images.shape[3]} cannot be turned: make them square")
    which = torch.randint(8, (len(images),), generator=rng)
    out = images.clone()
    for k in range(8):
        chosen = which == k
        turned_ = images[chosen].rot90(k % 4, (2, 3))
        out[chosen] = turned_ if k < 4 else turned_.flip(3)
    return out


def augment(*changes: Callable[[Tensor, torch.Generator], Tensor], name: str = "image") -> Change:
    """A change of batches: these, one after the other, of the images that lie under `name`."""

    def change(batch: Batch, rng: torch.Generator) -> Batch:
        images = batch[name]
        for one in changes:
            images = one(images, rng)
        return batch | {name: images}

    return change


# -- files -------------------------------------------------------------------------------------------------------------


def _bytes(path: Path) -> bytes:
    """Of a file, unpacked if its name ends with .gz. Raises FileNotFoundError, ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}; get it anew") from error


IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | Path) -> NDArray:
    """The array in an idx file, packed or not: LeCun's format, which MNIST and its kin come in.

    Raises FileNotFoundError, and ValueError for what is no such file or ends early.
    """
    data = _bytes(Path(path))
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"{path} is no idx file: it begins with {data[:4].hex(' ') or 'nothing'}")
    shape, dtype = struct.unpack_from(f">{data[3]}I", data, 4), np.dtype(IDX_TYPES[data[2]])
    begin, size = 4 + 4 * data[3], math.prod(shape) * dtype.itemsize
    if len(data) - begin != size:
        raise ValueError(f"{path} says {size:,} bytes of data and has {len(data) - begin:,}: get it anew")
    return np.frombuffer(data, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))


IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm")


def read_image(file: str | Path, size: tuple[int, int], channels: int = 3) -> NDArray[np.uint8]:
    """An image upright, scaled to fill `size` (height, width) and cut at the middle: [channels, *size].

    channels: 1 (grey) or 3. Raises FileNotFoundError, ValueError.
    """
    from PIL import Image, ImageOps

    if channels not in (1, 3):
        raise ValueError(f"images have 1 channel (grey) or 3, not {channels}")
    check_regular(Path(file))
    try:
        with Image.open(file) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)  # cameras say so, and do not turn it
            if image.mode.startswith("I"):  # 16 bits a pixel: convert would take all above 255 for white
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            fitted = ImageOps.fit(image.convert("RGB" if channels == 3 else "L"), size[::-1])
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {file}") from error
    except Exception as error:  # its decoders raise whatever comes up
        raise ValueError(f"{file} is no image that can be read: {error}; mend it, or remove it") from error
    return np.asarray(fitted, np.uint8).reshape(*size, -1).transpose(2, 0, 1)


def read_images(folder: str | Path, size: tuple[int, int], channels: int = 3) -> tuple[dict[str, NDArray], list[str]]:
    """A folder of images with a folder for each class: ({"image": [N, channels, *size] uint8, "label": [N] int64},
    names of the classes, sorted).

    Images are scaled to fill `size` (height, width) and cut at the middle; channels: 1 (grey) or 3. Raises
    FileNotFoundError, and ValueError for a folder without classes, a class without images, and a broken image, with
    its path.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ValueError(f"{folder} has no folders in it: put the images of each class in one of its own")
    images, labels = [], []
    for label, path in enumerate(classes):
        files = sorted(file for file in path.glob("[!.]*") if file.suffix.lower() in IMAGES)
        if not files:
            raise ValueError(f"{path} has no images ({', '.join(IMAGES)}): fill it, or remove it")
        images += [read_image(file, size, channels) for file in files]
        labels += [label] * len(files)
    return {"image": np.stack(images), "label": np.array(labels, np.int64)}, [path.name for path in classes]


def read_text(path: str | Path) -> str:
    """A UTF-8 text, its line ends made "\\n". Raises FileNotFoundError, and ValueError with the line of a byte that is
    no UTF-8.
    """
    return decoded(_bytes(Path(path)), str(path))


def decoded(data: bytes, where: str) -> str:
    """The same of bytes that were read from `where`."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text_bytes, at = error.object, error.start  # without the mark at the beginning, which the data has
        line = len((text_bytes[:at] + b".").splitlines())
        raise ValueError(
            f"{where}, line {line}: byte {text_bytes[at]:#04x} is no UTF-8; save it in that encoding"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_pairs(source: str | Path, target: str | Path | None = None) -> list[tuple[str, str]]:
    """Sentences and their translations: from two files, line by line, or from one with a tab between the two (further
    columns do not count). Lines that are empty on both sides are left out.

    Raises FileNotFoundError, and ValueError for unequal files and for a line that has no pair.
    """
    lines = read_text(source).rstrip("\n").split("\n")
    if target is None:
        both = []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            left, right, *_ = [*map(str.strip, line.split("\t")), ""]
            if not left or not right:
                raise ValueError(f"{source}, line {number}: no pair, where a sentence, a tab and another were expected")
            both.append((left, right))
    else:
        others = read_text(target).rstrip("\n").split("\n")
        if len(lines) != len(others):
            raise ValueError(f"{source} has {len(lines):,} lines and {target} has {len(others):,}: they are no pairs")
        both = []
        for number, (left, right) in enumerate(zip(lines, others, strict=True), 1):
            if bool(left.strip()) != bool(right.strip()):
                raise ValueError(f"{target if left.strip() else source}, line {number} is empty, and its pair is not")
            if left.strip():
                both.append((left.strip(), right.strip()))
    if not both:
        raise ValueError(f"{source} has no sentences in it")
    return both
