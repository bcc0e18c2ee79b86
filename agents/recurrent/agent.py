"""DQN with a memory: DRQN (Hausknecht and Stone 2015) and R2D2 (Kapturowski et al. 2019), over any core.

What differs from DQN: a state is carried while acting, and the replay keeps it; sequences are learned from, beginning
with that state; and returns over several steps are made of the sequence.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.dqn.agent import DQN, allowed, epsilon_greedy
from agents.rainbow.agent import weighted_mean
from rlkit import losses
from rlkit.config import AtLeast, Between
from rlkit.nn.convolution import torso
from rlkit.nn.cores import CORES
from rlkit.nn.heads import DuelingHead, LinearHead
from rlkit.returns import n_step_targets, rescale, unscale

State = tuple[Tensor, ...]
PRIORITY_OF_GREATEST = 0.9
"""weight of the greatest error in a sequence's priority; the rest is the mean error's (R2D2, section 2.3)"""


@dataclass
class RecurrentConfig:
    """What distinguishes one DQN with a memory from another."""

    backbone: Literal["none", "rnn", "lstm", "gru", "transformer"] = "lstm"
    """the core, a network with a memory between torso and head; none: a dense layer in its place, for comparison"""
    torso: Literal["nature", "impala", "resnet", "vgg", "minatar", "mlp", "mlp2"] = "mlp"
    """the network that each observation goes through, before the core (rlkit/nn/convolution.py)"""
    width: Annotated[float, AtLeast(0.01)] = 1.0
    """factor of the torso's channels and dense units"""
    features: Annotated[int, AtLeast(1)] = 128
    """units of the core"""
    double: bool = True
    """Double DQN: the online network chooses the next action, and the target network says its value"""
    dueling: bool = True
    """dueling head: Q = V + A - mean A, with V the value of the state and A the advantage of each action"""
    n_step: Annotated[int, AtLeast(1)] = 1
    """agent steps whose rewards are summed in a target, before the value of the state after them"""
    gamma: Annotated[float, Between(0, 1)] = 0.99
    """discount of rewards, per agent step"""
    burn_in: Annotated[int, AtLeast(0)] = 8
    """moments at the beginning of a sequence that bring the state up to date and are not learned from"""
    length: Annotated[int, AtLeast(2)] = 32
    """moments of a sequence that are learned from, after the burn-in"""
    rescale: bool = False
    """learn returns on a scale that is a square root far from 0 (Pohlen et al. 2018), and do not clip rewards"""


class DenseCore(nn.Module):
    """A dense layer with a core's interface, and an empty state."""

    def __init__(self, in_features: int, features: int):
        super().__init__()
        self.dense, self.out_features = nn.Linear(in_features, features), features

    def initial_state(self, batch: int) -> State:
        return (self.dense.weight.new_zeros(batch, 0),)

    def forward(self, x: Tensor, state: State, reset: Tensor | None = None) -> tuple[Tensor, State]:
        return self.dense(x).relu(), state


class RecurrentQNetwork(nn.Module):
    """Observations [B, T, stack, ...] -> Q values [B, T, actions] in fp32, and the state after them."""

    def __init__(self, obs_shape: tuple[int, ...], num_actions: int, cfg: RecurrentConfig):
        super().__init__()
        if len(obs_shape) == 4:  # images of several channels: those of all frames side by side
            obs_shape = (obs_shape[0] * obs_shape[1], *obs_shape[2:])
        # Both papers put the LSTM in the place of the dense layer.
        self.torso = torso(cfg.torso, obs_shape, cfg.width, **{"dense": 0} if cfg.torso == "nature" else {})
        core = DenseCore if cfg.backbone == "none" else CORES[cfg.backbone]
        self.core = core(self.torso.out_features, cfg.features)
        self.head = (DuelingHead if cfg.dueling else LinearHead)(self.core.out_features, num_actions)

    def forward(self, obs: Tensor, state: State, first: Tensor | None = None) -> tuple[Tensor, State]:
        x, state = self.core(self.torso(obs.flatten(2, 3) if obs.ndim == 6 else obs), state, first)
        return self.head(x), state

    def unroll(self, obs: Tensor, state: State, first: Tensor, burn_in: int) -> Tensor:
        """Q values [B, T - burn_in, actions] after the first `burn_in` moments, through which no gradient goes."""
        if burn_in:
            with torch.no_grad():
                _, state = self(obs[:, :burn_in], state, first[:, :burn_in])
        return self(obs[:, burn_in:], state, first[:, burn_in:])[0]


