"""Experience from actors while a learner learns: what they play with, how far it is behind, who waits for whom.

    actor    [ play, version 0 ][ play, version 0 ][ play, version 20 ]
    learner    [update] ... publish 10 ... publish 20 ...       waits where a call would be `max_lag` versions behind

An actor's object has play(weights, version, share, *arguments) -> a Piece, and begin(start).
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rlkit.config import AtLeast
from rlkit.errors import ExperienceFailed
from rlkit.parallel.actors import LOST, ActorConfig, Actors
from rlkit.saved_config import load_config

Weights = dict[str, NDArray]
SLOW = 0.6
"""share of the fastest actor's speed below which another is given less to do at a time"""


@dataclass
class StreamConfig(ActorConfig):
    """How many other processes gather experience, where, and how old their weights may be."""

    publish_every: Annotated[int, AtLeast(1)] = 10
    """updates between the versions of the weights that actors are given"""
    max_lag: Annotated[int, AtLeast(0)] = 4
    """versions that an actor's weights may be behind: the learner waits before that. 0: actors and learner take turns,
    and each call has the newest weights"""


def check_resume(cfg: Any) -> None:
    """Raise ValueError where a run of one process would go on with actors, or the other way round. cfg.elsewhere: a
    StreamConfig.
    """
    if cfg.resume and bool(load_config(type(cfg), Path(cfg.resume)).elsewhere.actors) != bool(cfg.elsewhere.actors):
        raise ValueError("--actors 0 cannot become more when a run goes on, nor 0 again: what is saved differs")


@dataclass
class Piece:
    """What an actor has played, and hands over."""

    content: Any
    version: int
    """updates that its weights had had"""
    seconds: float
    counts: dict[str, int] = field(default_factory=dict)
    """of what, for the log: games, say"""
    nbytes: int = 0


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Give a network what `Stream` has published."""
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})


class Stream:
    """Pieces of experience from `cfg.actors` other processes, for a learner that counts its `updates`.

    Args:
        make: make(index, start) -> the actor's object, see `Actors`. network: the one whose weights they play with.
    """

    def __init__(self, make: Callable[[int, int], Any], network: nn.Module, cfg: StreamConfig, cpus: int = 1):
        self.network, self.cfg, self.updates = network, cfg, 0
        self.actors = Actors(make, cfg, cpus)
        self.bytes = 0
        """sent and received"""
        self.lags: deque[int] = deque(maxlen=200)
        self.lost: list[int] = []
        """actors that were lost since this list was emptied"""
        self._versions = 0
        """published so far"""
        self._under_way: dict[int, tuple[int, float]] = {}
        """of the actors that have been called: which version they play, and what share of the full number of moves"""
        self._held: dict[int, Piece] = {}
        """where learner and actors take turns: of those that were ready before the others"""
        self._full_seconds: dict[int, float] = {}
        """what a call of each actor would take that is not shortened"""
        self._done = {index: Counter[str]() for index in range(cfg.actors)}
        self._rated: tuple[float, int, dict[int, Counter[str]]] = time.monotonic(), 0, {}

    @property
    def behind(self) -> bool:
        """Whether the learner has to wait, since its next weights would leave some actor's too far behind."""
        if not self.cfg.max_lag:
            return bool(self._under_way)
        publishes = (self.updates + 1) % self.cfg.publish_every == 0
        oldest = min((version for version, _ in self._under_way.values()), default=self._versions)
        return publishes and self._versions + 1 - oldest > self.cfg.max_lag

    def take(self, wanted: bool, *arguments: Any) -> list[tuple[int, Piece]]:
        """(actor, piece) of those that have ended; waits for a second at most.

        Where more is `wanted`, idle actors go on first, with these arguments.
        """
        if self.cfg.max_lag:
            self._call(wanted, arguments)
            return self._receive(1.0)
        if not self._under_way and not self._held and len(self.actors.idle) == self.cfg.actors:
            self._publish()
            self._call(True, arguments)
        self._held |= dict(self._receive(1.0))
        if self._under_way:
            return []
        held, self._held = self._held, {}
        return sorted(held.items())

    def after_update(self, wanted: bool, *arguments: Any) -> list[tuple[int, Piece]]:
        """The same without waiting, once the network has changed."""
        if not self.cfg.max_lag:
            return []
        if self.updates % self.cfg.publish_every == 0:
            self._publish()
        pieces = self._receive(0.0)
        self._call(wanted, arguments)
        return pieces

    def _publish(self) -> None:
        weights = {name: tensor.detach().cpu().numpy() for name, tensor in self.network.state_dict().items()}
        self._weights, self._version = self.actors.put(weights), self.updates
        self._versions += 1
        self._size = sum(array.nbytes for array in weights.values())

    def _call(self, wanted: bool, arguments: tuple) -> None:
        """Have the actors go on that have nothing to do. One that is slower than the others plays less at a time."""
        if not self._versions:
            self._publish()
        fastest = min(self._full_seconds.values(), default=1.0)
        for index in sorted(self.actors.idle) if wanted else ():
            share = fastest / self._full_seconds.get(index, fastest)
            share = share if self.cfg.max_lag and share < SLOW else 1.0
            self.actors.call(index, "play", self._weights, self._version, share, *arguments)
            self._under_way[index] = self._versions, share
            self.bytes += self._size

    def _receive(self, seconds: float) -> list[tuple[int, Piece]]:
        out = []
        try:
            ended = self.actors.results(seconds)
        except ExperienceFailed:
            raise
        except Exception as error:  # the trainer saves, and hands it on
            raise ExperienceFailed(f"an actor failed: {error}") from error
        for index, piece in ended:
            version, share = self._under_way.pop(index, (0, 1.0))
            if piece is LOST:
                self.lost.append(index)
                self._full_seconds.pop(index, None)
            if isinstance(piece, Piece):  # else it has begun anew
                out.append((index, piece))
                self.lags.append(self._versions - version)
                self._full_seconds[index] = piece.seconds / share
                self._done[index] += Counter(piece.counts)
                self.bytes += piece.nbytes
        return out

    def rates(self) -> dict[str, float]:
        """For the log: what each actor has done a second since the last call, and how far behind its weights were."""
        (then, before, done), now = self._rated, time.monotonic()
        self._rated = now, self.bytes, {index: counts.copy() for index, counts in self._done.items()}
        out = {
            "actors/lag": float(np.mean(self.lags)) if self.lags else 0.0,
            "actors/lost": float(self.actors.lost),
            "actors/bytes_per_second": (self.bytes - before) / (now - then),
        }
        for index, counts in self._done.items():
            for what, count in counts.items():
                out[f"actors/{what}_per_second/{index}"] = (count - done.get(index, Counter())[what]) / (now - then)
        return out

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "start": 1 + max(self.actors.starts)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on with the count of updates; the actors begin anew, with other random numbers than before."""
        self.updates = saved["updates"]
        for index in sorted(self.actors.idle):
            self.actors.starts[index] = saved["start"]
            self.actors.call(index, "begin", saved["start"])

    def close(self) -> None:
        """End the actors."""
        self.actors.close()
