"""DQN's network with what came after it: distributions of returns, and noise in place of epsilon."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agents.dqn.agent import QNetwork
from agents.rainbow.config import RainbowConfig
from agents.rainbow.noisy import make_noisy

ACTING_QUANTILES = 32
"""quantiles, evenly spread, whose mean IQN acts by; the paper draws them at random"""


class ImplicitHead(nn.Module):
    """Quantiles of the return at any probabilities tau [B, N] in 0 .. 1: [B, D] -> [B, actions, N] in fp32.

    x phi(tau), with phi a dense layer over cos(pi i tau), i = 0 .. 63, through `head` (Dabney et al. 2018, IQN, eq. 4).
    It multiplies the torso's dense layer; in the paper the features before that, which then runs N times.
    """

    def __init__(self, in_features: int, head: nn.Module):
        super().__init__()
        self.phi = nn.Linear(64, in_features)
        self.head = head

    def forward(self, x: Tensor, tau: Tensor) -> Tensor:
        angle = torch.arange(64, device=x.device) * torch.pi * tau[..., None]
        phi = F.relu(self.phi(angle.cos()))
        return self.head(x[:, None] * phi).transpose(1, 2)


class RainbowNetwork(QNetwork):
    """Observations -> Q values, as DQN's network, whatever `cfg.distribution` is learned.

    c51 has the logits of `atoms` values between -v_max and v_max, qr `atoms` quantiles, iqn any quantiles.
    """

    support: Tensor

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int, cfg: RainbowConfig):
        super().__init__(obs_shape, num_actions, cfg, cfg.atoms if cfg.distribution in ("c51", "qr") else None)
        self.distribution, self.atoms = cfg.distribution, cfg.atoms
        if cfg.distribution == "iqn":
            self.head = ImplicitHead(self.torso.out_features, self.head)
        self.register_buffer("support", torch.linspace(-cfg.v_max, cfg.v_max, cfg.atoms), persistent=False)
        if cfg.noisy:
            make_noisy(self)

    def forward(self, obs: Tensor) -> Tensor:
        if self.distribution == "none":
            return super().forward(obs)
        if self.distribution == "c51":
            return (self.z(obs).softmax(-1) * self.support).sum(-1)
        return self.z(obs, self.midpoints(ACTING_QUANTILES)).mean(-1)

    def z(self, obs: Tensor, tau: Tensor | None = None) -> Tensor:
        """[B, actions, N]: logits of the support (c51), all quantiles (qr), those at tau [B or 1, N] (iqn)."""
        x = self.features(obs)
        return self.head(x, tau) if self.distribution == "iqn" else self.head(x)

    def tau(self, batch: int) -> Tensor:
        """The probabilities [B or 1, atoms] whose quantiles are learned: evenly spread (qr), or random (iqn)."""
        if self.distribution == "iqn":
            return torch.rand(batch, self.atoms, device=self.support.device)
        return self.midpoints(self.atoms)

    def midpoints(self, atoms: int) -> Tensor:
        """[1, atoms], the middles of equal parts of 0 .. 1."""
        return ((torch.arange(atoms, device=self.support.device) + 0.5) / atoms)[None]
