"""Optimisers by name, all of which can skip an update without waiting for the device (`found_inf`)."""

from collections.abc import Iterable

import torch
from torch import nn


def build(name: str, params: Iterable[nn.Parameter], lr: float, eps: float, weight_decay: float, momentum: float):
    """The optimiser `name`: adam, adamw, sgd (torch's fused kernels); radam, rmsprop (ours; momentum is its decay)."""
    if name == "adam":
        return torch.optim.Adam(params, lr, eps=eps, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(params, lr, eps=eps, weight_decay=weight_decay, fused=True)
    if name == "sgd":
        return torch.optim.SGD(params, lr, momentum=momentum, weight_decay=weight_decay, fused=True)
    if name in ("radam", "rmsprop"):
        if weight_decay:
            raise ValueError(f"{name} has no weight decay: use adamw, or a weight decay of 0")
        from rlkit.paper_optim import CentredRMSProp, RAdam

        if name == "radam":
            return RAdam(params, lr, eps)
        return CentredRMSProp(params, lr, eps, decay=momentum)
    raise ValueError(f"there is no optimiser {name!r}; choose radam, adam, adamw, sgd or rmsprop")
