"""DQN: act greedily on Q, learn Q from replayed transitions against a frozen copy of itself."""

import copy
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.dqn.network import QNetwork
from rlkit import losses


@dataclass
class DQNConfig:
    """What distinguishes one DQN from another. The defaults are the 2015 paper's."""

    backbone: Literal["nature", "impala", "resnet", "vgg"] = "nature"
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


class DQN:
    """Network, target network and the three verbs: act, loss, sync.

    Args:
        obs_shape: (stack, height, width) of uint8 observations; num_actions: their number.
        precision: fp32 or bf16, of acting; in the loss the trainer's holds, for the target network too.
    """

    def __init__(
        self,
        obs_shape: tuple[int, int, int],
        num_actions: int,
        cfg: DQNConfig,
        device: torch.device | str = "cpu",
        precision: str = "fp32",
    ):
        self.cfg, self.obs_shape, self.num_actions = cfg, obs_shape, num_actions
        self.device, self.precision = torch.device(device), precision
        self.network = QNetwork(self.obs_shape, num_actions, cfg.backbone, cfg.dueling, cfg.width).to(self.device)
        self.target = copy.deepcopy(self.network).requires_grad_(False)

    @torch.inference_mode()
    def q_values(self, obs: NDArray[np.uint8]) -> Tensor:
        """Q [B, actions] of observations [B, stack, height, width]."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.network(torch.from_numpy(obs).to(self.device))

    def act(self, obs: NDArray[np.uint8], epsilon: float, rng: np.random.Generator) -> NDArray[np.int64]:
        """Epsilon-greedy actions [B] (waits for the device)."""
        greedy = self.q_values(obs).argmax(1).cpu().numpy()
        explore = rng.random(len(obs)) < epsilon
        return np.where(explore, rng.integers(self.num_actions, size=len(obs)), greedy)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean Huber loss of the (double) Q-learning error; aux: mean q, mean |td_error|."""
        q_tm1 = model(batch["s_tm1"])
        with torch.no_grad():
            q_t = self.target(batch["s_t"])
            q_t_selector = model(batch["s_t"]) if self.cfg.double else q_t  # who chooses the next action
        td_error = losses.double_q_learning(q_tm1, batch["a_tm1"], batch["r_t"], batch["discount_t"], q_t, q_t_selector)
        return losses.huber(td_error).mean(), {"q": q_tm1.detach().mean(), "td_error": td_error.detach().abs().mean()}

    def sync(self, model: nn.Module) -> None:
        """Copy the weights into the target network, in place (a captured graph reads that memory)."""
        self.target.load_state_dict(model.state_dict())

    def describe(self) -> dict[str, Any]:
        """What `agent.json` needs to build the agent again."""
        return {"kind": "dqn", "obs_shape": self.obs_shape, "num_actions": self.num_actions, "config": asdict(self.cfg)}

    @classmethod
    def from_files(cls, info: dict[str, Any], weights: dict[str, Tensor], device: torch.device | str = "cpu") -> "DQN":
        """The agent that `describe` and its network's weights were taken from."""
        agent = cls(tuple(info["obs_shape"]), info["num_actions"], DQNConfig(**info["config"]), device)
        agent.network.load_state_dict(weights)
        agent.sync(agent.network)
        return agent
