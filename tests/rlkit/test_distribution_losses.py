import numpy as np
import torch

from rlkit.distribution_losses import project, quantile_regression


def test_projection_shares_what_lies_between_atoms_and_keeps_what_lies_outside():
    # .5 lies between 0 and 1: half of its .6 to each; 2 lies outside: its .4 goes to 1
    z, probs = torch.tensor([[0.5, 2.0]]), torch.tensor([[0.6, 0.4]])
    out = project(z, probs, torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(out, torch.tensor([[0.0, 0.3, 0.7]]))


def test_projection_against_the_papers_loop():
    """Bellemare et al. 2017, algorithm 1, as it stands there."""
    rng, n, low, high = np.random.default_rng(0), 11, -2.0, 3.0
    support = np.linspace(low, high, n)
    z, probs = rng.normal(0, 3, (5, n)), rng.dirichlet(np.ones(n), 5)
    expected = np.zeros((5, n))
    for b in range(5):
        for j in range(n):
            place = (np.clip(z[b, j], low, high) - low) / (high - low) * (n - 1)
            lower, upper = int(np.floor(place)), int(np.ceil(place))
            expected[b, lower] += probs[b, j] * (upper - place if upper > lower else 1)
            expected[b, upper] += probs[b, j] * (place - lower)
    got = project(*(torch.from_numpy(x) for x in (z, probs, support)))
    np.testing.assert_allclose(got, expected, atol=1e-12)
    np.testing.assert_allclose(got.sum(1), 1)


def test_quantile_regression():
    # quantile 0 for tau .25 is 1 too low: .25 huber(1) = .125; 4 for .75 is 3 too high: .25 huber(3) = .25 x 2.5 = .625
    z, tau = torch.tensor([[0.0, 4.0]], requires_grad=True), torch.tensor([[0.25, 0.75]])
    loss = quantile_regression(z, tau, torch.tensor([[1.0]]))
    torch.testing.assert_close(loss, torch.tensor([0.75]))
    loss.sum().backward()
    torch.testing.assert_close(z.grad, torch.tensor([[-0.25, 0.25]]))
    # two targets: their mean; kappa 2: huber(1) = .5 / 2
    loss = quantile_regression(torch.tensor([[0.0]]), torch.tensor([[0.5]]), torch.tensor([[1.0, -1.0]]), kappa=2)
    torch.testing.assert_close(loss, torch.tensor([0.125]))


def test_quantile_regression_finds_the_quantiles():
    target = torch.from_numpy(np.random.default_rng(0).exponential(size=(1, 4000))).float()
    z, tau = torch.zeros(1, 3, requires_grad=True), torch.tensor([[0.1, 0.5, 0.9]])
    optimizer = torch.optim.Adam([z], lr=0.02)
    for _ in range(800):
        optimizer.zero_grad()
        quantile_regression(z, tau, target, kappa=1e-3).sum().backward()
        optimizer.step()
    torch.testing.assert_close(z.detach(), target.quantile(tau[0])[None], atol=0.1, rtol=0)
