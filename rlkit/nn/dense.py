"""Dense layers, and networks of them; the layer takes the faster of two matrix libraries on a CPU."""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Dense(nn.Linear):
    """nn.Linear whose fp32 products on a CPU run in oneDNN instead of MKL.

    MKL is half as fast as oneDNN on AMD processors ([128, 3136] x [3136, 512]: 2.0 against 0.9 ms, forward and each of
    both gradients), and torch sends fp32 products to MKL whatever the processor. Elsewhere this is nn.Linear.
    """

    def forward(self, input: Tensor) -> Tensor:
        plain = (
            input.dtype != torch.float32
            or input.device.type != "cpu"
            or input.ndim != 2
            or len(input) == 0  # oneDNN has no product of nothing, and no clear word for shapes that do not fit
            or input.shape[1] != self.in_features
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()  # the compiler chooses for itself
            or not hasattr(torch.ops.mkldnn, "_linear_pointwise")  # not a public name
        )
        return F.linear(input, self.weight, self.bias) if plain else _Product.apply(input, self.weight, self.bias)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _times_transposed(x, weight, bias)

    @staticmethod
    @once_differentiable  # these products say nothing to autograd: a second derivative would be silently wrong
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _times_transposed(grad, weight.t()) if of_x else None,
            _times_transposed(grad.t(), x.t()) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _times_transposed(x: Tensor, y: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, y, bias, "none", [], "")


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": partial(nn.ReLU, inplace=True),
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}


class MLP(nn.Module):
    """A feed-forward torso: images [B, C, H, W] (uint8 read as 0 .. 1) or vectors [B, D] -> [B, out_features].

    hidden: units of its layers, each with the activation (a name in ACTIVATIONS) and dropout.
    """

    def __init__(
        self, in_shape: Sequence[int], hidden: Sequence[int] = (256,), activation: str = "relu", dropout: float = 0.0
    ):
        super().__init__()
        features = [math.prod(in_shape), *hidden]
        self.layers = nn.Sequential()
        for before, after in itertools.pairwise(features):
            self.layers += nn.Sequential(Dense(before, after), ACTIVATIONS[activation](), nn.Dropout(dropout))
        self.out_features = features[-1]

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.layers(x / 255 if x.dtype == torch.uint8 else x)
