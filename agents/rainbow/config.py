"""What distinguishes a DQN with later parts from one without."""

from dataclasses import dataclass
from typing import Annotated, Literal

from agents.dqn.agent import DQNConfig
from rlkit.config import AtLeast


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

    @property
    def is_dqn(self) -> bool:
        """Whether it names none of the later parts."""
        return self.distribution == "none" and not self.noisy and not self.munchausen
