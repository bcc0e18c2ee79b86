"""Classification of images: data, figures by hand, what a run leaves, and that it goes on where it was cut off."""

import gzip
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.supervised import image_data, images
from experiments.supervised.image_classifier import build, classification_loss, load_classifier, logits_of
from experiments.supervised.image_pictures import confusion, draw_confusion, draw_filters, draw_mistakes, grid, table
from rlkit import command_line
from rlkit.command_line import parse
from rlkit.errors import DamagedFile
from rlkit.nn.convolution import BACKBONES
from rlkit.saved_agents import load_agent_files
from rlkit.saved_config import load_config
from rlkit.trainer import TrainConfig, Trainer

NAMES = [str(digit) for digit in range(10)]


def config(**values):
    trainer = {"steps": 8, "optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "save_every": 4, "log_every": 4}
    trainer = TrainConfig(progress=False, **trainer | values.pop("trainer", {}))
    return images.Config(**{"device": "cpu", "threads": 1, "batch_size": 16, "width": 0.25} | values, trainer=trainer)


def network_config(**values):
    known = {"width": 1.0, "hidden": [256, 128], "activation": "relu", "dropout": 0.0, "loss": "cross-entropy"}
    return {"backbone": "cnn", "in_shape": [1, 28, 28], "classes": 10, "names": NAMES} | known | values


def parameters(model):
    return sum(p.numel() for p in model.parameters())


# -- networks ----------------------------------------------------------------------------------------------------------


def test_the_cnn_has_less_than_100_000_parameters():
    convolutions = 9 * (1 * 32 + 32 * 32 + 32 * 64 + 64 * 64) + 2 * (32 + 32 + 64 + 64)  # with scale and shift
    assert parameters(build(network_config())) == convolutions + 7 * 7 * 64 * 10 + 10 == 96_554


@pytest.mark.parametrize(
    "name, in_shape, classes, count",
    [
        ("mlp", [1, 28, 28], 10, 784 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10),
        ("vgg-a", [3, 224, 224], 1000, 132_863_336),
        ("vgg-b", [3, 224, 224], 1000, 133_047_848),
        ("vgg-c", [3, 224, 224], 1000, 133_638_952),
        ("vgg-d", [3, 224, 224], 1000, 138_357_544),
        ("vgg-e", [3, 224, 224], 1000, 143_667_240),
        ("resnet-18", [3, 224, 224], 1000, 11_689_512),
        ("resnet-34", [3, 224, 224], 1000, 21_797_672),
        ("resnet-50", [3, 224, 224], 1000, 25_557_032),
        ("resnet-101", [3, 224, 224], 1000, 44_549_160),
        ("resnet-152", [3, 224, 224], 1000, 60_192_808),
        ("resnet-20", [3, 32, 32], 10, 269_722),
        ("resnet-32", [3, 32, 32], 10, 464_154),
        ("resnet-44", [3, 32, 32], 10, 658_586),
        ("resnet-56", [3, 32, 32], 10, 853_018),
        ("resnet-110", [3, 32, 32], 10, 1_727_962),
        ("nature", [4, 84, 84], 4, 1_686_180),
    ],
)
@pytest.mark.slow
def test_names_mean_the_papers_networks(name, in_shape, classes, count):
    with torch.device("meta"):
        assert parameters(build(network_config(backbone=name, in_shape=in_shape, classes=classes))) == count


def test_every_name_of_the_agents_is_one_here_and_has_their_weights():
    for name in BACKBONES.keys() - {"mlp", "linear"}:  # for vectors, and the 2015 paper's baseline
        model = build(network_config(backbone=name, in_shape=[4, 36, 36], width=0.25))
        theirs = BACKBONES[name]((4, 36, 36), width=0.25).state_dict()
        ours = {k.removeprefix("torso."): v for k, v in model.state_dict().items() if k.startswith("torso.")}
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"backbone": "alexnet"}, "no backbone 'alexnet': take mlp, cnn"),
        ({"activation": "swish"}, "no activation 'swish': take relu"),
        ({"backbone": "resnet-20", "activation": "gelu"}, "resnet-20 has relu alone"),
        ({"backbone": "vgg-a"}, "at least 32 x 32, not 28 x 28"),
    ],
)
def test_networks_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        build(network_config(**values))


