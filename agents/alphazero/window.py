"""The positions that batches are drawn from: the newest of finished games, packed, each drawn under a symmetry."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.augmentations import turn_boards

KEPT = 10_000
"""positions that are kept before the older half of all is dropped"""


def pack(planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Planes of 0 and 1 [..., C, H, W] as bits [..., bytes]."""
    return np.packbits(planes.reshape(*planes.shape[:-3], -1), axis=-1)


class Window:
    """A ring of positions with the targets to learn from.

    Batches come from the newest half of all positions ever seen (at least KEPT of them, at most `capacity`): what an
    almost untrained network played is soon forgotten, and later nothing is forgotten too fast.

    Args:
        shape: (C, H, W) of the planes. symmetries [K, num_actions]: under symmetry k, action a's number comes from
        symmetries[k, a]; actions from H W on (a pass) stay what they are.
    """

    def __init__(self, capacity: int, shape: tuple[int, int, int], symmetries: NDArray[np.int64]):
        self.capacity, self.shape, self.symmetries = capacity, shape, symmetries
        actions = symmetries.shape[1]
        self.rows: dict[str, NDArray] = {
            "planes": np.zeros((capacity, -(-int(np.prod(shape)) // 8)), np.uint8),
            "policy": np.zeros((capacity, actions), np.float16),
            "reply": np.zeros((capacity, actions), np.float16),
            "value": np.zeros(capacity, np.float32),
            "score": np.zeros(capacity, np.float32),
            "ownership": np.zeros((capacity, *shape[1:]), np.int8),
            "known": np.zeros(capacity, np.float32),
            "version": np.zeros(capacity, np.int32),  # updates that the weights had had
        }
        self.added = self.held = 0
        """positions ever added, and those that are still here"""

    def __len__(self) -> int:
        """How many positions the next batch is drawn from."""
        return min(self.held, max(self.added // 2, KEPT))

    def add(self, rows: Mapping[str, NDArray]) -> None:
        """Add positions, planes packed, in place of the oldest. Without a version they are of the first weights."""
        count = len(rows["value"])
        at = (self.added + np.arange(count)) % self.capacity
        for name, ring in self.rows.items():
            ring[at] = rows[name] if name != "version" else rows.get(name, 0)
        self.added += count
        self.held = min(self.held + count, self.capacity)

    def sample(self, rng: np.random.Generator, batch_size: int) -> dict[str, Tensor]:
        """A batch, uniformly with replacement, each position under a random symmetry."""
        rows = (self.added - 1 - rng.integers(0, len(self), batch_size)) % self.capacity
        index = self.symmetries[rng.integers(0, len(self.symmetries), batch_size)]
        channels, height, width = self.shape
        planes = np.unpackbits(self.rows["planes"][rows], axis=1, count=channels * height * width)
        owner = turn_boards(self.rows["ownership"][rows][:, None], index)[:, 0]
        batch = {
            "planes": turn_boards(planes.reshape(batch_size, *self.shape), index),
            "policy": np.take_along_axis(self.rows["policy"][rows], index, 1).astype(np.float32),
            "reply": np.take_along_axis(self.rows["reply"][rows], index, 1).astype(np.float32),
            "ownership": owner.astype(np.float32),
            **{name: self.rows[name][rows] for name in ("value", "score", "known")},
        }
        return {name: torch.from_numpy(array) for name, array in batch.items()}

    def state_dict(self) -> dict[str, Any]:
        """The positions, oldest first."""
        order = (self.added - self.held + np.arange(self.held)) % self.capacity
        return {"added": self.added, "rows": {k: torch.from_numpy(v[order]) for k, v in self.rows.items()}}

    def load_state_dict(self, saved: dict[str, Any]) -> str | None:
        """Restore `state_dict`, also into a window of another capacity: then the newest stay."""
        rows = {name: tensor.numpy() for name, tensor in saved["rows"].items()}
        held = len(rows["value"])
        kept = min(held, self.capacity)
        self.added, self.held = saved["added"] - kept, 0
        self.add({name: array[held - kept :] for name, array in rows.items()})
        if kept < held:
            return f"the window is smaller now: {kept:,} of {held:,} positions stay"
        return None
