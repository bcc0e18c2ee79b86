"""A classifier of images: its networks by name, its loss, what it is measured by, and the one that a folder holds."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.supervised.image_data import Labelled
from rlkit import runtime
from rlkit.nn.convolution import BACKBONES, VGG, ResNet
from rlkit.nn.heads import Classifier
from rlkit.nn.mlp import ACTIVATIONS, MLP
from rlkit.saved_agents import load_agent_files, rebuild, rebuilding
from rlkit.trainer import Batch, LossFn

TORSOS: dict[str, Any] = {
    "mlp": MLP,
    "cnn": partial(VGG, layers="32 32 M 64 64 M", dense=(), norm="batch"),
    "vgg-a": partial(VGG, layers="A"),
    "vgg-b": partial(VGG, layers="B"),
    "vgg-c": partial(VGG, layers="C"),
    "vgg-d": partial(VGG, layers="D"),
    "vgg-e": partial(VGG, layers="E"),
    "resnet-18": partial(ResNet, depth=18),
    "resnet-34": partial(ResNet, depth=34),
    "resnet-50": partial(ResNet, depth=50),
    "resnet-101": partial(ResNet, depth=101),
    "resnet-152": partial(ResNet, depth=152),
    "resnet-20": partial(ResNet, depth=20, form="cifar"),
    "resnet-32": partial(ResNet, depth=32, form="cifar"),
    "resnet-44": partial(ResNet, depth=44, form="cifar"),
    "resnet-56": partial(ResNet, depth=56, form="cifar"),
    "resnet-110": partial(ResNet, depth=110, form="cifar"),
    **BACKBONES,  # nature, impala, resnet, vgg: as agents have them
}


def has_own_dropout(backbone: str) -> bool:
    """Whether a torso leaves units out by itself, between its dense layers."""
    return backbone == "mlp" or backbone.startswith("vgg-")


def build(config: dict[str, Any]) -> Classifier:
    """The classifier that an agent.json's config describes. Raises ValueError for unknown names."""
    name, shape, width = config["backbone"], tuple(config["in_shape"]), config["width"]
    options = {"activation": config["activation"], "dropout": config["dropout"]}
    if name not in TORSOS:
        raise ValueError(f"there is no backbone {name!r}: take {', '.join(TORSOS)}")
    if options["activation"] not in ACTIVATIONS:
        raise ValueError(f"there is no activation {options['activation']!r}: take {', '.join(ACTIVATIONS)}")
    if name == "mlp":
        torso = MLP(shape, [max(1, round(width * units)) for units in config["hidden"]], **options)
    elif name == "cnn" or name.startswith("vgg-"):
        torso = TORSOS[name](shape, width=width, **options)
    elif options["activation"] != "relu":
        raise ValueError(f"{name} has relu alone: --activation is for mlp, cnn and vgg-a to vgg-e")
    else:
        torso = TORSOS[name](shape, width=width)
    return Classifier(torso, config["classes"])


# -- the loss ----------------------------------------------------------------------------------------------------------


def classification_loss(logits: Tensor, label: Tensor, kind: str, smoothing: float = 0.0) -> Tensor:
    """The mean loss of logits [B, classes] and labels [B], by kind: cross-entropy or squared-error. The targets are
    1 - smoothing + smoothing / classes and smoothing / classes (Szegedy et al. 2016, section 7).
    """
    if kind == "cross-entropy":
        return F.cross_entropy(logits, label, label_smoothing=smoothing)
    target = F.one_hot(label, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
    return ((logits - target) ** 2).sum(1).mean()


def loss_with(kind: str, smoothing: float, dropout: float) -> LossFn:
    """The loss to train a Classifier with; dropout: share of features left out between torso and head."""

    def loss_fn(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        features = model.torso(batch["image"])  # type: ignore[operator]
        logits = model.head(F.dropout(features, dropout, model.training))  # type: ignore[operator]
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return classification_loss(logits, batch["label"], kind, smoothing), {"accuracy": accuracy}

    return loss_fn


# -- what is measured --------------------------------------------------------------------------------------------------


def logits_of(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """[N, classes] on the CPU, with running statistics and without dropout; the model's mode stays what it was."""
    device, logits = next(model.parameters()).device, []
    with runtime.evaluating(model):
        for part in images.split(batch_size):
            runtime.share_cores()
            logits.append(model(part.to(device)).cpu())
    return torch.cat(logits)


def measure(model: nn.Module, held_out: Labelled, kind: str) -> tuple[dict[str, float], Tensor]:
    """({accuracy, loss}, logits [N, classes]) on images that were not learned from."""
    logits = logits_of(model, held_out[0])
    accuracy = (logits.argmax(1) == held_out[1]).float().mean()
    return {"accuracy": accuracy.item(), "loss": classification_loss(logits, held_out[1], kind).item()}, logits


def confidences(logits: Tensor, kind: str) -> NDArray:
    """Of each class, between 0 and 1 [N, classes]: probabilities, or what was trained towards 0 and 1."""
    return (logits.softmax(1) if kind == "cross-entropy" else logits.clamp(0, 1)).numpy()


def load_classifier(folder: str | Path, device: torch.device | str = "cpu") -> tuple[Classifier, dict[str, Any]]:
    """The classifier of a run or agent folder, and its agent.json.

    Raises FileNotFoundError, ValueError, DamagedFile.
    """
    info, weights = load_agent_files(Path(folder), "classifier", "no classifier")
    with rebuilding(folder, "these weights"):
        model = rebuild(lambda: build(info["config"]), weights)
    return model.to(device).eval(), info
