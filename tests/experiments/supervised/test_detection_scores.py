"""Average precisions by hand, and their intervals."""

import itertools
import json

import numpy as np
import pytest

from experiments.supervised.detection_scores import Scores, class_table, encode_mask, scores, table, to_coco
from rlkit.instances import Detections, Instances, boxes_of

coco = pytest.importorskip("faster_coco_eval")
CLASSES = ("pothole", "litter")
A, B = (0, 0, 10, 10), (20, 20, 30, 30)


def masks_of(boxes):
    masks = np.zeros((len(boxes), 32, 128), np.bool_)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def picture(*boxes, labels=None, crowd=None):
    labels = np.array([1] * len(boxes) if labels is None else labels, np.int64)
    crowd = np.array([False] * len(boxes) if crowd is None else crowd, np.bool_)
    return Instances(np.zeros((3, 32, 128), np.uint8), labels, masks_of(boxes), crowd)


def found(*boxes, scores=None, labels=None):
    masks = masks_of(boxes)
    labels = np.array([1] * len(boxes) if labels is None else labels, np.int64)
    values = np.array(np.linspace(0.9, 0.1, len(boxes)) if scores is None else scores, np.float32)
    return Detections(boxes_of(masks), labels, values, masks)


HALF = 51 / 101
"""precision 1 up to recall .5: at 51 of COCO's 101 recalls"""


@pytest.mark.parametrize(
    "truth, detections, ap, ap50",
    [
        pytest.param([picture(A, B)], [found(A, B)], 1, 1, id="all of them"),
        pytest.param([picture(A, B)], [found(A)], HALF, HALF, id="one of two"),
        pytest.param([picture(A)], [found()], 0, 0, id="nothing found"),
        pytest.param([picture(A)], [found(A, labels=[2])], 0, 0, id="wrong class"),
        pytest.param([picture(A)], [found(B)], 0, 0, id="wrong place"),
        pytest.param([picture(A)], [found(A, A)], 1, 1, id="twice, the second after all are found"),
        pytest.param(
            [picture(A, B)], [found(A, A, B)], (51 + 50 * 2 / 3) / 101, (51 + 50 * 2 / 3) / 101, id="twice, and then"
        ),
        pytest.param([picture(B, A, crowd=[True, False])], [found(B, B, A)], 1, 1, id="in a crowd"),
        pytest.param([picture(A), picture()], [found(A, scores=[0.5]), found(A)], 0.5, 0.5, id="on an empty picture"),
        pytest.param([picture((0, 0, 100, 10))], [found((0, 0, 64, 10))], 0.3, 1, id="IoU .64: .5, .55 and .6 of ten"),
    ],
)
def test_average_precision_by_hand(truth, detections, ap, ap50):
    result = scores(truth, detections, CLASSES, resamples=0)
    for kind in ("mask", "box"):
        for name, value in {"AP": ap, "AP/pothole": ap, "AP50": ap50, "AP50/pothole": ap50}.items():
            assert result.values[f"{kind}/{name}"] == pytest.approx(value, abs=1e-6)
        assert np.mean(result.curves[f"{kind}/pothole"]) == pytest.approx(ap50, abs=1e-6)
    assert not result.intervals and "mask/AP/litter" not in result.values and "mask/AP_large" not in result.values


def test_classes_count_alike_and_sizes_apart():
    large = (0, 0, 110, 32)  # medium: 32^2 to 96^2
    truth = [picture(A, B, large, labels=[1, 1, 2])]
    values = scores(truth, [found(A, large, labels=[1, 2])], CLASSES, resamples=0).values
    assert values["mask/AP"] == pytest.approx((HALF + 1) / 2)
    assert (values["mask/AP_small"], values["mask/AP_medium"]) == (pytest.approx(HALF), 1)


def test_boxes_and_masks_are_scored_each_by_its_own():
    frame = picture(A)
    frame.masks[0, 1:9, 1:9] = False  # its border alone: IoU .36 with the whole
    values = scores([frame], [found(A)], CLASSES, resamples=0).values
    assert (values["box/AP"], values["mask/AP50"]) == (1, 0)


