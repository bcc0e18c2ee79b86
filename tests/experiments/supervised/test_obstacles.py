"""The detector from data to pictures: what it learns, what a run leaves, that it goes on, what it finds on files."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.supervised import detector, images, obstacle_data, obstacles, prediction
from experiments.supervised.detection_scores import Scores, scores
from experiments.supervised.obstacle_data import DrawnRoads, Some, load, training_batches
from rlkit.data import Batches
from rlkit.nn.detection import Found, Shape
from rlkit.saved_agents import load_agent_files
from rlkit.trainer import TrainConfig, Trainer

pytest.importorskip("faster_coco_eval", reason="needs the extra `detection`")
SMALL = Shape(
    classes=0, channels=16, dense=32, anchor=3.0, before_nms=(100, 50), after_nms=(50, 20), region_samples=32,
    box_samples=16, least_score=0.0, detections=5,
)  # fmt: skip


def config(**values):
    trainer = TrainConfig(
        **{"steps": 4, "optimizer": "adamw", "lr": 1e-3, "save_every": 2, "log_every": 2, "progress": False}
        | values.pop("trainer", {})
    )
    small = {"device": "cpu", "threads": 1, "batch_size": 2, "backbone_width": 0.125, "detector": SMALL}
    size = {"height": 64, "width": 96, "eval_every": 2, "eval_pictures": 2}
    return obstacles.Config(**small | size | values, trainer=trainer)


@pytest.fixture(autouse=True)
def few_tests(monkeypatch, tmp_path):
    monkeypatch.setattr(obstacle_data, "DRAWN_TESTS", 3)
    monkeypatch.setattr(obstacles, "PRIOR_PICTURES", 20)
    monkeypatch.chdir(tmp_path)


def weights(folder):
    return load_agent_files(folder)[1]


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory):
    """Four drawn pictures with their JSON, as a labelling tool leaves them."""
    folder = tmp_path_factory.mktemp("coco")
    images, annotations = [], []
    for i in range(4):
        picture = DrawnRoads(7, 4, 64, 96)[i]
        Image.fromarray(picture.image.transpose(1, 2, 0)).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "height": 64, "width": 96})
        for label, mask in zip(picture.labels, picture.masks, strict=True):
            runs, value, number = [], False, 0
            for pixel in mask.ravel(order="F"):
                if pixel != value:
                    runs.append(number)
                    value, number = pixel, 0
                number += 1
            segmentation = {"size": [64, 96], "counts": [*runs, number]}
            one = {"id": len(annotations) + 1, "image_id": i, "category_id": int(label), "iscrowd": 0}
            annotations.append(one | {"segmentation": segmentation})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(DrawnRoads(7, 4, 64, 96).names)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "things.json").write_text(json.dumps(whole))
    return folder


@pytest.mark.slow
def test_a_run_leaves_a_detector_scores_and_pictures_and_its_detector_is_of_use(capsys, tmp_path):
    folder = obstacles.main(config())
    for name in ("found.png", "precision_recall.png", "agent/weights.safetensors"):
        assert (folder / name).is_file()
    _, info = detector.load_detector(folder)
    assert info["score"]["pictures"] == 3 and info["config"]["names"][2] == "pothole"
    said = capsys.readouterr().err
    assert "mask/AP50" in said and "pictures/s, one by one" in said
    # Measured again, it has the same scores.
    obstacles.main(config(evaluate=(str(folder),)))
    again = json.loads((folder / "scores.json").read_text())
    assert again[folder.name]["values"] == pytest.approx(info["score"]["values"], abs=1e-6)
    assert "prior boxes" in again
    # Files in, pictures and a JSON out.
    pictures = tmp_path / "pictures" / "inside"
    pictures.mkdir(parents=True)
    for i, size in enumerate(((64, 96), (40, 50))):
        Image.new("RGB", size[::-1], (90, 90, 90)).save(pictures / f"{i}.jpg")
    (pictures / "broken.png").write_bytes(b"no picture")
    obstacles.main(config(evaluate=(str(folder),), predict=(str(tmp_path / "pictures"),), out=str(tmp_path / "out")))
    written = json.loads((tmp_path / "out" / "found.json").read_text())
    assert [(one["width"], one["height"]) for one in written["images"]] == [(96, 64), (50, 40)]
    assert {one["name"] for one in written["categories"]} == set(info["config"]["names"])
    assert all(one["image_id"] in (1, 2) and one["score"] >= 0 for one in written["annotations"])
    assert Image.open(tmp_path / "out" / "inside" / "1.png").size == (50, 40)
    assert "broken.png" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_goes_on_exactly(monkeypatch):
    whole = obstacles.main(config())
    half = obstacles.main(config(trainer={"steps": 2}))
    gone_on = obstacles.main(config(resume=str(half)))
    assert gone_on == half
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(half)[name]), name


@pytest.mark.slow
def test_the_baseline_runs_and_stands_in_the_same_table(capsys):
    unet = obstacles.main(config(method="unet", trainer={"steps": 2}))
    mask_rcnn = obstacles.main(config(trainer={"steps": 2}, start_from=None))
    capsys.readouterr()
    obstacles.main(config(evaluate=(str(mask_rcnn), str(unet))))
    said = capsys.readouterr().err
    assert all(name in said for name in (mask_rcnn.name, unet.name, "prior boxes"))


@pytest.mark.slow
def test_a_folder_with_a_json(coco_folder):
    data = {"data": "coco", "path": str(coco_folder), "annotations": str(coco_folder / "things.json"), "held_out": 0.5}
    folder = obstacles.main(config(**data, augment=("flipped", "scaled_and_cropped", "recoloured")))
    assert json.loads((folder / "data.json").read_text()).keys() == {"annotations"}
    again = obstacles.main(
        config(
            resume=str(folder), **data, trainer={"steps": 6}, augment=("flipped", "scaled_and_cropped", "recoloured")
        )
    )
    assert again == folder


@pytest.mark.slow
def test_weights_to_begin_with(capsys, tmp_path):
    first = obstacles.main(config(trainer={"steps": 2}))
    second = obstacles.main(config(trainer={"steps": 1, "lr": 0.0}, start_from=str(first)))
    for name, value in weights(first).items():
        assert torch.equal(value, weights(second)[name]), name
    assert "took" in capsys.readouterr().err


@pytest.mark.slow
def test_a_backbone_that_was_trained_on_classes(capsys):
    trained = images.main(
        images.Config(
            channels=3, backbone="resnet-18", width=0.125, device="cpu", threads=1,
            trainer=TrainConfig(steps=2, optimizer="sgd", lr=0.01, progress=False),
        )
    )  # fmt: skip
    folder = obstacles.main(config(backbone_from=str(trained), norm="frozen", trainer={"steps": 1, "lr": 0.0}))
    theirs, ours = weights(trained), weights(folder)
    torso = [name for name in ours if name.startswith("torso.")]
    assert len(torso) > 80 and all(torch.equal(ours[name], theirs[name]) for name in torso)
    other = config(
        backbone_from=str(trained), backbone="vgg-a", norm="batch", backbone_width=0.03, trainer={"steps": 1}
    )
    with pytest.raises(ValueError, match="no weights that fit"):
        obstacles.main(other)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"data": "coco"}, "--path"),
        ({"backbone": "resnet-19"}, "resnet-18"),
        ({"backbone": "impala"}, "--norm none"),
        ({"detector": replace(SMALL, first_stride=2)}, "strides"),
        ({"predict": ("nowhere.png",), "evaluate": ("nowhere",)}, "no agent"),
        ({"detector": replace(SMALL, last_stride=16)}, "last stride"),
        ({"detector": replace(SMALL, box_samples=2)}, "box-samples must be at least 4"),
        ({"detector": replace(SMALL, ratios=(1.0, -1.0))}, "ratios must be at least"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_start(values, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        obstacles.main(config(**values))


def test_a_u_net_has_no_backbone():
    with pytest.raises(ValueError, match="no backbone"):
        obstacles.main(config(method="unet", backbone_from="classifier"))


class Nothing(torch.nn.Module):
    """Finds nothing; in place of a network that takes seconds."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def loss(self, batch):
        return self.weight.square().sum(), {}

    def predict(self, images, sizes):
        number = torch.zeros(0)
        return [Found(torch.zeros(0, 4), number.long(), number, torch.zeros(0, *size)) for size in sizes.tolist()]


