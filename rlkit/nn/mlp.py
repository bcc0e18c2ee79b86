"""Feed-forward networks."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from rlkit.nn.dense import Dense

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


class MLP(nn.Module):
    """A feed-forward torso: images [..., C, H, W] (uint8 read as 0 .. 1) or vectors [..., D] -> [..., out_features].

    hidden: units of its layers, each with the activation (a name in ACTIVATIONS) and dropout.
    """

    def __init__(
        self, in_shape: Sequence[int], hidden: Sequence[int] = (256,), activation: str = "relu", dropout: float = 0.0
    ):
        super().__init__()
        features = [math.prod(in_shape), *hidden]
        self.layers = nn.Sequential()
        for before, after in itertools.pairwise(features):
            dropped = nn.Dropout(dropout) if dropout else nn.Identity()
            self.layers += nn.Sequential(Dense(before, after), ACTIVATIONS[activation](), dropped)
        self.out_features, self._dims = features[-1], len(in_shape)

    def forward(self, x: Tensor) -> Tensor:
        lead, x = x.shape[: -self._dims], x.flatten(-self._dims).flatten(0, -2)  # Dense is fastest on two dimensions
        x = x / 255 if x.dtype == torch.uint8 else x if x.is_floating_point() else x.float()
        return self.layers(x).unflatten(0, lead)
