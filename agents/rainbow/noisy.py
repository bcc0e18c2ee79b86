"""Dense layers with noise in place of epsilon (Fortunato et al. 2018)."""

import torch
from torch import Tensor, nn

from rlkit.nn.dense import Dense, linear


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
