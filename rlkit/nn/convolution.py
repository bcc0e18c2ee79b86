"""Convolutional torsos: images in, a vector of `out_features` out."""

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


class GlobalPool(nn.Module):
    """Each channel's mean, and its maximum, over the board: [B, C, H, W] -> [B, 2 C]."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(x)))), with what is pooled from the whole board added in between if `pooled`.

    The second convolution begins at zero, so that a new tower is the identity and needs no normalisation (Zhang et
    al. 2019, Fixup); it then plays as it learned, and a frozen one needs no folding.
    """

    def __init__(self, channels: int, pooled: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        self.pooled = nn.Sequential(GlobalPool(), nn.Linear(2 * channels, channels)) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv1(F.relu(x)))
        if self.pooled is not None:
            y = y + self.pooled(y)[:, :, None, None]
        return x + self.conv2(y)


class ResidualTower(nn.Module):
    """AlphaGo Zero's tower for boards of any size: [B, planes, H, W] -> [B, channels, H, W].

    Every third block also hears of the whole board (Wu 2019, section 4.1): without that, nothing of a large board's
    far side is known to a shallow tower.
    """

    def __init__(self, planes: int, channels: int, blocks: int):
        super().__init__()
        self.conv = nn.Conv2d(planes, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(channels, pooled=i % 3 == 1) for i in range(blocks)))
        self.out_features = channels
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            x = x.to(_compute_dtype(self.conv.weight))
        return F.relu(self.blocks(self.conv(x.contiguous(memory_format=torch.channels_last))))
