"""Networks by name.

    torso [B, ..., C, H, W] -> [B, ..., D]         core ([B, T, D], state, reset) -> ([B, T, D], state)
    head [B, ..., D] -> outputs                    a board's torso is a tower [B, planes, H, W] -> [B, channels, H, W]

Torsos are built with (in_shape, width=...), cores with (in_features, features, layers=...), towers with (planes,
channels, blocks). All have `out_features`; cores have `initial_state(batch)`.
"""

from collections.abc import Callable
from functools import partial

from rlkit.nn.board import BoardTransformer, PlainTower, ResidualTower
from rlkit.nn.convolution import VGG, Impala, NatureCNN, ResNet, Torso
from rlkit.nn.recurrent import Recurrent
from rlkit.nn.transformer import TransformerCore

BACKBONES: dict[str, Callable[..., Torso]] = {
    "nature": NatureCNN,
    "impala": Impala,
    # As agents want them: without normalisation, and with the places of things.
    "resnet": partial(ResNet, depth=18, norm="none", pooled=False),
    "vgg": partial(VGG, layers="A", dense=(512,)),
}

CORES: dict[str, Callable[..., Recurrent | TransformerCore]] = {
    "rnn": partial(Recurrent, "rnn"),
    "lstm": partial(Recurrent, "lstm"),
    "gru": partial(Recurrent, "gru"),
    "transformer": TransformerCore,
}

BOARD_BACKBONES: dict[str, Callable[..., ResidualTower | PlainTower | BoardTransformer]] = {
    "resnet": ResidualTower,
    "alphago": lambda planes, channels, blocks: PlainTower(planes, channels, 1 + 2 * blocks),
    "transformer": BoardTransformer,
}
