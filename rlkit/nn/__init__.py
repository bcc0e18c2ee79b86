"""Networks by name. torso [B, ..., C, H, W] -> [B, ..., D], head [B, ..., D] -> outputs.

A board's torso is a tower [B, planes, H, W] -> [B, channels, H, W], built with (planes, channels, blocks).
"""

from rlkit.nn.convolution import NatureCNN, PlainTower, ResidualTower
from rlkit.nn.transformer import BoardTransformer

BACKBONES = {
    "nature": NatureCNN,
}

BOARD_BACKBONES = {
    "resnet": ResidualTower,
    "alphago": PlainTower,
    "transformer": BoardTransformer,
}
