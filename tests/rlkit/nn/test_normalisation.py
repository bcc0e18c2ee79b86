"""Running mean and deviation, by hand."""

import copy

import numpy as np
import pytest
import torch

from rlkit.nn.mlp import MLP
from rlkit.nn.normalisation import Normalised


def passed_on(width=3, stack=1):
    """The layer around a torso that changes nothing."""
    return Normalised(MLP((stack, width), ()), (stack, width))


def test_mean_and_deviation_are_of_all_that_gradients_were_asked_for():
    layer, rng = passed_on(), np.random.default_rng(0)
    batches = [torch.from_numpy(rng.normal([0, 5, -3], [1, 2, 0.1], (size, 1, 3))).float() for size in (4, 64, 1, 30)]
    for n, batch in enumerate(batches, 1):
        out = layer(batch)
        seen = torch.cat(batches[:n]).flatten(0, 1)
        expected = (batch - seen.mean(0)) / seen.var(0, correction=0).clamp(min=1e-6).sqrt()
        torch.testing.assert_close(out, expected.clamp(-10, 10).flatten(1), rtol=1e-4, atol=1e-4)
    assert layer.count == 99


def test_nothing_is_counted_in_evaluation_nor_without_gradients():
    layer = passed_on()
    layer(torch.randn(50, 1, 3))
    before = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        layer(torch.full((9, 1, 3), 100.0))
    layer.eval()
    layer(torch.full((9, 1, 3), 100.0))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    other = passed_on()
    other.load_state_dict(before)
    other.eval()
    x = torch.randn(7, 1, 3)
    torch.testing.assert_close(other(x), layer(x))


def test_before_anything_was_seen_it_passes_on():
    layer, x = passed_on().eval(), torch.randn(5, 1, 3)
    torch.testing.assert_close(layer(x), x.flatten(1))


def test_a_small_deviation_beside_a_large_mean_keeps_its_digits():
    layer, rng = passed_on(1), np.random.default_rng(0)
    for _ in range(50):
        x = torch.from_numpy(5000 + 0.05 * rng.normal(size=(64, 1, 1))).float()
        out = layer(x)
    assert out.std().item() == pytest.approx(1, abs=0.3) and abs(out.mean().item()) < 0.5


def test_outliers_end_at_ten_and_what_never_changes_is_nothing():
    layer = passed_on(2)
    layer(torch.tensor([[[0.0, 4.0]], [[1.0, 4.0]]]))
    layer.eval()
    assert layer(torch.tensor([[[1e9, 4.0]], [[-1e9, 4.0]]])).tolist() == [[10, 0], [-10, 0]]


def test_all_frames_of_a_stack_share_their_statistics():
    layer = passed_on(1, stack=2)
    layer(torch.tensor([[[1.0], [3.0]], [[5.0], [7.0]]]))
    assert (layer.mean.item(), layer.variance.item(), layer.count.item()) == (4, 5, 4)


def test_images_are_refused():
    with pytest.raises(ValueError, match="--normalise is for vectors"):
        Normalised(MLP((4, 6, 6), ()), (4, 6, 6))
