"""AlphaGo's rollout policy: a linear softmax over pattern features, small enough for play-outs."""

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn


class RolloutPolicy(nn.Module):
    """features [B, A, slots] and candidates [B, A] -> logits [B, A], -inf at what is no candidate.

    A feature is a number below `features`, each with one weight; 0 is padding and weighs nothing. All begin at 0, as
    light play-outs have it. Source: Silver et al. 2016, Methods, "Rollout policy", and Extended Data Table 4.
    """

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features))

    def forward(self, features: Tensor, candidates: Tensor) -> Tensor:
        weights = F.embedding(features, self.weight[:, None], padding_idx=0).squeeze(-1)
        return weights.sum(-1).masked_fill(~candidates, -torch.inf)

    def weights(self) -> NDArray:
        """The weights [features] in fp32, for play-outs."""
        return self.weight.detach().float().cpu().numpy()


def rollout_loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """(cross-entropy of the moves "action" [B] among "candidates" [B, A] with "features" [B, A, slots], {"accuracy"}).

    A move that is no candidate, as a pass, teaches nothing and counts as not predicted.
    """
    logits = model(batch["features"], batch["candidates"])
    is_candidate = batch["candidates"].gather(1, batch["action"][:, None]).squeeze(1)
    logp = logits.log_softmax(1).gather(1, batch["action"][:, None]).squeeze(1)
    accuracy = ((logits.argmax(1) == batch["action"]) & is_candidate).float().mean()
    return -logp.where(is_candidate, 0).sum() / is_candidate.sum().clamp(min=1), {"accuracy": accuracy}
