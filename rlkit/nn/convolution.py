"""Convolutional torsos: images in, a vector of `out_features` out; and towers that keep a board's points.

A tower takes planes [B, planes, H, W] of boards of any size (uint8 or float) to [B, channels, H, W]. `mask` [B, H, W]
is True on the board, for boards that lie in the top left of larger arrays: a point on the board then gets what it
would get without the padding. None says that all is board, and costs nothing.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.dense import Dense


class NatureCNN(nn.Module):
    """The DQN torso: 32 8x8 stride 4, 64 4x4 stride 2, 64 3x3, dense 512 (Mnih et al. 2015, Methods).

    uint8 images [..., C, H, W] are read as 0..1 -> [..., 512]. Images of 36 x 36 and up; other dtypes are taken as
    they are. Raises ValueError for smaller images.
    """

    def __init__(self, in_shape: tuple[int, int, int], out_features: int = 512):
        super().__init__()
        channels, height, width = in_shape
        if min(height, width) < 36:
            raise ValueError(f"NatureCNN needs images of at least 36 x 36, not {height} x {width}")
        self.conv1 = nn.Conv2d(channels, 32, 8, stride=4)
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2)
        self.conv3 = nn.Conv2d(64, 64, 3)
        h, w = (((s - 8) // 4 + 1 - 4) // 2 + 1 - 2 for s in (height, width))
        self.dense = Dense(64 * h * w, out_features)
        self.out_features = out_features
        # oneDNN and cuDNN both run these shapes faster with channels innermost (1.1x to 1.3x on a CPU).
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        lead, x = x.shape[:-3], x.flatten(0, -4) if x.ndim > 4 else x
        weight = self.conv1.weight
        if x.dtype == torch.uint8:
            # 1/255 goes into 8,192 weights instead of 28,224 pixels an image; 0..255 is exact in bf16 too.
            weight = weight * (1 / 255)
            x = x.to(_compute_dtype(weight))
        x = F.relu(F.conv2d(x, weight, self.conv1.bias, self.conv1.stride), inplace=True)
        x = F.relu(self.conv2(x), inplace=True)
        x = F.relu(self.conv3(x), inplace=True)
        x = F.relu(self.dense(x.flatten(1)), inplace=True)
        return x.unflatten(0, lead)


def _compute_dtype(weight: Tensor) -> torch.dtype:
    """What autocast will turn a convolution's inputs into: converting once, straight from uint8, saves a pass."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def enter_board(planes: Tensor, weight: Tensor, mask: Tensor | None) -> Tensor:
    """The planes in the dtype that `weight` computes in, channels innermost, zero off the board."""
    x = planes.to(_compute_dtype(weight), memory_format=torch.channels_last)
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


def convolved(conv: Any, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """relu(conv(x)), or relu(skip + conv(x)), which may be written over `skip`; a board stays as large as it is.

    Where nothing is differentiated, a CPU does all of it in one pass, by what torch's compiler would call (9 % more
    positions a second in a tower of 6 x 64; compiling would give 5 % more, but two seconds for each new weights).
    """
    fused = (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == conv.weight.dtype
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # the compiler fuses by itself
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise_")  # not a public name
    )
    if not fused:
        y = conv(x) if skip is None else conv(x).add_(skip)
        return F.relu(y, inplace=True)
    how = conv.weight, conv.bias, conv.padding, conv.stride, conv.dilation, conv.groups
    if skip is None:
        return torch.ops.mkldnn._convolution_pointwise(x, *how, "relu", [], "")
    return torch.ops.mkldnn._convolution_pointwise_.binary(skip, x, *how, "add", 1.0, "relu", [], None)


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
    """AlphaGo's tower: a 5x5 convolution and 2 `blocks` of 3x3, as deep as a residual tower of so many `blocks`.

    The paper's has 12 layers, these have 11 or 13 (5 or 6 blocks). Source: Silver et al. 2016, Methods, "Neural
    network architecture".
    """

    def __init__(self, planes: int, channels: int, blocks: int):
        super().__init__()
        first = nn.Conv2d(planes, channels, 5, padding=2)
        convs = [first, *(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2 * blocks))]
        for conv in convs:  # by torch's own first weights three fifths of the signal would be lost a layer
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")  # He et al. 2015, eq. 10
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.convs = nn.ModuleList(convs)
        self.out_features = channels
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, planes: Tensor, mask: Tensor | None = None) -> Tensor:
        x = enter_board(planes, next(self.parameters()), mask)
        for conv in self.convs:
            x = on_board(convolved(conv, x), mask)
        return x
