"""Images to classes: feed-forward networks, CNNs, VGG, ResNet, and the torsos of the agents.

python -m experiments images                                             # scikit-learn's digits, in seconds
python -m experiments images --preset fashion                            # Fashion-MNIST, 96,554 parameters
python -m experiments images --data folder --path PICTURES --backbone resnet-20
python -m experiments images --data fashion-mnist --backbone nature --image-size 84 --channels 4     # for an agent
python -m experiments images --resume runs/images/<run>                  # goes on where the run was stopped
python -m experiments images --evaluate runs/images/<run>                # measures it again
python -m experiments images --evaluate runs/images/<run> --predict a.png b.png
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from experiments.supervised import image_data, image_pictures
from experiments.supervised.image_data import Labelled
from rlkit import runtime
from rlkit.augmentations import augment, cut_out, flipped, shifted, turned
from rlkit.checkpoint import described, load_agent_files, rebuild, save_agent
from rlkit.config import AtLeast, Between, Fixed, RunConfig, check_bounds
from rlkit.data import Batches, rows
from rlkit.data_files import DataFiles, located
from rlkit.logger import say
from rlkit.nn.convolution import BACKBONES, VGG, ResNet
from rlkit.nn.heads import Classifier
from rlkit.nn.mlp import ACTIVATIONS, MLP
from rlkit.run import Run
from rlkit.trainer import Batch, LossFn, TrainConfig, Trainer

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


@dataclass
class Config(RunConfig):
    """Classify images."""

    preset: Annotated[Literal["digits", "fashion", "fashion-gpu"], Fixed] = "digits"
    """defaults: digits, fashion (Fashion-MNIST on two cores), fashion-gpu (the same with a wide ResNet)"""
    evaluate: str | None = None
    """run or agent folder of a classifier that is to be measured; nothing is learned then"""
    predict: tuple[str, ...] = ()
    """files of images, for the classifier of --evaluate to name"""
    data: Annotated[Literal["digits", "fashion-mnist", "folder"], Fixed] = "digits"
    """scikit-learn's digits, Fashion-MNIST, or the images of --path"""
    path: str | None = None
    """folder of the four idx files (default: that of Debian's package dataset-fashion-mnist), or one that has a folder
    of images for each class, or train/ and test/ with those. All formats that Pillow reads, also in folders inside a
    class; what is transparent becomes white, and 12 or 16 bits become 8. May have moved when a run goes on"""
    image_size: Annotated[int, AtLeast(0), Fixed] = 0
    """pixels of a side that all images are scaled to; 0: their own (of a folder: 32)"""
    channels: Annotated[int, AtLeast(0), Fixed] = 0
    """grey images are repeated to so many, as an agent's stack of frames; 0: one (of a folder: three, in colour)"""
    held_out: Annotated[float, Between(0, 1), Fixed] = 0.2
    """share that is measured on and not learned from, where the data have no test part"""
    split: Annotated[int, AtLeast(0), Fixed] = 0
    """seed of what is held out: the same images whatever `seed` is"""
    backbone: Annotated[str, Fixed] = "cnn"
    """mlp, cnn, vgg-a to vgg-e, resnet-18 to -152, resnet-20 to -110 (for small images), or an agent's: nature, impala,
    resnet, vgg"""
    width: Annotated[float, AtLeast(0.001), Fixed] = 1.0
    """times all channels and dense units"""
    hidden: Annotated[tuple[int, ...], Fixed] = (256, 128)
    """units of the layers of mlp"""
    activation: Annotated[str, Fixed] = "relu"
    """relu, gelu, tanh, sigmoid or none, in mlp, cnn and vgg-a to vgg-e"""
    dropout: Annotated[float, AtLeast(0), Fixed] = 0.0
    """share of units left out: of dense layers in mlp and vgg-a to vgg-e, of what the head sees in the others"""
    loss: Annotated[Literal["cross-entropy", "squared-error"], Fixed] = "cross-entropy"
    """squared-error: against 1 for the class and 0 for the others"""
    label_smoothing: Annotated[float, AtLeast(0), Fixed] = 0.0
    """share of the target that is spread over all classes"""
    augment: Annotated[tuple[Literal["flipped", "shifted", "cut_out", "turned"], ...], Fixed] = ("shifted",)
    """changes of the images learned from; shifts go up to an eighth of a side, cuts are a quarter"""
    batch_size: Annotated[int, AtLeast(1), Fixed] = 64
    """images in an update"""
    epochs: Annotated[int, AtLeast(1)] = 20
    """times that the images are seen"""
    eval_every: Annotated[int, AtLeast(1)] = 2
    """epochs between evaluations; the agent's folder is saved then"""
    # steps=0: those of the epochs
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=0, optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4, lr_warmup=50, lr_decay="cosine"
        )
    )


