"""A model of text, a Transformer or recurrent: its loss, nats over a text, and the one that a folder holds."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rlkit import runtime
from rlkit.nn.language import GPT, CoreLanguageModel
from rlkit.nn.recurrent import Recurrent
from rlkit.nn.transformer import Shape
from rlkit.saved_agents import load_agent_files, rebuild, rebuilding
from rlkit.trainer import Batch


def build(config: dict[str, Any]) -> nn.Module:
    """The model that an agent.json describes."""
    size, width, layers = len(config["vocabulary"]) or 256, config["width"], config["layers"]
    if config["model"] == "transformer":
        shape = Shape(width, config["heads"], layers, dropout=config["dropout"])
        return GPT(size, config["context"], shape, places="rotary")
    core = Recurrent(config["model"], width, width, layers, dropout=config["dropout"])
    return CoreLanguageModel(size, core, width, config["dropout"])


def load_model(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """(model, its config) of a run or agent folder. Raises FileNotFoundError, DamagedFile, and ValueError for an agent
    of another kind.
    """
    info, weights = load_agent_files(Path(path), "language_model", "and no language model")
    with rebuilding(path, "a model with these weights"):
        model = rebuild(lambda: build(info["config"]), weights)
    return model.to(device).eval(), info["config"]


def predict(model: nn.Module, tokens: Tensor, memory: Any = None) -> tuple[Tensor, Any]:
    """(logits [B, N, vocabulary] of what follows each of tokens [B, N], memory of all so far). The memory: a Past, of a
    Transformer, or a recurrent model's state.
    """
    if isinstance(model, GPT):
        return model(tokens, memory), memory
    return model(tokens, memory)


def loss_fn(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy in nats of each next symbol. Recurrent models begin each example with an empty state too."""
    tokens = batch["tokens"]
    logits, _ = predict(model, tokens[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    return loss, {"bits": loss.detach() / math.log(2)}


def nats_per_symbol(model: nn.Module, tokens: NDArray[np.int64], context: int) -> float:
    """The mean loss over a text, in which all symbols but the first are predicted once: in windows of `context` that do
    not overlap, each read without what came before it.
    """
    device, x = next(model.parameters()).device, torch.from_numpy(tokens)
    whole = (len(x) - 1) // context * context
    inputs, targets = (x[i : whole + i].view(-1, context).split(64) for i in (0, 1))
    parts = [*zip(inputs, targets, strict=True), (x[None, whole:-1], x[None, whole + 1 :])]
    nats = 0.0
    with runtime.evaluating(model):
        for now, following in parts:
            runtime.share_cores()
            if now.numel():
                logits, _ = predict(model, now.to(device))
                nats += F.cross_entropy(logits.flatten(0, 1), following.flatten().to(device), reduction="sum").item()
    return nats / (len(x) - 1)
