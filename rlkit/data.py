"""Data on disk and in memory to endless shuffled batches, in an order that resumes.

    batches = Batches(rows({"image": images, "label": labels}, 128, seed=1, change=augment(flip, shifted)))
    for step, batch, aux in trainer.run(batches): ...

What a batch holds depends on its number and the seed alone. So a run that goes on from batch 1,000 needs no more than
that number, and a thread may make the next batches while the present one is learned from.
"""

import functools
import math
import struct
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit import runtime
from rlkit.data_files import files_below, is_leftover, unpacked
from rlkit.files import check_regular
from rlkit.logger import say
from rlkit.parallel import all_ranks

if TYPE_CHECKING:
    from PIL import Image

Batch = dict[str, Tensor]
Change = Callable[[Batch, torch.Generator], Batch]


class Batches:
    """Endless: make(0), make(1), ... `drawn` counts those handed out, and is all that is saved.

    ahead: batches that a thread makes in advance; pin: into pinned memory, from where a GPU copies without waiting.
    """

    def __init__(self, make: Callable[[int], Batch], ahead: int = 0, pin: bool = False):
        self.make, self.ahead, self.pin, self.drawn = make, ahead, pin, 0
        ranks = all_ranks()  # batches are dealt to them in turns
        self._rank, self._ranks = runtime.rank(), ranks.count if ranks else 1
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
        batch = self.make(number * self._ranks + self._rank)
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


# -- files -------------------------------------------------------------------------------------------------------------


IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | Path) -> NDArray:
    """The array in an idx file, packed or not: LeCun's format, which MNIST and its kin come in.

    Raises FileNotFoundError, and ValueError for what is no such file or ends early.
    """
    data = unpacked(Path(path))
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in IDX_TYPES or len(data) < 4 + 4 * data[3]:
        raise ValueError(f"{path} is no idx file: it begins with {data[:4].hex(' ') or 'nothing'}")
    shape, dtype = struct.unpack_from(f">{data[3]}I", data, 4), np.dtype(IDX_TYPES[data[2]])
    begin, size = 4 + 4 * data[3], math.prod(shape) * dtype.itemsize
    if len(data) - begin != size:
        raise ValueError(f"{path} says {size:,} bytes of data and has {len(data) - begin:,}: get it anew")
    return np.frombuffer(data, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))


# -- files: images -----------------------------------------------------------------------------------------------------

