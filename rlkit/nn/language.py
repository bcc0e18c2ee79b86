"""Language models made of the parts: any core over tokens, GPT, BERT, and the Transformer of 2017.

Tokens are int64. Token 0 is padding wherever a mask is made from tokens.
"""

import math
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.transformer import Past, Rotary, Shape, Stack, head_features, rotary, sinusoidal


def normal_(module: nn.Module, std: float = 0.02, layers: int = 0) -> None:
    """First weights of GPT and BERT: N(0, 0.02) and no biases; those that add to the residual sum of `layers` blocks
    divided by sqrt(2 layers) (Radford et al. 2019, section 2.3).
    """
    for name, part in module.named_modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            adds = layers and name.endswith((".out", ".dense2"))
            nn.init.normal_(part.weight, std=std / math.sqrt(2 * layers) if adds else std)
            if isinstance(part, nn.Linear) and part.bias is not None:
                nn.init.zeros_(part.bias)


class CoreLanguageModel(nn.Module):
    """An embedding, a core and a head: (tokens [B, T], state) -> (logits [B, T, vocabulary] in fp32, state)."""

    def __init__(self, vocabulary: int, core: nn.Module, in_features: int, dropout: float = 0.0):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, in_features)
        self.core, self.dropout = core, nn.Dropout(dropout)
        self.out = nn.Linear(core.out_features, vocabulary)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        y, state = self.core(self.embed(tokens), state)
        return self.out(self.dropout(y)).float(), state


class Places(nn.Module):
    """Tells a stack where its rows stand: by sums with learned or sinusoidal vectors, or by turning (rotary)."""

    table: Tensor

    def __init__(self, kind: Literal["learned", "sinusoidal", "rotary"], context: int, shape: Shape):
        super().__init__()
        self.kind, self.context, self.features = kind, context, head_features(shape.channels, shape.heads)
        if kind == "rotary":
            rotary(torch.zeros(1, 1), self.features, base=10_000)  # raises what the first forward would
        self.learned = nn.Embedding(context, shape.channels) if kind == "learned" else None
        table = sinusoidal(context, shape.channels) if kind == "sinusoidal" else torch.empty(0)
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor, begin: int = 0) -> tuple[Tensor, Rotary | None]:
        """(x [B, N, channels] with its places from `begin` on, turns). Raises ValueError beyond the context."""
        end = begin + x.shape[1]
        if end > self.context:
            raise ValueError(f"a sequence of {end} tokens is longer than the context of {self.context}: cut it")
        if self.learned is not None:
            return x + self.learned.weight[begin:end], None
        if self.kind == "sinusoidal":
            return x + self.table[begin:end], None
        cos, sin = rotary(torch.arange(begin, end, device=x.device)[:, None], self.features, base=10_000)
        return x, (cos.to(x.dtype), sin.to(x.dtype))


class GPT(nn.Module):
    """Decoder-only: tokens [B, N] -> logits [B, N, vocabulary] in fp32 of what follows each. The head is the embedding.

    GPT-1: shape.norm_first False and no norm at the end (Radford et al. 2018); GPT-2: norm_first (2019).
    `past` goes on after the tokens that it knows, and takes these in: cached generation. Raises ValueError for more
    tokens than `context`.
    """

    def __init__(
        self,
        vocabulary: int,
        context: int,
        shape: Shape,
        places: Literal["learned", "sinusoidal", "rotary"] = "learned",
    ):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, shape.channels)
        self.places = Places(places, context, shape)
        self.dropout = nn.Dropout(shape.dropout)
        self.stack = Stack(shape)
        normal_(self, layers=shape.layers if shape.norm_first else 0)

    def features(self, tokens: Tensor, past: Past | None = None) -> Tensor:
        """[B, N, channels], before the head."""
        x, turns = self.places(self.embed(tokens), past.length if past else 0)
        return self.stack(self.dropout(x), turns, causal=True, past=past)

    def forward(self, tokens: Tensor, past: Past | None = None) -> Tensor:
        return F.linear(self.features(tokens, past), self.embed.weight).float()