def random_pictures(rng, number):
    """Two things a picture, each found with some other score a few pixels away, and one that is not there."""
    truth, detections = [], []
    for _ in range(number):
        boxes = [(x, y, x + 14, y + 12) for x, y in rng.integers(0, (100, 14), (2, 2))]
        moved = [tuple(np.add(box, np.tile(rng.integers(0, 5, 2), 2))) for box in [*boxes, boxes[0]]]
        labels = rng.integers(1, 3, 2)
        truth.append(picture(*boxes, labels=labels))
        values = np.sort(rng.random(3))[::-1]
        detections.append(found(*moved, labels=[*labels, 3 - labels[0]], scores=values))
    return truth, detections


def test_figures_and_their_parts_are_the_librarys():
    truth, detections = random_pictures(np.random.default_rng(0), 12)
    ours = scores(truth, detections, CLASSES, resamples=0)
    categories = [{"id": 1, "name": "pothole"}, {"id": 2, "name": "litter"}]
    true = [to_coco(found_as(one), i) for i, one in enumerate(truth)]
    things = [one | {"id": i + 1, "iscrowd": 0} for i, one in enumerate(itertools.chain(*true))]
    images = [{"id": i, "height": 32, "width": 128} for i in range(12)]
    library = coco.COCO({"images": images, "annotations": things, "categories": categories})
    results = [{k: v for k, v in one.items() if k != "bbox"} for i, d in enumerate(detections) for one in to_coco(d, i)]
    evaluation = coco.COCOeval_faster(library, library.loadRes(json.loads(json.dumps(results))), "segm")
    evaluation.run()
    names = ["mask/AP", "mask/AP50", "mask/AP75", "mask/AP_small"]
    assert [ours.values[name] for name in names] == pytest.approx(evaluation.stats[:4].tolist(), abs=1e-6)
    assert 0.05 < ours.values["mask/AP"] < 0.95


def found_as(one):
    return Detections(one.boxes, one.labels, np.ones(len(one.labels), np.float32), one.masks)


def test_intervals_hold_the_value_and_narrow_with_pictures_that_are_alike():
    few, many = (scores(*random_pictures(np.random.default_rng(1), n), CLASSES, resamples=60) for n in (6, 60))
    for result in (few, many):
        for name, (low, high) in result.intervals.items():
            assert low <= result.values[name] <= high
    width = {name: np.ptp(many.intervals[name]) for name in ("mask/AP", "box/AP50", "mask/AP/litter")}
    assert all(0 < value < np.ptp(few.intervals[name]) for name, value in width.items())
    alike = scores([picture(A, B)] * 5, [found(A)] * 5, CLASSES, resamples=20)
    assert alike.intervals["mask/AP"] == [pytest.approx(alike.values["mask/AP"])] * 2
    again = scores(*random_pictures(np.random.default_rng(1), 6), CLASSES, resamples=60)
    assert again == few and Scores(**json.loads(json.dumps(few._asdict()))) == few


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="no pictures"):
        scores([], [], CLASSES)
    with pytest.raises(ValueError):
        scores([picture(A)], [], CLASSES)
    with pytest.raises(ValueError, match=r"picture 2: a found has a label outside 1 \.\. 2"):
        scores([picture(A)] * 2, [found(A), found(A, labels=[3])], CLASSES)
    with pytest.raises(ValueError, match="mask of"):
        scores([picture(A)], [found(A)._replace(masks=np.ones((1, 8, 8), np.bool_))], CLASSES)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_run_lengths_are_the_librarys(share):
    from faster_coco_eval.core import mask as library

    mask = np.random.default_rng(2).random((53, 97)) < share
    ours, theirs = encode_mask(mask), library.encode(np.asfortranarray(mask, np.uint8))
    assert ours["size"] == list(theirs["size"]) and ours["counts"].encode() == theirs["counts"]
    assert (library.decode(ours) == mask).all()


def test_tables():
    result = scores([picture(A, B)] * 2, [found(A)] * 2, CLASSES, resamples=5)
    assert table({"ours": result}, ["mask/AP50", "box/AP_large"]).splitlines() == [
        "method  mask/AP50            box/AP_large",
        "ours    0.505 (0.505-0.505)  -",
    ]
    lines = class_table(result._replace(intervals={}), CLASSES, ["mask/AP"]).splitlines()
    rows = {"class": "mask/AP", "all": "0.505", "pothole": "0.505", "litter": "-", "small": "0.505", "medium": "-"}
    assert lines[:-1] == [f"{name:<7}  {cell}" for name, cell in rows.items()]