def test_losses_by_hand():
    logits, label = torch.tensor([[1.0, 0.0], [0.5, 0.25]]), torch.tensor([0, 0])
    plain = (np.log(1 + np.exp(-1)) + np.log(1 + np.exp(-0.25))) / 2
    assert classification_loss(logits, label, "cross-entropy").item() == pytest.approx(plain, rel=1e-6)
    # Of two classes, smoothing by .2 gives the other one .1: .1 times the difference of the logits is added.
    smooth = plain + 0.1 * (1 + 0.25) / 2
    assert classification_loss(logits, label, "cross-entropy", 0.2).item() == pytest.approx(smooth, rel=1e-6)
    assert classification_loss(logits, label, "squared-error").item() == pytest.approx((0 + 0.5**2 + 0.25**2) / 2)
    by_hand = (0.1**2 + 0.1**2 + 0.4**2 + 0.15**2) / 2  # against .9 and .1
    assert classification_loss(logits, label, "squared-error", 0.2).item() == pytest.approx(by_hand, rel=1e-6)


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_held_out_of_the_digits_is_fixed_and_a_fifth_of_each():
    training, held_out, names = image_data.load()
    again = image_data.load()
    other = image_data.load(split=1)
    assert names == NAMES and training[0].shape[1:] == (1, 8, 8) and training[0].dtype == torch.uint8
    assert training[0].min() == 0 and training[0].max() == 255
    assert len(training[1]) + len(held_out[1]) == 1797
    assert torch.equal(held_out[0], again[1][0]) and not torch.equal(held_out[1], other[1][1])
    every, part = (np.bincount(y) for y in (torch.cat([training[1], held_out[1]]), held_out[1]))
    assert part.tolist() == [round(0.2 * count) for count in every]
    pixels = {image.numpy().tobytes() for image in training[0]}
    assert sum(image.numpy().tobytes() in pixels for image in held_out[0]) < 5  # the set itself repeats hardly any


@pytest.mark.slow
def test_scaled_and_repeated_to_an_agents_shape():
    (small, _), _, _ = image_data.load()
    (large, _), _, _ = image_data.load(image_size=84, channels=4)
    assert large.shape[1:] == (4, 84, 84) and large.dtype == torch.uint8
    assert (large == large[:, :1]).all()
    flat = image_data.fitted(torch.full((3, 1, 5, 5), 77, dtype=torch.uint8), 8, 0)
    assert flat.shape == (3, 1, 8, 8) and (flat == 77).all()
    means = small.float().mean((1, 2, 3)), large[:, 0].float().mean((1, 2))
    assert (means[0] - means[1]).abs().max() < 6  # of 255


def idx(path, array, pack=True):
    data = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if pack else data)


def write_fashion(folder, labels=(0, 9, 3)):
    folder.mkdir(exist_ok=True)
    pixels = np.arange(3 * 28 * 28).reshape(3, 28, 28) % 251
    for part, pack in (("train", True), ("t10k", False)):
        end = ".gz" if pack else ""
        idx(folder / f"{part}-images-idx3-ubyte{end}", pixels, pack)
        idx(folder / f"{part}-labels-idx1-ubyte{end}", np.array(labels), pack)
    return pixels


def test_idx_files_packed_or_not_and_what_is_wrong_with_them(tmp_path):
    folder = tmp_path / "mnist"
    pixels = write_fashion(folder)
    training, held_out, names = image_data.load("fashion-mnist", str(folder))
    for x, y in (training, held_out):
        assert (x[:, 0].numpy() == pixels).all() and y.tolist() == [0, 9, 3]
    assert names[9] == "ankle boot"
    write_fashion(folder, labels=(0, 1))
    with pytest.raises(ValueError, match=r"train has images \[3, 28, 28\] and labels \[2\]"):
        image_data.load("fashion-mnist", str(folder))
    write_fashion(folder, labels=(0, 1, 10))
    with pytest.raises(ValueError, match="a label 10, where 0 to 9"):
        image_data.load("fashion-mnist", str(folder))
    (folder / "t10k-labels-idx1-ubyte").unlink()
    idx(folder / "train-labels-idx1-ubyte.gz", np.array([0, 1, 2]))
    with pytest.raises(FileNotFoundError, match=r"t10k-labels-idx1-ubyte.gz in .*dataset-fashion-mnist; .*--path"):
        image_data.load("fashion-mnist", str(folder))


