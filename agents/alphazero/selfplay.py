"""Self-play as an iterator of batches.

        parts, a thread each:  [select | network | expand]  [select | network | expand] ...
        a game whose search is done plays its move at once, so that every call of the network has a position of
        every game; a game that ends goes into the window, from which batches are drawn

While one part is in the network another selects: on a CPU both cores are busy, on a GPU neither side waits.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.alphazero.games import FinishedGame, SelfPlayConfig
from agents.alphazero.sources import GameSource, LocalGames, Played
from agents.alphazero.window import Window
from rlkit import runtime
from rlkit.logger import Timer
from rlkit.search.game import Game


class SelfPlay:
    """An iterator of batches, each position under a random symmetry (see `agents.alphazero.window`).

    Args:
        game: if it has them, `ownership` and `score` are targets too.
        network: plays, where this process does. symmetries [K, num_actions]: see `Window`.
        on_game: called with every game that ends. source: where games come from, by default this process.
    """

    def __init__(
        self,
        game: Game,
        network: torch.nn.Module,
        cfg: SelfPlayConfig,
        symmetries: NDArray[np.int64],
        seed: int = 0,
        on_game: Callable[[FinishedGame], None] | None = None,
        timer: Timer | None = None,
        source: GameSource | None = None,
    ):
        self.game, self.cfg, self.on_game, self.timer = game, cfg, on_game, timer or Timer()
        self.source = source or LocalGames(game, network, cfg, seed)
        self.rng = np.random.default_rng(runtime.derive_seed(seed, 0, runtime.rank()))
        self.window = Window(cfg.window, game.encode(game.reset(1)).shape[1:], symmetries)
        self.finished = self.positions = self.evaluations = self.simulations = self.resigned = 0
        self.latest_moves: list[int] = []
        """of the game that ended last"""
        self._due, self._start = 0.0, cfg.start
        self._lowest: deque[float] = deque(maxlen=1000)
        self._recent: deque[dict[str, float]] = deque(maxlen=200)
        self._calibration: deque[NDArray] = deque(maxlen=200)
        self._rated = 0, 0, 0.0  # evaluations, simulations and seconds at the last call of `rates`

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        cfg = self.cfg
        while True:
            if self._due >= 1 and not self.source.behind:
                self._due -= 1
                self.source.updates += 1
                with self.timer("batch"):
                    batch = self.window.sample(self.rng, cfg.batch_size)
                yield batch
                self._add(self.source.after_update(self._wanted))
                continue
            with self.timer("selfplay"):
                self.play()
            yield {}  # so that the trainer can stop meanwhile

    @property
    def _wanted(self) -> bool:
        """Whether no more updates are due than a position in each game asks for (or none at all): actors may go on."""
        return self._due < max(1.0, self.cfg.games * self.cfg.reuse / self.cfg.batch_size)

    def play(self) -> None:
        """About one move in every game, or what actors have played meanwhile."""
        self._add(self.source.play(self._wanted))

    def _add(self, source: list[Played]) -> None:
        before = self.positions
        for played in source:
            self.evaluations += played.evaluations
            self.simulations += played.simulations
            for game in played.games:
                self._remember(game, played.version)
        if self.positions >= self._start:
            self._due += (self.positions - before) * self.cfg.reuse / self.cfg.batch_size

    def _remember(self, game: FinishedGame, version: int) -> None:
        rows, moves = game.rows, game.moves
        self.latest_moves = moves
        self._calibration.append(np.stack([rows["q"], rows["value"]], 1))
        self.window.add(rows | {"version": np.full(len(rows["value"]), version)})
        self.positions += len(rows["value"])
        self.finished += 1
        self.resigned += game.resigned
        passes = moves.count(int(np.prod(self.window.shape[1:])))
        self._recent.append({"length": len(moves), "first": game.value, "opening": moves[0], "passes": passes})
        if not np.isnan(game.lowest):
            self._lowest.append(game.lowest)
        if self.cfg.resign and len(self._lowest) >= 100:
            # cfg.resign is the share of the games played to the end that their winner would have resigned
            self.source.resign_below = min(float(np.quantile(self._lowest, self.cfg.resign)), -0.5)
        if self.on_game:
            self.on_game(game)

    def memory(self) -> str:
        """A line that says how much memory trees, games and window take."""
        window = sum(array.nbytes for array in self.window.rows.values())
        return f"{self.source.memory()}; a window of {self.window.capacity:,} positions: {window / 1e6:,.0f} MB"

    def rates(self) -> dict[str, float]:
        """For the log: what self-play has done a second since the last call; nothing at the first."""
        clock = self.timer.seconds["selfplay"] if isinstance(self.source, LocalGames) else time.monotonic()
        before, self._rated = self._rated, (self.evaluations, self.simulations, clock)
        evaluations, simulations, seconds = (b - a for a, b in zip(before, self._rated, strict=True))
        if not before[2] or not seconds:
            return {}
        return self.source.rates() | {
            "search/evaluations_per_second": evaluations / seconds,
            "search/simulations_per_second": simulations / seconds,
        }

    def stats(self) -> dict[str, float]:
        """For the log: totals, and means over the last 200 games."""
        if not self._recent:
            return {}
        recent, pairs = list(self._recent), np.concatenate(list(self._calibration))
        length = np.mean([game["length"] for game in recent])
        openings = [game["opening"] for game in recent]
        q, z = pairs.T
        bins = np.clip(((q + 1) * 5).astype(int), 0, 9)
        gaps = [abs(q[bins == b].mean() - z[bins == b].mean()) * (bins == b).sum() for b in np.unique(bins)]
        return {
            "selfplay/games": self.finished,
            "selfplay/positions": self.positions,
            "selfplay/length": float(length),
            "selfplay/first_player": float(np.mean([game["first"] for game in recent])),
            "selfplay/pass_rate": float(np.mean([game["passes"] for game in recent]) / length),
            "selfplay/commonest_first_move": max(openings.count(move) for move in set(openings)) / len(openings),
            "selfplay/resigned": self.resigned / self.finished,
            "selfplay/calibration_error": float(sum(gaps) / len(q)),
            "selfplay/window": len(self.window),
        }

    def state_dict(self) -> dict[str, Any]:
        """All that later batches depend on, besides the network."""
        counters = {name: getattr(self, name) for name in self._COUNTERS}
        return (
            counters
            | self.source.state_dict()
            | {
                "lowest": list(self._lowest),
                "rng": self.rng.bit_generator.state,
                "window": self.window.state_dict(),
            }
        )

    def begin_anew(self, saved: dict[str, Any], times: float) -> str:
        """Go on with the counts of a run of other ranks, of which this one has `times` as much."""
        for name in self._COUNTERS:
            setattr(self, name, type(saved[name])(saved[name] * times))
        self._due, self._start = 0.0, self.positions + self.cfg.start
        return "games and window begin anew"

    def load_state_dict(self, saved: dict[str, Any]) -> str | None:
        """Restore `state_dict`; returns a line about positions that were left out, if any."""
        for name in self._COUNTERS:
            setattr(self, name, saved[name])
        self._lowest.extend(saved["lowest"])
        self.rng.bit_generator.state = saved["rng"]
        lines = self.source.load_state_dict(saved), self.window.load_state_dict(saved["window"])
        return "; ".join(filter(None, lines)) or None

    _COUNTERS = "finished", "positions", "evaluations", "resigned", "_due"
