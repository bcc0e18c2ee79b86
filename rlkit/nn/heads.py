"""Heads: a feature vector in, what the loss needs out, always in fp32."""

from torch import Tensor, nn


class LinearHead(nn.Module):
    """[..., D] -> [..., outputs] in fp32; with `atoms` [..., outputs, atoms]."""

    def __init__(self, in_features: int, outputs: int, atoms: int | None = None):
        super().__init__()
        self.linear = nn.Linear(in_features, outputs * (atoms or 1))
        self.atoms = atoms

    def forward(self, x: Tensor) -> Tensor:
        return _apart(self.linear(x).float(), self.atoms)


class DuelingHead(nn.Module):
    """Q = V + A - mean A: [..., D] -> [..., actions] in fp32 (Wang et al. 2016, eq. 9); with `atoms` for each of them.

    Both streams stand on the features as they come (of the torso's dense layer, or of a memory), so that it costs what
    a linear head costs; the paper gives each stream a dense layer of its own.
    """

    def __init__(self, in_features: int, actions: int, atoms: int | None = None):
        super().__init__()
        self.value = nn.Linear(in_features, atoms or 1)
        self.advantage = nn.Linear(in_features, actions * (atoms or 1))
        self.atoms = atoms

    def forward(self, x: Tensor) -> Tensor:
        value, advantage = self.value(x).float(), _apart(self.advantage(x).float(), self.atoms)
        if self.atoms is not None:
            return value[..., None, :] + advantage - advantage.mean(-2, keepdim=True)
        return value + advantage - advantage.mean(-1, keepdim=True)


def _apart(x: Tensor, atoms: int | None) -> Tensor:
    return x if atoms is None else x.unflatten(-1, (-1, atoms))


class Classifier(nn.Module):
    """A torso with a head, as agents have them: its torso's weights are theirs. [B, ...] -> logits [B, classes]."""

    def __init__(self, torso: nn.Module, classes: int):
        super().__init__()
        self.torso = torso
        self.head = LinearHead(torso.out_features, classes)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.torso(x))
