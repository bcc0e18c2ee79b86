"""Four ways to learn from a text without labels: a piece of text [B, N] to what goes in, what must come out, and which
row may look at which. The model and the loss are the same for all.

    masked         BERT and RoBERTa     a few tokens are hidden, each is predicted from all others on both sides
    causal         GPT                  each is predicted from those before it
    denoising      BART                 a text with holes is read by an encoder, and written whole by a decoder
    permutation    XLNet                each is predicted from those before it in a random order
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from rlkit.data import padded
from rlkit.trainer import Batch

PAD, MASK, BEGIN, QUERY, FIRST = range(5)
"""tokens beside the bytes, the first of which is FIRST"""
SIZE = FIRST + 256
NONE = -100
"""a target where nothing is to be predicted"""
Tokens = NDArray[np.int64]


def masked(tokens: Tokens, rng: np.random.Generator) -> Batch:
    """15 % of the tokens are predicted from all others: 80 % of them are masked, 10 % replaced by a random byte and
    10 % left in place, as no mask comes in fine-tuning (BERT: Devlin et al. 2019, section 3.1). Each batch draws its
    masks anew (RoBERTa: Liu et al. 2019, section 4.1).
    """
    b, n = tokens.shape
    hidden = rng.random((b, n)).argsort(1) < max(1, round(0.15 * n))
    fate, noise = rng.random((b, n)), rng.integers(FIRST, SIZE, (b, n))
    inputs = np.where(hidden & (fate < 0.8), MASK, np.where(hidden & (fate >= 0.9), noise, tokens))
    return _batch(inputs, np.where(hidden, tokens, NONE), seen=np.ones((n, n), bool))


def causal(tokens: Tokens, rng: np.random.Generator) -> Batch:
    """Each token is predicted from those before it (GPT: Radford et al. 2018, eq. 1)."""
    return _batch(tokens[:, :-1], tokens[:, 1:], seen=np.tri(tokens.shape[1] - 1, dtype=bool))


def denoising(tokens: Tokens, rng: np.random.Generator) -> Batch:
    """A text with holes is read, and then written whole (BART: Lewis et al. 2020, section 2.2, "text infilling").

    Encoder and decoder are two kinds of rows in one stack, a "prefix LM" (Raffel et al. 2020, section 3.2):

                   source  written
        source    [ all      no   ]      each sees the whole text with holes
        written   [ all      <=   ]      and, in writing, all of it and what it has written so far
    """
    b, n = tokens.shape
    source = padded([infilled(row, rng) for row in tokens]).numpy()
    s = source.shape[1]
    seen = np.zeros((b, s + n, s + n), bool)
    seen[:, :, :s] = (source != PAD)[:, None]
    seen[:, s:, s:] = np.tri(n, dtype=bool)
    return _batch(
        np.concatenate([source, np.full((b, 1), BEGIN), tokens[:, :-1]], 1),
        np.concatenate([np.full_like(source, NONE), tokens], 1),
        seen=seen[:, None],
        places=np.concatenate([np.arange(s), np.arange(n)]),
    )


def infilled(row: Tokens, rng: np.random.Generator) -> list[int]:
    """A piece of text, 30 % of which are replaced: spans of lengths from Poisson's distribution of mean 3, each by one
    mask, and so also nothing by a mask. Between two spans at least one token is left.
    """
    spans: list[int] = []
    while left := max(1, round(0.3 * len(row))) - sum(spans):
        # The last takes the rest, before masks outnumber what they stand for.
        spans.append(min(int(rng.poisson(3)), left) if len(spans) + 1 < left else left)
    kept = len(row) - sum(spans)
    gaps = np.sort(rng.choice(kept + 1, len(spans), replace=False))  # tokens kept before each span
    out, at = [], 0
    for before, span in zip(np.diff(gaps, prepend=0), spans, strict=True):
        out += [*row[at : at + before].tolist(), MASK]
        at += int(before) + span
    return out + row[at:].tolist()


def permutation(tokens: Tokens, rng: np.random.Generator) -> Batch:
    """Each token is predicted from those before it in a random order, not of the text (XLNet: Yang et al. 2019).

    Two streams in one stack: N rows of content, which see what came up to them, and N rows that ask, which know their
    place but not their token, see what came before it, and predict it (section 2.3). The last sixth of the order is
    predicted: what comes first has too little to go by (the paper's K = 6).

                    content  asking        before[i, j]: token j comes before token i in the order
        content    [ <=       no   ]
        asking     [ <        self ]
    """
    b, n = tokens.shape
    order = rng.random((b, n)).argsort(1)
    before, own = order[:, None, :] < order[:, :, None], np.broadcast_to(np.eye(n, dtype=bool), (b, n, n))
    seen = np.block([[before | own, np.zeros_like(before)], [before, own]])
    targets = np.where(order >= n - max(1, n // 6), tokens, NONE)
    return _batch(
        np.concatenate([tokens, np.full_like(tokens, QUERY)], 1),
        np.concatenate([np.full_like(tokens, NONE), targets], 1),
        seen=seen[:, None],
        places=np.tile(np.arange(n), 2),
    )


OBJECTIVES: dict[str, Callable[[Tokens, np.random.Generator], Batch]] = {
    "masked": masked,
    "causal": causal,
    "denoising": denoising,
    "permutation": permutation,
}


def _batch(inputs: Tokens, targets: Tokens, seen: NDArray[np.bool_], places: Tokens | None = None) -> Batch:
    """inputs and targets [B, M]; seen [..., M, M], True where a row (of dimension -2) may look; places [M], where they
    are not 0, 1, 2, ...
    """
    places = np.arange(inputs.shape[1]) if places is None else places
    arrays = {"inputs": inputs, "targets": targets, "seen": seen, "places": places}
    return {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}
