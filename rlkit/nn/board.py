"""Towers that keep a board's points: [B, planes, H, W] -> [B, channels, H, W], for boards of any size.

Planes are uint8 or float. `mask` [B, H, W] is True on the board, for boards that lie in the top left of larger arrays:
a point on the board then gets what it would get without the padding. None says that all is board, and costs nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.bf16 import onednn_has_bf16
from rlkit.nn.nature import compute_dtype, he_
from rlkit.nn.transformer import Block, Shape, rotary


def enter_board(planes: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
    """The planes in the dtype that `weight` computes in, channels innermost, zero off the board."""
    x = planes.to(compute_dtype(weight), memory_format=torch.channels_last)
    return on_board(x, mask)


def on_board(x: Tensor, mask: Tensor | None) -> Tensor:
    """[B, C, H, W] with zeros off the board, as a convolution's own padding has them."""
    return x if mask is None else x * mask[:, None]


def global_pool(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """Each channel's mean, and its maximum, over the board: [B, C, H, W] -> [B, 2 C]."""
    if mask is None:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)
    mean = on_board(x, mask).sum((2, 3)) / mask.sum((1, 2))[:, None]
    return torch.cat([mean, x.masked_fill(~mask[:, None], -torch.inf).amax((2, 3))], 1)


FUSES = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")
"""whether this torch has oneDNN, and in it what has no public name"""


def _fuses(weight: Tensor) -> bool:
    """Whether oneDNN convolves by such weights here."""
    if not FUSES or weight.device.type != "cpu":
        return False
    return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and onednn_has_bf16())


def convolved(conv: Any, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """relu(conv(x)), or relu(skip + conv(x)), which may be written over `skip`; a board stays as large as it is.

    Where nothing is differentiated, a CPU does all of it in one pass, by what torch's compiler would call (9 % more
    positions a second in a tower of 6 x 64; compiling would give 5 % more, but two seconds for each new weights).
    """
    fused = (
        not torch.is_grad_enabled()
        and x.dtype == conv.weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # the compiler fuses by itself
        and _fuses(conv.weight)
    )
    if not fused:
        y = conv(x) if skip is None else conv(x).add_(skip)
        return F.relu(y, inplace=True)
    how = getattr(conv, "packed", conv.weight), conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
    if skip is None:
        return torch.ops.mkldnn._convolution_pointwise(x, *how, "relu", [], "")
    return torch.ops.mkldnn._convolution_pointwise_.binary(skip, x, *how, "add", 1.0, "relu", [], None)


def pack_(module: nn.Module) -> None:
    """Lay the weights of all convolutions out as a CPU's kernels read them, for `convolved` to take where nothing is
    differentiated; without it that is done in each call, a fifth of the time of 8 positions and a third of one's.

    They are a copy: call it again when the weights have changed.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and _fuses(conv.weight):
            how: Any = conv.padding, conv.stride, conv.dilation, conv.groups
            with torch.no_grad():
                conv.packed = torch._C._nn.mkldnn_reorder_conv2d_weight(conv.weight.to_mkldnn(), *how)


class ResidualBlock(nn.Module):
    """relu(x + conv(relu(conv(x)))), with what is pooled from the whole board added in between if `pooled`.

    The second convolution begins at zero, so that a new block changes nothing and needs no normalisation (Zhang et
    al. 2019, Fixup); it then plays as it learned, and a frozen one needs no folding.
    """

    def __init__(self, channels: int, pooled: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)
        self.pooled = nn.Linear(2 * channels, channels) if pooled else None

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """May write over x where nothing is differentiated."""
        y = convolved(self.conv1, x)
        if self.pooled is not None:
            y = y + self.pooled(global_pool(y, mask))[:, :, None, None]
        return on_board(convolved(self.conv2, on_board(y, mask), x), mask)


class ResidualTower(nn.Module):
    """AlphaGo Zero's tower for boards of any size: a 3x3 convolution and `blocks` residual blocks of two.

    Every third block also hears of the whole board (Wu 2019, section 4.1): without that, nothing of a large board's
    far side is known to a shallow tower.
    """

    def __init__(self, planes: int, channels: int, blocks: int):
        super().__init__()
        self.conv = nn.Conv2d(planes, channels, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(channels, pooled=i % 3 == 1) for i in range(blocks))
        self.out_features = channels
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, planes: Tensor, mask: Tensor | None = None) -> Tensor:
        x = on_board(convolved(self.conv, enter_board(planes, self.conv.weight, mask)), mask)
        for block in self.blocks:
            x = block(x, mask)
        return x


class PlainTower(nn.Module):
    """AlphaGo's tower: a 5x5 convolution and 3x3 ones, `layers` in all, 12 in the paper.

    Source: Silver et al. 2016, Methods, "Neural network architecture".
    """

    def __init__(self, planes: int, channels: int, layers: int = 12):
        super().__init__()
        first = nn.Conv2d(planes, channels, 5, padding=2)
        convs = [first, *(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(layers - 1))]
        self.convs = nn.ModuleList(convs)
        he_(self)  # by torch's own first weights three fifths of the signal would be lost a layer
        self.out_features = channels
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, planes: Tensor, mask: Tensor | None = None) -> Tensor:
        x = enter_board(planes, next(self.parameters()), mask)
        for conv in self.convs:
            x = on_board(convolved(conv, x), mask)
        return x


class BoardTransformer(nn.Module):
    """A transformer of board points: pre-norm, `blocks` layers.

    Heads have 32 features where channels are a multiple of 32 above that, else 16 (a fifth slower on a CPU). Points
    know of each other's place by rotary positions alone, half of each head's pairs for the row and half for the
    column; a 3x3 convolution, with a plane that is 1 on the board, shows them stones nearby and the edge. Raises
    ValueError where channels are no multiple of 16.
    """

    def __init__(self, planes: int, channels: int, blocks: int):
        super().__init__()
        if channels % 16:
            raise ValueError(f"a transformer's channels come in heads of 16: {channels} is no multiple, take 32 or 64")
        features = 32 if channels > 32 and channels % 32 == 0 else 16
        self.features = features
        shape = Shape(channels, channels // features, blocks)
        self.stem = nn.Conv2d(planes + 1, channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(blocks))
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


BOARD_BACKBONES: dict[str, Callable[..., ResidualTower | PlainTower | BoardTransformer]] = {
    "resnet": ResidualTower,
    "alphago": lambda planes, channels, blocks: PlainTower(planes, channels, 1 + 2 * blocks),
    "transformer": BoardTransformer,
}
"""built with (planes, channels, blocks)"""
