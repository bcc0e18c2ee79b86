"""Obstacles on the road: bumps, damage, potholes and litter, found on pictures by Mask R-CNN, with their pixels.

python -m experiments obstacles                                                     # on roads that are drawn, an hour
python -m experiments obstacles --preset photographs --path FOLDER                  # on photographs of roads
python -m experiments obstacles --data coco --path PICTURES --annotations things.json
python -m experiments obstacles --resume runs/obstacles/<run>                       # goes on where the run was stopped
python -m experiments obstacles --evaluate runs/obstacles/<run> runs/obstacles/<another>   # measured, in one table
python -m experiments obstacles --predict PICTURES --out FOLDER                     # with the detector that ships
"""

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from experiments.pictures import show
from experiments.supervised import detector, obstacle_data
from experiments.supervised.detection_baselines import PriorBoxes
from experiments.supervised.detection_pictures import draw_precision_recall, draw_predictions
from experiments.supervised.detection_scores import Scores, class_table, need_extra, table
from experiments.supervised.obstacle_data import load, training_batches
from experiments.supervised.prediction import predict
from rlkit import runtime
from rlkit.checkpoint import save_agent
from rlkit.config import AtLeast, Between, Divided, Fixed, RunConfig, check_bounds
from rlkit.data import Batches
from rlkit.data_files import DataFiles, located
from rlkit.files import write_atomically
from rlkit.logger import say
from rlkit.nn.detection import Shape
from rlkit.run import Run
from rlkit.saved_agents import load_matching
from rlkit.trainer import TrainConfig, Trainer

PRIOR_PICTURES = 500
"""of training, whose boxes are the prior ones"""
SHIPPED = Path(__file__).parent / "pretrained" / "obstacles"


@dataclass
class Config(RunConfig):
    """Find things on pictures of roads."""

    preset: Annotated[Literal["drawn", "photographs", "paper"], Fixed] = "drawn"
    """defaults: drawn (roads that are drawn, on two cores), photographs (of roads, likewise), paper (ResNet-50 with 256
    channels as in He et al. 2017, but pictures are as large as they are, and its learning rate is a cosine; a GPU)"""
    evaluate: tuple[str, ...] = ()
    """run or agent folders: measure their detectors on the test pictures of the first, and train none"""
    predict: tuple[str, ...] = ()
    """files and folders of pictures, and videos, on which to find things, with the detector of --evaluate"""
    out: str = "found"
    """folder for what --predict finds: pictures, and one COCO JSON"""
    data: Annotated[Literal["drawn", "photographs", "coco", "label-maps"], Fixed] = "drawn"
    """roads that are drawn, without end; photographs of roads on which litter is pasted; a folder with a COCO JSON; a
    folder with images/, labels/ and names.txt"""
    path: str | None = None
    """folder of the pictures, where they are not drawn; may have moved when a run goes on"""
    annotations: str | None = None
    """the JSON file of coco; may have moved, too"""
    held_out: Annotated[float, Between(0, 1), Fixed] = 0.2
    """share of the pictures to test on instead of learning from them, of coco and label-maps"""
    height: Annotated[int, AtLeast(64), Fixed] = 200
    """pixels of a drawn picture"""
    width: Annotated[int, AtLeast(64), Fixed] = 320
    """pixels of a drawn picture"""
    max_side: Annotated[int, AtLeast(64), Fixed] = 1333
    """pixels of the longer side: larger pictures of coco and label-maps are scaled down as they are read"""
    augment: Annotated[tuple[Literal["flipped", "scaled_and_cropped", "recoloured"], ...], Fixed] = ("flipped",)
    """random changes of the pictures that are learned from"""
    method: Annotated[Literal["mask-rcnn", "unet"], Fixed] = "mask-rcnn"
    """Mask R-CNN, or as a baseline a U-Net that says the class of each pixel, whose connected regions are the things"""
    backbone: Annotated[str, Fixed] = "resnet-18"
    """network below the pyramid: resnet-18 to -152, vgg-a to -e, impala"""
    backbone_width: Annotated[float, AtLeast(0.001), Fixed] = 0.5
    """factor on the number of its channels"""
    norm: Annotated[Literal["batch", "frozen", "group", "none"], Fixed] = "group"
    """its normalisation; frozen: as --backbone-from has it; impala has none"""
    backbone_from: str | None = None
    """run or agent folder of `images` with the same backbone and width, in colour, whose weights it begins with"""
    start_from: str | None = None
    """run or agent folder of this command, whose weights a new run begins with as far as they fit"""
    detector: Annotated[Shape, Fixed] = field(
        default_factory=lambda: Shape(
            classes=0, channels=64, dense=256, anchor=3.0, ratios=(0.2, 0.5, 1.0, 2.0),
            before_nms=(500, 300), after_nms=(200, 150), region_samples=128, box_samples=64,
        )
    )  # fmt: skip
    batch_size: Annotated[int, AtLeast(1), Fixed, Divided] = 4
    """pictures in an update"""
    eval_every: Annotated[int, AtLeast(1)] = 1000
    """updates between evaluations; the detector's folder is saved then"""
    eval_pictures: Annotated[int, AtLeast(1)] = 100
    """test pictures of an evaluation; the last one has all"""
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=3000, optimizer="adamw", lr=1e-3, weight_decay=1e-2, lr_warmup=200, lr_decay="cosine", ema=0.998,
            ema_warmup=True, precision="auto", save_every=500,
        )
    )  # fmt: skip