FASHION = Config(
    preset="fashion",
    data="fashion-mnist",
    augment=("flipped", "shifted"),
    batch_size=128,
    epochs=15,
    eval_every=1,
    trainer=TrainConfig(
        steps=0, optimizer="sgd", lr=0.1, momentum=0.9, weight_decay=5e-4, lr_warmup=500, lr_decay="cosine",
        precision="auto", save_every=1000,
    ),
)  # fmt: skip
PRESETS = {
    "digits": Config(),
    "fashion": FASHION,
    "fashion-gpu": replace(
        FASHION,
        preset="fashion-gpu",
        backbone="resnet-20",
        width=4.0,
        augment=("flipped", "shifted", "cut_out"),
        epochs=60,
        eval_every=5,
        device="cuda",
    ),
}
DATA = ("data", "path", "image_size", "channels", "held_out", "split")


# -- the network and its loss ------------------------------------------------------------------------------------------


def build(config: dict[str, Any]) -> Classifier:
    """The classifier that an agent.json's config describes. Raises ValueError for names that mean nothing."""
    name, shape, width = config["backbone"], tuple(config["in_shape"]), config["width"]
    knobs = {"activation": config["activation"], "dropout": config["dropout"]}
    if name not in TORSOS:
        raise ValueError(f"there is no backbone {name!r}: take {', '.join(TORSOS)}")
    if knobs["activation"] not in ACTIVATIONS:
        raise ValueError(f"there is no activation {knobs['activation']!r}: take {', '.join(ACTIVATIONS)}")
    if name == "mlp":
        torso = MLP(shape, [max(1, round(width * units)) for units in config["hidden"]], **knobs)
    elif name == "cnn" or name.startswith("vgg-"):
        torso = TORSOS[name](shape, width=width, **knobs)
    elif knobs["activation"] != "relu":
        raise ValueError(f"{name} has relu alone: --activation is for mlp, cnn and vgg-a to vgg-e")
    else:
        torso = TORSOS[name](shape, width=width)
    return Classifier(torso, config["classes"])


def error(logits: Tensor, label: Tensor, kind: str, smoothing: float = 0.0) -> Tensor:
    """The mean loss of logits [B, classes], whose targets are 1 - smoothing + smoothing / classes and smoothing /
    classes (Szegedy et al. 2016, section 7).
    """
    if kind == "cross-entropy":
        return F.cross_entropy(logits, label, label_smoothing=smoothing)
    target = F.one_hot(label, logits.shape[1]) * (1 - smoothing) + smoothing / logits.shape[1]
    return ((logits - target) ** 2).sum(1).mean()


