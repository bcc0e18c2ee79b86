"""DQN: act greedily on Q, learn Q from replayed transitions against a frozen copy of itself.

Mnih et al. 2015; Double DQN (van Hasselt et al. 2016), the dueling head (Wang et al. 2016) and n-step returns are
switches of its config. What else came after is in `agents/rainbow`, as differences to this file.
"""

import copy
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rlkit import losses
from rlkit.config import AtLeast, Between
from rlkit.nn.heads import DuelingHead, LinearHead
from rlkit.nn.nature import NatureCNN

Batch = dict[str, Tensor]


@dataclass
class DQNConfig:
    """What distinguishes one DQN from another. The defaults are the 2015 paper's."""

    backbone: Literal["nature", "impala", "resnet", "vgg", "minatar", "mlp", "mlp2", "linear"] = "nature"
    """the network before the head (rlkit/nn/convolution.py)"""
    width: Annotated[float, AtLeast(0.01)] = 1.0
    """factor of the network's channels and dense units, before the head"""
    double: bool = False
    """Double DQN: the online network chooses the next action, and the target network says its value"""
    dueling: bool = False
    """dueling head: Q = V + A - mean A, with V the value of the state and A the advantage of each action"""
    n_step: Annotated[int, AtLeast(1)] = 1
    """agent steps whose rewards are summed in a target, before the value of the state after them"""
    gamma: Annotated[float, Between(0, 1)] = 0.99
    """discount of rewards, per agent step"""
    normalise: bool = False
    """scale observations, which are vectors, by their running mean and deviation, which are saved with the agent"""


class QNetwork(nn.Module):
    """Observations, images [B, stack, (channels,) height, width] or vectors [B, stack, features], -> Q values
    [B, actions] in fp32.

    cfg: which torso and head. atoms: the head's numbers for each action; None: one, which is its value.
    """

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int, cfg: DQNConfig, atoms: int | None = None):
        super().__init__()
        if len(obs_shape) == 4:  # images of several channels: those of all frames side by side
            obs_shape = (obs_shape[0] * obs_shape[1], *obs_shape[2:])
        if cfg.backbone == "nature" and len(obs_shape) == 3:
            self.torso: Any = NatureCNN(obs_shape, cfg.width)
        else:
            from rlkit.nn.convolution import torso  # not needed for the 2015 paper

            self.torso = torso(cfg.backbone, obs_shape, cfg.width)
        if cfg.normalise:
            from rlkit.nn.normalisation import Normalised

            self.torso = Normalised(self.torso, obs_shape)
        self.head: nn.Module = (DuelingHead if cfg.dueling else LinearHead)(self.torso.out_features, num_actions, atoms)

    def features(self, obs: Tensor) -> Tensor:
        return self.torso(obs.flatten(1, 2) if obs.ndim == 5 else obs)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.features(obs))


def td_errors(cfg: DQNConfig, target: nn.Module, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """(TD errors [B], Q of s_tm1 [B, actions]) of a batch with s_tm1, a_tm1, r_t, discount_t, s_t, and mask_t where
    not all actions are allowed.

    The target network looks ahead, and no gradient comes from there.
    """
    q_tm1 = model(batch["s_tm1"])
    transition = q_tm1, batch["a_tm1"], batch["r_t"], batch["discount_t"]
    with torch.no_grad():
        q_t = target(batch["s_t"])
        # chooses the next action; the target network says what it is worth
        q_t_selector = model(batch["s_t"]) if cfg.double else q_t
    q_t_selector = allowed(q_t_selector, batch.get("mask_t"))
    return losses.double_q_learning(*transition, q_t, q_t_selector), q_tm1


def allowed(q: Tensor, mask: Tensor | None) -> Tensor:
    """q [..., actions], where mask [..., actions] is False far below all values. It is finite: times 0 it is 0."""
    return q if mask is None else q.masked_fill(~mask, -1e9)


def random_actions(
    rng: np.random.Generator, shape: tuple[int, ...], mask: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Uniform over those that mask [B, actions] allows; shape: (B, actions)."""
    if mask is None:
        return rng.integers(shape[1], size=shape[0])
    return np.where(mask, rng.random(shape), -1.0).argmax(1)


def epsilon_greedy(
    q: Tensor, epsilon: float, rng: np.random.Generator, mask: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Actions [B]: with probability epsilon a random one, else the best of q [B, actions] (waits for the device); of
    those that mask [B, actions] allows.
    """
    greedy = allowed(q, None if mask is None else torch.from_numpy(mask).to(q.device)).argmax(1).cpu().numpy()
    explore = rng.random(len(q)) < epsilon
    return np.where(explore, random_actions(rng, tuple(q.shape), mask), greedy)


class DQN:
    """Network, target network and the three verbs: act, loss, sync.

    Args:
        obs_shape: of observations, as envs/vector.py has it; num_actions: the number of actions. cfg: a DQNConfig.
        precision: fp32 or bf16, of acting; in the loss the trainer's holds, for the target network too.
    """

    kind: str = "dqn"
    config: Any = DQNConfig
    recurrent = False

    def __init__(
        self,
        obs_shape: tuple[int, ...],
        num_actions: int,
        cfg: Any,
        device: torch.device | str = "cpu",
        precision: Literal["fp32", "bf16"] = "fp32",
    ):
        self.cfg, self.obs_shape, self.num_actions = cfg, obs_shape, num_actions
        self.device, self.precision = torch.device(device), precision
        self.network: Any = self.build().to(self.device)
        self.target: Any = copy.deepcopy(self.network).requires_grad_(False)
        self.state: tuple[Tensor, ...] = ()  # while acting: none
        self.stored_state: dict[str, Any] = {}  # what the replay stores of it, with the latest step

    def build(self) -> nn.Module:
        """The network."""
        return QNetwork(self.obs_shape, self.num_actions, self.cfg)

    @torch.inference_mode()
    def q_values(self, obs: NDArray[np.uint8]) -> Tensor:
        """Q [B, actions] of observations [B, stack, height, width]."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.network(torch.from_numpy(obs).to(self.device))

    def act(
        self,
        obs: NDArray,
        epsilon: float = 0.0,
        rng: np.random.Generator | None = None,
        first: NDArray[np.bool_] | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Epsilon-greedy actions [B] (waits for the device), of those that mask [B, actions] allows. first [B], whether
        episodes begin, is for recurrent agents.
        """
        return epsilon_greedy(self.q_values(obs), epsilon, rng or np.random.default_rng(0), mask)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean Huber loss of the TD errors; aux: mean q, mean |td_error|."""
        td_error, q = td_errors(self.cfg, self.target, model, batch)
        return losses.huber(td_error).mean(), {"q": q.detach().mean(), "td_error": td_error.detach().abs().mean()}

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
        from rlkit.saved_agents import check_shapes

        like = tuple(info["obs_shape"]), info["num_actions"], cls.config(**info["config"])
        check_shapes(lambda: cls(*like, "meta").network, weights)
        agent = cls(*like, device)
        agent.network.load_state_dict(weights)
        agent.sync(agent.network)
        agent.network.eval()  # no noise
        return agent
