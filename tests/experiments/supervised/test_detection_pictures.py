"""Pictures of detections: the right pixels in the right colours."""

import numpy as np
import pytest

from experiments.supervised.detection_pictures import COLOURS, draw_found, draw_precision_recall, draw_predictions
from experiments.supervised.detection_scores import Scores
from rlkit.instances import Detections, Instances, boxes_of

CLASSES = ("pothole", "litter")


def two_things():
    masks = np.zeros((2, 40, 60), np.bool_)
    masks[0, 20:30, 4:14] = masks[1, 20:32, 30:50] = True
    truth = Instances(np.full((3, 40, 60), 100, np.uint8), np.array([2, 1]), masks, np.array([False, True]))
    return truth, Detections(boxes_of(masks), truth.labels, np.array([0.9, 0.2], np.float32), masks)


def test_things_are_outlined_and_filled_in_the_colour_of_their_class():
    truth, found = two_things()
    shown = draw_found(truth.image, found, CLASSES, least=0.1)
    first, second = COLOURS[1], COLOURS[0]
    assert (shown[20, 4:14] == first).all() and (shown[29, 4:14] == first).all() and (shown[20:30, 13] == first).all()
    assert (shown[31, 30:50] == second).all()
    assert (shown[21:29, 5:13] == (0.65 * 100 + 0.35 * first).astype(np.uint8)).all()
    assert (shown[34:] == 100).all() and (truth.image == 100).all()
    assert draw_found(truth.image, found, CLASSES, times=3).shape == (120, 180, 3)
    assert (draw_found(truth.image, found, CLASSES)[31, 30:] == 100).all()  # of which it is 20 % sure
    nothing = Detections._make(part[:0] for part in found)
    assert (draw_found(truth.image, nothing, CLASSES) == 100).all()


def test_found_stands_beside_true_and_what_is_unsure_is_left_out():
    truth, found = two_things()
    shown = draw_predictions([truth, truth], [found, found], CLASSES, times=2)
    assert shown.shape == (22 + 2 * 86, 2 * 120 + 18, 3)
    for y in (22, 22 + 86):
        true, beside = shown[y : y + 80, 6:126], shown[y : y + 80, 132:252]
        assert (true[63, 60:100] == COLOURS[0]).all() and (beside[63, 60:100] == 100).all()
        assert (true[59, 8:28] == COLOURS[1]).all() and (beside[59, 8:28] == COLOURS[1]).all()


@pytest.mark.slow
def test_precision_over_recall_is_a_picture_of_every_class():
    pytest.importorskip("matplotlib")
    one = Scores(3, {"mask/AP50/pothole": 0.5}, {}, {"mask/pothole": [1.0] * 51 + [0.0] * 50})
    shown = draw_precision_recall({"ours": one}, CLASSES)
    assert shown.dtype == np.uint8 and shown.shape == (374, 704, 3) and shown.std() > 1
