"""Sampling in proportion to priorities: a tree of sums on any device, without a loop over leaves.

Each number of a level is the sum of a block of 64 in the level below:

    level 1             [   s0   |   s1   | ... ]         found: the block by running sums, then the leaf in it
    level 0 (leaves)    [p0 .. p63|p64 .. p127| ...]

A tree of two needs 18 levels for 200,000 leaves, this one 3, and each level is the same few kernels whatever the batch.
Sums are made anew from their block with every change, so that no error adds up.
"""

import torch
from torch import Tensor

FAN = 64


class SumTree:
    """`leaves` numbers >= 0 in float64, all 0 at first; change some, draw in proportion to them."""

    def __init__(self, leaves: int, device: torch.device | str = "cpu"):
        self.levels: list[Tensor] = []
        while not self.levels or leaves > 1:
            blocks = -(-leaves // FAN)
            self.levels.append(torch.zeros(blocks, FAN, dtype=torch.float64, device=device))
            leaves = blocks

    @property
    def leaves(self) -> Tensor:
        """All of them, and zeros up to a whole block; a view."""
        return self.levels[0].view(-1)

    def set(self, index: Tensor, value: Tensor) -> None:
        """Leaves index [B] int64 become value [B]; of equal ones any one of their values."""
        self.leaves[index] = value.to(self.leaves.dtype)
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            index = index // FAN
            above.view(-1)[index] = below[index].sum(1)

    def fill(self, leaves: Tensor) -> None:
        """Set every leaf."""
        self.leaves[: len(leaves)] = leaves
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            above.view(-1)[: len(below)] = below.sum(1)

    def find(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """(leaves [B] where the running sum of all passes share [B] in 0 .. 1 of the total, their shares of it [B]).

        Never a leaf of 0, unless all are.
        """
        total = self.levels[-1].sum()
        mass, node = share * total, torch.zeros(len(share), dtype=torch.int64, device=total.device)
        for level in reversed(self.levels):
            running = level[node].cumsum(1)
            # Rounding may leave more than the block holds, and would then lead into an empty leaf behind the last.
            mass = torch.minimum(mass, running[:, -1].nextafter(torch.zeros_like(mass)))
            child = (running <= mass[:, None]).sum(1).clamp(max=FAN - 1)
            before = running.gather(1, (child - 1).clamp(min=0)[:, None]).squeeze(1)
            mass = mass - torch.where(child > 0, before, 0.0)
            node = node * FAN + child
        return node, self.leaves[node] / total
