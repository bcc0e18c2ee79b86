"""Games of a policy network against its own past, as batches for REINFORCE.

        weights           w0 ............ w1 ............ w2 ............ w3
        pool              w0 (supervised)                 w0 w2           w0 w2
        a set of games    w0 - w0         w1 - w0         w2 - one of two
                               |               |               |
        update                 +-> to w1       +-> to w2       +-> to w3          (here a snapshot every two updates)

Source: Silver et al. 2016, Methods, "Policy network: reinforcement learning".
"""

import copy
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from agents.alphago import games
from agents.alphago.games import Encode, Played
from agents.alphago.parts import Evaluator
from rlkit import runtime
from rlkit.logger import Timer
from rlkit.search.game import Game

Value = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class PoolPlay:
    """An iterator of batches for `reinforce_loss`: the moves of the network in a set of games, half with each colour.

    Its opponent in a set is drawn from a pool of its snapshots. A set serves one update, for which it is dealt out in
    `accumulate` batches, every accumulate-th position each: their gradients' mean is the set's, 1/n of the sum over its
    n games. So the trainer has to accumulate as many.

    Args:
        game, encode: see `agents.alphago.games.play`. network: plays as it is when a set begins.
        size: n, games of a set. snapshot_every: updates from one snapshot to the next; the first is the network as it
            is now. opening_moves: random ones that each game begins with.
        baseline: v(s), which the outcome is compared with; None: 0.
        precision: of the networks while they play, "fp32", "bf16" or "auto".
    """

    def __init__(
        self,
        game: Game,
        encode: Encode,
        network: nn.Module,
        size: int = 128,
        snapshot_every: int = 500,
        accumulate: int = 1,
        opening_moves: int = 0,
        baseline: Value | None = None,
        seed: int = 0,
        precision: str = "auto",
        timer: Timer | None = None,
    ):
        self.game, self.encode, self.network, self.baseline = game, encode, network, baseline
        self.size, self.snapshot_every, self.opening_moves = size, snapshot_every, opening_moves
        self.accumulate = accumulate
        self.rng = np.random.default_rng(runtime.derive_seed(seed, 0))
        self.timer = timer or Timer()
        self.sets = self.moves = 0
        """sets and moves played so far"""
        self.pool = [self._snapshot()]
        self._past = copy.deepcopy(network)
        self._policies = Evaluator(network, precision), Evaluator(self._past, precision)
        self._recent: deque[dict[str, float]] = deque(maxlen=20)

    def _snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        while True:
            with self.timer("games"):
                batch = self._batch(self._play())
            for part in range(self.accumulate):
                yield {name: torch.from_numpy(array[part :: self.accumulate]) for name, array in batch.items()}

    def _play(self) -> Played:
        """A set of games against one of the pool."""
        if self.sets and self.sets % self.snapshot_every == 0:
            self.pool.append(self._snapshot())
        chosen = int(self.rng.integers(len(self.pool)))
        self._past.load_state_dict(self.pool[chosen])
        for policy in self._policies:
            policy.refresh()
        first, states = games.colours(self.size), games.openings(self.game, self.size, self.opening_moves, self.rng)
        turn = games.sides(first)
        played = games.play(self.game, self.encode, states, self._policies, turn, self.rng, keep=0)
        self.sets += 1
        self.moves += sum(map(len, played.moves))
        won = (games.worth(played.winner, first) + 1) / 2
        black = first == 1
        self._recent.append(
            {
                "score": float(won.mean()),
                "score_as_black": float(won[black].mean()),
                "length": float(np.mean([len(one) for one in played.moves])),
                "age": float(self.sets - 1 - chosen * self.snapshot_every),
            }
        )
        return played

    def _batch(self, played: Played) -> dict[str, NDArray]:
        """The arguments of `reinforce_loss` for the whole set."""
        kept = played.kept
        if (count := len(kept.get("action", ()))) < self.accumulate:
            raise ValueError(
                f"{self.size} games have {count} moves to learn from, too few for {self.accumulate} batches"
            )
        z = played.z
        seen = z if self.baseline is None else z - self._values(kept["planes"])
        # The trainer averages over the batches: with n / accumulate for n the mean is the sum over n.
        share = np.full(len(z), self.size / self.accumulate, np.float32)
        wanted = {name: kept[name] for name in ("planes", "action", "legal")}
        return {**wanted, "advantage": seen, "games": share}

    def _values(self, planes: NDArray[np.uint8]) -> NDArray[np.float32]:
        assert self.baseline is not None
        return np.concatenate([self.baseline(some) for some in np.array_split(planes, max(1, len(planes) // 512))])

    def stats(self) -> dict[str, float]:
        """For the log: totals, and means over the last 20 sets; `age` is that of the opponents, in updates."""
        if not self._recent:
            return {}
        means = {f"selfplay/{name}": float(np.mean([one[name] for one in self._recent])) for name in self._recent[0]}
        return means | {"selfplay/games": self.sets * self.size, "selfplay/pool": len(self.pool)}

    def state_dict(self) -> dict[str, Any]:
        """All that later sets depend on, besides the network: the pool, the generator, counters."""
        return {"sets": self.sets, "moves": self.moves, "rng": self.rng.bit_generator.state, "pool": self.pool}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self.sets, self.moves, self.pool = saved["sets"], saved["moves"], list(saved["pool"])
        self.rng.bit_generator.state = saved["rng"]
