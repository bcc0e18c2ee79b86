"""Dense layers, and networks of them; the layer takes the faster of two matrix libraries on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SMALL = 1 << 23
"""multiplications below which MKL is faster, for it has less to prepare ([8, 256] x [256, 256]: 33 against 148 us)"""


class Dense(nn.Linear):
    """nn.Linear whose fp32 products on a CPU run in oneDNN instead of MKL.

    MKL is half as fast as oneDNN on AMD processors ([128, 3136] x [3136, 512]: 2.0 against 0.9 ms, forward and each of
    both gradients), and torch sends fp32 products to MKL whatever the processor. Elsewhere this is nn.Linear.
    """

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W' + b, by oneDNN where that is worth it: see `Dense`."""
    plain = (
        torch.compiler.is_compiling()  # it chooses for itself; first, for len(x) would fix an export's batch
        or x.dtype != torch.float32
        or x.device.type != "cpu"
        or x.ndim != 2
        or len(x) == 0  # oneDNN has no product of nothing, and no clear word for shapes that do not fit
        or x.shape[1] != weight.shape[1]
        or len(x) * weight.numel() <= SMALL
        or torch.is_autocast_enabled("cpu")
        or not hasattr(torch.ops.mkldnn, "_linear_pointwise")  # not a public name
    )
    return F.linear(x, weight, bias) if plain else _Product.apply(x, weight, bias)


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
