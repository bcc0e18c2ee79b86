"""The policy and value networks of AlphaGo, and their losses.

Source: Silver et al. 2016, Methods, "Neural network architecture", at any size. Planes are uint8 [B, C, size, size].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit import policy_losses
from rlkit.nn.board import PlainTower


class PolicyNetwork(nn.Module):
    """A 5x5 convolution, 3x3 ones and a 1x1 to one plane with a bias for each point -> logits [B, A] in fp32.

    Args:
        size: lines of the board. planes: how many of AlphaGo's it looks at, from the first; others are ignored.
        channels: k, 192 in the paper; layers: of the tower, 12 there.
        has_pass: one more logit, of the pass, from the mean over the board. The paper's network never passes; a small
            board cannot do without.
    """

    def __init__(self, size: int, planes: int = 48, channels: int = 64, layers: int = 6, has_pass: bool = True):
        super().__init__()
        self.config = {
            "size": size, "planes": planes, "channels": channels, "layers": layers, "has_pass": has_pass,
        }  # fmt: skip
        self.planes = planes
        self.tower = PlainTower(planes, channels, layers)
        self.point = nn.Conv2d(channels, 1, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(size * size))
        self.pass_ = nn.Linear(channels, 1) if has_pass else None

    def forward(self, planes: Tensor) -> Tensor:
        x = self.tower(planes[:, : self.planes])
        logits = self.point(x).flatten(1).float() + self.bias
        if self.pass_ is None:
            return logits
        return torch.cat([logits, self.pass_(x.mean((2, 3))).float()], 1)


class ValueNetwork(nn.Module):
    """The tower, a 1x1 convolution to one plane, a dense layer of 256, tanh -> value [B] of the side to move, in fp32.

    Arguments as `PolicyNetwork`; the 49th plane says whether Black is to move, which tells whose the komi is.
    """

    def __init__(self, size: int, planes: int = 49, channels: int = 64, layers: int = 6):
        super().__init__()
        self.config = {"size": size, "planes": planes, "channels": channels, "layers": layers}
        self.tower = PlainTower(planes, channels, layers)
        self.point = nn.Conv2d(channels, 1, 1)
        self.dense, self.out = nn.Linear(size * size, 256), nn.Linear(256, 1)

    def take_tower(self, policy: PolicyNetwork) -> None:
        """Take a policy's tower, which has seen more games than there may be outcomes; weights of planes that it does
        not look at begin at 0. Raises ValueError where it is of another shape.
        """
        ours, theirs = self.config, policy.config
        more = ours["planes"] - theirs["planes"]
        if more < 0 or any(ours[name] != theirs[name] for name in ("size", "channels", "layers")):
            raise ValueError(f"a value network of {ours} cannot begin with the tower of a policy of {theirs}")
        tower = policy.tower.state_dict()
        tower["convs.0.weight"] = F.pad(tower["convs.0.weight"], (0, 0, 0, 0, 0, more))
        self.tower.load_state_dict(tower)

    def forward(self, planes: Tensor) -> Tensor:
        points = self.point(self.tower(planes)).flatten(1)
        return self.out(F.relu(self.dense(points))).squeeze(1).float().tanh()


def policy_loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """(cross-entropy of the expert's moves "action" [B] at "planes", {"accuracy"})."""
    logits = model(batch["planes"])
    accuracy = (logits.argmax(1) == batch["action"]).float().mean()
    return F.cross_entropy(logits, batch["action"]), {"accuracy": accuracy}


def value_loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """(mean squared error of the value at "planes" against the outcomes "z" [B] for the sides to move, {})."""
    return (model(batch["planes"]) - batch["z"]).square().mean(), {}


def reinforce_loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """REINFORCE over whole games: the moves "action" [B] of one side at "planes" with "legal" [B, A] and their
    "advantage" [B] = z - v; "games" [B] repeats the number of games that they come from.

    -1/n sum_i sum_t log p(a_t^i | s_t^i) (z_t^i - v(s_t^i)), and "entropy" in nats a move.
    """
    logits = model(batch["planes"]).masked_fill(~batch["legal"], -torch.inf)
    loss = policy_losses.reinforce(logits, batch["action"], batch["advantage"]).sum() / batch["games"][0]
    logp = logits.detach().log_softmax(1)
    entropy = -(logp.exp() * logp.masked_fill(~batch["legal"], 0)).sum(1).mean()
    return loss, {"entropy": entropy}
