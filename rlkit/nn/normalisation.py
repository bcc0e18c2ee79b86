"""Vectors brought to one scale, by statistics of what was seen."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """A torso over vectors [..., *in_shape] less their running mean, divided by their running deviation.

    Both are of the batches that gradients were asked for, weighted alike, and saved with the weights.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor
    LARGEST = 10.0

    def __init__(self, torso: nn.Module, in_shape: Sequence[int]):
        super().__init__()
        if len(in_shape) != 2:
            raise ValueError("--normalise is for vectors, and these are images: leave it out")
        self.torso, self.out_features = torso, torso.out_features
        self.register_buffer("mean", torch.zeros(math.prod(in_shape[1:])))
        self.register_buffer("variance", torch.ones(math.prod(in_shape[1:])))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.training and torch.is_grad_enabled():
            with torch.no_grad():
                rows = x.flatten(0, -2)
                self.count += len(rows)
                share = len(rows) / self.count
                # Chan et al. 1979: the mean of squares would lose all digits where means are large.
                variance, mean = torch.var_mean(rows, 0, correction=0)
                delta = mean - self.mean
                self.variance += share * (variance - self.variance + (1 - share) * delta.square())
                self.mean += share * delta
        scaled = ((x - self.mean) * self.variance.clamp(min=1e-6).rsqrt()).clamp(-self.LARGEST, self.LARGEST)
        return self.torso(scaled)