PRESETS = {
    "drawn": Config(),
    "photographs": Config(  # half of their potholes are smaller than 12 x 12 pixels
        preset="photographs", data="photographs", augment=("flipped", "scaled_and_cropped", "recoloured"),
        detector=replace(Config().detector, enlarge=2), trainer=replace(Config().trainer, steps=4000),
    ),
    "paper": Config(
        preset="paper",
        data="coco",
        backbone="resnet-50",
        backbone_width=1.0,
        norm="batch",
        detector=Shape(classes=0),
        batch_size=16,
        eval_every=5000,
        eval_pictures=500,
        device="cuda",
        trainer=TrainConfig(
            steps=160_000, optimizer="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4, lr_warmup=1000,
            lr_decay="cosine", precision="auto", save_every=2000,
        ),
    ),
}  # fmt: skip


def use(cfg: Config) -> Path:
    """Find things with the first detector of --evaluate, or measure all of them, and the prior boxes beside them."""
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    folders = cfg.evaluate or (str(SHIPPED),)
    models = {folder: detector.load_detector(folder, device) for folder in folders}
    first, info = models[folders[0]]
    if cfg.predict:
        side = obstacle_data.longest_side(**info["data"])
        predict(first, info["config"]["names"], cfg.predict, Path(cfg.out), side)
        return Path(cfg.out)
    data = info["data"] | {name: value for name in ("path", "annotations") if (value := getattr(cfg, name))}
    need_extra()
    training, test = load(**data)
    for folder, (_, described) in models.items():
        if (theirs := described["config"]["names"]) != list(test.names):
            raise ValueError(
                f"{folder} knows the classes {', '.join(theirs)}; the pictures have {', '.join(test.names)}"
            )
    short = len({Path(folder).name for folder in folders}) == len(models)  # those of runs, not all called agent
    rows = {
        Path(folder).name if short else folder: detector.measure(partial(detector.find, model), test)
        for folder, (model, _) in models.items()
    }
    prior = PriorBoxes(training[i] for i in range(min(PRIOR_PICTURES, len(training))))
    rows["prior boxes"] = detector.measure(lambda images: (prior([image])[0] for image in images), test)
    say(table(rows))
    for name, one in rows.items():
        say(f"{name}\n{class_table(one, test.names)}")
    out = Path(folders[0]) / "scores.json"
    write_atomically(out, json.dumps({name: one._asdict() for name, one in rows.items()}).encode())
    say(f"written: {out}")
    return Path(folders[0])


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    check_bounds(cfg)
    cfg = located(cfg, "path", "annotations")
    if cfg.evaluate or cfg.predict:
        return use(cfg)
    need_extra()
    if cfg.trainer.mode != "eager":
        raise ValueError("pictures have any number of things, so nothing can be captured: --trainer.mode eager")
    if cfg.backbone_from and cfg.method == "unet":
        raise ValueError("a U-Net has no backbone to begin with: leave --backbone-from out")
    run = Run(cfg, "obstacles")

    # The pictures.
    names = ("data", "path", "annotations", "held_out", "height", "width", "max_side")
    data = {name: getattr(cfg, name) for name in names}
    training, test = load(**data)
    json_files = [Path(cfg.annotations)] if cfg.annotations else []
    files = DataFiles(cfg, {"path": obstacle_data.files(cfg.data, cfg.path), "annotations": json_files})
    seed = runtime.derive_seed(cfg.seed, 1)
    enlarge = cfg.detector.enlarge if cfg.method == "mask-rcnn" else 1
    make = training_batches(training, run.cfg.batch_size, seed, cfg.augment, enlarge)
    batches = Batches(make, ahead=2, pin=run.device.type == "cuda")

    # The network.
    config = detector.described(cfg, test.names)
    model = detector.build(config).to(run.device)
    if cfg.backbone_from and not cfg.resume:
        say(load_matching(model.get_submodule("torso"), Path(cfg.backbone_from), "torso."))
    if cfg.start_from and not cfg.resume:
        say(load_matching(model, Path(cfg.start_from)))
    folder = run.open(cfg.data if cfg.method == "mask-rcnn" else f"{cfg.data}_{cfg.method}", files)
    trainer = Trainer(
        model, detector.loss_fn, run.cfg.trainer, folder,
        state={"batches": batches}, timer=run.timer, deadline=run.deadline,
    )  # fmt: skip
    run.resume(trainer)
    count = sum(p.numel() for p in model.parameters())
    said = f"{len(training):,} pictures, {len(test):,} to test on, of {', '.join(test.names)}"
    say(f"{cfg.method}: {count:,} parameters; {said}")

    def save(score: Scores | None = None) -> None:
        info = {
            "kind": "detector",
            "config": config,
            "data": data,
            "trained": {"updates": trainer.step, "pictures": trainer.step * cfg.batch_size, "seed": cfg.seed},
            "score": score and score._asdict(),
        }
        save_agent(folder / "agent", info, trainer.averaged.state_dict())

    def evaluate(most: int = 0) -> Scores:
        with run.timer("evaluate"):
            score = detector.measure(partial(detector.find, trainer.averaged), test, most)
        trainer.log({f"eval/{name}": value for name, value in score.values.items()})
        shown = [test[i] for i in range(min(8, len(test)))]
        found = list(detector.find(trainer.averaged, (picture.image for picture in shown)))
        show({"found": draw_predictions(shown, found, test.names)}, trainer, folder)
        save(score)
        best = [f"{name} {score.values[name]:.3f}" for name in ("mask/AP50", "mask/AP", "box/AP") if score.values]
        say(f"update {trainer.step:,}: {', '.join(best) or 'there is nothing on the test pictures, so no score'}")
        return score

    for _ in trainer.run(batches):
        # An update is forward and backward of a batch, an evaluation is forward alone.
        run.deadline.evaluation = run.timer.latest["update"] / 2 * len(test) / cfg.batch_size
        if run.evaluation_due(cfg.eval_every):
            evaluate(cfg.eval_pictures)
    if run.stopped:
        save()
    else:
        last = evaluate()
        say(class_table(last, test.names))
        show({"precision_recall": draw_precision_recall({cfg.method: last}, test.names)}, trainer, folder)
        if cfg.method == "mask-rcnn":
            say(f"{1 / detector.seconds_of(trainer.averaged, test[0].image):.1f} pictures/s, one by one")
    run.close(use=("obstacles", "--evaluate", folder, "--predict", "PICTURES"))
    return folder
