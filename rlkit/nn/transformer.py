"""Transformers: rows of N features vectors in, as many out. [B, N, channels] -> [B, N, channels].

Pre-norm (Xiong et al. 2020): each part reads a normalised copy and adds to what it read, and the last norm is the
whole's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.convolution import enter_board, on_board

Rotary = tuple[Tensor, Tensor]


def rotary(positions: Tensor, features: int, base: float) -> Rotary:
    """What `rotate` takes to turn each pair of a head's features by an angle of its own: two [N, features].

    positions: [N, axes]. Each axis has an equal share of the pairs; the i-th of its F turns by base^(-i / F) a step.
    Source: Su et al. 2021 (RoFormer), eq. 15; with two axes Heo et al. 2024, section 3.1.
    """
    axes = positions.shape[1]
    assert features % (2 * axes) == 0, (features, axes)
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


class Attention(nn.Module):
    """Multi-head self-attention: [B, N, channels] -> [B, N, channels] (Vaswani et al. 2017, section 3.2).

    turns: of `rotary`, for queries and keys. mask: bool, broadcast to [B, heads, N, N], True where a row (of dimension
    2) may look (at one of dimension 3).
    """

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, turns: Rotary | None = None, mask: Tensor | None = None) -> Tensor:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = qkv[:2] if turns is None else rotate(qkv[:2], turns)
        y = F.scaled_dot_product_attention(q, k, qkv[2], attn_mask=mask)
        return self.out(y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then two dense layers of four times the width with a GELU between; both on top of what came in."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor, turns: Rotary | None = None, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), turns, mask)
        return x + self.mlp(self.norm2(x))


class BoardTransformer(nn.Module):
    """A transformer of board points, for boards of any size: [B, planes, H, W] -> [B, channels, H, W].

    `blocks` layers; heads of 32 features where channels are a multiple of 32 above that, else of 16 (a fifth slower on
    a CPU). Points know of each other's place by rotary positions alone, half of each head's pairs for the row and half
    for the column; a 3x3 convolution, with a plane that is 1 on the board, shows them stones nearby and the edge. mask
    as in `convolution`. Raises ValueError where channels are no multiple of 16.
    """

    def __init__(self, planes: int, channels: int, blocks: int):
        super().__init__()
        if channels % 16:
            raise ValueError(f"a transformer's channels come in heads of 16: {channels} is no multiple, take 32 or 64")
        features = 32 if channels > 32 and channels % 32 == 0 else 16
        self.features = features
        self.stem = nn.Conv2d(planes + 1, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(channels, channels // features) for _ in range(blocks))
        self.norm = nn.LayerNorm(channels)
        self.out_features = channels

    def forward(self, planes: Tensor, mask: Tensor | None = None) -> Tensor:
        x = enter_board(planes, self.stem.weight, mask)
        inside = torch.ones_like(x[:, :1]) if mask is None else mask[:, None].to(x.dtype)
        height, width = x.shape[2:]
        x = self.stem(torch.cat([x, inside], 1)).flatten(2).transpose(1, 2)
        rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
        # Base 100: the slowest pair turns by less than half a circle on 19 lines.
        cos, sin = rotary(torch.cartesian_prod(rows, columns), self.features, base=100)
        turns = cos.to(x.dtype), sin.to(x.dtype)
        seen = None if mask is None else mask.flatten(1)[:, None, None]
        for block in self.blocks:
            x = block(x, turns, seen)
        return on_board(self.norm(x).transpose(1, 2).unflatten(2, (height, width)), mask)
