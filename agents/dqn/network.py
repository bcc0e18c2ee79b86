"""The Q-network: a torso by name and a head, of values or of their distributions."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlkit.nn.convolution import torso
from rlkit.nn.dense import make_noisy
from rlkit.nn.heads import DuelingHead, ImplicitHead, LinearHead

if TYPE_CHECKING:
    from agents.dqn.agent import DQNConfig

ACTING_QUANTILES = 32
"""IQN acts by the mean of so many, evenly spread; the paper draws them"""


class QNetwork(nn.Module):
    """Observations, uint8 [B, stack, height, width] or float32 [B, 1, features], -> Q values [B, actions] in fp32.

    cfg: which torso, head and distribution of returns: c51 has the logits of `atoms` values between -v_max and v_max,
    qr `atoms` quantiles, iqn any quantiles.
    """

    support: Tensor

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int, cfg: "DQNConfig"):
        super().__init__()
        self.distribution, self.atoms = cfg.distribution, cfg.atoms
        self.torso = torso(cfg.backbone, obs_shape, cfg.width)
        atoms = cfg.atoms if cfg.distribution in ("c51", "qr") else None
        head = (DuelingHead if cfg.dueling else LinearHead)(self.torso.out_features, num_actions, atoms)
        self.head = ImplicitHead(self.torso.out_features, head) if cfg.distribution == "iqn" else head
        self.register_buffer("support", torch.linspace(-cfg.v_max, cfg.v_max, cfg.atoms), persistent=False)
        if cfg.noisy:
            make_noisy(self)

    def forward(self, obs: Tensor) -> Tensor:
        if self.distribution == "none":
            return self.head(self.torso(obs))
        if self.distribution == "c51":
            return (self.z(obs).softmax(-1) * self.support).sum(-1)
        return self.z(obs, self.midpoints(ACTING_QUANTILES)).mean(-1)

    def z(self, obs: Tensor, tau: Tensor | None = None) -> Tensor:
        """[B, actions, N]: logits of the support (c51), all quantiles (qr), those at tau [B or 1, N] (iqn)."""
        x = self.torso(obs)
        return self.head(x, tau) if self.distribution == "iqn" else self.head(x)

    def tau(self, batch: int) -> Tensor:
        """The shares [B or 1, atoms] whose quantiles are learned: evenly spread (qr), drawn anew (iqn)."""
        if self.distribution == "iqn":
            return torch.rand(batch, self.atoms, device=self.support.device)
        return self.midpoints(self.atoms)

    def midpoints(self, atoms: int) -> Tensor:
        """[1, atoms], the middles of equal parts of 0 .. 1."""
        return ((torch.arange(atoms, device=self.support.device) + 0.5) / atoms)[None]
