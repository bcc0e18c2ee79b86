"""What a detector finds on files: pictures and videos in, the same with outlines out, and one COCO JSON."""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from experiments.supervised.detection_pictures import draw_found
from experiments.supervised.detection_scores import to_coco
from experiments.supervised.detector import find
from rlkit.data import image_formats, read_whole_image
from rlkit.data_files import files_below
from rlkit.files import write_atomically
from rlkit.logger import say

VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
MAX_SIDE = 1333
"""pixels: larger pictures are scaled down"""
BATCH = 8


def predict(model: nn.Module, names: Sequence[str], paths: Sequence[str], out: Path) -> None:
    """Find things on files and on those in folders; writes out/NAME.png (videos: out/NAME.mp4) and out/found.json.

    What cannot be read is said and left out. Raises FileNotFoundError for what is not there, ValueError where nothing
    can be read.
    """
    files = [(path, top) for top in map(Path, paths) for path in (files_below(top) if top.is_dir() else [top])]
    for path, _ in files:
        if not path.exists():
            raise FileNotFoundError(f"there is no file {path}")
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in image_formats()} | VIDEOS
    files = [(path, top) for path, top in files if path == top or path.suffix.lower() in suffixes]
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    seen, seconds = 0, 0.0
    for path, top in files:
        target = out / (path.relative_to(top) if path != top else Path(path.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if path.suffix.lower() in VIDEOS:
                frames = _video(path)
                writer: Any = _writer(target.with_suffix(".mp4"), path)
            else:
                frames, writer = iter([read_whole_image(path, MAX_SIDE)[0]]), None
            for number, some in enumerate(_batches(frames)):
                began = time.monotonic()
                found = list(find(model, some, BATCH))
                seconds, seen = seconds + time.monotonic() - began, seen + len(some)
                for i, (image, one) in enumerate(zip(some, found, strict=True)):
                    key = len(images) + 1
                    frame = {"frame": number * BATCH + i} if writer else {}
                    size = {"height": image.shape[1], "width": image.shape[2]}
                    images.append({"id": key, "file_name": str(path), **size, **frame})
                    annotations += to_coco(one, key)
                    shown = draw_found(image, one, names)
                    if writer:
                        writer.append_data(shown)
                    else:
                        Image.fromarray(shown).save(target.with_suffix(".png"))
            if writer:
                writer.close()
        except ValueError as error:
            say(f"left out: {error}")
    if not images:
        raise ValueError(f"nothing to see in {', '.join(paths)}: name pictures, videos, or folders of them")
    for number, annotation in enumerate(annotations, 1):
        annotation |= {"id": number, "iscrowd": 0}
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    written = {"images": images, "categories": categories, "annotations": annotations}
    write_atomically(out / "found.json", json.dumps(written).encode())
    say(f"{len(annotations)} things on {seen} pictures, {seen / seconds:.1f} pictures/s: {out}, {out / 'found.json'}")


def _batches(frames: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    some: list[NDArray[np.uint8]] = []
    for frame in frames:
        some.append(frame)
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
    try:
        with _imageio().get_reader(path, format="ffmpeg") as reader:
            for frame in reader:
                yield np.asarray(frame)[..., :3].transpose(2, 0, 1)
    except (OSError, RuntimeError, IndexError, ValueError, SyntaxError) as error:
        raise ValueError(f"{path} is no video that can be read: {str(error).splitlines()[0]}") from error


def _writer(target: Path, source: Path) -> Any:
    """Writes as many frames a second as the source has."""
    imageio = _imageio()
    try:
        with imageio.get_reader(source, format="ffmpeg") as reader:
            rate = reader.get_meta_data()["fps"]
    except (OSError, RuntimeError, IndexError, ValueError, SyntaxError) as error:
        raise ValueError(f"{source} is no video that can be read: {str(error).splitlines()[0]}") from error
    return imageio.get_writer(target, fps=rate, macro_block_size=2)
