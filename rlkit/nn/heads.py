"""Heads: a feature vector in, what the loss needs out, always in fp32."""

from torch import Tensor, nn


class LinearHead(nn.Module):
    """[..., D] -> [..., outputs] in fp32."""

    def __init__(self, in_features: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(in_features, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).float()


class DuelingHead(nn.Module):
    """Q = V + A - mean A: [..., D] -> [..., actions] in fp32 (Wang et al. 2016, eq. 9).

    Both streams stand on the torso's dense layer, so that it costs what a linear head costs; the paper gives each
    stream a dense layer of its own.
    """

    def __init__(self, in_features: int, actions: int):
        super().__init__()
        self.value = nn.Linear(in_features, 1)
        self.advantage = nn.Linear(in_features, actions)

    def forward(self, x: Tensor) -> Tensor:
        value, advantage = self.value(x).float(), self.advantage(x).float()
        return value + advantage - advantage.mean(-1, keepdim=True)


class Classifier(nn.Module):
    """A torso with a head, as agents have them: its torso's weights are theirs. [B, ...] -> logits [B, classes]."""

    def __init__(self, torso: nn.Module, classes: int):
        super().__init__()
        self.torso = torso
        self.head = LinearHead(torso.out_features, classes)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.torso(x))
