"""The settings of a DQN with later methods."""

from dataclasses import dataclass
from typing import Annotated, Literal

from agents.dqn.agent import DQNConfig
from rlkit.config import AtLeast


@dataclass
class RainbowConfig(DQNConfig):
    """A DQN's settings, and what else distinguishes one from another. The defaults are DQN's."""

    distribution: Literal["none", "c51", "qr", "iqn"] = "none"
    """what is learned of the return: its mean (none), its distribution (c51), its quantiles at fixed probabilities (qr)
    or at random ones (iqn)"""
    atoms: Annotated[int, AtLeast(2)] = 51
    """numbers for each action: c51's probabilities, qr's quantiles, or the quantiles that iqn draws for an update (it
    acts by 32)"""
    v_max: Annotated[float, AtLeast(1e-3)] = 10.0
    """largest return that c51 can represent: its values are spread evenly from -v_max to v_max"""
    noisy: bool = False
    """learned noise in the dense layers while training; to explore by it alone: --epsilon-final 0 --epsilon-frames 1"""
    munchausen: bool = False
    """Munchausen DQN: the log probability of the action taken, scaled, is added to its reward"""

    @property
    def is_dqn(self) -> bool:
        """Whether all later methods are off."""
        return self.distribution == "none" and not self.noisy and not self.munchausen