@pytest.mark.skipif(not image_data.FASHION_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not here")
def test_fashion_mnist_as_debian_has_it():
    training, held_out, names = image_data.load("fashion-mnist")
    assert training[0].shape == (60_000, 1, 28, 28) and held_out[0].shape == (10_000, 1, 28, 28)
    assert np.bincount(training[1]).tolist() == [6000] * 10 and len(names) == 10


def draw_folder(path, count=5, size=(20, 12)):
    """Two classes by their colour: [path]/blue and [path]/red."""
    for name, colour in (("red", (200, 0, 0)), ("blue", (0, 0, 200))):
        (path / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", size, colour).save(path / name / f"{i}.png")


def test_folders_of_classes(tmp_path):
    draw_folder(tmp_path / "one")
    training, held_out, names = image_data.load("folder", str(tmp_path / "one"), image_size=8)
    assert names == ["blue", "red"] and training[0].shape == (8, 3, 8, 8) and held_out[1].tolist() == [0, 1]
    for x, y in (training, held_out):
        assert (x.amax((2, 3))[torch.arange(len(y)), torch.tensor([2, 0])[y]] == 200).all()
    grey, _, _ = image_data.load("folder", str(tmp_path / "one"), channels=4)
    assert grey[0].shape == (8, 4, 32, 32) and len(grey[0].unique()) == 2
    draw_folder(tmp_path / "two" / "train")
    draw_folder(tmp_path / "two" / "test", count=2)
    training, held_out, _ = image_data.load("folder", str(tmp_path / "two"))
    assert (len(training[1]), len(held_out[1])) == (10, 4)
    (tmp_path / "two" / "test" / "red").rename(tmp_path / "two" / "test" / "green")
    with pytest.raises(ValueError, match="have not the same classes, 'green' is in one alone"):
        image_data.load("folder", str(tmp_path / "two"))


def test_parts_that_are_no_classes_are_refused_or_said(tmp_path, capsys):
    draw_folder(tmp_path / "train")
    with pytest.raises(ValueError, match="one class alone, train: name the folder in which"):
        image_data.load("folder", str(tmp_path))
    draw_folder(tmp_path / "val")
    with pytest.raises(ValueError, match="train and val, which are no classes"):
        image_data.load("folder", str(tmp_path))
    draw_folder(tmp_path / "test", count=2)
    draw_folder(tmp_path / "__MACOSX")
    _, held_out, names = image_data.load("folder", str(tmp_path))
    assert names == ["blue", "red"] and len(held_out[1]) == 4
    assert capsys.readouterr().err == f"{tmp_path}: val is left out, beside train and test\n"


def test_bad_input_leaves_no_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_folder(tmp_path / "a")
    (tmp_path / "a" / "empty").mkdir()
    with pytest.raises(ValueError, match="empty has no images"):
        images.main(config(data="folder", path="a"))
    (tmp_path / "a" / "empty").rmdir()
    (tmp_path / "a" / "red" / "3.png").write_bytes((tmp_path / "a" / "red" / "2.png").read_bytes()[:40])
    with pytest.raises(ValueError, match=r"red/3\.png is no image that can be read"):
        images.main(config(data="folder", path="a"))
    with pytest.raises(FileNotFoundError, match="there is no folder b"):
        images.main(config(data="folder", path="b"))
    with pytest.raises(ValueError, match="folder with a --path"):
        images.main(config(data="folder"))
    with pytest.raises(ValueError, match="batches of 2000 cannot be drawn"):
        images.main(config(batch_size=2000))
    with pytest.raises(ValueError, match="shares below 1"):
        images.main(config(dropout=1.0))
    with pytest.raises(ValueError, match="a share between 0 and 1"):
        images.main(config(held_out=1.0))
    draw_folder(tmp_path / "few", count=1)
    with pytest.raises(ValueError, match="2 images are too few to hold 20% of each class out"):
        images.main(config(data="folder", path="few"))
    assert not (tmp_path / "runs").exists()


# -- figures and pictures ----------------------------------------------------------------------------------------------


def test_confusion_and_its_table_by_hand():
    counts = confusion(np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 1, 0, 2]), 4)
    assert counts.tolist() == [[1, 3, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    cat, dog, hen, fox = (line.split() for line in table(counts, ["cat", "dog", "hen", "fox"]).splitlines()[1:])
    assert cat == ["cat", "4", "0.250", "0.500", "dog", "(3)"]
    assert dog == ["dog", "2", "0.500", "0.250", "cat", "(1)"]
    assert hen == ["hen", "1", "1.000", "1.000"] and fox == ["fox", "0", "-", "-"]
    picture = draw_confusion(counts, ["cat", "dog", "hen", "fox"])
    cells = picture[103 : 103 + 4 * 44 : 44, 103 : 103 + 4 * 44 : 44]
    assert cells[2, 2].tolist() == [121, 191, 121]  # all of them right
    assert cells[0, 0].tolist() == [188, 223, 188]  # a quarter: half as dark
    assert cells[0, 2].tolist() == cells[3, 3].tolist() == [255, 255, 255]
    assert cells[0, 1].sum() < cells[1, 0].sum() < 3 * 255  # three quarters wrong, and a half


def test_the_most_confident_mistakes_come_first():
    confidences = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7], [0.05, 0.95]], np.float32)
    labels = np.array([0, 0, 1, 0, 1])
    pixels = torch.zeros(5, 1, 4, 4, dtype=torch.uint8)
    picture, rows = draw_mistakes(pixels, labels, confidences, ["a", "b"])
    assert rows.tolist() == [2, 3, 1] and picture.shape[2] == 3
    assert draw_mistakes(pixels, labels, confidences, ["a", "b"], most=1)[1].tolist() == [2]
    _, none = draw_mistakes(pixels, confidences.argmax(1), confidences, ["a", "b"])
    assert len(none) == 0


