"""Transformers: rows of N vectors in, as many out, [B, N, channels] -> [B, N, channels].

    Attention, Block, Gate          the parts
    Stack                           blocks one after the other; with `memory` they look at another sequence as well
    TransformerCore                 what an agent remembers by

The models of 2017 to 2019 are made of them in `rlkit/nn/language.py`.

Masks are bool and True where a row may look, as in torch's scaled_dot_product_attention (its MultiheadAttention and
Transformer mean the opposite).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rotary = tuple[Tensor, Tensor]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


# -- where a row stands ------------------------------------------------------------------------------------------------


def sinusoidal(length: int, channels: int) -> Tensor:
    """Sines and cosines of wavelengths from 2 pi to 20,000 pi, in turn: [length, channels] (Vaswani et al. 2017,
    section 3.5).
    """
    rates = torch.exp(torch.arange(0, channels, 2) * (-math.log(10_000) / channels))
    angles = torch.arange(length)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :channels]


def rotary(positions: Tensor, features: int, base: float) -> Rotary:
    """What `rotate` takes to turn each pair of a head's features by an angle of its own: two [N, features].

    positions: [N, axes]. Each axis has an equal share of the pairs; the i-th of its F turns by base^(-i / F) a step.
    Source: Su et al. 2021 (RoFormer), eq. 15; with two axes Heo et al. 2024, section 3.1. Raises ValueError where
    features are no multiple of 2 axes.
    """
    axes = positions.shape[1]
    if features % (2 * axes):
        raise ValueError(f"rotary positions turn pairs: a head's {features} features are no multiple of {2 * axes}")
    share = features // (2 * axes)
    rates = base ** -(torch.arange(share, device=positions.device) / share)
    angles = (positions[:, :, None] * rates).flatten(1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], 1), torch.cat([-sin, sin], 1)


def rotate(x: Tensor, turns: Rotary) -> Tensor:
    """[..., N, features] turned; features i and i + features / 2 are a pair.

    The product of two vectors so turned depends on their positions' difference alone.
    """
    cos, sin = turns
    return x * cos + x.roll(x.shape[-1] // 2, -1) * sin


# -- the parts ---------------------------------------------------------------------------------------------------------


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """softmax(q k' / sqrt(features)) v, by the book: (what each row gets [..., N, features], its weights [..., N, M]).

    A row that may look nowhere gets zeros. Source: Vaswani et al. 2017, eq. 1. Models run torch's fused form of it;
    this one is for tests and for looking at the weights.
    """
    logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    weights = logits.softmax(-1).nan_to_num(0.0)
    return weights @ v, weights


@dataclass
class Cache:
    """Keys and values [B, heads, M, features] of an attention's rows so far, for going on one row at a time."""

    k: Tensor | None = None
    v: Tensor | None = None

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.k = k if self.k is None else torch.cat([self.k, k], 2)
        self.v = v if self.v is None else torch.cat([self.v, v], 2)
        return self.k, self.v


def head_features(channels: int, heads: int) -> int:
    """Of each head. Raises ValueError where they cannot have equal shares."""
    if heads < 1 or channels % heads:
        raise ValueError(f"{channels} channels cannot be shared among {heads} heads equally")
    return channels // heads


class Attention(nn.Module):
    """Multi-head attention: [B, N, channels] -> [B, N, channels] (Vaswani et al. 2017, section 3.2).

    Its rows look at each other, or at the rows of `memory` [B, M, channels].

    Args of a call:
        turns: of `rotary`, for queries and keys.
        mask: bool, broadcast to [B, heads, N, M], True where a row (of dimension 2) may look (at one of dimension 3).
        causal: no row looks at a later one; alone, without a mask, it costs least.
        cache: goes on after the rows in it, and takes these in.
    """

    def __init__(self, channels: int, heads: int, dropout: float = 0.0):
        super().__init__()
        head_features(channels, heads)
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.watch = False
        """keep the weights of the next calls [B, heads, N, M] in `seen` (slower)"""
        self.seen: Tensor | None = None

    def split(self, x: Tensor, parts: int) -> Tensor:
        """[B, N, parts channels] -> [parts, B, heads, N, features]"""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(
        self,
        x: Tensor,
        turns: Rotary | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        memory: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        if memory is None:
            qkv = self.split(self.qkv(x), 3)
            q, k = qkv[:2] if turns is None else rotate(qkv[:2], turns)
            v = qkv[2]
            if cache is not None:
                before = 0 if cache.k is None else cache.k.shape[2]
                k, v = cache.append(k, v)
                if causal and before:  # torch's causal mask takes the first query for the first row
                    causal = False
                    if x.shape[1] > 1:  # the last row alone sees all
                        rows = torch.arange(before, k.shape[2], device=x.device)[:, None]
                        ahead = torch.arange(k.shape[2], device=x.device) <= rows
                        mask = ahead if mask is None else mask & ahead
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            width = x.shape[-1]
            (q,) = self.split(F.linear(x, weight[:width], bias[:width]), 1)
            if cache is not None and cache.k is not None and cache.v is not None:
                k, v = cache.k, cache.v  # the memory stays the same
            else:
                k, v = self.split(F.linear(memory, weight[width:], bias[width:]), 2)
                if cache is not None:
                    cache.append(k, v)
        return self.mix(q, k, v, mask, causal)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """What the rows get, [B, heads, N, features] each -> [B, N, channels]."""
        if causal and (mask is not None or self.watch):
            ahead = causal_mask(q.shape[2], q.device)
            mask, causal = ahead if mask is None else mask & ahead, False
        if self.watch:
            self.seen = attend(q, k, v, mask)[1].detach()
        dropout = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, dropout_p=dropout)
        return self.out(y.transpose(1, 2).flatten(2))


def causal_mask(rows: int, device: torch.device | None = None) -> Tensor:
    """[rows, rows], True on and below the diagonal."""
    return torch.ones(rows, rows, dtype=torch.bool, device=device).tril()


class Gate(nn.Module):
    """A GRU's gates in place of x + y: (x, y) [..., channels] -> [..., channels].

    It begins near the identity (the bias of 2), so that an agent first learns to react and then to remember. Source:
    Parisotto et al. 2019 (GTrXL), section 3.2.
    """

    def __init__(self, channels: int, bias: float = 2.0):
        super().__init__()
        self.of_y = nn.Linear(channels, 3 * channels, bias=False)
        self.of_x = nn.Linear(channels, 2 * channels, bias=False)
        self.candidate = nn.Linear(channels, channels, bias=False)
        self.bias = nn.Parameter(torch.full((channels,), bias))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        (r_y, z_y, h_y), (r_x, z_x) = self.of_y(y).chunk(3, -1), self.of_x(x).chunk(2, -1)
        r, z = torch.sigmoid(r_y + r_x), torch.sigmoid(z_y + z_x - self.bias)
        return x + z * (torch.tanh(h_y + self.candidate(r * x)) - x)  # lerp would want one dtype of all three


@dataclass(frozen=True)
class Shape:
    """What the blocks of a stack look like."""

    channels: int
    heads: int
    layers: int
    hidden: int = 0
    """units between the two dense layers of a block; 0: four times the channels"""
    norm_first: bool = True
    """each part reads a normalised copy (Xiong et al. 2020), and the last norm is the whole's; False: each sum is
    normalised, as in 2017"""
    activation: Literal["relu", "gelu"] = "gelu"
    dropout: float = 0.0
    cross: bool = False
    """attention to a memory between the attention to oneself and the dense layers"""
    gated: bool = False
    """gates in place of the sums"""


class Block(nn.Module):
    """Attention, if `cross` attention to a memory, and two dense layers; each on top of what came in."""

    def __init__(self, shape: Shape):
        super().__init__()
        channels, hidden = shape.channels, shape.hidden or 4 * shape.channels
        parts = 3 if shape.cross else 2
        self.norm_first, self.activation = shape.norm_first, ACTIVATIONS[shape.activation]
        self.attention = Attention(channels, shape.heads, shape.dropout)
        self.cross = Attention(channels, shape.heads, shape.dropout) if shape.cross else None
        self.dense1, self.dense2 = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(parts))
        self.gates = nn.ModuleList(Gate(channels) for _ in range(parts)) if shape.gated else None
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self,
        x: Tensor,
        turns: Rotary | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        caches: tuple[Cache, Cache] | tuple[None, None] = (None, None),
    ) -> Tensor:
        x = self.add(0, x, lambda y: self.attention(y, turns, mask, causal, cache=caches[0]))
        if (cross := self.cross) is not None:
            x = self.add(1, x, lambda y: cross(y, mask=memory_mask, memory=memory, cache=caches[1]))
        return self.add(-1, x, self.dense)

    def dense(self, y: Tensor) -> Tensor:
        return self.dense2(self.dropout(self.activation(self.dense1(y))))

    def add(self, i: int, x: Tensor, part: Callable[[Tensor], Tensor]) -> Tensor:
        """x and what the i-th part makes of it."""
        norm = self.norms[i]
        y = self.dropout(part(norm(x) if self.norm_first else x))
        x = x + y if self.gates is None else self.gates[i](x, F.relu(y))
        return x if self.norm_first else norm(x)


