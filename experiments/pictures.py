"""Pictures that a run leaves, in its folder and in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rlkit.trainer import Trainer


def show(pictures: Mapping[str, NDArray[np.uint8]], trainer: Trainer, folder: Path) -> None:
    """Pictures [H, W, 3] by name: into TensorBoard, under eval/, and as PNG files into the run's folder."""
    trainer.show({f"eval/{name}": picture for name, picture in pictures.items()})
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
