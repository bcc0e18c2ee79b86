"""Text from a language model: symbol by symbol after a prompt, and what it predicts after each beginning of a text."""

import torch
import torch.nn.functional as F
from torch import nn

from experiments.sequences.text_model import predict
from experiments.sequences.texts import decode, encode
from rlkit import runtime
from rlkit.nn.language import GPT
from rlkit.nn.transformer import Past


def generate(
    model: nn.Module, prompt: list[int], count: int, temperature: float, top_k: int, seed: int, cached: bool = True
) -> list[int]:
    """`count` symbols that continue a prompt of one or more. Not cached, all is read anew for each, for tests.

    A Transformer whose context is full forgets the earlier half of it, and reads the later one anew.
    """
    device = next(model.parameters()).device
    rng, out, begin, read, memory = torch.Generator().manual_seed(seed), list(prompt), 0, 0, None
    with runtime.evaluating(model):
        for _ in range(count):
            if isinstance(model, GPT):
                if len(out) - begin > (context := model.places.context):
                    begin = read = len(out) - (context + 1) // 2
                    memory = None
                memory = memory or Past()
            if not cached:
                read, memory = begin, Past() if isinstance(model, GPT) else None
            logits, memory = predict(model, torch.tensor([out[read:]], device=device), memory)
            read, z = len(out), logits[0, -1].cpu()
            if top_k and top_k < len(z):
                z = z.masked_fill(z < z.topk(top_k).values[-1], -torch.inf)
            p = ((z - z.max()) / temperature).softmax(0) if temperature else F.one_hot(z.argmax(), len(z)).float()
            out.append(int(torch.multinomial(p, 1, generator=rng)))
    return out[len(prompt) :]


def encode_prompt(prompt: str, vocabulary: str) -> list[int]:
    """The numbers of a prompt; of a line's end, or of the first symbol there is, for an empty one."""
    if not prompt:
        prompt = "\n" if not vocabulary or "\n" in vocabulary else vocabulary[0]
    return encode(prompt, vocabulary).tolist()


def predictions(model: nn.Module, text: str, vocabulary: str) -> list[str]:
    """A line for each beginning of a text, within the model's context: its most probable next symbol."""
    text = text[: model.places.context + 1] if isinstance(model, GPT) else text
    x = torch.from_numpy(encode(text, vocabulary)).to(next(model.parameters()).device)
    with runtime.evaluating(model):
        p, best = predict(model, x[None, :-1])[0][0].softmax(-1).max(-1)
    return [f"{text[: i + 1]} -> {decode([k], vocabulary)}  ({p[i]:.2f})" for i, k in enumerate(best.tolist())]
