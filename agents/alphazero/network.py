"""The policy and value network."""

import torch
from torch import Tensor, nn

from rlkit.nn.convolution import GlobalPool, ResidualTower


class BoardNetwork(nn.Module):
    """A tower with the heads of a board game: planes [B, C, H, W] -> {"policy" [B, H W + 1], "value" [B]}, in fp32.

    The policy's logits are those of the points from the top left, then of the pass; the value, in -1 .. 1, is that of
    the side to move. "ownership" [B, H, W] in -1 .. 1 is what a game's end makes of each point, own positive. Nothing
    in it depends on the size of the board.
    """

    def __init__(self, planes: int, channels: int = 64, blocks: int = 6):
        super().__init__()
        self.config = {"planes": planes, "channels": channels, "blocks": blocks}
        self.tower = ResidualTower(planes, channels, blocks)
        self.points = nn.Conv2d(channels, 3, 1)  # policy, ownership, and what the value is pooled from
        self.pooled = nn.Sequential(GlobalPool(), nn.Linear(2 * channels, 2 * channels), nn.ReLU())
        self.whole = nn.Linear(2 * channels, 2)  # pass, value
        for parameter in (*self.points.parameters(), *self.whole.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, planes: Tensor) -> dict[str, Tensor]:
        x = self.tower(planes)
        points, whole = self.points(x).float(), self.whole(self.pooled(x)).float()
        ownership = points[:, 1].tanh()
        value = (whole[:, 1] + points[:, 2].mean((1, 2))).tanh()
        policy = points[:, 0].flatten(1)
        return {"policy": torch.cat([policy, whole[:, :1]], 1), "value": value, "ownership": ownership}