@pytest.mark.slow
def test_test_pictures_without_any_thing_have_no_score(monkeypatch, coco_folder, tmp_path, capsys):
    monkeypatch.setattr(detector, "build", lambda config: Nothing())
    whole = json.loads((coco_folder / "things.json").read_text())
    training, _ = load("coco", str(coco_folder), str(coco_folder / "things.json"), 0.5)
    learned = {training.source.name(number) for number in training.numbers}
    keys = {one["id"] for one in whole["images"] if one["file_name"] in learned}
    whole["annotations"] = [one for one in whole["annotations"] if one["image_id"] in keys]
    (tmp_path / "things.json").write_text(json.dumps(whole))
    data = {"data": "coco", "path": str(coco_folder), "annotations": str(tmp_path / "things.json"), "held_out": 0.5}
    folder = obstacles.main(config(**data))
    assert "nothing on the test pictures" in capsys.readouterr().err and (folder / "precision_recall.png").is_file()


def test_detectors_of_other_classes_are_not_measured_and_each_has_its_row(monkeypatch, tmp_path):
    names = {"a": DrawnRoads(1, 1, 64, 96).names, "b": ["crack", "hole", "bump", "litter"]}
    data = {"data": "drawn", "height": 64, "width": 96}

    def loaded(folder, device):
        return LeftHalves(), {"config": {"names": names[folder[0]]}, "data": data}

    monkeypatch.setattr(detector, "load_detector", loaded)
    with pytest.raises(ValueError, match="b knows the classes crack"):
        obstacles.main(config(evaluate=("a", "b")))
    monkeypatch.setattr(detector, "measure", lambda find, test: Scores(len(test), {}, {}, {}))
    for folder in ("a1/agent", "a2/agent"):
        (tmp_path / folder).mkdir(parents=True)
    obstacles.main(config(evaluate=("a1/agent", "a2/agent")))
    written = json.loads((tmp_path / "a1/agent/scores.json").read_text())
    assert written.keys() == {"a1/agent", "a2/agent", "prior boxes"}


