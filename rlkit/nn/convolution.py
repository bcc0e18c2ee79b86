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
