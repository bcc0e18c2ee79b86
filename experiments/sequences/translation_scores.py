"""How good translations are: the loss of a translator, nats per token, and BLEU."""

from typing import Any

import torch.nn.functional as F
from sacrebleu.metrics import BLEU
from torch import Tensor, nn

from experiments.sequences.byte_pairs import PAD
from experiments.sequences.sentence_pairs import Rows
from experiments.sequences.translator import AT_ONCE
from rlkit import runtime
from rlkit.data import padded
from rlkit.trainer import Batch, LossFn


def loss_with(smoothing: float) -> LossFn:
    """The mean cross-entropy of each token that is no padding, given those before it; a share `smoothing` of each label
    lies on all tokens alike, and "nats" is the loss without that. Source: Szegedy et al. 2016, section 7.
    """

    def loss_fn(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logits, labels = model(batch["source"], batch["target"][:, :-1]).flatten(0, 1), batch["target"][:, 1:].flatten()
        nats = F.cross_entropy(logits, labels, ignore_index=PAD)
        aux = {"nats": nats.detach(), "tokens": (labels != PAD).sum()}  # ranks weigh by the latter
        if not smoothing:
            return nats, aux
        return F.cross_entropy(logits, labels, ignore_index=PAD, label_smoothing=smoothing), aux

    return loss_fn


def nats_per_token(model: nn.Module, rows: Rows) -> float:
    """The mean loss of the given translations, without dropout and smoothing."""
    device = next(model.parameters()).device
    order = sorted(range(len(rows["target"])), key=lambda i: len(rows["target"][i]))
    loss_fn, total, count = loss_with(0.0), 0.0, 0
    for begin in range(0, len(order), AT_ONCE):
        chosen = order[begin : begin + AT_ONCE]
        batch = {name: padded([side[i] for i in chosen]) for name, side in rows.items()}
        real = int((batch["target"][:, 1:] != PAD).sum())
        with runtime.evaluating(model):
            total += real * loss_fn(model, {name: x.to(device) for name, x in batch.items()})[1]["nats"].item()
        count += real
    return total / count


def score(translations: list[str], references: list[str], tokenize: str = "13a") -> dict[str, Any]:
    """BLEU of the whole, 0 to 100, with sacrebleu's signature; exact: share of sentences equal to the reference."""
    bleu = BLEU(tokenize=tokenize)
    value = bleu.corpus_score(translations, [references]).score
    exact = sum(a == b for a, b in zip(translations, references, strict=True)) / len(references)
    return {"bleu": value, "exact": exact, "signature": str(bleu.get_signature())}
