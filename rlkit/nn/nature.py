"""DQN's torso, and what every convolutional torso is: images [B, ..., C, H, W] in, vectors [B, ..., out_features] out.

uint8 images are read as 0 .. 1, numbers of other dtypes as they are. `width` multiplies all numbers of channels and of
dense units: 1 is the paper's network.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.dense import Dense

Shape = tuple[int, int, int]


class Torso(nn.Module):
    """What the torsos share: any leading dimensions, and a first convolution that reads bytes.

    Subclasses have `conv1`, an nn.Conv2d, and `after`: what it gives [B, C, H, W] -> [B, out_features].
    """

    conv1: nn.Conv2d
    out_features: int

    def after(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(0, -4) if images.ndim > 4 else images
        return self.after(self.first(x)).unflatten(0, images.shape[:-3])

    def first(self, x: Tensor) -> Tensor:
        weight = self.conv1.weight
        if x.dtype == torch.uint8:
            # 1/255 goes into thousands of weights, not tens of thousands of pixels; 0..255 is exact in bf16 too.
            weight = weight * (1 / 255)
        if not x.is_floating_point():
            x = x.to(compute_dtype(weight))
        return F.conv2d(x, weight, self.conv1.bias, self.conv1.stride, self.conv1.padding)

    def _at_least(self, in_shape: Shape, least: int) -> None:
        if min(in_shape[1:]) < least:
            name, (_, height, width) = type(self).__name__, in_shape
            raise ValueError(f"{name} needs images of at least {least} x {least}, not {height} x {width}")

    def _innermost(self) -> None:
        # oneDNN and cuDNN both run these shapes faster with channels innermost (1.1x to 1.3x on a CPU).
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def compute_dtype(weight: Tensor) -> torch.dtype:
    """What autocast will turn a convolution's inputs into: converting once, straight from uint8, saves a pass."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def he_(module: nn.Module) -> None:
    """He et al. 2015's first weights, eq. 10, and no biases: a ReLU halves the signal, this doubles it."""
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def scaled(width: float, *numbers: int) -> list[int]:
    return [max(1, round(width * number)) for number in numbers]


class NatureCNN(Torso):
    """The DQN torso: 32 8x8 stride 4, 64 4x4 stride 2, 64 3x3, dense 512 (Mnih et al. 2015, Methods).

    dense: 0 for none (the recurrent DQN has its LSTM there). Raises ValueError for images below 36 x 36.
    """

    def __init__(self, in_shape: Shape, width: float = 1.0, dense: int = 512):
        super().__init__()
        self._at_least(in_shape, 36)
        a, b, c = scaled(width, 32, 64, 64)
        self.conv1 = nn.Conv2d(in_shape[0], a, 8, stride=4)
        self.conv2 = nn.Conv2d(a, b, 4, stride=2)
        self.conv3 = nn.Conv2d(b, c, 3)
        h, w = (((s - 8) // 4 + 1 - 4) // 2 + 1 - 2 for s in in_shape[1:])
        self.out_features = scaled(width, dense)[0] if dense else c * h * w
        self.dense = Dense(c * h * w, self.out_features) if dense else None
        self._innermost()

    def after(self, x: Tensor) -> Tensor:
        x = F.relu(x, inplace=True)
        x = F.relu(self.conv2(x), inplace=True)
        x = F.relu(self.conv3(x), inplace=True).flatten(1)
        return x if self.dense is None else F.relu(self.dense(x), inplace=True)
