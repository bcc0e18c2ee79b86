"""What the shared trainer costs: the same modules, batches and optimiser in a plain loop, in turns.

python -m experiments bench nn --json
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.bench import detection
from experiments.bench.turns import Config, in_turns, report
from rlkit import runtime
from rlkit.data import Batch, Batches, rows, windows
from rlkit.nn.convolution import VGG
from rlkit.nn.cores import CORES
from rlkit.nn.heads import Classifier
from rlkit.nn.language import GPT, CoreLanguageModel
from rlkit.nn.transformer import Shape
from rlkit.trainer import TrainConfig, Trainer

LENGTH, ROWS, IMAGES, VOCABULARY = 64, 32, 128, 65
UPDATES = 4
"""in a contestant's piece of work"""


def image_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    return F.cross_entropy(model(batch["image"]), batch["label"]), {}


def text_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    out = model(batch["tokens"][:, :-1])
    logits = out[0] if isinstance(out, tuple) else out
    return F.cross_entropy(logits.flatten(0, 1), batch["tokens"][:, 1:].flatten()), {}


def through_trainer(model: nn.Module, loss_fn: Callable, batches: Batches) -> Callable[[], int]:
    cfg = TrainConfig(steps=10**9, optimizer="adamw", lr=1e-4, clip=1.0, progress=False)
    loop = Trainer(model, loss_fn, cfg).run(batches)

    def work() -> int:
        for _ in range(UPDATES):
            next(loop)
        return UPDATES

    return work


def plainly(model: nn.Module, loss_fn: Callable, batches: Batches) -> Callable[[], int]:
    """A loop as it is written by hand. (Its backward hides in a function: there is one in the tree that trains.)"""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.0, fused=True)
    source, backward = iter(batches), torch.autograd.backward

    def work() -> int:
        for _ in range(UPDATES):
            loss, _ = loss_fn(model, {name: x.to(device) for name, x in next(source).items()})
            optimizer.zero_grad()
            backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        return UPDATES

    return work


def main(cfg: Config) -> None:
    device = runtime.setup(1, cfg.device, cfg.threads)
    rng = np.random.default_rng(0)
    images = {"image": rng.integers(0, 256, (4096, 1, 28, 28), np.uint8), "label": rng.integers(0, 10, 4096)}
    text = rng.integers(0, VOCABULARY, 100_000, np.uint8)

    def cnn() -> nn.Module:
        return Classifier(VGG((1, 28, 28), "32 32 M 64 64 M", dense=(), norm="batch"), 10)

    def recurrent(kind: str) -> nn.Module:
        return CoreLanguageModel(VOCABULARY, CORES[kind](128, 256), 128)

    models: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
        "cnn": (cnn, IMAGES, "images/s"),
        "lstm": (lambda: recurrent("lstm"), ROWS * LENGTH, "tokens/s"),
        "gru": (lambda: recurrent("gru"), ROWS * LENGTH, "tokens/s"),
        "transformer": (lambda: GPT(VOCABULARY, LENGTH, Shape(128, 4, 4)), ROWS * LENGTH, "tokens/s"),
    }
    for name, (build, units, unit) in models.items():
        contestants = {}
        for how in (through_trainer, plainly):
            make = rows(images, IMAGES, 1) if unit == "images/s" else windows(text, LENGTH + 1, ROWS, 1)
            contestants[how.__name__] = how(
                build().to(device), image_loss if unit == "images/s" else text_loss, Batches(make)
            )
        rates = in_turns(cfg, contestants)
        report(
            cfg, f"{name}, through the trainer", units * rates["through_trainer"], unit, "a plain loop",
            units * rates["plainly"],
        )  # fmt: skip
    detection.rows(cfg, device, through_trainer, plainly)
