"""From a reader to a classifier of gaps, and how often it is right."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.sequences.objectives import MASK, QUERY
from experiments.sequences.reader import Reader
from rlkit import runtime
from rlkit.data import Batches, rows
from rlkit.nn.heads import LinearHead
from rlkit.trainer import Batch, TrainConfig, Trainer


class GapClassifier(nn.Module):
    """Tokens [B, N] with a mask in their middle -> logits [B, classes], from a copy of a reader.

    They are read from the row in which the reader learned to predict. masked: the mask's own; causal: the one before
    the gap, which sees nothing later; denoising: the mask in the source, which stands for all that was there;
    permutation: one that asks about the gap and that no other row sees.
    """

    def __init__(self, reader: Reader, classes: int, objective: str):
        super().__init__()
        self.reader, self.objective = copy.deepcopy(reader).train(), objective
        self.out = LinearHead(reader.embed.embedding_dim, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        gap, places = n // 2, torch.arange(n, device=tokens.device)
        causal, mask = self.objective == "causal", None
        if self.objective == "permutation":
            tokens = tokens.where(tokens != MASK, QUERY)
            mask = (places != gap).repeat(n, 1)
            mask[gap, gap] = True
        return self.out(self.reader.features(tokens, places, mask, causal)[:, gap - causal])


def class_loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy."""
    return F.cross_entropy(model(batch["tokens"]), batch["label"]), {}


def fine_tuned_accuracy(
    reader: Reader, objective: str, examples: Batch, tests: Batch, cfg: TrainConfig, batch_size: int, seed: int
) -> float:
    """The share of `tests` that a classifier gets right which begins with `reader` and learns from `examples`.

    Raises KeyboardInterrupt where a signal ends it.
    """
    device = reader.embed.weight.device
    model = GapClassifier(reader, int(examples["label"].max()) + 1, objective).to(device)
    trainer = Trainer(model, class_loss, cfg)
    for _ in trainer.run(Batches(rows(examples, min(batch_size, len(examples["label"])), seed))):
        pass
    trainer.close()
    if trainer.stopped:
        raise KeyboardInterrupt
    with runtime.evaluating(model):
        right = [
            (model(tokens.to(device)).argmax(1).cpu() == label).float()
            for tokens, label in zip(tests["tokens"].split(256), tests["label"].split(256), strict=True)
        ]
    return float(torch.cat(right).mean())
