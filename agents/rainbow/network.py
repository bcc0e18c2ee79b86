"""DQN's network with what came after it: distributions of returns, and noise in place of epsilon."""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from torch import Tensor

from agents.dqn.agent import DQNConfig, QNetwork
from rlkit.config import AtLeast
from rlkit.nn.dense import make_noisy
from rlkit.nn.heads import ImplicitHead

ACTING_QUANTILES = 32
"""IQN acts by the mean of so many, evenly spread; the paper draws them"""


@dataclass
class RainbowConfig(DQNConfig):
    """A DQN's settings, and what else distinguishes one from another. The defaults are DQN's."""

    distribution: Literal["none", "c51", "qr", "iqn"] = "none"
    """what is learned of returns: their mean; probabilities (c51), quantiles (qr) or any quantile (iqn) of them"""
    atoms: Annotated[int, AtLeast(2)] = 51
    """of c51; quantiles of qr; quantiles of iqn that are drawn for an update, 32 where it acts"""
    v_max: Annotated[float, AtLeast(1e-3)] = 10.0
    """c51's atoms lie between -v_max and v_max"""
    noisy: bool = False
    """dense layers with noise while training; for noise in place of epsilon: --epsilon-final 0 --epsilon-frames 1"""
    munchausen: bool = False
    """the log probability of what was done adds to its reward"""


class RainbowNetwork(QNetwork):
    """Observations -> Q values, as DQN's, whatever is learned of returns (`cfg.distribution`).

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