@dataclass
class Past:
    """What a stack knows of the rows so far: going on with it costs one row instead of all."""

    layers: list[tuple[Cache, Cache]] = field(default_factory=list)
    length: int = 0

    def select(self, rows: Tensor) -> None:
        """Keep these sequences [B'] of the batch, in this order (a mask of the memory is the caller's to select)."""
        for caches in self.layers:
            for cache in caches:
                if cache.k is not None and cache.v is not None:
                    cache.k, cache.v = cache.k[rows], cache.v[rows]


class Stack(nn.Module):
    """Blocks one after the other: [B, N, channels] -> [B, N, channels], with a norm at the end if `final_norm`.

    The arguments of a call are those of `Attention`; `memory_mask` is the mask of the attention to `memory`; `past`
    goes on after the rows that it knows, and takes these in.
    """

    def __init__(self, shape: Shape, final_norm: bool | None = None):
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        final_norm = shape.norm_first if final_norm is None else final_norm
        self.norm = nn.LayerNorm(shape.channels) if final_norm else nn.Identity()

    def forward(
        self,
        x: Tensor,
        turns: Rotary | None = None,
        mask: Tensor | None = None,
        causal: bool = False,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        past: Past | None = None,
    ) -> Tensor:
        if past is not None and not past.layers:
            past.layers = [(Cache(), Cache()) for _ in self.blocks]
        for i, block in enumerate(self.blocks):
            caches = (None, None) if past is None else past.layers[i]
            x = block(x, turns, mask, causal, memory, memory_mask, caches)
        if past is not None:
            past.length += x.shape[1]
        return self.norm(x)


