"""Convolutional torsos after DQN's (nature.py), and all torsos by name.

With a head it is a classifier: `heads.Classifier(torso, classes)`.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit.nn.dense import Dense
from rlkit.nn.mlp import ACTIVATIONS, MLP
from rlkit.nn.nature import NatureCNN, Shape, Torso, he_, scaled

Norm = Literal["batch", "frozen", "group", "none"]


class FrozenNorm(nn.Module):
    """A batch normalisation that neither learns nor counts: it stays what the weights that are loaded say."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int):
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


def _norm(kind: Norm, channels: int) -> nn.Module:
    if kind == "group":  # 32 groups (Wu and He 2018), or fewer where there are few channels
        return nn.GroupNorm(math.gcd(32, channels), channels)
    return {"batch": nn.BatchNorm2d, "frozen": FrozenNorm, "none": nn.Identity}[kind](channels)


class Staged(Torso):
    """A torso in stages of falling resolution, each of which a detector may look at.

    Subclasses have `strides`, pixels between cells of each stage's map, `map_channels`, and `stages`: what conv1 gives
    -> the stages' maps, which `after` reads the last of.
    """

    strides: list[int]
    map_channels: list[int]

    def stages(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError

    def maps(self, images: Tensor) -> list[Tensor]:
        """[B, C, H, W] of any height and width -> the map of each stage [B, map_channels, H / stride, W / stride]."""
        return self.stages(self.first(images))


class Impala(Staged):
    """IMPALA's deep torso: three times a convolution, a pooling and two residual blocks, then dense 256.

    Source: Espeholt et al. 2018, figure 3, right. Any size of image. dense: 0 for none.
    """

    def __init__(self, in_shape: Shape, width: float = 1.0, dense: int = 256):
        super().__init__()
        channels = scaled(width, 16, 32, 32)
        self.conv1 = nn.Conv2d(in_shape[0], channels[0], 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(channels))
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.residuals = nn.ModuleList(nn.ModuleList(nn.Conv2d(c, c, 3, padding=1) for _ in range(4)) for c in channels)
        h, w = (-(-s // 8) for s in in_shape[1:])
        self.out_features = scaled(width, dense)[0] if dense else channels[-1] * h * w
        self.dense = Dense(channels[-1] * h * w, self.out_features) if dense else None
        self.strides, self.map_channels = [2, 4, 8], channels
        self._innermost()

    def stages(self, x: Tensor) -> list[Tensor]:
        maps = []
        for i, convs in enumerate(self.residuals):
            x = self.pool(x if i == 0 else self.convs[i - 1](x))
            a, b, c, d = convs.children()
            for conv1, conv2 in ((a, b), (c, d)):
                x = x + conv2(F.relu(conv1(F.relu(x)), inplace=True))
            maps.append(x)
        return maps

    def after(self, x: Tensor) -> Tensor:
        x = F.relu(self.stages(x)[-1], inplace=True).flatten(1)
        return x if self.dense is None else F.relu(self.dense(x), inplace=True)


class SmallCNN(Torso):
    """For planes of a few cells: 16 3x3, dense 128 (Young and Tian 2019, MinAtar)."""

    def __init__(self, in_shape: Shape, width: float = 1.0):
        super().__init__()
        self._at_least(in_shape, 3)
        channels, (self.out_features,) = scaled(width, 16)[0], scaled(width, 128)
        self.conv1 = nn.Conv2d(in_shape[0], channels, 3)
        self.dense = Dense(channels * (in_shape[1] - 2) * (in_shape[2] - 2), self.out_features)
        self._innermost()

    def after(self, x: Tensor) -> Tensor:
        return F.relu(self.dense(F.relu(x, inplace=True).flatten(1)), inplace=True)


VGG_LAYERS = {
    "A": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "A-LRN": "64 L M 128 M 256 256 M 512 512 M 512 512 M",
    "B": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "C": "64 64 M 128 128 M 256 256 256/1 M 512 512 512/1 M 512 512 512/1 M",
    "D": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "E": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
"""Simonyan and Zisserman 2015, table 1: channels of 3x3 convolutions (/1: of 1x1), M pools, L normalises responses."""


class VGG(Staged):
    """Stacks of 3x3 convolutions with poolings between them, and dense layers (Simonyan and Zisserman 2015).

    Args:
        layers: a letter of the paper's table, or a line like those of VGG_LAYERS.
        dense: units of the dense layers before the head, each with dropout; (): none.
        norm: "batch" for a batch normalisation after each convolution, which the paper does not have.
        activation: a name in ACTIVATIONS.
    First weights are He's: the paper's of one size for all leave the deep forms to be grown from the shallow.
    Raises ValueError for images that the poolings leave nothing of, and for names that are no layers.
    """

    def __init__(
        self,
        in_shape: Shape,
        layers: str = "A",
        width: float = 1.0,
        dense: Sequence[int] = (4096, 4096),
        dropout: float = 0.0,
        norm: Norm = "none",
        activation: str = "relu",
    ):
        super().__init__()
        plan = VGG_LAYERS.get(layers, layers).split()
        self._at_least(in_shape, 2 ** plan.count("M"))
        channels, height, size = in_shape
        parts: list[nn.Module] = []
        self.map_channels = []
        for layer in plan:
            if layer == "M":
                self.map_channels.append(channels)
                parts.append(nn.MaxPool2d(2))
                height, size = height // 2, size // 2
            elif layer == "L":  # the paper's alpha is that of each term of the sum, torch's that of their mean
                parts.append(nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0))
            else:
                number, _, side = layer.partition("/")
                if not (number.isdigit() and side in ("", "1", "3")):
                    raise ValueError(f"VGG has no layers {layers!r}: take {', '.join(VGG_LAYERS)}, or a line like D's")
                (after,), kernel = scaled(width, int(number)), int(side or 3)
                conv = nn.Conv2d(channels, after, kernel, padding=kernel // 2, bias=norm == "none")
                parts += [conv, _norm(norm, after), ACTIVATIONS[activation]()]
                channels = after
        if not parts or not isinstance(parts[0], nn.Conv2d):
            raise ValueError(f"VGG's layers begin with a convolution, {layers!r} do not: take a line like D's")
        self.map_channels.append(channels)
        self.strides = [2**i for i in range(len(self.map_channels))]
        self.conv1 = parts[0]
        self.convs = nn.Sequential(*(part for part in parts[1:] if not isinstance(part, nn.Identity)))
        features = [channels * height * size, *scaled(width, *dense)]
        self.dense = nn.Sequential()
        for before, units in itertools.pairwise(features):
            self.dense += nn.Sequential(Dense(before, units), ACTIVATIONS[activation](), nn.Dropout(dropout))
        self.out_features = features[-1]
        he_(self)
        self._innermost()

    def stages(self, x: Tensor) -> list[Tensor]:
        maps = []
        for part in self.convs:
            if isinstance(part, nn.MaxPool2d):
                maps.append(x)
            x = part(x)
        return [*maps, x]

    def after(self, x: Tensor) -> Tensor:
        return self.dense(self.stages(x)[-1].flatten(1))


class Residual(nn.Module):
    """relu(shortcut(x) + convs(x)): two 3x3 convolutions, or 1x1, 3x3 and 1x1 to four times the channels.

    Source: He et al. 2016, figure 5. The stride lies in the first 3x3 (the paper's 1x1 would not see three quarters
    of its input). Shapes that differ are joined by a 1x1 convolution ("project") or by zeros ("pad"). Without
    normalisation, the last convolution begins at zero, so that a new block changes nothing (Zhang et al. 2019, Fixup).
    """

    def __init__(
        self, before: int, channels: int, stride: int, bottleneck: bool, norm: Norm, shortcut: Literal["project", "pad"]
    ):
        super().__init__()
        if bottleneck:
            plan = [(channels, 1, 1), (channels, 3, stride), (4 * channels, 1, 1)]
        else:
            plan = [(channels, 3, stride), (channels, 3, 1)]
        self.convs, self.norms, x = nn.ModuleList(), nn.ModuleList(), before
        for after, kernel, step in plan:
            self.convs.append(nn.Conv2d(x, after, kernel, step, kernel // 2, bias=norm == "none"))
            self.norms.append(_norm(norm, after))
            x = after
        self.more, self.stride = x - before, stride
        self.shortcut: nn.Module | None = None
        if shortcut == "project" and (self.more or stride > 1):
            conv = nn.Conv2d(before, x, 1, stride, bias=norm == "none")
            self.shortcut = nn.Sequential(conv, _norm(norm, x))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = norm(conv(y if y is x else F.relu(y, inplace=True)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.more or self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))
        return F.relu(y + x, inplace=True)


RESNET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
"""He et al. 2016, table 1; from 50 on with bottlenecks"""


class ResNet(Staged):
    """Residual networks (He et al. 2016), of any size of image.

    Args:
        depth: 18, 34, 50, 101 or 152 in the "imagenet" form; 6 n + 2 (20, 32, 44, 56, 110, ...) in the "cifar" form,
            whose three stages begin at the image's own resolution and have shortcuts without weights.
        norm: "none" for learners whose target network would need a copy of the statistics, too.
        pooled: end with the mean over the last map. An agent wants to know where things are: False.
    Raises ValueError for depths that do not exist.
    """

    def __init__(
        self,
        in_shape: Shape,
        depth: int = 18,
        width: float = 1.0,
        form: Literal["imagenet", "cifar"] = "imagenet",
        norm: Norm = "batch",
        pooled: bool = True,
    ):
        super().__init__()
        self.pooled = pooled
        bottleneck, cifar = form == "imagenet" and depth >= 50, form == "cifar"
        if cifar and (depth < 8 or depth % 6 != 2):
            raise ValueError(f"the cifar form has 6 n + 2 layers, 20 or 56, say, not {depth}")
        if not cifar and depth not in RESNET_BLOCKS:
            raise ValueError(f"the imagenet form has {', '.join(map(str, RESNET_BLOCKS))} layers, not {depth}")
        blocks = [(depth - 2) // 6] * 3 if cifar else list(RESNET_BLOCKS[depth])
        channels = scaled(width, *((16, 32, 64) if cifar else (64, 128, 256, 512)))
        kernel, stride = (3, 1) if cifar else (7, 2)
        self.conv1 = nn.Conv2d(in_shape[0], channels[0], kernel, stride, kernel // 2, bias=norm == "none")
        self.norm = _norm(norm, channels[0])
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, stride=2, padding=1)
        self.blocks, before, self.map_channels, self._ends = nn.Sequential(), channels[0], [], list[int]()
        for stage, (number, c) in enumerate(zip(blocks, channels, strict=True)):
            for i in range(number):
                step = 2 if stage and i == 0 else 1
                self.blocks.append(Residual(before, c, step, bottleneck, norm, "pad" if cifar else "project"))
                before = 4 * c if bottleneck else c
            self.map_channels.append(before)
            self._ends.append(len(self.blocks) - 1)
        self.strides = [2**i * (1 if cifar else 4) for i in range(len(blocks))]
        h, w = (-(-s // self.strides[-1]) for s in in_shape[1:])
        self.out_features = before if pooled else before * h * w
        he_(self)
        if norm == "none":
            for block in self.blocks:
                for parameter in block.convs[-1].parameters():  # type: ignore[union-attr, index]
                    nn.init.zeros_(parameter)
        self._innermost()

    def stages(self, x: Tensor) -> list[Tensor]:
        x = self.pool(F.relu(self.norm(x), inplace=True))
        maps = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self._ends:
                maps.append(x)
        return maps

    def after(self, x: Tensor) -> Tensor:
        x = self.stages(x)[-1]
        return x.mean((2, 3)) if self.pooled else x.flatten(1)


BACKBONES: dict[str, Callable[..., Torso | MLP]] = {
    "nature": NatureCNN,
    "impala": Impala,
    # As agents want them: without normalisation, and with the places of things.
    "resnet": partial(ResNet, depth=18, norm="none", pooled=False),
    "vgg": partial(VGG, layers="A", dense=(512,)),
    "minatar": SmallCNN,
    "mlp": lambda in_shape, width=1.0: MLP(in_shape, scaled(width, 128)),
    "mlp2": lambda in_shape, width=1.0: MLP(in_shape, scaled(width, 128, 128)),
    "linear": lambda in_shape, width=1.0: MLP(in_shape, ()),  # the observation itself, for a linear head
}
"""built with (in_shape, width=...)"""


def torso(name: str, in_shape: Sequence[int], width: float = 1.0, **options: Any) -> Torso | MLP:
    """The torso of a name in BACKBONES, with further options of its class.

    Raises ValueError where there is none, or none for such observations.
    """
    if name not in BACKBONES:
        raise ValueError(f"there is no backbone {name!r}; choose from {', '.join(BACKBONES)}")
    if len(in_shape) != 3 and name not in ("mlp", "mlp2", "linear"):
        raise ValueError(
            f"backbone {name} sees images, and these are {in_shape[-1]} numbers: take mlp (preset classic)"
        )
    return BACKBONES[name](in_shape, width=width, **options)
