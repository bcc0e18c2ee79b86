"""What goes on in an agent while it acts: values, distributions of returns, and what they depend on."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


class Insides:
    """Looks at an agent's network whenever it is run, without running it again. The agent acts in one world.

    q: [actions], of the latest `act`.
    """

    def __init__(self, agent: Any):
        self.network, self.q = agent.network, np.zeros(agent.num_actions, np.float32)
        self.distribution: str = getattr(self.network, "distribution", "none")
        self._kept = agent.obs_shape[-1:] if len(agent.obs_shape) == 2 else agent.obs_shape[-2:]
        self._asked: tuple[Any, ...] = ()
        self._head: Any = None
        self.network.register_forward_hook(self._look)
        self.network.head.register_forward_hook(self._look_at_head)
        self._looks = True

    def _look(self, network: Any, asked: tuple[Any, ...], said: Any) -> None:
        if self._looks:
            self._asked, q = asked, said[0] if isinstance(said, tuple) else said
            self.q = q.float().cpu().numpy().reshape(-1)

    def _look_at_head(self, head: Any, asked: tuple[Any, ...], said: Any) -> None:
        if self._looks:
            self._head = said

    def returns(self) -> dict[str, Any] | None:
        """The distribution of returns by action; None where an agent has values alone.

        Of C51 {"support": [lowest, highest], "probabilities": [actions][atoms]}; of QR-DQN and IQN
        {"quantiles": [actions][N]}, which are evenly spread over the probabilities.
        """
        if self.distribution == "none":
            return None
        z = self._head[0].float()
        if self.distribution == "c51":
            support = self.network.support
            ends = [float(support[0]), float(support[-1])]
            return {"support": ends, "probabilities": _rounded(z.softmax(-1))}
        return {"quantiles": _rounded(z.sort(-1).values)}

    def saliency(self, action: int) -> NDArray[np.float32]:
        """|gradient| of this action's value by the latest observation, the greatest over frames and channels, divided
        by its greatest: [H, W] of pictures, [features] of vectors (Simonyan et al. 2013).
        """
        obs, *others = (x.clone() if isinstance(x, torch.Tensor) else x for x in self._asked)
        others = [tuple(part.clone() for part in x) if isinstance(x, tuple) else x for x in others]
        scale = 255 if obs.dtype == torch.uint8 else 1
        seen = (obs.float() / scale).requires_grad_()
        self._looks = False
        try:
            # cuDNN knows no gradient of a recurrent network that is not in training.
            with torch.inference_mode(False), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
                said = self.network(seen, *others)
                q = said[0] if isinstance(said, tuple) else said
                (gradient,) = torch.autograd.grad(q.reshape(-1)[action], seen)
        finally:
            self._looks = True
        weights = gradient.abs().cpu().numpy().reshape(-1, *self._kept).max(0)
        return weights / max(float(weights.max()), 1e-12)


def _rounded(x: torch.Tensor) -> list[list[float]]:
    return [[round(value, 4) for value in row] for row in x.tolist()]
