"""Where the finished games of self-play come from: this process, or actors.

source.play()             about one move in every game, or what actors have played meanwhile
source.after_update()     what there is without waiting
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import nn

from agents.alphazero.games import FinishedGame, OpenGames, SelfPlayConfig
from rlkit import runtime
from rlkit.parallel.stream import Piece, Stream, StreamConfig, Weights, load_weights
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

    def play(self, weights: Weights, version: int, share: float, resign_below: float) -> Piece:
        """About one move in every game, or in a share of them, with weights that had so many updates."""
        began, games = time.perf_counter(), self.games
        if version != self.version:
            load_weights(games.evaluate.network, weights)
        self.version = games.updates = version
        games.resign_below = resign_below
        (played,) = games.play(share=share)
        size = sum(array.nbytes for game in played.games for array in game.rows.values())
        counts = {"games": len(played.games), "evaluations": played.evaluations}
        return Piece(played, version, time.perf_counter() - began, counts, size)


class ActorGames:
    """Games of other processes, which play with the learner's weights as they were published last.

    Args:
        make: make(index, start) -> `Actor`. network: the one whose weights they play with.
    """

    def __init__(self, make: Callable[[int, int], Actor], network: nn.Module, cfg: StreamConfig, cpus: int = 1):
        self.stream, self.resign_below = Stream(make, network, cfg, cpus), -2.0

    @property
    def updates(self) -> int:
        return self.stream.updates

    @updates.setter
    def updates(self, count: int) -> None:
        self.stream.updates = count

    @property
    def behind(self) -> bool:
        return self.stream.behind

    def play(self, wanted: bool = True) -> list[Played]:
        return [piece.content for _, piece in self.stream.take(wanted, self.resign_below)]

    def after_update(self, wanted: bool = True) -> list[Played]:
        return [piece.content for _, piece in self.stream.after_update(wanted, self.resign_below)]

    def memory(self) -> str:
        return f"{self.stream.cfg.actors} actors have the games"

    def rates(self) -> dict[str, float]:
        return self.stream.rates()

    def state_dict(self) -> dict[str, Any]:
        return {"resign_below": self.resign_below} | self.stream.state_dict()

    def load_state_dict(self, saved: dict[str, Any]) -> str | None:
        self.resign_below = saved["resign_below"]
        self.stream.load_state_dict(saved)
        return "the games that actors had in hand begin anew"

    def close(self) -> None:
        """End the actors."""
        self.stream.close()
