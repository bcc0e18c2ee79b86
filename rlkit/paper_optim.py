"""Optimisers as their papers have them, where torch's own is another, or cannot skip an update."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class CentredRMSProp(torch.optim.Optimizer):
    """RMSProp as in the 2015 DQN code: w -= lr g / sqrt(E[g^2] - E[g]^2 + eps), both means with `decay`.

    torch's own adds eps outside the root. Source: Graves 2013, eqs. 38-41; Mnih et al. 2015, Extended Data Table 1,
    whose "gradient momentum" is the decay of E[g].
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, eps: float, decay: float = 0.95):
        super().__init__(params, {"lr": lr, "eps": eps, "decay": decay})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        """One update; `found_inf` of 1 leaves weights and means as they are, without waiting for the device."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
            mean = [self.state[p]["mean"] for p in params]
            square = [self.state[p]["square"] for p in params]
            decay, fresh = group["decay"], 1 - group["decay"]
            if self.found_inf is not None:
                grads = [torch.where(self.found_inf == 0, g, 0.0) for g in grads]
                decay = 1 - fresh * (1 - self.found_inf)
            torch._foreach_mul_(mean, decay)
            torch._foreach_add_(mean, grads, alpha=fresh)
            torch._foreach_mul_(square, decay)
            torch._foreach_addcmul_(square, grads, grads, value=fresh)
            root = torch._foreach_addcmul(square, mean, mean, value=-1)
            torch._foreach_clamp_min_(root, 0.0)  # rounding: a variance is never negative
            torch._foreach_add_(root, group["eps"])
            torch._foreach_sqrt_(root)
            torch._foreach_addcdiv_(params, grads, root, value=-group["lr"])


class RAdam(torch.optim.Optimizer):
    """Adam that warms up by itself: momentum alone while too few gradients were seen to trust their variance, from the
    sixth update on Adam, whose rate grows towards lr by the rectification r.

    Source: Liu et al. 2020, algorithm 2. torch's own cannot skip an update.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], lr: float, eps: float = 1e-8, betas: tuple[float, float] = (0.9, 0.999)
    ):
        super().__init__(params, {"lr": lr, "eps": eps, "betas": betas, "t": 0})
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure=None) -> None:  # type: ignore[override]
        """One update; `found_inf` of 1 leaves weights and means as they are, without waiting for the device."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            grads = [p.grad for p in params]
            for p in params:
                if not self.state[p]:
                    self.state[p] = {"mean": torch.zeros_like(p), "square": torch.zeros_like(p)}
            mean = [self.state[p]["mean"] for p in params]
            square = [self.state[p]["square"] for p in params]
            group["t"] += 1
            (beta1, beta2), t = group["betas"], group["t"]
            decay1, decay2, rate = beta1, beta2, -group["lr"] / (1 - beta1**t)
            if self.found_inf is not None:
                keep = 1 - self.found_inf
                grads = [torch.where(keep == 1, g, 0.0) for g in grads]
                decay1, decay2, rate = 1 - (1 - beta1) * keep, 1 - (1 - beta2) * keep, rate * keep
            torch._foreach_mul_(mean, decay1)
            torch._foreach_add_(mean, grads, alpha=1 - beta1)
            torch._foreach_mul_(square, decay2)
            torch._foreach_addcmul_(square, grads, grads, value=1 - beta2)
            rho_inf = 2 / (1 - beta2) - 1
            rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
            if rho > 5:
                r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
                root = torch._foreach_sqrt(square)
                torch._foreach_div_(root, math.sqrt(1 - beta2**t))
                torch._foreach_add_(root, group["eps"])
                move = torch._foreach_div(mean, root)
                torch._foreach_mul_(move, rate * r)
            else:
                move = torch._foreach_mul(mean, rate)
            torch._foreach_add_(params, move)
