"""Where the finished games of self-play come from: this process, or actors.

source.play()             about one move in every game, or what actors have played meanwhile
source.after_update()     what there is without waiting
"""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agents.alphazero.games import FinishedGame, OpenGames, SelfPlayConfig
from rlkit import runtime
from rlkit.parallel.actors import ActorConfig, Actors
from rlkit.search.game import Game
from rlkit.search.inference import Inference

STARTS = 1_000
"""parts that an actor and those after it may have together, so that each has a seed of its own"""


@dataclass
class Played:
    """What a source has done: about one move in each of its games."""

    games: list[FinishedGame]
    """those that have ended"""
    evaluations: int
    simulations: int
    version: int = 0
    """updates that the weights had had"""
    seconds: float = 0.0


class GameSource(Protocol):
    """What `SelfPlay` asks for games. wanted: whether the learner is near enough that more of them are of use."""

    updates: int
    """batches that have been handed out"""
    resign_below: float
    """value below which a side resigns"""

    @property
    def behind(self) -> bool:
        """Whether the learner has to wait, since its next weights would leave somebody's too far behind."""
        ...

    def play(self, wanted: bool = True) -> list[Played]: ...
    def after_update(self, wanted: bool = True) -> list[Played]: ...
    def memory(self) -> str: ...
    def rates(self) -> dict[str, float]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, saved: dict[str, Any]) -> str | None: ...
    def close(self) -> None: ...