class RecurrentDQN(DQN):
    """A DQN with a recurrent network, or a transformer.

    state: the recurrent state of E episodes while it acts, in the dtype of its weights. Copy the agent (copy.copy) to
    play elsewhere: the copy's memory is its own.
    """

    cfg: RecurrentConfig
    kind, config = "recurrent_dqn", RecurrentConfig
    recurrent = True

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        for part in self.target.modules():
            if isinstance(part, nn.RNNBase):
                part.flatten_parameters()  # cuDNN would join the separate weights of a copy at each call

    def build(self) -> nn.Module:
        """The network."""
        return RecurrentQNetwork(self.obs_shape, self.num_actions, self.cfg)

    @property
    def state_size(self) -> int:
        """Numbers of one episode's state."""
        return sum(part.numel() for part in self.network.core.initial_state(1))

    def q_values(self, obs: NDArray) -> Tensor:
        raise TypeError("the values of a recurrent agent depend on earlier observations: call act")

    @torch.inference_mode()
    def act(
        self,
        obs: NDArray,
        epsilon: float = 0.0,
        rng: np.random.Generator | None = None,
        first: NDArray[np.bool_] | None = None,
        mask: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Epsilon-greedy actions [E] (waits for the device), of those that mask [E, actions] allows. Updates the state,
        which begins anew where first [E].
        """
        assert first is not None, "a recurrent agent needs `first`, where episodes begin"
        fresh = self.network.core.initial_state(len(obs))
        if not self.state or len(self.state[0]) != len(obs):
            self.state = fresh
        begins = torch.from_numpy(first).to(self.device)
        self.state = tuple(
            torch.where(begins.view(-1, *[1] * (now.ndim - 1)), new, now)
            for new, now in zip(fresh, self.state, strict=True)
        )
        self.stored_state = {"state": _flatten(self.state)}
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            q, state = self.network(torch.from_numpy(obs).to(self.device)[:, None], self.state)
        self.state = tuple(now.to(new.dtype) for now, new in zip(state, fresh, strict=True))
        return epsilon_greedy(q[:, 0], epsilon, rng or np.random.default_rng(0), mask)

    def loss(self, model: Any, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean Huber loss of (double) Q-learning in sequences of `rlkit.sequences`; aux of `weighted_mean`."""
        cfg, burn_in = self.cfg, self.cfg.burn_in
        state = _unflatten(batch["state"], self.target.core.initial_state(1))
        q = model.unroll(batch["s"], state, batch["first"], burn_in)
        a, r_t, discount_t, last = (batch[name][:, burn_in:] for name in ("a", "r_t", "discount_t", "last"))
        with torch.no_grad():
            q_target = self.target.unroll(batch["s"], state, batch["first"], burn_in)
            mask = batch["mask"][:, burn_in:] if "mask" in batch else None
            a_t = allowed(q if cfg.double else q_target, mask).argmax(2, keepdim=True)
            v = q_target.gather(2, a_t).squeeze(2)
            v = unscale(v) if cfg.rescale else v
            target = n_step_targets(r_t, discount_t, v, last, cfg.n_step)
            target = rescale(target) if cfg.rescale else target
        learned = ~last[:, : target.shape[1]]
        td_error = (target - q.gather(2, a[:, :, None]).squeeze(2)[:, : target.shape[1]]) * learned
        count = learned.sum(1).clamp(min=1)
        loss, size = losses.huber(td_error).sum(1) / count, td_error.detach().abs()
        mean = size.sum(1) / count
        priority = PRIORITY_OF_GREATEST * size.amax(1) + (1 - PRIORITY_OF_GREATEST) * mean
        return weighted_mean(batch, loss, priority, q, mean.mean())


def _flatten(state: State) -> Tensor:
    return torch.cat([part.flatten(1).float() for part in state], 1)


def _unflatten(flat: Tensor, like: State) -> State:
    sizes = [math.prod(part.shape[1:]) for part in like]
    parts = zip(flat.split(sizes, 1), like, strict=True)
    return tuple(piece.reshape(len(flat), *part.shape[1:]).to(part.dtype) for piece, part in parts)