NO_IMAGES = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"}
"""formats of Pillow that are left out: PostScript is a program, which would be run; of the others it knows little more
than the names"""


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Names of the formats that images may have: all that Pillow opens, but NO_IMAGES."""
    from PIL import Image

    Image.preinit()  # the common ones are tried first
    Image.init()
    return tuple(name for name in Image.ID if name not in NO_IMAGES)


def image_files(folder: str | Path) -> tuple[dict[str, list[Path]], Counter[str]]:
    """(class -> its images, in its folder and those inside, sorted; suffixes of the files that are left out).

    Raises FileNotFoundError, and ValueError for a folder without classes and a class without images.
    """
    from PIL import Image

    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    beside = sorted(path for path in folder.iterdir() if not is_leftover(path))
    classes = [path for path in beside if path.is_dir()]
    if not classes:
        raise ValueError(f"{folder} has no folders in it: put the images of each class in one of its own")
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in image_formats()}
    left_out = Counter(suffix for path in beside if path.is_file() and (suffix := path.suffix.lower()) in suffixes)
    found = {}
    for path in classes:
        files = files_below(path)
        found[path.name] = [file for file in files if file.suffix.lower() in suffixes]
        if not found[path.name]:
            raise ValueError(f"{path} has no images (.png, .jpg or another that Pillow reads): fill it, or remove it")
        left_out.update(file.suffix.lower() for file in files if file.suffix.lower() not in suffixes)
    return found, left_out


def read_image(file: str | Path, size: tuple[int, int], channels: int = 3) -> NDArray[np.uint8]:
    """An image upright, on white where it is transparent, scaled to fill `size` (height, width) and cut at the middle:
    [channels, *size]. What has more than 8 bits is scaled as `eight_bits` says.

    channels: 1 (grey) or 3. Raises FileNotFoundError, ValueError.
    """
    from PIL import ImageOps

    if channels not in (1, 3):
        raise ValueError(f"images have 1 channel (grey) or 3, not {channels}")
    mode = "RGB" if channels == 3 else "L"
    fitted = _decoded(file, lambda image: ImageOps.fit(image.convert(mode), size[::-1]))
    return np.asarray(fitted, np.uint8).reshape(*size, -1).transpose(2, 0, 1)


def read_whole_image(file: str | Path, max_side: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """An image as `read_image` has it, in colour and not cut: ([3, H, W], its height and width in the file, upright).

    It is scaled down where its longer side has more than `max_side` pixels. Raises FileNotFoundError, ValueError.
    """
    sizes = []

    def fit(image: "Image.Image") -> "Image.Image":
        sizes.append(image.size[::-1])
        return image.convert("RGB").resize(_scaled_size(image.size, max_side))

    whole = _decoded(file, fit)
    return np.ascontiguousarray(np.asarray(whole).transpose(2, 0, 1)), sizes[0]


def _scaled_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """A size with a longer side of at most `max_side` pixels, in about the same proportion."""
    factor = min(1, max_side / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _decoded(file: str | Path, fit: Callable[["Image.Image"], "Image.Image"]) -> "Image.Image":
    """What `fit` makes of an image that is upright and on white. Raises FileNotFoundError, ValueError."""
    from PIL import Image

    check_regular(path := Path(file))
    if not path.exists():
        raise FileNotFoundError(f"there is no file {file}")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL.TiffImagePlugin")  # about a camera's notes
            with Image.open(path, formats=image_formats()) as opened:
                decoder, _, _, raw = opened.tile[0] if opened.tile else ("", None, 0, "")
                opened.load()  # or an error, before those of notes are passed over
                image = _upright(opened)
                if image.mode.startswith("I") or image.mode == "F":
                    image = _in_eight_bits(image, declared=decoder.startswith("ppm"))
                image = _on_white(image, raw)
        return fit(image)
    except Exception as error:  # its decoders raise whatever comes up
        raise ValueError(f"{file} is no image that can be read: {error}; mend it, or remove it") from error


def _upright(image: "Image.Image") -> "Image.Image":
    """Turned as its camera was held; as it lies where that cannot be read: the image is whole though notes are not."""
    from PIL import Image

    turn = Image.Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE, 6: turn.ROTATE_270,
        7: turn.TRANSVERSE, 8: turn.ROTATE_90,
    }  # fmt: skip
    try:
        how = turns.get(image.getexif().get(0x0112, 1))
    except Exception:  # whatever comes up
        how = None
    return image if how is None else image.transpose(how)


def eight_bits(values: NDArray, full: float = 0) -> NDArray[np.uint8]:
    """Grey values of any range, rounded to 0 .. 255; `full` becomes 255, where it is known.

    Whole numbers up to 65,535 are taken for the fewest of 8, 10, 12, 14 and 16 bits that hold the greatest of them:
    12 bits of a camera lie in files of 16, and all of them would be black. Fractions from 0 to 1 are taken for shares
    of white. Others, as metres or degrees, go from their own least to their greatest; what is not finite becomes 0.
    """
    finite = np.isfinite(values)
    low, high = (float(f(values[finite])) for f in (np.min, np.max)) if finite.any() else (0.0, 0.0)
    usual = (255, 1023, 4095, 16383, 65535) if np.issubdtype(values.dtype, np.integer) else (1,)
    if low >= 0 and high <= usual[-1]:
        low, high = 0, full or next(most for most in usual if high <= most)
    share = (np.where(finite, values, low).astype(np.float64) - low) / ((high - low) or 1)
    return np.rint(255 * share).astype(np.uint8)


def _in_eight_bits(image: "Image.Image", declared: bool) -> "Image.Image":
    """With 8 bits. declared: Pillow has scaled the values by what the file says of them, to 16 bits."""
    from PIL import Image

    values = np.asarray(image)
    grey = Image.fromarray(eight_bits(values, full=65535 * declared))
    if (clear := image.info.get("transparency")) is not None:
        grey.putalpha(Image.fromarray(np.uint8(255) * (values != clear)))
    return grey


def _on_white(image: "Image.Image", raw: Any) -> "Image.Image":
    """Without transparency. raw: how the file has its pixels, by Pillow's name."""
    from PIL import Image

    if not image.has_transparency_data:
        return image
    clear: Any = image.info.get("transparency")
    if raw in ("L;2", "L;4"):  # Pillow scales the pixels and not what stands for nothing
        image.info["transparency"] = clear * (85 if raw == "L;2" else 17)
    elif raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    if image.mode == "La":
        image = image.convert("LA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))


def read_images(folder: str | Path, size: tuple[int, int], channels: int = 3) -> tuple[dict[str, NDArray], list[str]]:
    """A folder of images with a folder for each class, in which they may lie in folders: ({"image": [N, channels,
    *size] uint8, "label": [N] int64}, names of the classes, sorted). Says which files are left out.

    Each is read as `read_image` does. Raises FileNotFoundError, and ValueError for a folder without classes, a class
    without images, and a broken image, with its path.
    """
    classes, left_out = image_files(folder)
    if left_out:
        kinds = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(left_out.items()))
        say(f"{folder}: {left_out.total()} files are left out, being no images or in no class: {kinds}")
    images = [read_image(file, size, channels) for files in classes.values() for file in files]
    labels = np.repeat(np.arange(len(classes)), [len(files) for files in classes.values()])
    return {"image": np.stack(images), "label": labels.astype(np.int64)}, list(classes)