def loss_of(cfg: Config) -> LossFn:
    """The loss of a Classifier that cfg describes."""
    inside = cfg.backbone == "mlp" or cfg.backbone.startswith("vgg-")  # they have dropout of their own

    def loss_fn(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        features = model.torso(batch["image"])  # type: ignore[operator]
        logits = model.head(F.dropout(features, 0.0 if inside else cfg.dropout, model.training))  # type: ignore[operator]
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return error(logits, batch["label"], cfg.loss, cfg.label_smoothing), {"accuracy": accuracy}

    return loss_fn


def logits_of(model: nn.Module, images: Tensor, batch_size: int = 500) -> Tensor:
    """[N, classes] on the CPU, with running statistics and without dropout; the model's mode stays what it was."""
    device, logits = next(model.parameters()).device, []
    with runtime.evaluating(model):
        for part in images.split(batch_size):
            runtime.share_cores()
            logits.append(model(part.to(device)).cpu())
    return torch.cat(logits)


def load_classifier(folder: str | Path, device: torch.device | str = "cpu") -> tuple[Classifier, dict[str, Any]]:
    """The classifier of a run or agent folder, and its agent.json.

    Raises FileNotFoundError, ValueError, DamagedFile.
    """
    info, weights = load_agent_files(Path(folder), "classifier", "no classifier")
    with described(folder, "these weights"):
        model = rebuild(lambda: build(info["config"]), weights)
    return model.to(device).eval(), info


# -- what is measured --------------------------------------------------------------------------------------------------


def shares_of(logits: Tensor, kind: str) -> NDArray[np.float32]:
    """How sure it is of each class: probabilities, or what it says of squared errors' 0 and 1."""
    return (logits.softmax(1) if kind == "cross-entropy" else logits.clamp(0, 1)).numpy()


def measure(model: nn.Module, held_out: Labelled, kind: str) -> tuple[dict[str, float], Tensor]:
    """({accuracy, loss}, logits [N, classes]) on images that were not learned from."""
    logits = logits_of(model, held_out[0])
    accuracy = (logits.argmax(1) == held_out[1]).float().mean()
    return {"accuracy": accuracy.item(), "loss": error(logits, held_out[1], kind).item()}, logits


def use(cfg: Config, device: torch.device) -> None:
    """Say what a saved classifier makes of cfg.predict's files, or of the images that were held out from it."""
    assert cfg.evaluate is not None
    model, info = load_classifier(cfg.evaluate, device)
    config = info["config"]
    names, kind = config["names"], config["loss"]
    if cfg.predict:
        images = image_data.read_files(cfg.predict, config["in_shape"])
        for file, shares in zip(cfg.predict, shares_of(logits_of(model, images), kind), strict=True):
            best = shares.argsort()[::-1][:3]
            say(f"{file}: {', '.join(f'{names[i]} {shares[i]:.1%}' for i in best)}")
        return
    _, held_out, theirs = image_data.load(**info["data"] | ({"path": cfg.path} if cfg.path else {}))
    if theirs != names:
        raise ValueError(f"{cfg.evaluate} knows the classes {', '.join(names)}; the images have {', '.join(theirs)}")
    score, logits = measure(model, held_out, kind)
    say(
        image_pictures.table(image_pictures.confusion(held_out[1].numpy(), logits.argmax(1).numpy(), len(names)), names)
    )
    say(f"accuracy {score['accuracy']:.4f}, loss {score['loss']:.4f} on {len(logits):,} images held out")


# -- the run -----------------------------------------------------------------------------------------------------------


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    check_bounds(cfg)
    cfg = located(cfg, "path")
    if not (cfg.dropout < 1 and cfg.label_smoothing < 1):
        raise ValueError("--dropout and --label-smoothing are shares below 1")
    if min(cfg.hidden, default=1) < 1:
        raise ValueError(f"--hidden must be at least 1, not {min(cfg.hidden)}")
    if cfg.predict and not cfg.evaluate:
        raise ValueError("--predict needs a classifier: name its run by --evaluate")
    if cfg.evaluate:
        use(cfg, runtime.setup(cfg.seed, cfg.device, cfg.threads))
        return Path(cfg.evaluate)
    run = Run(cfg, "images")
    where: dict[str, Any] = {name: getattr(cfg, name) for name in DATA}
    learned, held_out, names = image_data.load(**where)
    data = DataFiles(cfg, {"path": image_data.files(cfg.data, cfg.path)})
    channels, height, width = learned[0].shape[1:]
    in_shape = (channels, height, width)
    knobs = {name: getattr(cfg, name) for name in ("backbone", "width", "hidden", "activation", "dropout", "loss")}
    config = knobs | {"in_shape": in_shape, "classes": len(names), "names": names}
    model = build(config).to(run.device)
    side = min(height, width)
    changes: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
        "flipped": flipped,
        "shifted": partial(shifted, most=max(1, side // 8)),
        "cut_out": partial(cut_out, size=max(2, side // 4)),
        "turned": turned,
    }
    make = rows(
        {"image": learned[0], "label": learned[1]},
        cfg.batch_size,
        runtime.derive_seed(cfg.seed, 1),
        augment(*(changes[name] for name in cfg.augment)) if cfg.augment else None,
    )
    batches = Batches.for_device(make, run.device)
    epoch = max(1, len(learned[1]) // cfg.batch_size // cfg.trainer.accumulate)
    steps = cfg.trainer.steps or cfg.epochs * epoch
    run_dir = run.open(f"{cfg.data}_{cfg.backbone}", data)
    trainer = Trainer(
        model,
        loss_of(cfg),
        replace(cfg.trainer, steps=steps),
        run_dir,
        state={"batches": batches},
        timer=run.timer,
        deadline=run.deadline,
    )
    run.resume(trainer)
    count, sizes = sum(p.numel() for p in model.parameters()), (len(learned[1]), len(held_out[1]))
    say(f"{cfg.backbone}: {count:,} parameters; images {in_shape}, {sizes[0]:,} and {sizes[1]:,} held out")
    player = trainer.averaged

    def save(score: dict[str, float] | None = None) -> None:
        info = {
            "kind": "classifier",
            "config": config,
            "data": where,
            "trained": {"updates": trainer.step, "epochs": round(trainer.step / epoch, 2), "seed": cfg.seed},
            "score": score and score | {"images": sizes[1]},
        }
        save_agent(run_dir / "agent", info, player.state_dict())

    def evaluation() -> Tensor:
        with run.timer("evaluate"):
            score, logits = measure(player, held_out, cfg.loss)
        trainer.log({f"eval/{name}": value for name, value in score.items()})
        save(score)
        say(f"epoch {trainer.step / epoch:.1f}: accuracy {score['accuracy']:.4f}, loss {score['loss']:.4f}")
        return logits

    for _ in trainer.run(batches):
        # An update is forward and backward, which take two thirds of it.
        run.deadline.evaluation = run.timer.latest["update"] / 3 * sizes[1] / cfg.batch_size
        if run.evaluation_due(cfg.eval_every * epoch):
            evaluation()
    if run.stopped:
        save()
    else:
        logits, labels = evaluation(), held_out[1].numpy()
        counts = image_pictures.confusion(labels, logits.argmax(1).numpy(), len(names))
        pictures = {
            "confusion": image_pictures.draw_confusion(counts, names),
            "mistakes": image_pictures.draw_mistakes(held_out[0], labels, shares_of(logits, cfg.loss), names)[0],
        }
        if any(True for _ in player.get_submodule("torso").parameters()):  # a softmax regression has none
            pictures["filters"] = image_pictures.draw_filters(player.get_submodule("torso"), in_shape)
        trainer.show({f"eval/{name}": picture for name, picture in pictures.items()})
        for name, picture in pictures.items():
            Image.fromarray(picture).save(run_dir / f"{name}.png")
        say(image_pictures.table(counts, names))
        say(f"drawn: {', '.join(f'{run_dir}/{name}.png' for name in pictures)}")
    run.close(use=("images", "--evaluate", run_dir, "--predict", "FILES"))
    return run_dir
