import numpy as np
import pytest
import torch

from rlkit import optim
from rlkit.paper_optim import CentredRMSProp


def test_centred_rmsprop_by_hand():
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = CentredRMSProp([p], lr=0.1, eps=0.01, decay=0.95)
    w, mean, square = 1.0, 0.0, 0.0
    for g in (2.0, -1.0, 0.5):
        p.grad = torch.tensor([g])
        optimizer.step()
        mean, square = 0.95 * mean + 0.05 * g, 0.95 * square + 0.05 * g * g
        w -= 0.1 * g / np.sqrt(square - mean**2 + 0.01)
        assert p.item() == pytest.approx(w, rel=1e-5)


def test_summed_gradients_with_eps_equal_mean_gradients_with_eps_over_batch_squared():
    """The paper sums over its batch of 32, our losses average: the preset `nature` relies on this."""
    sums, means = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    a = CentredRMSProp([sums], lr=2.5e-4, eps=0.01)
    b = CentredRMSProp([means], lr=2.5e-4, eps=0.01 / 32**2)
    for _ in range(5):
        g = torch.randn(32, 3)
        sums.grad, means.grad = g.sum(0), g.mean(0)
        a.step()
        b.step()
    torch.testing.assert_close(sums, means, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "rmsprop"])
def test_a_masked_update_changes_nothing(name):
    p = torch.nn.Parameter(torch.ones(4))
    optimizer = optim.build(name, [p], lr=0.1, eps=1e-3, weight_decay=0.0 if name == "rmsprop" else 0.1, momentum=0.9)
    masked = torch.zeros(())
    optimizer.found_inf = masked
    p.grad = torch.ones(4)
    optimizer.step()
    before, state = p.detach().clone(), {k: v.clone() for k, v in optimizer.state[p].items() if torch.is_tensor(v)}
    assert not torch.equal(before, torch.ones(4))
    masked.fill_(1)
    p.grad = torch.full((4,), torch.nan)
    optimizer.step()
    torch.testing.assert_close(p.detach(), before, rtol=0, atol=0)
    for k, v in state.items():
        torch.testing.assert_close(optimizer.state[p][k], v, rtol=0, atol=0)


def test_unknown_optimiser_names_the_known_ones():
    with pytest.raises(ValueError, match="adam, adamw, sgd or rmsprop"):
        optim.build("lion", [], 1, 1, 0, 0)
