"""Targets over time, from the rewards and values of a sequence; and a scale for those that are large."""

import torch
from torch import Tensor


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
