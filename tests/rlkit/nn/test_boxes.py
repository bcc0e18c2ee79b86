"""Against torchvision 0.29.1's values (detection/ops.npz): NMS, IoU, RoIAlign, levels, anchors, code, pasting."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rlkit.nn import boxes

OPS = {name: torch.from_numpy(x) for name, x in np.load(Path(__file__).parent / "detection" / "ops.npz").items()}


def close(ours, name, tolerance=1e-4):
    torch.testing.assert_close(ours, OPS[name], atol=tolerance, rtol=0)


def test_overlap():
    close(boxes.iou(OPS["nms_boxes"][:20], OPS["nms_boxes"][20:40]), "iou_first20", 1e-6)
    empty = torch.zeros(1, 4)
    assert boxes.iou(empty, empty).item() == 0


@pytest.mark.parametrize("threshold", ["03", "07"])
def test_nms(threshold):
    kept = boxes.nms(OPS["nms_boxes"], OPS["nms_scores"], int(threshold) / 10)
    assert kept.tolist() == OPS[f"nms_keep_{threshold}"].tolist()


@pytest.mark.parametrize("at_once", [500, 1])
def test_nms_by_label(monkeypatch, at_once):
    monkeypatch.setattr(boxes, "ALL_AT_ONCE", at_once)
    kept = boxes.nms(OPS["nms_boxes"], OPS["nms_scores"], 0.5, OPS["nms_labels"])
    assert kept.tolist() == OPS["nms_keep_by_label_05"].tolist()


def test_nms_of_chains_is_that_of_a_loop():
    """Each box overlaps its neighbours, so that a row of boxes hangs on its surest one."""
    rng = torch.Generator().manual_seed(1)
    for _ in range(20):
        number = 200
        left = torch.rand(number, generator=rng) * 60
        some = torch.stack([left, left * 0, left + 10, left * 0 + 10], 1)
        scores = torch.rand(number, generator=rng)
        overlaps, kept = boxes.iou(some, some) > 0.5, []
        for i in scores.argsort(descending=True).tolist():
            if not any(overlaps[i, j] for j in kept):
                kept.append(i)
        assert boxes.nms(some, scores, 0.5).tolist() == kept
    assert boxes.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("samples", [0, 2])
def test_roi_align(samples, aligned):
    rois = OPS["roi_rois"]
    image, level = rois[:, 0].long(), torch.zeros(len(rois), dtype=torch.long)
    out = boxes.roi_align([OPS["roi_feat"]], [4], rois[:, 1:], image, level, 7, samples, aligned)
    close(out, f"roi_7_scale025_sr{samples}_aligned{int(aligned)}")
    if samples and not aligned:
        close(boxes.roi_align([OPS["roi_feat"]], [4], rois[:, 1:], image, level, 14), "roi_14_scale025_sr2_aligned0")


def test_roi_align_over_a_pyramid():
    maps, some = [OPS[f"levels_feat{i}"] for i in range(4)], OPS["levels_boxes"]
    image = torch.zeros(len(some), dtype=torch.long)
    close(boxes.roi_align(maps, [4, 8, 16, 32], some, image, boxes.levels(some, 2, 5) - 2, 7), "levels_out")


def test_gradients_of_roi_align():
    rois = OPS["roi_rois"]
    image, level = rois[:, 0].long(), torch.zeros(len(rois), dtype=torch.long)
    feature = OPS["roi_feat"].clone().requires_grad_()
    out = boxes.roi_align([feature], [4], rois[:, 1:], image, level, 7)
    weight = torch.rand(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    # It is linear in the map: the gradient times another map is what that map gives.
    other = torch.rand(feature.shape, generator=torch.Generator().manual_seed(2))
    there = (boxes.roi_align([other], [4], rois[:, 1:], image, level, 7) * weight).sum()
    torch.testing.assert_close((feature.grad * other).sum(), there, atol=1e-3, rtol=1e-5)


def test_anchors():
    strides = (4, 8, 16)
    shapes = [(64 // stride, 96 // stride) for stride in strides]
    ours = torch.cat(boxes.anchors(shapes, strides, (32, 64, 128), (0.5, 1, 2)))
    close(ours, "anchors_64x96_strides4_8_16_sizes32_64_128", 0)


@pytest.mark.parametrize("name, weights", [("w1", (1, 1, 1, 1)), ("w10", (10, 10, 5, 5))])
def test_the_code_of_a_box(name, weights):
    some, references = OPS["nms_boxes"][:10], OPS["nms_boxes"][10:20]
    close(boxes.encode(some, references, weights), f"code_{name}")
    close(boxes.decode(OPS[f"code_{name}"], references, weights), f"decode_{name}", 1e-3)


def test_pasting_and_mask_targets_are_inverse():
    """To a tenth of a pixel, in the aligned form: a mask of a disc, seen through its box, lies where it was."""
    y, x = torch.meshgrid(torch.arange(80.0), torch.arange(100.0), indexing="ij")
    disc = (((x - 41) / 23) ** 2 + ((y - 37) / 17) ** 2 < 1).float()
    box = torch.tensor([[18.0, 20.0, 65.0, 55.0]])
    zero = torch.zeros(1, dtype=torch.long)
    rim = 3.1416 * (23 + 17)  # pixels
    for aligned, most in ((True, 0.1), (False, 0.6)):  # as published, by up to .6 pixels
        seen = boxes.roi_align([disc[None, None]], [1], box, zero, zero, 28, 0, aligned)[:, 0]
        back = (boxes.paste(seen, box, (80, 100), aligned)[0] > 0.5).float()
        assert (disc - back).abs().sum() < most * rim
        for axis in (0, 1):  # nor is it moved
            places = torch.arange(disc.shape[axis], dtype=torch.float32)
            middles = [(one.sum(1 - axis) * places).sum() / one.sum() for one in (disc, back)]
            assert abs(middles[0] - middles[1]) < most


def test_pasting():
    close(boxes.paste(OPS["paste_masks"][:, 0], OPS["paste_boxes"], (64, 80))[:, None], "paste_out")
