"""PQN: Q-learning on fresh experience alone. Layer norm keeps it stable, without a replay and a target network.

Gallici et al. 2024, "Simplifying Deep Temporal Difference Learning".
"""

import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.dqn.agent import epsilon_greedy
from rlkit.config import AtLeast, Between
from rlkit.nn.convolution import SmallCNN
from rlkit.nn.heads import LinearHead
from rlkit.nn.nature import NatureCNN, he_, scaled
from rlkit.saved_agents import check_shapes


@dataclass
class PQNConfig:
    """What distinguishes one PQN from another. The defaults are those of the paper's Atari agent."""

    width: Annotated[float, AtLeast(0.01)] = 1.0
    """factor of the network's channels and dense units, before the head"""
    gamma: Annotated[float, Between(0, 1)] = 0.99
    """discount of rewards, per agent step"""
    lambda_: Annotated[float, Between(0, 1)] = 0.65
    """lambda of the returns: 0 is one-step Q-learning, 1 sums all rewards up to the end of the rollout"""


class NormedCNN(NatureCNN):
    """The DQN torso with a layer norm before each ReLU, and He's first weights (the authors' Atari network).

    A convolution's norm is over the channels of each place: of a map with channels innermost it needs no copy.
    """

    dense: nn.Linear  # type: ignore[assignment]

    def __init__(self, in_shape: tuple[int, int, int], width: float = 1.0):
        super().__init__(in_shape, width)
        he_(self)
        channels = [conv.out_channels for conv in (self.conv1, self.conv2, self.conv3)]
        self.norms = nn.ModuleList(nn.LayerNorm(n) for n in (*channels, self.out_features))

    def after(self, x: Tensor) -> Tensor:
        norm1, norm2, norm3, norm4 = self.norms
        x = self.conv2(_normed(norm1, x))
        x = self.conv3(_normed(norm2, x))
        x = self.dense(_normed(norm3, x).flatten(1))
        return F.relu(norm4(x), inplace=True)


class NormedSmallCNN(SmallCNN):
    """The torso for planes of a few cells, with a layer norm before each ReLU, and He's first weights."""

    def __init__(self, in_shape: tuple[int, int, int], width: float = 1.0):
        super().__init__(in_shape, width)
        he_(self)
        self.norms = nn.ModuleList(nn.LayerNorm(n) for n in (self.conv1.out_channels, self.out_features))

    def after(self, x: Tensor) -> Tensor:
        norm1, norm2 = self.norms
        return F.relu(norm2(self.dense(_normed(norm1, x).flatten(1))), inplace=True)


class NormedMLP(nn.Module):
    """Vectors [B, ..., D] -> [B, out_features]: two dense layers of 128, each with a layer norm before its ReLU (the
    authors' network for classic control).
    """

    def __init__(self, in_features: int, width: float = 1.0):
        super().__init__()
        (units,) = scaled(width, 128)
        self.out_features = units
        layers = [nn.Linear(in_features, units), nn.LayerNorm(units), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Linear(units, units), nn.LayerNorm(units), nn.ReLU(inplace=True))
        he_(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.flatten(1))


def _normed(norm: nn.Module, x: Tensor) -> Tensor:
    return F.relu(norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), inplace=True)


class QNetwork(nn.Module):
    """Observations, images [B, stack, (channels,) height, width] or vectors [B, stack, features], -> Q values
    [B, actions] in fp32.
    """

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int, width: float = 1.0):
        super().__init__()
        if len(obs_shape) == 4:  # images of several channels: those of all frames side by side
            obs_shape = (obs_shape[0] * obs_shape[1], *obs_shape[2:])
        if len(obs_shape) == 2:
            self.torso: Any = NormedMLP(math.prod(obs_shape), width)
        else:
            self.torso = (NormedCNN if min(obs_shape[1:]) >= 36 else NormedSmallCNN)(obs_shape, width)  # type: ignore[arg-type]
        self.head = LinearHead(self.torso.out_features, num_actions)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.torso(obs.flatten(1, 2) if obs.ndim == 5 else obs))


class PQN:
    """The network and two verbs: act, loss.

    Args:
        obs_shape: of observations, as envs/vector.py has it; num_actions: the number of actions.
        precision: fp32 or bf16, of acting; in the loss the trainer's holds.
    """

    def __init__(
        self,
        obs_shape: tuple[int, ...],
        num_actions: int,
        cfg: PQNConfig,
        device: torch.device | str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ):
        self.cfg, self.obs_shape, self.num_actions = cfg, obs_shape, num_actions
        self.device, self.precision = torch.device(device), precision
        self.network = QNetwork(obs_shape, num_actions, cfg.width).to(self.device)

    @torch.inference_mode()
    def q_values(self, obs: Tensor) -> Tensor:
        """Q [B, actions] of observations [B, *obs_shape] on any device."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.network(obs.to(self.device))

    def act(
        self,
        obs: NDArray,
        epsilon: float = 0.0,
        rng: np.random.Generator | None = None,
        first: NDArray[np.bool_] | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Epsilon-greedy actions [B], of those that mask [B, actions] allows. It has no state, and so ignores `first`
        (where episodes begin).
        """
        return epsilon_greedy(self.q_values(torch.from_numpy(obs)), epsilon, rng or np.random.default_rng(0), mask)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Half the mean squared error of Q(s, a) against its target; aux: mean q of all actions, mean |td_error|.

        Source: Gallici et al. 2024, algorithm 1, with the factor of the authors' code.
        """
        q = model(batch["s"])
        assert batch["a"].shape == batch["target"].shape == q.shape[:1], (q.shape, batch["a"].shape)
        td_error = batch["target"] - q.gather(1, batch["a"].unsqueeze(1)).squeeze(1)
        aux = {"q": q.detach().mean(), "td_error": td_error.detach().abs().mean()}
        return td_error.square().mean() / 2, aux

    def describe(self) -> dict[str, Any]:
        """What `agent.json` needs to build the agent again."""
        return {"kind": "pqn", "obs_shape": self.obs_shape, "num_actions": self.num_actions, "config": asdict(self.cfg)}

    @classmethod
    def from_files(cls, info: dict[str, Any], weights: dict[str, Tensor], device: torch.device | str = "cpu") -> "PQN":
        """The agent that `describe` and its network's weights were taken from."""
        like = tuple(info["obs_shape"]), info["num_actions"], PQNConfig(**info["config"])
        check_shapes(lambda: cls(*like, "meta").network, weights)
        agent = cls(*like, device)
        agent.network.load_state_dict(weights)
        return agent
