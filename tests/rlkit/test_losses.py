import numpy as np
import pytest
import torch

from rlkit import losses, optim

# Two transitions with two actions, worked out by hand. The second is a terminal.
Q_TM1 = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
A_TM1 = torch.tensor([1, 0])
R_T = torch.tensor([0.5, -1.0])
DISCOUNT_T = torch.tensor([0.9, 0.0])
Q_T = torch.tensor([[5.0, 3.0], [7.0, 7.5]])


def test_q_learning():
    # 0.5 + 0.9 * max(5, 3) - 2 = 3;  -1 + 0 - 3 = -4
    td = losses.q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T)
    torch.testing.assert_close(td, torch.tensor([3.0, -4.0]))


def test_double_q_learning_takes_the_selectors_action_and_the_targets_value():
    # the selector prefers action 1, worth 3 to the target network: 0.5 + 0.9 * 3 - 2 = 1.2
    selector = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    td = losses.double_q_learning(Q_TM1, A_TM1, R_T, DISCOUNT_T, Q_T, selector)
    torch.testing.assert_close(td, torch.tensor([1.2, -4.0]))


def test_gradient_flows_through_the_taken_action_alone():
    q_tm1, q_t = Q_TM1.clone().requires_grad_(), Q_T.clone().requires_grad_()
    losses.huber(losses.q_learning(q_tm1, A_TM1, R_T, DISCOUNT_T, q_t)).sum().backward()
    # errors of 3 and -4 are clipped to 1 and -1; d td / d q = -1
    torch.testing.assert_close(q_tm1.grad, torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    assert q_t.grad is None


def test_huber():
    error = torch.tensor([-3.0, -0.5, 0.0, 1.0, 2.0])
    torch.testing.assert_close(losses.huber(error), torch.tensor([2.5, 0.125, 0.0, 0.5, 1.5]))


def test_wrong_shapes_are_refused():
    with pytest.raises(AssertionError):
        losses.q_learning(Q_TM1, A_TM1.unsqueeze(1), R_T, DISCOUNT_T, Q_T)


def test_centred_rmsprop_by_hand():
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = optim.CentredRMSProp([p], lr=0.1, eps=0.01, decay=0.95)
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
    a = optim.CentredRMSProp([sums], lr=2.5e-4, eps=0.01)
    b = optim.CentredRMSProp([means], lr=2.5e-4, eps=0.01 / 32**2)
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


# -- distributions -----------------------------------------------------------------------------------------------------


def test_projection_shares_what_lies_between_atoms_and_keeps_what_lies_outside():
    # .5 lies between 0 and 1: half of its .6 to each; 2 lies outside: its .4 goes to 1
    z, probs = torch.tensor([[0.5, 2.0]]), torch.tensor([[0.6, 0.4]])
    out = losses.project(z, probs, torch.tensor([-1.0, 0.0, 1.0]))
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
    got = losses.project(*(torch.from_numpy(x) for x in (z, probs, support)))
    np.testing.assert_allclose(got, expected, atol=1e-12)
    np.testing.assert_allclose(got.sum(1), 1)


def test_quantile_regression():
    # quantile 0 for tau .25 is 1 too low: .25 huber(1) = .125; 4 for .75 is 3 too high: .25 huber(3) = .25 x 2.5 = .625
    z, tau = torch.tensor([[0.0, 4.0]], requires_grad=True), torch.tensor([[0.25, 0.75]])
    loss = losses.quantile_regression(z, tau, torch.tensor([[1.0]]))
    torch.testing.assert_close(loss, torch.tensor([0.75]))
    loss.sum().backward()
    torch.testing.assert_close(z.grad, torch.tensor([[-0.25, 0.25]]))
    # two targets: their mean; kappa 2: huber(1) = .5 / 2
    loss = losses.quantile_regression(
        torch.tensor([[0.0]]), torch.tensor([[0.5]]), torch.tensor([[1.0, -1.0]]), kappa=2
    )
    torch.testing.assert_close(loss, torch.tensor([0.125]))


def test_quantile_regression_finds_the_quantiles():
    target = torch.from_numpy(np.random.default_rng(0).exponential(size=(1, 4000))).float()
    z, tau = torch.zeros(1, 3, requires_grad=True), torch.tensor([[0.1, 0.5, 0.9]])
    optimizer = torch.optim.Adam([z], lr=0.02)
    for _ in range(800):
        optimizer.zero_grad()
        losses.quantile_regression(z, tau, target, kappa=1e-3).sum().backward()
        optimizer.step()
    torch.testing.assert_close(z.detach(), target.quantile(tau[0])[None], atol=0.1, rtol=0)


def test_munchausen_by_hand():
    q = torch.tensor([[1.0, 3.0]]).log()  # pi = 1/4, 3/4 at temperature 1
    logp = losses.soft_policy(q, 1.0)
    torch.testing.assert_close(logp.exp(), torch.tensor([[0.25, 0.75]]))
    assert losses.munchausen(logp, torch.tensor([1]), 1.0).item() == pytest.approx(np.log(0.75))
    assert losses.munchausen(logp, torch.tensor([0]), 1.0).item() == -1.0, "log .25 = -1.39 is clipped"
    assert losses.munchausen(losses.soft_policy(q / 2, 0.5), torch.tensor([1]), 0.5).item() == pytest.approx(
        0.5 * np.log(0.75)
    )


# -- sequences ---------------------------------------------------------------------------------------------------------


def test_n_step_targets_by_hand():
    r, d = torch.tensor([[1.0, 2, 3, 4, 5]]), torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5]])
    v, never = torch.tensor([[10.0, 20, 30, 40, 50]]), torch.zeros(1, 5, dtype=torch.bool)
    # two steps: 1 + .5 x 2 + .25 x 30 = 9.5; 2 + 1.5 + .25 x 40 = 13.5; 3 + 2 + .25 x 50 = 17.5
    torch.testing.assert_close(losses.n_step_targets(r, d, v, never, 2), torch.tensor([[9.5, 13.5, 17.5]]))
    torch.testing.assert_close(losses.n_step_targets(r, d, v, never, 1)[0, 3], torch.tensor(4 + 0.5 * 50))
    last = torch.tensor([[False, True, False, False, False]])
    # moment 1 ends its episode: 1 + .5 x 20 = 11, and its own "target" is its value
    torch.testing.assert_close(losses.n_step_targets(r, d, v, last, 2), torch.tensor([[11.0, 20.0, 17.5]]))
    terminal = d.clone()
    terminal[0, 0] = 0
    assert losses.n_step_targets(r, terminal, v, last, 2)[0, 0] == 1.0


def test_rescaling_and_back():
    # sqrt(3 + 1) - 1 + .003 = 1.003
    torch.testing.assert_close(losses.rescale(torch.tensor([3.0, -3.0, 0.0])), torch.tensor([1.003, -1.003, 0.0]))
    x = torch.linspace(-1000, 1000, 301, dtype=torch.float64)
    torch.testing.assert_close(losses.unscale(losses.rescale(x)), x, atol=1e-9, rtol=1e-9)
    small = torch.tensor([1e-3, 0.05, 1.0])  # nothing cancels in single precision
    torch.testing.assert_close(losses.unscale(losses.rescale(small)), small, atol=3e-7, rtol=1e-6)
