"""Rows of `bench nn` about the detector: its operations, what the trainer costs it, and where its time goes."""

import time
from collections.abc import Callable
from typing import Any

import torch

from experiments.bench.turns import Config, in_turns, report
from experiments.supervised import detector
from experiments.supervised.obstacle_data import load, training_batches
from experiments.supervised.obstacles import PRESETS
from rlkit.data import Batches
from rlkit.nn import boxes

PICTURES = 4
"""that are learned from again and again: drawing new ones is not the trainer's cost"""
Looped = Callable[[Any, Callable, Batches], Callable[[], int]]


def rows(cfg: Config, device: torch.device, through_trainer: Looped, plainly: Looped) -> None:
    """Print them. through_trainer, plainly: (model, loss, batches) -> a contestant that makes some updates."""
    rng = torch.Generator().manual_seed(1)
    maps = [torch.randn(1, 64, 200 // stride + 1, 320 // stride, generator=rng).to(device) for stride in (4, 8, 16, 32)]
    for count in (200, 1000):
        corner = torch.rand(count, 2, generator=rng) * torch.tensor([250.0, 150.0])
        some = torch.cat([corner, corner + 8 + 60 * torch.rand(count, 2, generator=rng)], 1).to(device)
        score, zero = torch.rand(count, generator=rng).to(device), torch.zeros(count, dtype=torch.long, device=device)
        level = boxes.levels(some, 2, 5) - 2

        def pool() -> int:
            boxes.roi_align(maps, [4, 8, 16, 32], some, zero, level, 7)  # noqa: B023
            return _done(device)

        def suppress() -> int:
            boxes.nms(some, score, 0.5)  # noqa: B023
            return _done(device)

        for name, rate in in_turns(cfg, {"RoIAlign": pool, "NMS": suppress}).items():
            report(cfg, f"{name}, {count} boxes", 1000 / rate, "ms")

    preset = PRESETS["drawn"]
    training, test = load("drawn", height=preset.height, width=preset.width)
    batch = training_batches(training, PICTURES, 1)(0)
    config = detector.described(preset, training.names)
    contestants = {
        how.__name__: how(detector.build(config).to(device), detector.loss_fn, Batches(lambda number: batch))
        for how in (through_trainer, plainly)
    }
    rates = in_turns(cfg, contestants)
    report(
        cfg, "detector, through the trainer", PICTURES * rates["through_trainer"], "pictures/s", "a plain loop",
        PICTURES * rates["plainly"],
    )  # fmt: skip

    model = detector.build(config).to(device).eval()
    image = test[0].image

    def one() -> int:
        return len(list(detector.find(model, [image])))

    rate = in_turns(cfg, {"find": one})["find"]
    report(cfg, "detector, one picture at a time", rate, "pictures/s")
    for part, share in shares(model, torch.from_numpy(image)[None].to(device), 1 / rate).items():
        report(cfg, f"detector, share of {part}", share, "of 1")


@torch.no_grad()
def shares(model: Any, images: torch.Tensor, whole: float, times: int = 5) -> dict[str, float]:
    """Of the seconds that a prediction takes: backbone with pyramid, proposals, heads, and what is left."""
    parts = dict.fromkeys(("backbone", "proposals", "heads"), 0.0)
    sizes = torch.tensor([images.shape[2:]], device=images.device)
    images = torch.nn.functional.pad(images, (0, -images.shape[3] % 32, 0, -images.shape[2] % 32))
    for _ in range(times):
        began = _now(images.device)
        maps = model.maps(images)
        seen = _now(images.device)
        (proposed,) = model.proposals(*model.regions(maps), model.anchors(maps), sizes)
        proposals = _now(images.device)
        picture = torch.zeros(len(proposed), dtype=torch.long, device=images.device)
        model.box_head(model.content(maps, proposed, picture, 7))
        model.mask_head(model.content(maps, proposed[:10], picture[:10], 14))  # as many things as a picture may have
        for name, seconds in zip(parts, (seen - began, proposals - seen, _now(images.device) - proposals), strict=True):
            parts[name] += seconds / times / whole
    return parts | {"what follows": max(0.0, 1 - sum(parts.values()))}


def _now(device: torch.device) -> float:
    _done(device)
    return time.perf_counter()


def _done(device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1
