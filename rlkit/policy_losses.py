"""Losses of policies, and what a policy adds to a reward. No reduction: the caller weighs and averages."""

import torch.nn.functional as F
from torch import Tensor


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
