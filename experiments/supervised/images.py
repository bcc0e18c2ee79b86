"""Images to classes: feed-forward networks, CNNs, VGG, ResNet, and the torsos of the agents.

python -m experiments images                                             # scikit-learn's digits, in seconds
python -m experiments images --preset fashion                            # Fashion-MNIST, 96,554 parameters
python -m experiments images --data folder --path PICTURES --backbone resnet-20
python -m experiments images --data fashion-mnist --backbone nature --image-size 84 --channels 4     # for an agent
python -m experiments images --resume runs/images/<run>                  # goes on where the run was stopped
python -m experiments images --evaluate runs/images/<run>                # measures it again
python -m experiments images --evaluate runs/images/<run> --predict a.png b.png
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from torch import Tensor

from experiments.pictures import show
from experiments.supervised import image_data
from experiments.supervised.image_classifier import (
    build,
    confidences,
    has_own_dropout,
    load_classifier,
    logits_of,
    loss_with,
    measure,
)
from experiments.supervised.image_pictures import confusion, draw_confusion, draw_filters, draw_mistakes, table
from rlkit import runtime
from rlkit.checkpoint import save_agent
from rlkit.config import AtLeast, Between, Divided, Fixed, RunConfig, check_bounds
from rlkit.data import Batches, rows
from rlkit.data_files import DataFiles, located
from rlkit.logger import say
from rlkit.run import Run
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config(RunConfig):
    """Classify images."""

    preset: Annotated[Literal["digits", "fashion", "fashion-gpu"], Fixed] = "digits"
    """defaults: digits, fashion (Fashion-MNIST on two cores), fashion-gpu (the same with a wide ResNet)"""
    evaluate: str | None = None
    """run or agent folder: measure its classifier, and train none"""
    predict: tuple[str, ...] = ()
    """image files to classify with the classifier of --evaluate"""
    data: Annotated[Literal["digits", "fashion-mnist", "folder"], Fixed] = "digits"
    """scikit-learn's digits, Fashion-MNIST, or the images of --path"""
    path: str | None = None
    """for fashion-mnist: folder of its four idx files (default: where Debian's package dataset-fashion-mnist has them).
    For folder: a folder with a folder of images for each class, or with train/ and test/ that have those. All formats
    that Pillow reads, also in folders inside a class; what is transparent becomes white, and 12 or 16 bits become 8.
    May have moved when a run goes on"""
    image_size: Annotated[int, AtLeast(0), Fixed] = 0
    """pixels: all images are scaled to this height and width; 0: as they are (those of a folder: 32)"""
    channels: Annotated[int, AtLeast(0), Fixed] = 0
    """of an image; grey images are repeated to this number, like an agent's stack of frames; 0: one (for a folder:
    three, in colour)"""
    held_out: Annotated[float, Between(0, 1), Fixed] = 0.2
    """share of the images to test on instead of learning from them, where the data have no test part"""
    split: Annotated[int, AtLeast(0), Fixed] = 0
    """seed for choosing the images held out, which do not depend on --seed"""
    backbone: Annotated[str, Fixed] = "cnn"
    """network: mlp, cnn, vgg-a to vgg-e, resnet-18 to -152, resnet-20 to -110 (for small images), or an agent's:
    nature, impala, resnet, vgg"""
    width: Annotated[float, AtLeast(0.001), Fixed] = 1.0
    """factor on the number of all channels and dense units"""
    hidden: Annotated[tuple[int, ...], Fixed] = (256, 128)
    """units in each hidden layer of mlp"""
    activation: Annotated[str, Fixed] = "relu"
    """relu, gelu, tanh, sigmoid or none, in mlp, cnn and vgg-a to vgg-e"""
    dropout: Annotated[float, AtLeast(0), Fixed] = 0.0
    """share of units left out in training: between the dense layers of mlp and vgg-a to vgg-e, before the head in
    others"""
    loss: Annotated[Literal["cross-entropy", "squared-error"], Fixed] = "cross-entropy"
    """squared-error: against 1 for the class and 0 for the others"""
    label_smoothing: Annotated[float, AtLeast(0), Fixed] = 0.0
    """share of each label that is spread over all classes"""
    augment: Annotated[tuple[Literal["flipped", "shifted", "cut_out", "turned"], ...], Fixed] = ("shifted",)
    """random changes of the training images; shifts are up to an eighth of a side, cut-outs are squares of a quarter"""
    batch_size: Annotated[int, AtLeast(1), Fixed, Divided] = 64
    """images in an update"""
    epochs: Annotated[int, AtLeast(1)] = 20
    """passes over the training images"""
    eval_every: Annotated[int, AtLeast(1)] = 2
    """epochs between evaluations; the agent's folder is saved then"""
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=0, optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=5e-4, lr_warmup=50, lr_decay="cosine"
        )
    )
    """of the training; steps 0: as many as --epochs take"""


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


