"""The reader that all four objectives train: its loss, the one that a folder holds, and what it makes of a text."""

from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.sequences.objectives import FIRST, MASK, NONE, OBJECTIVES, SIZE, Tokens
from experiments.sequences.texts import visible
from rlkit.nn.language import TokenHead, normal_
from rlkit.nn.transformer import Shape, Stack, rotary
from rlkit.runtime import evaluating
from rlkit.saved_agents import load_agent_files, rebuild, rebuilding
from rlkit.trainer import Batch


class Reader(nn.Module):
    """A Transformer with a mask for each batch and rotary places: tokens [B, M] -> logits [B, M, SIZE].

    Learned places, as in the papers, cost this small a reader most of its time: it has to find out first which rows
    are neighbours.
    """

    def __init__(self, shape: Shape):
        super().__init__()
        self.embed = nn.Embedding(SIZE, shape.channels)
        self.stack = Stack(shape)
        self.head = TokenHead(SIZE, shape.channels)
        normal_(self, layers=shape.layers)

    def features(self, tokens: Tensor, places: Tensor, seen: Tensor | None = None, causal: bool = False) -> Tensor:
        """[B, M, channels], before the head."""
        shape = self.stack.shape
        x, turns = self.embed(tokens), rotary(places[:, None], shape.channels // shape.heads, base=100)
        return self.stack(x, turns, mask=seen, causal=causal)

    def forward(self, batch: Batch) -> Tensor:
        features = self.features(batch["inputs"], batch["places"], batch["seen"])
        return self.head(features, self.embed.weight)


def loss_fn(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Nats a predicted token: the loss of all four."""
    logits = model(batch)
    return F.cross_entropy(logits.flatten(0, 1), batch["targets"].flatten(), ignore_index=NONE), {}


def load_reader(path: str | Path) -> tuple[Reader, dict[str, Any]]:
    """(reader, its config) of an agent folder. Raises FileNotFoundError, DamagedFile, and ValueError for an agent of
    another kind.
    """
    info, weights = load_agent_files(Path(path), "pretraining", "and none that was pre-trained here")
    with rebuilding(path, "a reader with these weights"):
        config = info["config"]
        reader = rebuild(lambda: Reader(Shape(config["width"], config["heads"], config["layers"])), weights)
    return reader, config


def reader_folder(path: str) -> Path:
    """The agent folder that a path names, or that of a run of one objective. Raises ValueError for a run of several."""
    inside = sorted(Path(path) / name for name in OBJECTIVES if (Path(path) / name / "agent").is_dir())
    if len(inside) > 1:
        raise ValueError(f"{path} has several: take one of {', '.join(map(str, inside))}")
    return inside[0] if inside else Path(path)


def fill_in(reader: Reader, name: str, tokens: Tokens, rng: np.random.Generator) -> tuple[str, str]:
    """(what a reader sees of a piece of text [1, N], what it writes), each token the most probable one: the hidden ones
    all at once; with the objectives causal and denoising, one after the other.
    """
    n = tokens.shape[1]
    batch = {key: x.to(reader.embed.weight.device, copy=True) for key, x in OBJECTIVES[name](tokens, rng).items()}
    inputs, made = batch["inputs"], tokens[0].copy()
    with evaluating(reader):
        if name in ("masked", "permutation"):
            hidden = batch["targets"][0, -n:].cpu().numpy() != NONE
            made[hidden] = reader(batch)[0, -n:].argmax(1).cpu().numpy()[hidden]
            return as_text(np.where(hidden, MASK, tokens[0])), as_text(made)
        first = n // 2 if name == "causal" else 0
        seen = tokens[0, :first] if name == "causal" else inputs[0, :-n].cpu().numpy()
        for i in range(first, n):  # the last n rows predict, of causal the last n - 1
            made[i] = reader(batch)[0, i - n].argmax().item()
            if i + 1 < n:
                inputs[0, i + 1 - n] = int(made[i])
    return as_text(seen), as_text(made)


def as_text(tokens: Tokens) -> str:
    """One character for each token; _ for what is no byte."""
    return "".join("_" if i < FIRST else visible([i - FIRST]) for i in tokens)
