"""A detector of things on pictures: its network by name, what it says of pictures, and the one that a folder holds."""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.supervised.detection_baselines import UNet, components, unet_loss
from experiments.supervised.detection_scores import Scores, scores
from experiments.supervised.obstacle_data import Source
from rlkit import runtime
from rlkit.instances import Detections, Instances, batch_of
from rlkit.nn.convolution import VGG, VGG_LAYERS, Impala, ResNet, Staged
from rlkit.nn.detection import MaskRCNN, Shape
from rlkit.saved_agents import load_agent_files, rebuild, rebuilding
from rlkit.trainer import Batch

Find = Callable[[Iterable[NDArray[np.uint8]]], Iterable[Detections]]
"""what is on each of some pictures [3, H, W]"""
DEPTHS = (18, 34, 50, 101, 152)
BACKBONES = [*(f"resnet-{depth}" for depth in DEPTHS), *(f"vgg-{letter.lower()}" for letter in VGG_LAYERS), "impala"]


def backbone(name: str, width: float, norm: Any) -> Staged:
    """The torso of this name, without what follows its last map. Raises ValueError where there is none."""
    kind, _, form = name.partition("-")
    shape = (3, 64, 64)  # any: maps have the size of their image
    if name not in BACKBONES:
        raise ValueError(f"a detector has no backbone {name!r}: take {', '.join(BACKBONES)}")
    if kind == "resnet":
        return ResNet(shape, int(form), width, norm=norm)
    if norm != "none" and kind == "impala":
        raise ValueError("impala has no normalisation: take --norm none")
    return VGG(shape, form.upper(), width, dense=(), norm=norm) if kind == "vgg" else Impala(shape, width, dense=0)


def described(cfg: Any, names: list[str]) -> dict[str, Any]:
    """What `build` is told of a detector that the command's Config describes, of classes with these names."""
    config = {name: getattr(cfg, name) for name in ("method", "backbone", "backbone_width", "norm")}
    return config | {"names": names, "shape": dataclasses.asdict(cfg.detector) | {"classes": len(names)}}


def build(config: dict[str, Any]) -> MaskRCNN | UNet:
    """The detector that an agent.json's config describes. Raises ValueError for unknown names."""
    if config["method"] == "unet":
        return UNet(len(config["names"]))
    shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config["shape"].items()}
    return MaskRCNN(backbone(config["backbone"], config["backbone_width"], config["norm"]), Shape(**shape))


def loss_fn(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    return unet_loss(model, batch) if isinstance(model, UNet) else model.loss(batch)  # type: ignore[operator]


def load_detector(folder: str | Path, device: torch.device | str = "cpu") -> tuple[MaskRCNN | UNet, dict[str, Any]]:
    """The detector of a run or agent folder, and its agent.json. Raises FileNotFoundError, ValueError, DamagedFile."""
    info, weights = load_agent_files(Path(folder), "detector", "no detector")
    with rebuilding(folder, "these weights"):
        model = rebuild(lambda: build(info["config"]), weights)
    return model.to(device).eval(), info


def find(model: nn.Module, images: Iterable[NDArray[np.uint8]], batch_size: int = 8) -> Iterator[Detections]:
    """What is on pictures [3, H, W]: as many of one size as follow each other, up to batch_size, are seen at once."""
    if isinstance(model, UNet):
        for image in images:
            yield from components(model, [image])
        return
    waiting: list[NDArray[np.uint8]] = []
    for image in images:
        if waiting and (len(waiting) == batch_size or image.shape != waiting[0].shape):
            yield from _find(model, waiting)
            waiting = []
        waiting.append(image)
    if waiting:
        yield from _find(model, waiting)


def _find(model: nn.Module, images: list[NDArray[np.uint8]]) -> Iterator[Detections]:
    runtime.share_cores()
    nothing = np.zeros((0, *images[0].shape[1:]), bool)
    bare = (Instances(image, np.zeros(0, np.int64), nothing, np.zeros(0, bool)) for image in images)
    batch = batch_of(list(bare))
    device = next(model.parameters()).device
    with runtime.evaluating(model):
        found = model.predict(batch["images"].to(device), batch["sizes"].to(device))  # type: ignore[operator]
    for one in found:
        masks = one.masks > 0.5
        seen = masks.flatten(1).any(1) if len(masks) else masks.new_zeros(0)  # a box may lie between pixels
        yield Detections(*(x[seen].cpu().numpy() for x in (one.boxes, one.labels, one.scores, masks)))


def measure(find: Find, test: Source, most: int = 0, seed: int = 0) -> Scores:
    """COCO's scores on test pictures, few of which are in memory at a time: with intervals on all, without on the first
    `most`.
    """
    truth, seen = itertools.tee(test[i] for i in range(min(most or len(test), len(test))))
    found = find(picture.image for picture in seen)
    return scores(truth, found, test.names, seed, resamples=0 if most else 200)


def seconds_of(model: nn.Module, image: NDArray[np.uint8], times: int = 3) -> float:
    """For one picture, when pictures come one by one: the median."""
    took = []
    for _ in range(times + 1):
        began = time.monotonic()
        list(find(model, [image]))
        took.append(time.monotonic() - began)
    return float(np.median(took[1:]))
