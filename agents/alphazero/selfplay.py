"""Self-play as an iterator of batches.

        parts, a thread each:  [select | network | expand]  [select | network | expand] ...
        a game whose search is done plays its move at once, so that every call of the network has a position of
        every game; a game that ends goes into the window, from which batches are drawn

While one part is in the network another selects: on a CPU both cores are busy, on a GPU neither side waits.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.alphazero.games import FinishedGame, OpenGames, SelfPlayConfig
from agents.alphazero.window import Window
from rlkit import runtime
from rlkit.logger import Timer
from rlkit.search.game import Game
from rlkit.search.inference import Inference


class SelfPlay:
    """An iterator of batches, each position under a random symmetry (see `agents.alphazero.window`).

    Args:
        game: if it has them, `ownership` and `score` are targets too.
        network: plays as it is at the moment. symmetries [K, num_actions]: see `Window`.
        on_game: called with every game that ends.
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
    ):
        self.game, self.cfg, self.on_game, self.timer = game, cfg, on_game, timer or Timer()
        self.evaluate = Inference(network)
        self.rng = np.random.default_rng(runtime.derive_seed(seed, 0, runtime.rank()))
        if cfg.games < cfg.parts:
            raise ValueError(f"{cfg.games} games cannot be divided among {cfg.parts} parts; ask for fewer parts")
        sizes = [len(share) for share in np.array_split(np.arange(cfg.games), cfg.parts)]
        self.parts = [
            OpenGames(game, cfg, size, runtime.derive_seed(seed, 1 + i, runtime.rank())) for i, size in enumerate(sizes)
        ]
        self._pool = ThreadPoolExecutor(max(1, cfg.parts - 1))  # kept: a thread has its own graphs on a GPU
        self.window = Window(cfg.window, self.parts[0].shape, symmetries)
        self.finished = self.positions = self.evaluations = self.resigned = 0
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
            if self._due >= 1:
                self._due -= 1
                with self.timer("batch"):
                    batch = self.window.sample(self.rng, cfg.batch_size)
                yield batch
                continue
            before = self.positions
            with self.timer("selfplay"):
                self.play()
            if self.positions >= self._start:
                self._due += (self.positions - before) * cfg.reuse / cfg.batch_size
            yield {}  # so that the trainer can stop meanwhile

    def play(self) -> None:
        """About one move in every game, the parts on a thread each."""
        cfg = self.cfg
        share = cfg.full_share if cfg.fast_simulations else 1.0
        rounds = max(1, round(share * cfg.simulations + (1 - share) * cfg.fast_simulations))
        self.evaluate.refresh()

        def run(part: OpenGames) -> int:
            return sum(part.step(self.evaluate) for _ in range(rounds))

        with runtime.torch_threads(1):
            others = [self._pool.submit(run, part) for part in self.parts[1:]]
            self.evaluations += run(self.parts[0])
            self.evaluations += sum(other.result() for other in others)  # or an error, not lost in its thread
        for part in self.parts:
            for game in part.ended:
                self._remember(game)
            part.ended.clear()

    def _remember(self, game: FinishedGame) -> None:
        rows, moves = game.rows, game.moves
        self.latest_moves = moves
        self._calibration.append(np.stack([rows["q"], rows["value"]], 1))
        self.window.add(rows)
        self.positions += len(rows["value"])
        self.finished += 1
        self.resigned += game.resigned
        passes = moves.count(int(np.prod(self.window.shape[1:])))
        self._recent.append({"length": len(moves), "first": game.value, "opening": moves[0], "passes": passes})
        if not np.isnan(game.lowest):
            self._lowest.append(game.lowest)
        if self.cfg.resign and len(self._lowest) >= 100:
            # cfg.resign is the share of the games played to the end that their winner would have resigned
            threshold = min(float(np.quantile(self._lowest, self.cfg.resign)), -0.5)
            for part in self.parts:
                part.resign_below = threshold
        if self.on_game:
            self.on_game(game)

    @property
    def simulations(self) -> int:
        """Those of all moves played."""
        return sum(part.simulations for part in self.parts)

    def memory(self) -> str:
        """A line that says how much memory trees, games and window take."""
        trees = [part.trees for part in self.parts]
        nodes, per_node = trees[0].N.shape[1], trees[0].bytes_per_node
        total = sum(len(tree.N) for tree in trees) * nodes * per_node
        window = sum(array.nbytes for array in self.window.rows.values())
        games = sum(array.nbytes for part in self.parts for array in part.open.values())
        return (
            f"{self.cfg.games} trees of {nodes} nodes of {per_node:,} bytes: {total / 1e6:,.0f} MB; their games:"
            f" {games / 1e6:,.0f} MB;"
            f" a window of {self.window.capacity:,} positions: {window / 1e6:,.0f} MB"
        )

    def rates(self) -> dict[str, float]:
        """For the log: what self-play has done a second since the last call; nothing at the first."""
        before, self._rated = self._rated, (self.evaluations, self.simulations, self.timer.seconds["selfplay"])
        evaluations, simulations, seconds = (b - a for a, b in zip(before, self._rated, strict=True))
        if not before[2] or not seconds:
            return {}
        return {
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
        return counters | {
            "lowest": list(self._lowest),
            "resign_below": self.parts[0].resign_below,
            "rng": self.rng.bit_generator.state,
            "window": self.window.state_dict(),
            "parts": [part.state_dict() for part in self.parts],
        }

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
        for part, state in zip(self.parts, saved["parts"], strict=True):
            part.load_state_dict(state)
            part.resign_below = saved["resign_below"]
        return self.window.load_state_dict(saved["window"])

    _COUNTERS = "finished", "positions", "evaluations", "resigned", "_due"
