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
        return linear(input, self.weight, self.bias)


class NoisyDense(Dense):
    """A dense layer whose weights are noisy while training: w + sigma e, with a new e at each call, the same for a
    whole batch; in evaluation w alone.

    e is factorised, f(e_out) f(e_in)' with f(x) = sign(x) sqrt(|x|). First weights within 1 / sqrt(in_features), first
    sigmas sigma0 / sqrt(in_features). Source: Fortunato et al. 2018, section 3, (b).
    """

    def __init__(self, in_features: int, out_features: int, sigma0: float = 0.5):
        super().__init__(in_features, out_features)
        bound = in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)
        self.sigma_weight = nn.Parameter(torch.full_like(self.weight, sigma0 * bound))
        self.sigma_bias = nn.Parameter(torch.full_like(self.bias, sigma0 * bound))

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        e_in, e_out = (torch.randn(n, device=input.device) for n in (self.in_features, self.out_features))
        f_in, f_out = (e.sign() * e.abs().sqrt() for e in (e_in, e_out))
        weight = torch.addcmul(self.weight, self.sigma_weight, f_out[:, None] * f_in)
        return linear(input, weight, self.bias + self.sigma_bias * f_out)


def make_noisy(module: nn.Module, sigma0: float = 0.5) -> None:
    """Replace every dense layer in `module` by a noisy one, first weights included."""
    for name, part in module.named_children():
        if isinstance(part, nn.Linear):
            setattr(module, name, NoisyDense(part.in_features, part.out_features, sigma0))
        else:
            make_noisy(part, sigma0)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W' + b, by oneDNN where that is worth it: see `Dense`."""
    plain = (
        x.dtype != torch.float32
        or x.device.type != "cpu"
        or x.ndim != 2
        or len(x) == 0  # oneDNN has no product of nothing, and no clear word for shapes that do not fit
        or x.shape[1] != weight.shape[1]
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()  # the compiler chooses for itself
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
            self.layers += nn.Sequential(Dense(before, after), ACTIVATIONS[activation](), nn.Dropout(dropout))
        self.out_features, self._dims = features[-1], len(in_shape)

    def forward(self, x: Tensor) -> Tensor:
        lead, x = x.shape[: -self._dims], x.flatten(-self._dims).flatten(0, -2)  # Dense is fastest on two dimensions
        return self.layers(x / 255 if x.dtype == torch.uint8 else x).unflatten(0, lead)
