"""The policy and value network, and its loss."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rlkit import policy_losses
from rlkit.nn.board import BOARD_BACKBONES, global_pool

AUXILIARY = ("ownership", "score", "reply")
WEIGHTS = {"policy": 1.0, "value": 1.0, "ownership": 0.5, "score": 0.5, "reply": 0.15}
"""of each head's loss"""


class BoardNetwork(nn.Module):
    """A tower with the heads of a board game: planes [B, C, H, W] -> a dictionary of its heads, in fp32.

    "policy" [B, A] are logits of the points from the top left, then of the pass if there is one; "value" [B], in
    -1 .. 1, is that of the side to move. Both begin at 0. The others are there if `heads` names them: "ownership"
    [B, H, W], in -1 .. 1, is what a game's end makes of each point, own positive; "score" [B] is own minus the other's
    points, with komi, divided by the board's; "reply" [B, A] are logits of the opponent's next move.

    One network plays boards of any size, and boards of several in one batch: `mask` [B, H, W] is True on a board that
    lies in the top left of a larger array. A point there gets what it would get without the padding; off the board,
    logits are -inf and ownership is 0.

    Args:
        planes, channels, blocks: of the tower. backbone: a name in BOARD_BACKBONES.
        size: lines of the largest board, for "alphago", which has a bias for each position; smaller boards use its
            top left. The others do not look at it.
    Raises ValueError for names that do not exist, and for boards too large for "alphago".
    """

    def __init__(
        self,
        planes: int,
        channels: int = 64,
        blocks: int = 6,
        backbone: str = "resnet",
        heads: Iterable[str] = AUXILIARY,
        has_pass: bool = True,
        size: int = 0,
    ):
        super().__init__()
        heads = list(heads)
        if backbone not in BOARD_BACKBONES:
            raise ValueError(f"there is no backbone {backbone!r}: take one of {', '.join(BOARD_BACKBONES)}")
        if unknown := [head for head in heads if head not in AUXILIARY]:
            raise ValueError(f"there is no head {unknown[0]!r}: take some of {', '.join(AUXILIARY)}")
        if backbone == "alphago" and size < 1:
            raise ValueError("backbone alphago has a bias for each position: say size, the lines of the largest board")
        self.config = {
            "planes": planes, "channels": channels, "blocks": blocks, "backbone": backbone,
            "heads": heads, "has_pass": has_pass, "size": size,
        }  # fmt: skip
        policies = ["policy"] + ["reply"] * ("reply" in heads)
        scalars = ["value"] + ["score"] * ("score" in heads)
        self.of_points = [*policies, *scalars, *["ownership"] * ("ownership" in heads)]
        self.of_board = [*scalars, *policies] if has_pass else scalars
        self.tower = BOARD_BACKBONES[backbone](planes, channels, blocks)
        self.points = nn.Conv2d(channels, len(self.of_points), 1)
        self.pooled = nn.Linear(2 * channels, 2 * channels)
        self.board = nn.Linear(2 * channels, len(self.of_board))
        self.position = nn.Parameter(torch.zeros(size, size)) if backbone == "alphago" else None
        for parameter in (*self.points.parameters(), *self.board.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, planes: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        height, width = planes.shape[2:]
        x = self.tower(planes, mask)
        board = self.board(F.relu(self.pooled(global_pool(x, mask)), inplace=True)).float()
        points = dict(zip(self.of_points, self.points(x).float().unbind(1), strict=True))
        boards = dict(zip(self.of_board, board.unbind(1), strict=True))
        if self.position is not None:
            if max(height, width) > len(self.position):
                raise ValueError(
                    f"this network knows boards of up to {len(self.position)} lines, not {height} x {width}: train one"
                    " with a larger size, or with another backbone, which has no largest board"
                )
            points["policy"] = points["policy"] + self.position[:height, :width]
        out = {}
        for name, plane in points.items():
            if name == "ownership":
                out[name] = plane.tanh() if mask is None else plane.tanh() * mask
            elif name in ("policy", "reply"):
                logits = (plane if mask is None else plane.masked_fill(~mask, -torch.inf)).flatten(1)
                out[name] = torch.cat([logits, boards[name][:, None]], 1) if name in boards else logits
            else:
                out[name] = boards[name] + _mean(plane, mask)
        out["value"] = out["value"].tanh()
        return out


def alphazero_loss(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """(loss, the loss of each head): the sum of the losses of a BoardNetwork's heads, weighted by WEIGHTS.

    Args:
        batch: "planes" [B, C, H, W]; "policy" [B, A], the search's; "value" [B]; where the network has that head,
            "ownership" [B, H, W], "score" [B], and "known" [B], 1 where a game's end said both and 0 where it was
            resigned; "reply" [B, A], all 0 where there was no reply; "mask" [B, H, W] where boards differ in size.
    Each is a mean over the rows that have a target. Source: Silver et al. 2017, eq. 1, and Wu 2019, section 3.4.
    """
    mask = batch.get("mask")
    out = model(batch["planes"], mask)
    policy, value = policy_losses.policy_value(out["policy"], out["value"], batch["policy"], batch["value"])
    by_head = {"policy": policy.mean(), "value": value.mean()}
    if "ownership" in out:
        error = _mean((out["ownership"] - batch["ownership"]).square(), mask)
        by_head["ownership"] = _mean_over(batch["known"], error)
    if "score" in out:
        by_head["score"] = _mean_over(batch["known"], (out["score"] - batch["score"]).square())
    if "reply" in out:
        error = policy_losses.cross_entropy(out["reply"], batch["reply"])
        by_head["reply"] = _mean_over(batch["reply"].any(1), error)
    loss = torch.stack([WEIGHTS[name] * mean for name, mean in by_head.items()]).sum()
    return loss, by_head


def _mean(points: Tensor, mask: Tensor | None) -> Tensor:
    """Over the board: [B, H, W] -> [B]."""
    return points.mean((1, 2)) if mask is None else (points * mask).sum((1, 2)) / mask.sum((1, 2))


def _mean_over(rows: Tensor, x: Tensor) -> Tensor:
    """The mean of x [B] over the rows [B] that are 1; 0 where none is."""
    return (rows * x).sum() / rows.sum().clamp(min=1)