def test_filters_as_pictures():
    model = build(network_config(width=0.125))  # 4 filters of 3 x 3
    with torch.no_grad():
        model.torso.conv1.weight.zero_()
        model.torso.conv1.weight[1, 0, 0, 2] = -3.0
    picture = draw_filters(model.torso, (1, 28, 28))
    step = 6 + 48
    assert picture.shape == (step + 6, 4 * step + 6, 3)
    first, second = picture[6 : 6 + 48, 6 : 6 + 48], picture[6 : 6 + 48, 6 + step : 6 + step + 48]
    assert (first == 127).all() and (second[:16, 32:] == 0).all() and (second[16:] == 127).all()
    mlp = build(network_config(backbone="mlp", in_shape=[3, 5, 5], hidden=[7]))
    assert draw_filters(mlp.torso, (3, 5, 5)).shape[2] == 3
    assert grid(np.zeros((3, 2, 2, 3), np.uint8), side=4, columns=2).shape == (2 * 10 + 6, 2 * 10 + 6, 3)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"backbone": "mlp", "loss": "squared-error", "dropout": 0.1, "activation": "tanh", "augment": ()},
        {"backbone": "resnet-20", "label_smoothing": 0.1, "dropout": 0.1, "augment": ("flipped", "cut_out", "turned")},
        {"backbone": "nature", "image_size": 36, "channels": 4, "trainer": {"ema": 0.5, "optimizer": "adamw"}},
    ],
    ids=lambda values: values["backbone"],
)
@pytest.mark.slow
def test_main_leaves_a_classifier_pictures_and_curves(values, tmp_path, monkeypatch, capsys):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(tmp_path)
    run_dir = images.main(config(**values))
    model, info = load_classifier(run_dir)
    _, held_out, names = image_data.load(**info["data"])
    assert (
        info["config"]["in_shape"] == list(held_out[0].shape[1:]) and info["config"]["backbone"] == values["backbone"]
    )
    assert names == NAMES and info["trained"]["updates"] == 8
    accuracy = (model(held_out[0]).argmax(1) == held_out[1]).float().mean().item()
    assert info["score"]["accuracy"] == pytest.approx(accuracy, abs=0.003)
    assert info["score"]["images"] == len(held_out[1])
    for name in ("confusion", "filters", "mistakes"):
        assert Image.open(run_dir / f"{name}.png").mode == "RGB"
    tags = EventAccumulator(str(run_dir)).Reload().Tags()
    assert {"eval/accuracy", "eval/loss", "losses/loss", "losses/accuracy"} <= set(tags["scalars"])
    assert set(tags["images"]) == {"eval/confusion", "eval/filters", "eval/mistakes"}

    capsys.readouterr()
    assert images.main(config(evaluate=str(run_dir))) == run_dir
    assert f"accuracy {info['score']['accuracy']:.4f}" in capsys.readouterr().err
    Image.fromarray(held_out[0][0, 0].numpy()).save("digit.png")
    images.main(config(evaluate=str(run_dir), predict=("digit.png",)))
    said = model(held_out[0][:1]).argmax().item()
    assert capsys.readouterr().err.startswith(f"digit.png: {said} ")