def test_few_pictures_are_in_memory_while_they_are_measured():
    read = []

    class Counted(Some):
        def __getitem__(self, number):
            read.append(number)
            return super().__getitem__(number)

    def one_by_one(images):
        for number, image in enumerate(images):
            assert len(read) == number + 1
            yield from detector.find(LeftHalves(), [image])

    assert detector.measure(one_by_one, Counted(DrawnRoads(3, 5, 64, 96), range(5))).pictures == 5


def test_pictures_stay_on_their_side_where_one_is_missing(tmp_path):
    (tmp_path / "names.txt").write_text("hole")
    for i in range(20):
        for folder in ("images", "labels"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("L", (8, 8)).save(tmp_path / folder / f"{i}.png")

    def sides():
        return [{part.source.name(i) for i in part.numbers} for part in load("label-maps", str(tmp_path))]

    before = sides()
    (tmp_path / "images" / min(before[0])).unlink()
    assert sides() == [before[0] - {min(before[0])}, before[1]]
    with pytest.raises(ValueError, match=r"--held-out 0\.01 of 19 pictures are 0"):
        load("label-maps", str(tmp_path), held_out=0.01)


def test_a_broken_video_and_nothing_to_see(tmp_path, capsys):
    pytest.importorskip("imageio_ffmpeg", reason="needs the extra `video`")
    torch.manual_seed(1)
    model = detector.build(detector.described(config(), ["a", "b"])).eval()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="nothing to see"):
        prediction.predict(model, ["a", "b"], [str(tmp_path / "broken.mp4")], tmp_path / "out")
    assert "broken.mp4 is no video" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        prediction.predict(model, ["a", "b"], [str(tmp_path / "gone.png")], tmp_path / "out")


class LeftHalves(torch.nn.Module):
    """Finds the left half of each picture; `sides` are the longer sides of those that it saw."""

    def __init__(self):
        super().__init__()
        self.weight, self.sides = torch.nn.Parameter(torch.zeros(1)), []

    def predict(self, images, sizes):
        self.sides += sizes.amax(1).tolist()
        one = torch.ones(1)
        return [
            Found(
                torch.tensor([[0, 0, width / 2, height]]), one.long(), one,
                (torch.arange(width) < width / 2).expand(1, height, -1).float(),
            )
            for height, width in sizes.tolist()
        ]  # fmt: skip


