"""What a detector finds on files: pictures and videos in, the same with outlines out, and one COCO JSON."""

import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from experiments.supervised.detection_pictures import draw_found
from experiments.supervised.detection_scores import to_coco
from experiments.supervised.detector import find
from experiments.supervised.label_maps import nearest
from rlkit.data import image_formats, read_whole_image
from rlkit.data_files import files_below
from rlkit.errors import DamagedFile
from rlkit.files import write_atomically
from rlkit.instances import Detections
from rlkit.logger import say

VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
MAX_SIDE = 1333
"""pixels: pictures are drawn on that large at most"""
BATCH = 8


class Seen(NamedTuple):
    """A picture [3, H, W], scaled down to MAX_SIDE, and the height and width that it has in its file."""

    image: NDArray[np.uint8]
    size: tuple[int, int]


def predict(model: nn.Module, names: Sequence[str], paths: Sequence[str], out: Path, side: int = MAX_SIDE) -> None:
    """Find things on files and on those in folders; writes out/NAME.png (videos: out/NAME.mp4) and out/found.json.

    side: pixels of the longer side of what the model sees, at most: as large as what it learned from.
    What cannot be read is said and left out. Raises FileNotFoundError for what is not there, ValueError where nothing
    can be read, or would be written over.
    """
    files = _targets(paths, out)
    if any(path.suffix.lower() in VIDEOS for path, _ in files):
        _imageio()  # or an error, before anything is looked at
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    seconds = 0.0
    for path, target in files:
        target.parent.mkdir(parents=True, exist_ok=True)
        writer: Any = None
        try:
            for number, some in enumerate(_batches(_pictures(path))):
                small = [_scaled_down(image, side) for image, _ in some]
                began = time.monotonic()
                found = list(find(model, small, BATCH))
                seconds += time.monotonic() - began
                if target.suffix == ".mp4" and not writer:
                    writer = _writer(target, path)
                for i, ((image, (height, width)), one) in enumerate(zip(some, found, strict=True)):
                    key = len(images) + 1
                    frame = {"frame": number * BATCH + i} if writer else {}
                    images.append({"id": key, "file_name": str(path), "height": height, "width": width, **frame})
                    for k in range(len(one.labels)):  # one by one: masks of a photograph have millions of pixels each
                        single = Detections._make(part[k : k + 1] for part in one)
                        annotations += to_coco(at_size(single, (height, width)), key)
                    shown = draw_found(image, at_size(one, image.shape[1:]), names)
                    if writer:
                        writer.append_data(shown)
                    else:
                        Image.fromarray(shown).save(target)
        finally:
            if writer:
                writer.close()
    if not images:
        raise ValueError(f"nothing to see in {', '.join(paths)}: name pictures, videos, or folders of them")
    for number, annotation in enumerate(annotations, 1):
        annotation |= {"id": number, "iscrowd": 0}
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    written = {"images": images, "categories": categories, "annotations": annotations}
    write_atomically(out / "found.json", json.dumps(written).encode())
    rate = f"{len(images) / seconds:.1f} pictures/s"
    say(f"{len(annotations)} things on {len(images)} pictures, {rate}: {out}, {out / 'found.json'}")


def _targets(paths: Sequence[str], out: Path) -> list[tuple[Path, Path]]:
    """(file, what is written of it): no two the same, and none a file that is looked at."""
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in image_formats()} | VIDEOS
    place, files = Path(os.path.realpath(out)), []
    for top in map(Path, paths):
        if not top.exists():
            raise FileNotFoundError(f"there is no file {top}")
        if not top.is_dir():
            files.append((top, Path(top.name)))
            continue
        inside = Path(os.path.realpath(top)) in place.parents  # then what was found before lies there
        for path in files_below(top):
            if path.suffix.lower() in suffixes and not (inside and place in Path(os.path.realpath(path)).parents):
                files.append((path, path.relative_to(top)))
    targets: dict[Path, Path] = {}
    for path, name in files:
        ending = ".mp4" if path.suffix.lower() in VIDEOS else ".png"
        names = itertools.chain([name.stem], (f"{name.stem}_{n}" for n in itertools.count(2)))
        target = next(new for stem in names if (new := out / name.with_name(stem + ending)) not in targets)
        targets[target] = path
    if over := {os.path.realpath(path) for path, _ in files} & {os.path.realpath(target) for target in targets}:
        raise ValueError(f"{min(over)} would be written over: name another folder than {out} by --out")
    return [(path, target) for target, path in targets.items()]


def at_size(found: Detections, size: tuple[int, ...]) -> Detections:
    """What was found on a picture, on the same one of another size (height, width)."""
    height, width = found.masks.shape[1:]
    if (height, width) == size:
        return found
    boxes = found.boxes * np.array([size[1] / width, size[0] / height] * 2, np.float32)
    masks = np.array([nearest(mask, size) for mask in found.masks], bool).reshape(-1, *size)
    return found._replace(boxes=boxes, masks=masks)


def _scaled_down(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """[3, H, W] with a longer side of at most `side` pixels."""
    height, width = image.shape[1:]
    if max(height, width) <= side:
        return image
    size = [max(1, round(length * side / max(height, width))) for length in (width, height)]
    return np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize(size)).transpose(2, 0, 1)


def _pictures(path: Path) -> Iterator[Seen]:
    """Of a file, as far as it can be read; says where it cannot."""
    try:
        if path.suffix.lower() in VIDEOS:
            for frame in _video(path):
                yield Seen(_scaled_down(frame, MAX_SIDE), frame.shape[1:])
        else:
            yield Seen(*read_whole_image(path, MAX_SIDE))
    except (DamagedFile, FileNotFoundError, ValueError) as error:
        say(f"left out: {error}")


def _batches(pictures: Iterable[Seen]) -> Iterator[list[Seen]]:
    some: list[Seen] = []
    for picture in pictures:
        some.append(picture)
        if len(some) == BATCH:
            yield some
            some = []
    if some:
        yield some


def _imageio() -> Any:
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg as imageio_ffmpeg
    except ImportError as error:
        raise ModuleNotFoundError("videos need the extra `video`: pip install -e '.[video]'") from error
    return imageio


def _video(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Its pictures [3, H, W]. Raises ValueError where it cannot be read, or no further."""
    count = 0
    try:
        with _imageio().get_reader(path, format="ffmpeg") as reader:
            for count, frame in enumerate(reader, 1):  # noqa: B007
                yield np.ascontiguousarray(np.asarray(frame)[..., :3].transpose(2, 0, 1))
    except (OSError, RuntimeError, IndexError, ValueError, SyntaxError) as error:
        what = f"cannot be read after {count} pictures" if count else "is no video that can be read"
        raise ValueError(f"{path} {what}: {str(error).partition(chr(10))[0]}") from error


def _writer(target: Path, source: Path) -> Any:
    """Writes as many frames a second as the source has, which was read before."""
    imageio = _imageio()
    with imageio.get_reader(source, format="ffmpeg") as reader:
        rate = reader.get_meta_data()["fps"]
    return imageio.get_writer(target, fps=rate, macro_block_size=2)
