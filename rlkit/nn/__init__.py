"""Networks by name. torso [B, ..., C, H, W] -> [B, ..., D], head [B, ..., D] -> outputs."""

from rlkit.nn.convolution import NatureCNN

BACKBONES = {
    "nature": NatureCNN,
}
