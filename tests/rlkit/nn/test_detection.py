"""Mask R-CNN against torchvision 0.29.1's values (detection/), and against what it must do by itself."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rlkit.nn import boxes, detection
from rlkit.nn.convolution import VGG, Impala, ResNet
from rlkit.nn.detection import MaskRCNN, Shape

FACTS = Path(__file__).parent / "detection"
OPS = {name: torch.from_numpy(x) for name, x in np.load(FACTS / "ops.npz").items()}
TINY = {name: torch.from_numpy(x) for name, x in np.load(FACTS / "tiny_mask_rcnn.npz").items()}
OURS = {
    "backbone.a": "torso.a",
    "backbone.b": "torso.b",
    "rpn.head.conv.0.0": "regions.conv",
    "rpn.head.cls_logits": "regions.objectness",
    "rpn.head.bbox_pred": "regions.code",
    "roi_heads.box_head.fc6": "box_head.dense1",
    "roi_heads.box_head.fc7": "box_head.dense2",
    "roi_heads.box_predictor.cls_score": "box_head.classes",
    "roi_heads.box_predictor.bbox_pred": "box_head.code",
    "roi_heads.mask_head.0.0": "mask_head.convs.0",
    "roi_heads.mask_head.1.0": "mask_head.convs.1",
    "roi_heads.mask_predictor.conv5_mask": "mask_head.grow",
    "roi_heads.mask_predictor.mask_fcn_logits": "mask_head.masks",
}
"""torchvision's names of parts, and ours"""


class TwoMaps(nn.Module):
    strides, map_channels = [4, 8], [8, 8]

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 3, 2, 1)

    def maps(self, images):
        fine = F.relu(self.a(images))
        return [fine, F.relu(self.b(fine))]


@pytest.fixture(scope="module")
def tiny():
    shape = Shape(
        classes=3, channels=8, dense=32, anchor=4, last_stride=8, before_nms=(100, 100), after_nms=(50, 50),
        detections=10, aligned=False,
    )  # fmt: skip
    model = MaskRCNN(TwoMaps(), shape, nn.Identity())
    model.mask_head = detection.MaskHead(8, 3, layers=2)
    weights = {}
    for name, value in TINY.items():
        if name.startswith("param/"):
            part, _, kind = name.removeprefix("param/").rpartition(".")
            weights[f"{OURS[part]}.{kind}"] = value
    model.load_state_dict(weights)
    return model.eval()


def close(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=1e-4)


def test_a_whole_model(tiny):
    image, size = TINY["image"][None], torch.tensor([[96, 128]])
    maps = tiny.maps(image)
    logits, codes = tiny.regions(maps)
    close(logits[0].view(1, 24, 32, 3).permute(0, 3, 1, 2), TINY["mid/objectness0"])
    close(codes[0].view(1, 24, 32, 12).permute(0, 3, 1, 2), TINY["mid/deltas0"])
    close(tiny.proposals(logits, codes, tiny.anchors(maps), size)[0], TINY["mid/proposals"], 1e-3)
    (found,) = tiny.predict(image, size)
    assert found.labels.tolist() == TINY["out/labels"].tolist()
    close(found.boxes, TINY["out/boxes"], 1e-3)
    close(found.scores, TINY["out/scores"])
    close(found.masks, TINY["out/masks"][:, 0])


def test_losses():
    label = OPS["loss_labels"]
    close(F.cross_entropy(OPS["loss_logits"], label), OPS["loss_class"])
    positive = label.nonzero()[:, 0]
    # The targets are given as codes: boxes that have them, seen from a square of side 1.
    square = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(12, 4)
    truth = boxes.decode(OPS["loss_targets"], square, detection.BOX_WEIGHTS)
    codes = OPS["loss_reg"].unflatten(1, (-1, 4))
    close(detection.box_loss(codes, square, truth[positive], label, positive), OPS["loss_box"], 1e-3)


def test_masks():
    which = OPS["mask_matched"]
    label = OPS["mask_gt_labels"][which]
    masks = OPS["mask_gt"].bool()
    close(detection.mask_targets(OPS["mask_proposals"], masks, which, 28), OPS["mask_targets28"])
    close(detection.mask_loss(OPS["mask_logits"], label, OPS["mask_proposals"], masks, which), OPS["mask_loss"])


@pytest.mark.parametrize(
    "norm, classes, parameters", [("batch", 90, 44_454_513), ("batch", 4, 43_991_661), ("frozen", 90, 44_401_393)]
)
def test_the_paper_s_network_has_as_many_parameters(norm, classes, parameters):
    with torch.device("meta"):
        model = MaskRCNN(ResNet((3, 64, 64), 50, norm=norm), Shape(classes))
    assert sum(p.numel() for p in model.parameters()) == parameters