@pytest.mark.slow
def test_a_start_that_comes_to_nothing_is_taken_back(tmp_path, monkeypatch, capsys):
    """A new run leaves no folder, and one that would have gone on stays what it was; what was saved always stays."""
    monkeypatch.chdir(tmp_path)
    bad = config()
    bad.trainer.mode = "cudagraph"  # needs a GPU, which only the trainer knows, after the folder is there
    with pytest.raises(SystemExit, match="cudagraph"):
        command_line.cli(images.main, lambda: bad)
    assert list((tmp_path / "runs" / "images").iterdir()) == []
    run_dir = images.main(config())
    before = {name: (run_dir / name).read_bytes() for name in ("config.json", "command.txt")}
    with pytest.raises(SystemExit, match="cudagraph"):
        command_line.cli(images.main, lambda: replace(bad, resume=str(run_dir)))
    assert before == {name: (run_dir / name).read_bytes() for name in before} and (run_dir / "agent").is_dir()
    monkeypatch.setattr(images, "measure", lambda *a: 1 / 0)  # after updates and a checkpoint
    with pytest.raises(ZeroDivisionError):
        command_line.cli(images.main, lambda: config(seed=7))
    (other,) = (tmp_path / "runs" / "images").glob("*__7__*")
    assert list((other / "checkpoints").iterdir())


def test_ctrl_c_is_no_traceback(capsys):
    def stopped(cfg):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        command_line.cli(stopped, lambda: None)
    assert end.value.code == 130 and capsys.readouterr().err == "stopped\n"


def test_a_softmax_regression_has_no_filters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_dir = images.main(config(backbone="mlp", hidden=()))
    assert (run_dir / "confusion.png").exists() and not (run_dir / "filters.png").exists()


@pytest.mark.slow
def test_it_learns_digits(tmp_path, monkeypatch, learning_seed, record_property):
    monkeypatch.chdir(tmp_path)
    trainer = {"steps": 0, "lr_warmup": 20, "lr_decay": "cosine"}
    run_dir = images.main(config(seed=1 + learning_seed, epochs=3, eval_every=3, width=0.5, trainer=trainer))
    info, _ = load_agent_files(run_dir)
    record_property("score", info["score"]["accuracy"])
    assert info["trained"]["updates"] == 3 * (1438 // 16) and info["score"]["accuracy"] > 0.93


def test_loading_gives_the_same_logits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    measure = images.measure
    monkeypatch.setattr(images, "measure", lambda model, *rest: seen.append(measure(model, *rest)) or seen[-1])
    run_dir = images.main(config(trainer={"ema": 0.5}))
    model, info = load_classifier(run_dir)
    _, held_out, _ = image_data.load(**info["data"])
    assert torch.equal(logits_of(model, held_out[0]), seen[-1][1])


@pytest.mark.slow
def test_a_run_that_was_cut_off_ends_where_an_unbroken_one_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config(dropout=0.2, eval_every=1, batch_size=700, trainer={"ema": 0.9, "lr_warmup": 2, "lr_decay": "cosine"})
    unbroken = images.main(cfg)
    update = Trainer.update

    def cut_off(self, batch):
        if self.step == 6:
            raise InterruptedError
        return update(self, batch)

    monkeypatch.setattr(Trainer, "update", cut_off)
    with pytest.raises(InterruptedError):
        images.main(cfg)
    monkeypatch.setattr(Trainer, "update", update)
    (cut,) = set((tmp_path / "runs" / "images").iterdir()) - {tmp_path / unbroken}
    before = load_agent_files(cut)[1]
    images.main(replace(cfg, resume=str(cut)))
    ours, theirs = load_agent_files(cut)[1], load_agent_files(unbroken)[1]
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in theirs)
    assert not torch.equal(before["head.linear.weight"], theirs["head.linear.weight"])
    assert json.loads((cut / "agent" / "agent.json").read_text())["trained"]["updates"] == 8
    with pytest.raises(ValueError, match="--backbone cannot change"):
        images.main(replace(cfg, resume=str(cut), backbone="mlp"))