class LocalGames:
    """Games of this process, in parts with a thread each: the newest weights play, and the learner waits meanwhile.

    Args:
        network: plays as it is at the moment.
        share: (i, n): the i-th of n equal shares of the games and parts that `cfg` asks for.
        start: how many have had this share before, in the same run.
    """

    behind = False

    def __init__(
        self,
        game: Game,
        network: nn.Module,
        cfg: SelfPlayConfig,
        seed: int,
        share: tuple[int, int] = (0, 1),
        start: int = 0,
    ):
        if cfg.games < cfg.parts:
            raise ValueError(f"{cfg.games} games cannot be divided among {cfg.parts} parts; ask for fewer parts")
        index, shares = share
        each = max(1, cfg.parts // shares)
        sizes = [len(part) for part in np.array_split(np.arange(cfg.games), each * shares)]
        self.cfg, self.evaluate, self.updates = cfg, Inference(network), 0
        self.parts = [
            OpenGames(game, cfg, sizes[part], runtime.derive_seed(seed, 1 + part + STARTS * start, runtime.rank()))
            for part in range(index * each, (index + 1) * each)
        ]
        self._pool = ThreadPoolExecutor(max(1, each - 1))  # kept: a thread has its own graphs on a GPU
        self.resign_below = -2.0

    def play(self, wanted: bool = True, share: float = 1.0) -> list[Played]:
        """About one move in every game, or in a share of them, the parts on a thread each."""
        cfg = self.cfg
        full = cfg.full_share if cfg.fast_simulations else 1.0
        rounds = max(1, round(share * (full * cfg.simulations + (1 - full) * cfg.fast_simulations)))
        self.evaluate.refresh()
        before = self.simulations
        for part in self.parts:
            part.resign_below = self.resign_below

        def run(part: OpenGames) -> int:
            return sum(part.step(self.evaluate) for _ in range(rounds))

        with runtime.torch_threads(1):
            others = [self._pool.submit(run, part) for part in self.parts[1:]]
            evaluations = run(self.parts[0])
            evaluations += sum(other.result() for other in others)  # or an error, not lost in its thread
        ended = [game for part in self.parts for game in part.ended]
        for part in self.parts:
            part.ended.clear()
        return [Played(ended, evaluations, self.simulations - before, self.updates)]

    def after_update(self, wanted: bool = True) -> list[Played]:
        return []

    @property
    def simulations(self) -> int:
        """Those of all moves played."""
        return sum(part.simulations for part in self.parts)

    def memory(self) -> str:
        trees = [part.trees for part in self.parts]
        nodes, per_node = trees[0].N.shape[1], trees[0].bytes_per_node
        games = sum(len(tree.N) for tree in trees)
        held = sum(array.nbytes for part in self.parts for array in part.open.values())
        return (
            f"{games} trees of {nodes} nodes of {per_node:,} bytes: {games * nodes * per_node / 1e6:,.0f} MB;"
            f" their games: {held / 1e6:,.0f} MB"
        )

    def rates(self) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        parts = [part.state_dict() for part in self.parts]
        return {"resign_below": self.resign_below, "updates": self.updates, "parts": parts}

    def load_state_dict(self, saved: dict[str, Any]) -> str | None:
        self.resign_below, self.updates = saved["resign_below"], saved.get("updates", 0)
        for part, state in zip(self.parts, saved["parts"], strict=True):
            part.load_state_dict(state)
        return None

    def close(self) -> None:
        self._pool.shutdown()


class Actor:
    """The games of one actor.

    Args:
        make: from how many have played in its place before, in the same run, to its `LocalGames`.
    """

    def __init__(self, make: Callable[[int], LocalGames], start: int):
        self.make = make
        self.begin(start)

    def begin(self, start: int) -> None:
        self.games, self.version = self.make(start), -1

    def play(self, weights: dict[str, NDArray], version: int, resign_below: float, share: float) -> Played:
        """Play with these weights, which had so many updates."""
        began, games = time.perf_counter(), self.games
        if version != self.version:
            tensors = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
            games.evaluate.network.load_state_dict(tensors)
        self.version = games.updates = version
        games.resign_below = resign_below
        (played,) = games.play(share=share)
        played.seconds = time.perf_counter() - began
        return played


class ActorGames:
    """Games of other processes, which play with the learner's weights as they were published last.

        actor    [ play, version 0 ][ play, version 0 ][ play, version 20 ]
        learner    [update] ... publish 10 ... publish 20 ...     waits where a call would be `max_lag` versions behind

    Args:
        make: make(index, start) -> `Actor`, see `Actors`. network: the one whose weights they play with.
    """

    def __init__(self, make: Callable[[int, int], Actor], network: nn.Module, cfg: ActorConfig, cpus: int = 1):
        self.network, self.cfg, self.resign_below, self.updates = network, cfg, -2.0, 0
        self.actors = Actors(make, cfg, cpus)
        self.bytes_sent = self.bytes_received = 0
        self._versions = 0
        """published so far"""
        self._shares: dict[int, float] = {}
        """of the full number of moves, what a call is for"""
        self._under_way: dict[int, int] = {}
        """which version the actors play that have been called"""
        self._held: dict[int, Played] = {}
        """where learner and actors take turns: of those that were ready before the others"""
        self._full_seconds: dict[int, float] = {}
        """what a call of each actor would take that is not shortened"""
        self._lags: deque[int] = deque(maxlen=200)
        self._done = {index: [0, 0] for index in range(cfg.actors)}  # games, evaluations
        self._rated = time.monotonic(), 0, {index: [0, 0] for index in range(cfg.actors)}

    @property
    def behind(self) -> bool:
        if not self.cfg.max_lag:
            return bool(self._under_way)
        publishes = (self.updates + 1) % self.cfg.publish_every == 0
        oldest = min(self._under_way.values(), default=self._versions)
        return publishes and self._versions + 1 - oldest > self.cfg.max_lag

    def play(self, wanted: bool = True) -> list[Played]:
        if self.cfg.max_lag:
            self._call(wanted)
            return list(self._receive(1.0).values())
        if not self._under_way and not self._held:
            self._publish()
            self._call(len(self.actors.idle) == self.cfg.actors)
        self._held |= self._receive(1.0)
        if self._under_way:
            return []
        held, self._held = self._held, {}
        return [held[index] for index in sorted(held)]

    def after_update(self, wanted: bool = True) -> list[Played]:
        if not self.cfg.max_lag:
            return []
        if self.updates % self.cfg.publish_every == 0:
            self._publish()
        played = list(self._receive(0.0).values())
        self._call(wanted)
        return played

    def _publish(self) -> None:
        weights = {name: tensor.detach().cpu().numpy() for name, tensor in self.network.state_dict().items()}
        self._weights, self._version = self.actors.put(weights), self.updates
        self._versions += 1
        self._size = sum(array.nbytes for array in weights.values())

    def _call(self, wanted: bool) -> None:
        """Have the actors go on that have nothing to do. One that is slower than the others plays less at a time."""
        if not self._versions:
            self._publish()
        fastest = min(self._full_seconds.values(), default=1.0)
        for index in sorted(self.actors.idle) if wanted else ():
            share = fastest / self._full_seconds.get(index, fastest)
            share = share if self.cfg.max_lag and share < 0.6 else 1.0
            self.actors.call(index, "play", self._weights, self._version, self.resign_below, share)
            self._under_way[index] = self._versions
            self._shares[index] = share

    def _receive(self, seconds: float) -> dict[int, Played]:
        """What the actors have played since, after `seconds` at most."""
        out = {}
        for index, played in self.actors.results(seconds):
            version = self._under_way.pop(index, None)
            if not isinstance(played, Played):  # it was lost, or has begun anew
                continue
            assert version is not None
            out[index] = played
            self._lags.append(self._versions - version)
            self._full_seconds[index] = played.seconds / self._shares[index]
            self._done[index][0] += len(played.games)
            self._done[index][1] += played.evaluations
            self.bytes_received += sum(array.nbytes for game in played.games for array in game.rows.values())
            self.bytes_sent += self._size
        return out

    def memory(self) -> str:
        return f"{self.cfg.actors} actors have the games"

    def rates(self) -> dict[str, float]:
        """For the log: what each actor has done a second since the last call, and how far behind its weights were."""
        (then, sent, done), now = self._rated, time.monotonic()
        traffic = self.bytes_sent + self.bytes_received
        self._rated = now, traffic, {index: list(counts) for index, counts in self._done.items()}
        out = {
            "actors/lag": float(np.mean(self._lags)) if self._lags else 0.0,
            "actors/lost": float(self.actors.lost),
            "actors/bytes_per_second": (traffic - sent) / (now - then),
        }
        for index, counts in self._done.items():
            for what, new, old in zip(("games", "evaluations"), counts, done[index], strict=True):
                out[f"actors/{what}_per_second/{index}"] = (new - old) / (now - then)
        return out

    def state_dict(self) -> dict[str, Any]:
        return {"resign_below": self.resign_below, "start": 1 + max(self.actors.starts), "updates": self.updates}

    def load_state_dict(self, saved: dict[str, Any]) -> str | None:
        self.resign_below, self.updates = saved["resign_below"], saved["updates"]
        for index in range(self.cfg.actors):
            self.actors.starts[index] = saved["start"]
            self.actors.call(index, "begin", saved["start"])
        return "the games that actors had in hand begin anew"

    def close(self) -> None:
        self.actors.close()
