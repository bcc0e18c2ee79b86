"""Losses as pure functions. No reduction unless said: the caller weighs and averages."""

import torch
import torch.nn.functional as F
from torch import Tensor


def q_learning(q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """TD errors [B] of Q-learning: r_t + discount_t max_a q_t(a) - q_tm1(a_tm1).

    Args:
        q_tm1, q_t: [B, A]; q_t is the target network's. Gradients flow through q_tm1 alone.
        a_tm1: [B] int64. r_t, discount_t: [B]; discount_t includes gamma (gamma^n after n steps), 0 at a terminal.
    Source: Watkins 1989; with q_t of a target network, Mnih et al. 2015.
    """
    return double_q_learning(q_tm1, a_tm1, r_t, discount_t, q_t, q_t)


def double_q_learning(
    q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor, q_t_selector: Tensor
) -> Tensor:
    """TD errors [B] with the next action chosen by `q_t_selector` [B, A] and judged by q_t [B, A].

    Source: van Hasselt et al. 2016, eq. 4. The other arguments are those of `q_learning`.
    """
    batch, actions = q_tm1.shape
    assert q_t.shape == q_t_selector.shape == (batch, actions), (q_tm1.shape, q_t.shape, q_t_selector.shape)
    assert a_tm1.shape == r_t.shape == discount_t.shape == (batch,), (a_tm1.shape, r_t.shape, discount_t.shape)
    return td_error(q_tm1, a_tm1, r_t, discount_t, q_t.gather(1, q_t_selector.argmax(1, keepdim=True)).squeeze(1))


def td_error(q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, v_t: Tensor) -> Tensor:
    """TD errors [B], given what the next state is worth, v_t [B]: r_t + discount_t v_t - q_tm1(a_tm1)."""
    assert a_tm1.shape == r_t.shape == discount_t.shape == v_t.shape, (a_tm1.shape, r_t.shape, v_t.shape)
    target = r_t + discount_t * v_t
    return target.detach() - q_tm1.gather(1, a_tm1.unsqueeze(1)).squeeze(1)


def huber(td_error: Tensor) -> Tensor:
    """Squared error with its gradient clipped to [-1, 1]; any shape, elementwise (the paper's error clipping)."""
    return F.huber_loss(td_error, td_error.new_zeros(()).expand_as(td_error), reduction="none")


def cross_entropy(logits: Tensor, pi: Tensor) -> Tensor:
    """Cross-entropy [B] of the distribution pi [B, A] under logits [B, A], which may be -inf where pi is 0.

    A row of zeros loses nothing.
    """
    assert logits.shape == pi.shape, (logits.shape, pi.shape)
    return -(pi * logits.log_softmax(1).masked_fill(pi == 0, 0)).sum(1)


def policy_value(logits: Tensor, value: Tensor, pi: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """(cross-entropy [B] of the search's policy pi [B, A] under logits [B, A], squared error [B] of value against z).

    pi sums to 1; a logit may be -inf where pi is 0. Source: Silver et al. 2017, eq. 1.
    """
    assert value.shape == z.shape == logits.shape[:1], (logits.shape, value.shape, z.shape)
    return cross_entropy(logits, pi), (value - z) ** 2


def reinforce(logits: Tensor, action: Tensor, advantage: Tensor) -> Tensor:
    """-log p(action) advantage [B]: its gradient is REINFORCE's, for advantages that are constants.

    Args:
        logits: [B, A], -inf where an action is illegal. action: [B] int64. advantage: [B], return less baseline.
    Source: Williams 1992; Silver et al. 2016, Methods, "Policy network: reinforcement learning".
    """
    assert action.shape == advantage.shape == logits.shape[:1], (logits.shape, action.shape, advantage.shape)
    return F.cross_entropy(logits, action, reduction="none") * advantage.detach()


# -- distributions of returns: atoms z [N] with probabilities, or quantiles --------------------------------------------


def project(z: Tensor, probs: Tensor, support: Tensor) -> Tensor:
    """Probabilities [B, N] on evenly spaced `support` [N] of a distribution with probs [B, M] at z [B, M].

    What lies between two atoms is shared in proportion to their distance, what lies outside goes to the last one.
    Source: Bellemare et al. 2017, eq. 7, as the triangular kernel max(0, 1 - |z - support_i| / step).
    """
    assert z.shape == probs.shape and support.ndim == 1 < len(support), (z.shape, probs.shape, support.shape)
    step = support[1] - support[0]
    away = (z.clamp(support[0], support[-1])[:, None] - support[:, None]).abs() / step  # [B, N, M]
    return ((1 - away).clamp(min=0) * probs[:, None]).sum(2)


def quantile_regression(z_tm1: Tensor, tau: Tensor, target: Tensor, kappa: float = 1.0) -> Tensor:
    """Quantile Huber loss [B]: summed over the quantiles z_tm1 [B, N], of which each should lie above a share tau
    [B or 1, N] of the targets [B, M], and averaged over the targets.

    Targets are constants. Source: Dabney et al. 2018 (QR-DQN), eq. 10; with sampled tau, Dabney et al. 2018 (IQN),
    eq. 3. kappa: where the squared error turns linear.
    """
    assert z_tm1.ndim == tau.ndim == target.ndim == 2 and tau.shape[1] == z_tm1.shape[1], (z_tm1.shape, tau.shape)
    error = target.detach()[:, None] - z_tm1[:, :, None]  # [B, N, M]
    weight = (tau[:, :, None] - (error < 0).to(error.dtype)).abs()
    huber_ = F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=kappa) / kappa
    return (weight * huber_).mean(2).sum(1)


def soft_policy(q: Tensor, temperature: float) -> Tensor:
    """log pi [B, A] of the softmax of q [B, A] at `temperature`."""
    assert q.ndim == 2, q.shape
    return (q / temperature).log_softmax(1)


def munchausen(logp: Tensor, action: Tensor, temperature: float, low: float = -1.0) -> Tensor:
    """The bonus [B] of `action` [B]: temperature log pi(action), clipped to [low, 0].

    logp: [B, A] of `soft_policy`. Source: Vieillard et al. 2020, section 3, and its clipping in section 4.
    """
    assert action.shape == logp.shape[:1], (logp.shape, action.shape)
    return (temperature * logp.gather(1, action[:, None]).squeeze(1)).clamp(low, 0)


# -- sequences [B, T] --------------------------------------------------------------------------------------------------


def n_step_targets(r_t: Tensor, discount_t: Tensor, v: Tensor, last: Tensor, n: int) -> Tensor:
    """r_t + discount_t r_{t+1} + ... + discounts v_{t+n}: [B, T - n] for the first T - n moments.

    Args:
        r_t, discount_t: [B, T] of the transitions from each moment; discount_t includes gamma.
        v: [B, T] the value of each moment. last: [B, T] True where an episode ends: its value is taken, and nothing
            behind it; a terminal has discount 0 before it.
    """
    assert r_t.shape == discount_t.shape == v.shape == last.shape and 0 < n < v.shape[1], (v.shape, n)
    target, steps = v, v.shape[1]
    for k in range(1, n + 1):
        ahead, now = target[:, 1:], slice(0, steps - k)
        target = torch.where(last[:, now], v[:, now], r_t[:, now] + discount_t[:, now] * ahead)
    return target


def lambda_returns(r_t: Tensor, discount_t: Tensor, v_t: Tensor, lambda_: float) -> Tensor:
    """G_t = r_t + discount_t ((1 - lambda) v_t + lambda G_{t+1}): [T, B], where the last one rests on v_t alone.

    Args: r_t, discount_t, v_t: [T, B] after moment t: reward, discount (includes gamma), value of the next
    state. At a truncation the caller adds discount x value to the reward, and sets the discount to 0.
    Source: Sutton and Barto 2018, section 12.1; Gallici et al. 2024 (PQN), eq. 10.
    """
    assert r_t.shape == discount_t.shape == v_t.shape, (r_t.shape, discount_t.shape, v_t.shape)
    out, ahead = torch.empty_like(v_t), v_t[-1]
    for t in range(len(v_t) - 1, -1, -1):
        ahead = out[t] = r_t[t] + discount_t[t] * ((1 - lambda_) * v_t[t] + lambda_ * ahead)
    return out


RESCALE_EPSILON = 1e-3


def rescale(x: Tensor) -> Tensor:
    """sign(x) (sqrt(|x| + 1) - 1) + .001 x: large returns on a scale that a network can learn.

    Source: Pohlen et al. 2018, section 3.2.
    """
    return x.sign() * ((x.abs() + 1).sqrt() - 1) + RESCALE_EPSILON * x


def unscale(x: Tensor) -> Tensor:
    """The inverse of `rescale`."""
    e, y = RESCALE_EPSILON, x.abs() + 1 + RESCALE_EPSILON
    root = (1 + 4 * e * y).sqrt()
    return x.sign() * ((2 * y / (root + 1)).square() - 1)  # (root - 1) / 2e, which would cancel