def test_folders_that_hold_no_such_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no agent"):
        images.main(config(evaluate=str(tmp_path)))
    run_dir = images.main(config(trainer={"steps": 1}))
    path = run_dir / "agent" / "agent.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps(info | {"config": info["config"] | {"width": 0.5}}))
    with pytest.raises(DamagedFile, match="does not describe these weights"):
        load_classifier(run_dir)
    path.write_text(json.dumps(info | {"kind": "dqn"}))
    with pytest.raises(ValueError, match="of kind 'dqn', no classifier"):
        load_classifier(run_dir)
    path.write_text(json.dumps(info))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png is no image that can be read"):
        images.main(config(evaluate=str(run_dir), predict=("broken.png",)))
    with pytest.raises(FileNotFoundError, match=r"there is no file none\.png"):
        images.main(config(evaluate=str(run_dir), predict=("none.png",)))


def test_the_commands_mean_what_they_say():
    cfg = parse(images.PRESETS, ["--preset", "fashion", "--augment", "turned", "cut_out", "--epochs", "3"])
    assert cfg.data == "fashion-mnist" and cfg.augment == ("turned", "cut_out") and cfg.epochs == 3
    cfg = parse(images.PRESETS, ["--evaluate", "x", "--predict", "a.png", "b.png"])
    assert cfg.predict == ("a.png", "b.png") and cfg.preset == "digits"
    assert parse(images.PRESETS, ["--preset", "fashion-gpu"]).backbone == "resnet-20"


@pytest.mark.slow
def test_a_run_goes_on_with_images_that_have_moved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw_folder(tmp_path / "a", count=10)
    cfg = config(data="folder", path="a", image_size=8, trainer={"steps": 4})
    run_dir = images.main(cfg).absolute()
    assert load_config(images.Config, run_dir).path == str(tmp_path / "a")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = replace(load_config(images.Config, run_dir), resume=str(run_dir))
    again.trainer = replace(again.trainer, steps=5)
    assert images.main(again) == run_dir
    (tmp_path / "a").rename("b")
    (tmp_path / "elsewhere" / "b" / "notes.txt").write_text("no image, and not learned from")
    with pytest.raises(FileNotFoundError, match=r"which .* learns from: say where it is now by --path PATH"):
        images.main(again)
    assert images.main(replace(again, path="b")) == run_dir
    Image.new("RGB", (9, 9)).save("b/red/0.png")
    with pytest.raises(ValueError, match=r"elsewhere/b has changed since .* began: restore it, or begin a new run"):
        images.main(replace(again, path="b"))
    write_fashion(tmp_path / "mnist", labels=(0, 1, 2))
    cfg = config(data="fashion-mnist", path=str(tmp_path / "mnist"), batch_size=2, trainer={"steps": 2})
    run_dir = images.main(cfg)
    (tmp_path / "mnist").rename("moved")
    again = replace(cfg, path="moved", resume=str(run_dir), trainer=replace(cfg.trainer, steps=3))
    assert images.main(again) == run_dir
