"""What AlphaGo's four stages learn, as one agent on disk, and its networks as functions that a search calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.alphago.network import PolicyNetwork, ValueNetwork
from rlkit.saved_agents import rebuild
from rlkit.search.inference import NetworkFunction


@dataclass
class Parts:
    """The parts of an AlphaGo; a folder may hold only some of them."""

    policy: PolicyNetwork | None = None
    """the prior of the search: the supervised network, or the one that learned by playing"""
    value: ValueNetwork | None = None
    rollout: NDArray[np.float32] | None = None
    """[features] the weights of the fast rollout policy's linear softmax"""


def describe(parts: Parts) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(agent.json's "config" as far as the parts have one, the weights)."""
    config: dict[str, Any] = {}
    weights: dict[str, Tensor] = {}
    for name, network in (("policy", parts.policy), ("value", parts.value)):
        if network is not None:
            config[name] = network.config
            weights |= {f"{name}.{key}": tensor for key, tensor in network.state_dict().items()}
    if parts.rollout is not None:
        config["rollout"] = True
        weights["rollout.weight"] = torch.from_numpy(np.ascontiguousarray(parts.rollout, np.float32))
    return config, weights


def from_files(info: Mapping[str, Any], weights: dict[str, Tensor], device: torch.device | str = "cpu") -> Parts:
    """The parts that agent.json's "config" names, with these weights: the inverse of `describe`.

    Raises KeyError, TypeError, ValueError, RuntimeError where the files do not fit.
    """
    config, parts = info["config"], Parts()
    present = [name for name in ("policy", "value", "rollout") if config.get(name)]
    if not present or any(key.partition(".")[0] not in present for key in weights):
        raise ValueError(f"there are weights {sorted(weights)} and a config of {', '.join(present) or 'nothing'}")
    for name, network_class in (("policy", PolicyNetwork), ("value", ValueNetwork)):
        if name in present:
            own = {key.removeprefix(f"{name}."): w for key, w in weights.items() if key.startswith(f"{name}.")}
            network = rebuild(partial(network_class, **config[name]), own)
            setattr(parts, name, network.to(device))
    if "rollout" in present:
        parts.rollout = weights["rollout.weight"].float().cpu().numpy()
    return parts


class Evaluator(NetworkFunction):
    """A policy or a value network as a function: planes uint8 [B, C, H, W] -> logits [B, A] or values [B], float32."""

    def __call__(self, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.outputs(planes)[0]


def evaluators(parts: Parts, precision: str = "auto") -> tuple[Evaluator | None, Evaluator | None]:
    """(policy, value) as functions; None for a part that is not there."""
    policy, value = (None if net is None else Evaluator(net, precision) for net in (parts.policy, parts.value))
    return policy, value