class BERT(nn.Module):
    """Encoder-only: tokens [B, N], their segments [B, N] (None: all 0) -> features [B, N, channels], each of which has
    seen all tokens but padding. `pooled` is the first one's, for classifiers. Source: Devlin et al. 2019.

    `seen` [B, N, N] or [N, N], True where a row may look, serves other objectives than masking.
    """

    def __init__(self, vocabulary: int, context: int, shape: Shape, segments: int = 2):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, shape.channels, padding_idx=0)
        self.embed_segment = nn.Embedding(segments, shape.channels)
        self.places = Places("learned", context, shape)
        self.norm, self.dropout = nn.LayerNorm(shape.channels), nn.Dropout(shape.dropout)
        self.stack = Stack(shape)
        self.pool = nn.Linear(shape.channels, shape.channels)
        normal_(self)

    def forward(self, tokens: Tensor, segments: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        segments = torch.zeros_like(tokens) if segments is None else segments
        x, _ = self.places(self.embed(tokens) + self.embed_segment(segments))
        mask = (tokens != 0)[:, None, None]
        if seen is not None:
            mask = mask & (seen[:, None] if seen.ndim == 3 else seen)
        return self.stack(self.dropout(self.norm(x)), mask=mask)

    def pooled(self, features: Tensor) -> Tensor:
        """[B, N, channels] -> [B, channels]."""
        return torch.tanh(self.pool(features[:, 0]))


class TokenHead(nn.Module):
    """Features [..., channels] -> logits [..., vocabulary] by the embedding's weights, for BERT's masked tokens."""

    def __init__(self, vocabulary: int, channels: int):
        super().__init__()
        self.dense, self.norm = nn.Linear(channels, channels), nn.LayerNorm(channels)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return F.linear(self.norm(F.gelu(self.dense(x))), embedding, self.bias).float()


class EncoderDecoder(nn.Module):
    """The Transformer: source tokens [B, N], target tokens [B, M] -> logits [B, M, vocabulary] of what follows each.

    One vocabulary and embedding for both sides and the head (Vaswani et al. 2017, section 3.4). The paper's shape is
    `Shape(512, 8, 6, hidden=2048, norm_first=False, activation="relu", dropout=0.1)`; both stacks end with a norm, as
    torch's nn.Transformer has it. Raises ValueError for more tokens than `context`.
    """

    def __init__(self, vocabulary: int, context: int, shape: Shape):
        super().__init__()
        self.scale = math.sqrt(shape.channels)
        self.embed = nn.Embedding(vocabulary, shape.channels, padding_idx=0)
        self.places = Places("sinusoidal", context, shape)
        self.dropout = nn.Dropout(shape.dropout)
        self.encoder = Stack(replace(shape, cross=False), final_norm=True)
        self.decoder = Stack(replace(shape, cross=True), final_norm=True)
        for stack in (self.encoder, self.decoder):
            for parameter in stack.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.embed.weight, std=1 / self.scale)
        nn.init.zeros_(self.embed.weight[0])

    def _embedded(self, tokens: Tensor, begin: int = 0) -> Tensor:
        return self.dropout(self.places(self.embed(tokens) * self.scale, begin)[0])

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """(memory [B, N, channels], mask [B, 1, 1, N])."""
        mask = (source != 0)[:, None, None]
        return self.encoder(self._embedded(source), mask=mask), mask

    def decode(self, target: Tensor, encoded: tuple[Tensor, Tensor], past: Past | None = None) -> Tensor:
        """Logits [B, M, vocabulary]; with `past`, of the tokens that follow those in it."""
        memory, memory_mask = encoded
        x = self._embedded(target, past.length if past else 0)
        y = self.decoder(x, causal=True, memory=memory, memory_mask=memory_mask, past=past)
        return F.linear(y, self.embed.weight).float()

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decode(target, self.encode(source))