def things(number=2, side=64):
    """A batch of squares, one a picture: class 1 is dark, 2 is bright."""
    images = torch.full((number, 3, side, side), 128, dtype=torch.uint8)
    masks = torch.zeros(number, side, side, dtype=torch.bool)
    corners = torch.tensor(
        [[8 + 5 * i % 24, 10 + 7 * i % 20, 8 + 5 * i % 24 + 24, 10 + 7 * i % 20 + 20] for i in range(number)]
    )
    for i, (left, top, right, bottom) in enumerate(corners.tolist()):
        masks[i, top:bottom, left:right] = True
        images[i, :, top:bottom, left:right] = 255 * (i % 2)
    return {
        "images": images,
        "sizes": torch.tensor([[side, side]] * number),
        "boxes": corners.float(),
        "labels": torch.arange(number) % 2 + 1,
        "picture": torch.arange(number),
        "masks": masks,
    }


SMALL = {"channels": 16, "dense": 32, "region_samples": 32, "box_samples": 32, "before_nms": (100, 100)}
BODIES = {
    "resnet": lambda: ResNet((3, 64, 64), 18, width=0.125, norm="group"),
    "vgg": lambda: VGG((3, 64, 64), "8 M 16 M 16 M 16", dense=()),
    "impala": lambda: Impala((3, 64, 64), width=0.5, dense=0),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies(name):
    """Each gives maps of the sizes that it says, of any image; a step of learning reaches all weights."""
    torch.manual_seed(1)
    torso = BODIES[name]()
    maps = torso.maps(torch.zeros(2, 3, 96, 64, dtype=torch.uint8))
    assert [tuple(x.shape) for x in maps] == [
        (2, c, 96 // s, 64 // s) for c, s in zip(torso.map_channels, torso.strides, strict=True)
    ]
    model = MaskRCNN(torso, Shape(2, last_stride=torso.strides[-1], **SMALL))
    loss, parts = model.loss(things())
    assert loss.isfinite() and parts.keys() == {"objectness", "region", "class", "box", "mask"}
    loss.backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert unused == []
    with pytest.raises(ValueError, match="strides"):
        MaskRCNN(torso, Shape(2, first_stride=3))


def test_enlarged_pictures_are_seen_as_such_and_told_of_as_they_were():
    shape = Shape(2, **SMALL | {"least_score": 0.0, "detections": 20})
    torch.manual_seed(2)
    model = MaskRCNN(BODIES["resnet"](), shape).eval()
    enlarging = MaskRCNN(BODIES["resnet"](), replace(shape, enlarge=2)).eval()
    enlarging.load_state_dict(model.state_dict())
    batch = things(2)
    twice = F.interpolate(batch["images"].float(), scale_factor=2, mode="bilinear").round().byte()
    large = model.predict(twice, batch["sizes"] * 2)
    small = enlarging.predict(batch["images"], batch["sizes"])
    for one, other in zip(large, small, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes * 2, atol=1e-4, rtol=1e-4)
        assert torch.equal(one.scores, other.scores) and torch.equal(one.labels, other.labels)
        halves = F.avg_pool2d(one.masks[None], 2)[0]
        assert other.masks.shape == halves.shape and (other.masks - halves).abs().mean() < 0.02


def test_nothing_on_a_picture():
    torch.manual_seed(1)
    model = MaskRCNN(BODIES["resnet"](), Shape(2, **SMALL))
    batch = things()
    batch |= {name: batch[name][:0] for name in ("boxes", "labels", "picture", "masks")}
    loss, parts = model.loss(batch)
    loss.backward()
    assert loss.isfinite() and parts["box"] == parts["mask"] == parts["region"] == 0 and parts["objectness"] > 0
    mixed = things()
    mixed |= {name: mixed[name][1:] for name in ("boxes", "labels", "picture", "masks")}
    assert model.loss(mixed)[0].isfinite()


def test_one_picture_and_many():
    torch.manual_seed(2)
    model = MaskRCNN(BODIES["resnet"](), Shape(2, **SMALL | {"least_score": 0.0, "detections": 20})).eval()
    batch = things(4)
    together = model.predict(batch["images"], batch["sizes"])
    for i, found in enumerate(together):
        (alone,) = model.predict(batch["images"][i : i + 1], batch["sizes"][i : i + 1])
        for name in ("boxes", "labels", "scores", "masks"):
            torch.testing.assert_close(getattr(found, name), getattr(alone, name), atol=1e-4, rtol=1e-4)
