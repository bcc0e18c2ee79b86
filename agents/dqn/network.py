"""The Q-network: a torso by name and a head."""

from torch import Tensor, nn

from rlkit.nn.convolution import BACKBONES
from rlkit.nn.heads import DuelingHead, LinearHead


class QNetwork(nn.Module):
    """uint8 observations [B, stack, height, width] -> Q values [B, actions] in fp32."""

    def __init__(
        self,
        obs_shape: tuple[int, int, int],
        num_actions: int,
        backbone: str = "nature",
        dueling: bool = False,
        width: float = 1.0,
    ):
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"there is no backbone {backbone!r}; choose from {', '.join(BACKBONES)}")
        self.torso = BACKBONES[backbone](obs_shape, width=width)
        self.head = (DuelingHead if dueling else LinearHead)(self.torso.out_features, num_actions)

    def forward(self, obs: Tensor) -> Tensor:
        return self.head(self.torso(obs))