def use(cfg: Config) -> Path:
    """Classify the files of --predict with the classifier of --evaluate, or measure it on its held-out images."""
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    folder = Path(str(cfg.evaluate))
    model, info = load_classifier(folder, device)
    names, kind = info["config"]["names"], info["config"]["loss"]
    if cfg.predict:
        images = image_data.read_files(cfg.predict, info["config"]["in_shape"])
        for file, row in zip(cfg.predict, confidences(logits_of(model, images), kind), strict=True):
            best = row.argsort()[::-1][:3]
            say(f"{file}: {', '.join(f'{names[i]} {row[i]:.1%}' for i in best)}")
        return folder
    _, held_out, theirs = image_data.load(**info["data"] | ({"path": cfg.path} if cfg.path else {}))
    if theirs != names:
        raise ValueError(f"{folder} knows the classes {', '.join(names)}; the images have {', '.join(theirs)}")
    score, logits = measure(model, held_out, kind)
    say(table(confusion(held_out[1].numpy(), logits.argmax(1).numpy(), len(names)), names))
    say(f"accuracy {score['accuracy']:.4f}, loss {score['loss']:.4f} on {len(logits):,} images held out")
    return folder


def check(cfg: Config) -> None:
    """Raise ValueError for settings that make no sense."""
    check_bounds(cfg)
    if not (cfg.dropout < 1 and cfg.label_smoothing < 1):
        raise ValueError("--dropout and --label-smoothing are shares below 1")
    if min(cfg.hidden, default=1) < 1:
        raise ValueError(f"--hidden must be at least 1, not {min(cfg.hidden)}")
    if cfg.predict and not cfg.evaluate:
        raise ValueError("--predict needs a classifier: name its run by --evaluate")


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    check(cfg)
    cfg = located(cfg, "path")
    if cfg.evaluate:
        return use(cfg)
    run = Run(cfg, "images")

    # The images.
    data = {name: getattr(cfg, name) for name in ("data", "path", "image_size", "channels", "held_out", "split")}
    training, held_out, names = image_data.load(**data)
    files = DataFiles(cfg, {"path": image_data.files(cfg.data, cfg.path)})
    channels, height, width = training[0].shape[1:]
    in_shape = (channels, height, width)
    make = rows(
        {"image": training[0], "label": training[1]},
        run.cfg.batch_size,
        runtime.derive_seed(cfg.seed, 1),
        image_data.random_changes(cfg.augment, min(height, width)),
    )
    batches = Batches.for_device(make, run.device)
    epoch = max(1, len(training[1]) // cfg.batch_size // cfg.trainer.accumulate)  # in updates

    # The network.
    config = {name: getattr(cfg, name) for name in ("backbone", "width", "hidden", "activation", "dropout", "loss")}
    config |= {"in_shape": in_shape, "classes": len(names), "names": names}
    model = build(config).to(run.device)
    folder = run.open(f"{cfg.data}_{cfg.backbone}", files)
    trainer = Trainer(
        model,
        loss_with(cfg.loss, cfg.label_smoothing, 0.0 if has_own_dropout(cfg.backbone) else cfg.dropout),
        replace(run.cfg.trainer, steps=cfg.trainer.steps or cfg.epochs * epoch),
        folder,
        state={"batches": batches},
        timer=run.timer,
        deadline=run.deadline,
    )
    run.resume(trainer)
    count, sizes = sum(p.numel() for p in model.parameters()), (len(training[1]), len(held_out[1]))
    say(f"{cfg.backbone}: {count:,} parameters; images {in_shape}, {sizes[0]:,} and {sizes[1]:,} held out")

    def save(score: dict[str, float] | None = None) -> None:
        info = {
            "kind": "classifier",
            "config": config,
            "data": data,
            "trained": {"updates": trainer.step, "epochs": round(trainer.step / epoch, 2), "seed": cfg.seed},
            "score": score and score | {"images": sizes[1]},
        }
        save_agent(folder / "agent", info, trainer.averaged.state_dict())

    def evaluate() -> Tensor:
        with run.timer("evaluate"):
            score, logits = measure(trainer.averaged, held_out, cfg.loss)
        trainer.log({f"eval/{name}": value for name, value in score.items()})
        save(score)
        say(f"epoch {trainer.step / epoch:.1f}: accuracy {score['accuracy']:.4f}, loss {score['loss']:.4f}")
        return logits

    for _ in trainer.run(batches):
        # An update is forward and backward, which take two thirds of it.
        run.deadline.evaluation = run.timer.latest["update"] / 3 * sizes[1] / cfg.batch_size
        if run.evaluation_due(cfg.eval_every * epoch):
            evaluate()
    if run.stopped:
        save()
    else:
        logits, labels = evaluate(), held_out[1].numpy()
        counts = confusion(labels, logits.argmax(1).numpy(), len(names))
        mistakes, _ = draw_mistakes(held_out[0], labels, confidences(logits, cfg.loss), names)
        pictures = {"confusion": draw_confusion(counts, names), "mistakes": mistakes}
        torso = trainer.averaged.get_submodule("torso")
        if next(torso.parameters(), None) is not None:  # a softmax regression has none
            pictures["filters"] = draw_filters(torso, in_shape)
        show(pictures, trainer, folder)
        say(table(counts, names))
        say(f"drawn: {', '.join(f'{folder}/{name}.png' for name in pictures)}")
    run.close(use=("images", "--evaluate", folder, "--predict", "FILES"))
    return folder