def test_what_is_written_has_names_of_its_own_and_is_not_looked_at_again(tmp_path):
    for name in ("a/x.png", "a/x.jpg", "b/x.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    before, out = (tmp_path / "a" / "x.png").read_bytes(), tmp_path / "a" / "found"
    for _ in range(2):  # the second time the results of the first lie in a folder that is looked into
        prediction.predict(LeftHalves(), ["half"], [str(tmp_path / "a"), str(tmp_path / "b")], out)
        assert sorted(path.name for path in out.iterdir()) == ["found.json", "x.png", "x_2.png", "x_3.png"]
    with pytest.raises(ValueError, match=r"x\.png would be written over"):
        prediction.predict(LeftHalves(), ["half"], [str(tmp_path / "a" / "x.png")], tmp_path / "a")
    assert (tmp_path / "a" / "x.png").read_bytes() == before


def test_what_is_found_on_a_large_picture_is_in_its_pixels(tmp_path):
    Image.new("RGB", (4000, 100)).save(tmp_path / "wide.png")
    model = LeftHalves()
    prediction.predict(model, ["half"], [str(tmp_path / "wide.png")], tmp_path / "out", side=320)
    assert model.sides == [320]  # as large as it was trained
    (one,) = json.loads((tmp_path / "out" / "found.json").read_text())["annotations"]
    assert one["bbox"] == [0, 0, 2000, 100] and one["area"] == 200_000 and one["segmentation"]["size"] == [100, 4000]
    assert Image.open(tmp_path / "out" / "wide.png").size == (1333, 33)
    sides = [obstacle_data.longest_side(data, max_side=600) for data in ("drawn", "photographs", "coco")]
    assert sides == [320, 320, 600]


@pytest.mark.slow
def test_a_video(tmp_path):
    imageio = pytest.importorskip("imageio.v2", reason="needs the extra `video`")
    torch.manual_seed(1)
    model = detector.build(detector.described(config(), ["a", "b"])).eval()
    with imageio.get_writer(tmp_path / "road.mp4", fps=5) as writer:
        for i in range(10):
            writer.append_data(DrawnRoads(3, 10, 64, 96)[i].image.transpose(1, 2, 0))
    prediction.predict(model, ["a", "b"], [str(tmp_path / "road.mp4")], tmp_path / "out")
    written = json.loads((tmp_path / "out" / "found.json").read_text())
    assert [one["frame"] for one in written["images"]] == list(range(10))
    with imageio.get_reader(tmp_path / "out" / "road.mp4") as reader:
        assert reader.get_meta_data()["fps"] == 5


def test_batches_of_drawn_roads_are_new_and_repeatable():
    training, test = load("drawn", height=64, width=96)
    make = training_batches(training, 2, 5, ("flipped",))
    assert torch.equal(make(3)["images"], make(3)["images"]) and not torch.equal(make(3)["images"], make(4)["images"])
    other = training_batches(training, 2, 6, ("flipped",))
    assert not torch.equal(make(3)["images"], other(3)["images"])
    assert len(test) == 3 and np.array_equal(test[1].image, test[1].image)


@pytest.mark.slow
def test_four_pictures_are_learned_by_heart(learning_seed, record_property):
    """Mask AP50 of 1.0 and AP of .7 at least, in a minute."""
    torch.manual_seed(1 + learning_seed)
    four = Some(DrawnRoads(9, 4 + 4 * learning_seed, 128, 160), range(4 * learning_seed, 4 + 4 * learning_seed))
    shape = Shape(4, 32, 128, anchor=3.0, ratios=(0.2, 0.5, 1.0, 2.0), region_samples=64, box_samples=64,
                  before_nms=(200, 100), after_nms=(100, 60))  # fmt: skip
    model = detector.MaskRCNN(detector.backbone("resnet-18", 0.25, "group"), shape)
    cfg = TrainConfig(steps=120, optimizer="adamw", lr=3e-3, lr_decay="cosine", lr_warmup=20, progress=False)
    trainer = Trainer(model, detector.loss_fn, cfg)
    for _ in trainer.run(Batches(training_batches(four, 4, 1))):
        pass
    truth = [four[i] for i in range(4)]
    found = detector.find(model, (picture.image for picture in truth))
    reached = scores(truth, found, four.names, resamples=0).values
    record_property("score", reached["mask/AP"])
    assert reached["mask/AP50"] == pytest.approx(1.0) and reached["mask/AP"] >= 0.7, reached


def test_the_one_that_ships_works_at_once(tmp_path):
    """It learned from photographs, which are not here: it says something of a drawn road, little of bare asphalt."""
    from experiments.supervised.drawn_roads import draw

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(draw((2, 3), 200, 320).image.transpose(1, 2, 0)).save(pictures / "road.png")
    Image.fromarray(np.full((200, 320, 3), 110, np.uint8)).save(pictures / "asphalt.png")
    out = obstacles.main(obstacles.Config(predict=(str(pictures),), out=str(tmp_path / "out"), threads=1))
    found = json.loads((out / "found.json").read_text())
    names = {image["id"]: Path(image["file_name"]).name for image in found["images"]}
    said = [(names[each["image_id"]], each["score"]) for each in found["annotations"]]
    assert sorted(names.values()) == ["asphalt.png", "road.png"]
    assert any(name == "road.png" for name, _ in said)
    assert not any(name == "asphalt.png" and score > 0.3 for name, score in said)
    size = sum(file.stat().st_size for file in obstacles.SHIPPED.iterdir())
    assert size < 12_000_000