class TransformerCore(nn.Module):
    """A core with the last `window` steps before it in view: a gated transformer that agents can train.

    ([B, T, D], state, reset [B, T] or None) -> ([B, T, channels], state). Each step sees itself and, in each layer,
    the keys and values of `window` steps before it, but none before the last reset (True at an episode's first step).
    A state is (keys, values [B, layers, window, channels], known [B, window]), of the steps so far. One step at a time
    and an unroll give the same numbers. Source: Parisotto et al. 2019, with rotary positions. Raises ValueError where
    channels are no multiple of 2 heads, and for layers below 1.
    """

    def __init__(self, in_features: int, channels: int, layers: int = 2, heads: int = 4, window: int = 32):
        super().__init__()
        rotary(torch.zeros(1, 1), head_features(channels, heads), base=100)  # raises what the first step would
        if layers < 1 or window < 0:
            raise ValueError(f"a core of {layers} layers that sees {window} steps before: take at least 1 and 0")
        self.window, self.out_features = window, channels
        self.enter = nn.Linear(in_features, channels)
        shape = Shape(channels, heads, layers, activation="relu", gated=True)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(layers))

    def initial_state(self, batch: int) -> tuple[Tensor, ...]:
        """Of an episode's beginning."""
        weight = self.enter.weight
        held = weight.new_zeros(batch, len(self.blocks), self.window, self.out_features)
        return held, held.clone(), torch.zeros(batch, self.window, dtype=torch.bool, device=weight.device)

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None, reset: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        keys, values, known = self.initial_state(len(x)) if state is None else state
        (batch, steps), window = x.shape[:2], self.window
        if reset is None:
            reset = torch.zeros(batch, steps, dtype=torch.bool, device=x.device)
        episode = F.pad(reset.cumsum(1), (window, 0))
        known = torch.cat([known, torch.ones_like(reset)], 1)
        places = torch.arange(window + steps, device=x.device)
        back = places[window:, None] - places
        mask = (back >= 0) & (back <= window) & known[:, None] & (episode[:, window:, None] == episode[:, None])
        x = self.enter(x)
        attention: Attention = self.blocks[0].attention  # type: ignore[assignment, union-attr]
        cos, sin = (t.to(x.dtype) for t in rotary(places[:, None], x.shape[-1] // attention.heads, base=100))
        later_keys, later_values = [], []
        for i, block in enumerate(self.blocks):
            attention = block.attention  # type: ignore[assignment, union-attr]

            def look(y: Tensor, attention: Attention = attention, i: int = i) -> Tensor:
                q, k, v = attention.qkv(y).chunk(3, -1)
                k, v = torch.cat([keys[:, i].to(k.dtype), k], 1), torch.cat([values[:, i].to(v.dtype), v], 1)
                later_keys.append(k[:, steps:])
                later_values.append(v[:, steps:])
                q, k, v = (attention.split(z, 1)[0] for z in (q, k, v))
                return attention.mix(rotate(q, (cos[window:], sin[window:])), rotate(k, (cos, sin)), v, mask[:, None])

            x = block.add(0, x, look)  # type: ignore[operator]
            x = block.add(1, x, block.dense)  # type: ignore[operator]
        now = known[:, steps:] & (episode[:, steps:] == episode[:, -1:])
        return x, (torch.stack(later_keys, 1), torch.stack(later_values, 1), now)
