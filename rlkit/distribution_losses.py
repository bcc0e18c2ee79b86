"""Losses of distributions of returns: atoms z [N] with probabilities, or quantiles. No reduction over the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
