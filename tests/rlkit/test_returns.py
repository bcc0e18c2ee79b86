import torch

from rlkit.returns import n_step_targets, rescale, unscale


def test_n_step_targets_by_hand():
    r, d = torch.tensor([[1.0, 2, 3, 4, 5]]), torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5]])
    v, never = torch.tensor([[10.0, 20, 30, 40, 50]]), torch.zeros(1, 5, dtype=torch.bool)
    # two steps: 1 + .5 x 2 + .25 x 30 = 9.5; 2 + 1.5 + .25 x 40 = 13.5; 3 + 2 + .25 x 50 = 17.5
    torch.testing.assert_close(n_step_targets(r, d, v, never, 2), torch.tensor([[9.5, 13.5, 17.5]]))
    torch.testing.assert_close(n_step_targets(r, d, v, never, 1)[0, 3], torch.tensor(4 + 0.5 * 50))
    last = torch.tensor([[False, True, False, False, False]])
    # moment 1 ends its episode: 1 + .5 x 20 = 11, and its own "target" is its value
    torch.testing.assert_close(n_step_targets(r, d, v, last, 2), torch.tensor([[11.0, 20.0, 17.5]]))
    terminal = d.clone()
    terminal[0, 0] = 0
    assert n_step_targets(r, terminal, v, last, 2)[0, 0] == 1.0


def test_rescaling_and_back():
    # sqrt(3 + 1) - 1 + .003 = 1.003
    torch.testing.assert_close(rescale(torch.tensor([3.0, -3.0, 0.0])), torch.tensor([1.003, -1.003, 0.0]))
    x = torch.linspace(-1000, 1000, 301, dtype=torch.float64)
    torch.testing.assert_close(unscale(rescale(x)), x, atol=1e-9, rtol=1e-9)
    small = torch.tensor([1e-3, 0.05, 1.0])  # nothing cancels in single precision
    torch.testing.assert_close(unscale(rescale(small)), small, atol=3e-7, rtol=1e-6)
