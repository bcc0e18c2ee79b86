"""DQN: act greedily on Q, learn Q from replayed transitions against a frozen copy of itself."""

import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.dqn.network import QNetwork
from agents.dqn.variants import DISTRIBUTIONS, munchausen, values
from rlkit.checkpoint import check_shapes


@dataclass
class DQNConfig:
    """What distinguishes one DQN from another. The defaults are the 2015 paper's."""

    backbone: Literal["nature", "impala", "resnet", "vgg", "mlp", "linear"] = "nature"
    """torso of the network, a name in rlkit.nn.convolution.BACKBONES"""
    width: float = 1.0
    """multiplies the torso's channels and dense units"""
    double: bool = False
    """the online network chooses the next action, the target network judges it"""
    dueling: bool = False
    """Q = V + A - mean A"""
    n_step: int = 1
    """rewards summed before the bootstrap, in agent steps"""
    gamma: float = 0.99
    """discount per agent step"""
    distribution: Literal["none", "c51", "qr", "iqn"] = "none"
    """what is learned of returns: their mean; probabilities (c51), quantiles (qr) or any quantile (iqn) of them"""
    atoms: int = 51
    """of c51; quantiles of qr; quantiles of iqn that are drawn for an update, 32 where it acts"""
    v_max: float = 10.0
    """c51's atoms lie between -v_max and v_max"""
    noisy: bool = False
    """dense layers with noise while training; for noise in place of epsilon: --epsilon-final 0 --epsilon-frames 1"""
    munchausen: bool = False
    """the log probability of what was done adds to its reward"""


def epsilon_greedy(q: Tensor, epsilon: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Actions [B]: with probability epsilon any one, else the best of q [B, actions] (waits for the device)."""
    greedy = q.argmax(1).cpu().numpy()
    explore = rng.random(len(q)) < epsilon
    return np.where(explore, rng.integers(q.shape[1], size=len(q)), greedy)


def told(
    batch: dict[str, Tensor], loss: Tensor, priority: Tensor, q: Tensor, td_error: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """What a loss function returns: the mean of loss [B], weighted by batch["weight"] where there is one, and aux."""
    mean = (loss * batch["weight"]).mean() if "weight" in batch else loss.mean()
    aux = {"q": q.detach().mean(), "td_error": td_error, "priority": priority}
    return mean, aux | ({"index": batch["index"]} if "index" in batch else {})


class DQN:
    """Network, target network and the three verbs: act, loss, sync.

    Args:
        obs_shape: (stack, height, width) of uint8 observations, or (1, features) of float32 ones; num_actions: the
            number of actions. cfg: a DQNConfig.
        precision: fp32 or bf16, of acting; in the loss the trainer's holds, for the target network too.
    """

    kind: str = "dqn"
    config: Any = DQNConfig
    remembers = False

    def __init__(
        self,
        obs_shape: tuple[int, ...],
        num_actions: int,
        cfg: Any,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ):
        self.cfg, self.obs_shape, self.num_actions = cfg, obs_shape, num_actions
        self.device, self.precision = torch.device(device), precision
        self.network: Any = self.build().to(self.device)
        self.target: Any = copy.deepcopy(self.network).requires_grad_(False)
        self.state: tuple[Tensor, ...] = ()  # what is remembered while acting: nothing
        self.remembered: dict[str, Any] = {}  # of it, what the replay keeps beside the latest moment

    def build(self) -> nn.Module:
        """The network."""
        cfg = self.cfg
        if cfg.munchausen and (cfg.double or cfg.n_step > 1 or cfg.distribution == "c51"):
            raise ValueError(
                "munchausen has a soft policy of its own, for single steps: take --no-double and --n-step 1, and qr or"
                " iqn for c51"
            )
        return QNetwork(self.obs_shape, self.num_actions, cfg)

    @torch.inference_mode()
    def q_values(self, obs: NDArray[np.uint8]) -> Tensor:
        """Q [B, actions] of observations [B, stack, height, width]."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.network(torch.from_numpy(obs).to(self.device))

    def act(
        self, obs: NDArray, epsilon: float, rng: np.random.Generator, first: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Epsilon-greedy actions [B] (waits for the device). first [B], whether episodes begin, is for those who
        remember.
        """
        return epsilon_greedy(self.q_values(obs), epsilon, rng)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean loss of `agents.dqn.variants`, weighted by batch["weight"] [B] where there is one.

        aux: mean q, mean |td_error| (of a distribution its priority), each transition's priority [B] and, where the
        batch has it, its index [B].
        """
        of_values = munchausen if self.cfg.munchausen else values
        learn = of_values if self.cfg.distribution == "none" else DISTRIBUTIONS[self.cfg.distribution]
        loss, priority, q = learn(self, model, batch)
        return told(batch, loss, priority.detach(), q, priority.detach().mean())

    def sync(self, model: nn.Module) -> None:
        """Copy the weights into the target network, in place (a captured graph reads that memory)."""
        self.target.load_state_dict(model.state_dict())

    def describe(self) -> dict[str, Any]:
        """What `agent.json` needs to build the agent again."""
        return {
            "kind": self.kind,
            "obs_shape": self.obs_shape,
            "num_actions": self.num_actions,
            "config": asdict(self.cfg),
        }

    @classmethod
    def from_files(cls, info: dict[str, Any], weights: dict[str, Tensor], device: torch.device | str = "cpu") -> "DQN":
        """The agent that `describe` and its network's weights were taken from."""
        like = tuple(info["obs_shape"]), info["num_actions"], cls.config(**info["config"])
        check_shapes(lambda: cls(*like, "meta").network, weights)
        agent = cls(*like, device)
        agent.network.load_state_dict(weights)
        agent.sync(agent.network)
        agent.network.eval()  # no noise
        return agent
