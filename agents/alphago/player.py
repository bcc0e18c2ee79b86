"""AlphaGo as a player: a search with all that the four stages learned, or some of it (Silver et al. 2016, Fig. 4b)."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.alphago import parts as on_disk
from agents.alphago.parts import Parts
from agents.alphago.search import Search, SearchConfig
from agents.alphago.trees import DoubleTrees
from agents.alphago.variants import VARIANTS
from rlkit.search.game import RESIGN, Game, Position, States, moves_of
from rlkit.search.inference import priors_of
from rlkit.search.kept_tree import UNLIMITED, KeptTree, check_limits, end_after
from rlkit.search.root import table
from rlkit.search.trees import OPEN

SHARE = 0.1
"""share of the most visited move's visits that a move needs to be compared by Q: with fewer, Q may be luck"""


@dataclass(frozen=True)
class GameFunctions:
    """Functions of a game that AlphaGo needs beside those of `rlkit.search.game.Game`."""

    encode: Callable[[States], NDArray[np.uint8]]
    """whole games [B, game_size] -> planes [B, C, H, W]"""
    rollouts: Callable[[NDArray[np.float32]], Callable[[States, int], NDArray[np.float32]]]
    """a rollout policy's weights -> ((states, seed) -> [B], +1 where a rollout is won by the side to move)"""
    features: Callable[[States], tuple[NDArray[np.int32], NDArray[np.bool_]]] | None = None
    """states -> (numbers of each move's features [B, A, slots], 0 for none; which moves are candidates [B, A])"""
    symmetries: Callable[[int], NDArray[np.int64]] | None = None
    """lines of the board -> where each point comes from under each symmetry [K, A]"""

    def tree_policy(self, weights: NDArray[np.float32]) -> Callable[[States], NDArray[np.float32]] | None:
        """The linear softmax as a function: states -> probabilities of the candidates, -1 of other moves [B, A]."""
        if self.features is None:
            return None
        features, padded = self.features, np.append(np.float32(0), weights[1:])

        def policy(states: States) -> NDArray[np.float32]:
            numbers, candidates = features(states)
            return priors_of(padded[numbers].sum(2), candidates)

        return policy


class AlphaGo:
    """Plays the most visited move, by a search whose tree is kept from move to move.

    Equal games with equal seeds get equal moves, unless `seconds` is set or it ponders.

    Args:
        parts: of which it plays by those that `variant` names (None: by all that are there).
        simulations: of each move, those of the kept tree included; None: as many as `seconds` allow. Where the most
            visited move is not that of the highest Q, up to as many again, until it is.
        resign: None, or return RESIGN where even the highest Q, in -1 .. 1, is below -resign; the paper's is 0.8.
        ponder: grow the tree while the other side is to move: no two games are then alike.
        threads: number of threads that evaluate positions. info: the agent's agent.json.
    """

    def __init__(
        self,
        parts: Parts,
        functions: GameFunctions,
        simulations: int | None = 400,
        variant: str | None = None,
        search: SearchConfig | None = None,
        resign: float | None = None,
        ponder: bool = False,
        threads: int = 1,
        info: Mapping[str, Any] | None = None,
    ):
        check_limits(simulations, resign)
        there = {name for name in VARIANTS["rvp"] if getattr(parts, name) is not None}
        variant = variant or next((name for name, on in VARIANTS.items() if there == set(on)), "rvp")
        if variant not in VARIANTS:
            raise ValueError(f"there is no variant {variant!r}; there are {', '.join(VARIANTS)}")
        if missing := [name for name in VARIANTS[variant] if name not in there]:
            raise ValueError(
                f"variant {variant} needs the part {' and '.join(missing)}, which this agent does not have"
            )
        self.parts = Parts(**{name: getattr(parts, name) for name in VARIANTS[variant]})
        self.functions, self.variant, self.info = functions, variant, info or {}
        self.simulations, self.resign, self.ponder = simulations, resign, ponder
        self.seconds: float | None = None
        """a limit for each move, which still gets one batch of evaluations"""
        self.name = f"alphago:{variant}" + ("" if variant == "p" else f":{simulations or 'time'}")
        self.policy, self.value = on_disk.evaluators(self.parts)
        self._networks = [net for net in (self.parts.policy, self.parts.value) if net is not None]
        self._search: Search | None = None
        if variant != "p":
            size = self._networks[0].config["size"] if self._networks else 0
            self._search = Search(
                search or SearchConfig(),
                functions.encode,
                self.policy,
                self.value,
                None if self.parts.rollout is None else functions.rollouts(self.parts.rollout),
                None if parts.rollout is None else functions.tree_policy(parts.rollout),
                functions.symmetries(size) if size and functions.symmetries else None,
                threads,
            )
        self.kept = KeptTree(self._plant, self._grow)
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._pondering_error: BaseException | None = None
        self.new_game(0)

    def new_game(self, seed: int) -> None:
        """Forget the tree; from here on rollouts and symmetries are those of this seed."""
        self._stop_pondering()
        self.kept.forget()
        self._last_analysis: tuple[Position, list[dict[str, Any]]] | None = None  # of a move, where its tree went on
        if self._search:
            self._search.rng = np.random.default_rng(seed)

    def close(self) -> None:
        """End its threads."""
        self._stop_pondering()
        if self._search:
            self._search.close()

    # the search

    def _plant(self, trees: DoubleTrees | None, nodes: int, game: Game, games: States) -> DoubleTrees:
        assert self._search
        self._check(game, games)
        if trees is None:
            trees = self._search.trees(1, nodes, game, self.simulations)
        self._search.plant(trees, game, games)
        return trees

    def _grow(self, trees: DoubleTrees, game: Game, games: States, goal: int, end: float) -> None:
        assert self._search
        self._search.grow(trees, game, games, goal, end)

    def tree(self, position: Position) -> DoubleTrees:
        """The tree of this position with all earlier searches, also from pondering, and room for the next one."""
        if self.ponder:
            self._recognise(position)
        return self.kept.at(position, self.simulations and self.simulations * (10 if self.ponder else 2))

    def can_play(self, height: int, width: int) -> bool:
        """Whether it can play on a board of this size: its networks are for one size only."""
        return all(height == width == network.config["size"] for network in self._networks)

    def _check(self, game: Game, games: States) -> None:
        """Raises ValueError where the networks were made for another game."""
        if not self._networks:
            return
        planes, height, width = self.functions.encode(games).shape[1:]
        for network in self._networks:
            config = network.config
            actions = config["size"] ** 2 + config.get("has_pass", game.num_actions > height * width)
            if not self.can_play(height, width) or config["planes"] > planes or game.num_actions != actions:
                raise ValueError(
                    f"this agent plays on {config['size']} x {config['size']} points with {config['planes']} planes and"
                    f" {actions} moves; here are {height} x {width}, {planes} and {game.num_actions}"
                )

    def use_threads(self, most: int, position: Position) -> None:
        """Let the search have threads, up to `most`, and torch one in each; at most one for 200 simulations,
        as the leaves of a step do not know each other's values. Raises ValueError for a position of another game.
        """
        self._check(*position.states())
        torch.set_num_threads(1)
        if self._search:
            self._search.use_threads(max(1, min(most, (self.simulations or UNLIMITED) // 200)))

    def search(self, position: Position) -> DoubleTrees:
        """The tree that the move comes from. The next search may go on in it. Raises ValueError for variant p."""
        if self._search is None:
            raise ValueError("variant p plays by its policy network alone: it has no search")
        if self.simulations is None and self.seconds is None:
            raise ValueError("a move needs a limit: set simulations, or seconds")
        self._stop_pondering()
        end = end_after(self.seconds)
        trees = self.tree(position)
        self.kept.grow(position, self.simulations or UNLIMITED, end)
        if self.simulations:
            self._agree(trees, position, end)
        return trees

    def _agree(self, trees: DoubleTrees, position: Position, end: float) -> None:
        """Search on, up to as many simulations again, while the most visited move is not that of the highest Q."""
        assert self.simulations
        now, limit = int(trees.total[0, 0]), 2 * self.simulations
        while now < limit and time.monotonic() < end and best_by_value(trees) != trees.ranked()[0]:
            self.kept.grow(position, min(limit, now + max(1, self.simulations // 8)), end)
            before, now = now, int(trees.total[0, 0])
            if now == before:
                return

    def __call__(self, position: Position) -> int:
        """The move, or RESIGN. Raises ValueError where the game is over, or is not the networks'."""
        if self._search is None:
            priors = self._alone(position)
            if priors.max() < 0:
                raise ValueError("the game is over: there is no move to choose")
            return int(priors.argmax())
        trees = self.search(position)
        if trees.status[0, 0] != OPEN:
            raise ValueError("the game is over: there is no move to choose")
        move = int(trees.ranked()[0])
        if self.resign is not None and trees.Q()[best_by_value(trees)] < -self.resign:
            return RESIGN
        if self.ponder:
            self._begin_pondering(position, move)
        return move

    def _alone(self, position: Position) -> NDArray[np.float32]:
        """The policy network's probabilities [A] of the sensible moves, -1 of others."""
        game, games = position.states()
        self._check(game, games)
        assert self.policy
        moves = moves_of(game, games) & ~game.is_over(games)[:, None]
        return priors_of(self.policy(self.functions.encode(games)), moves)[0]

    def analyze(self, position: Position, seconds: float | None = None) -> list[dict[str, Any]]:
        """The moves by visits, with win rate (0 to 1, by Q), prior and principal variation.

        seconds: None for as many simulations as a move gets; 0: without searching, as after a move was chosen here.
        Asked about the same position again, or about one that moves lead to, it goes on where it was. Variant p has no
        visits to show: it counts each move once.
        """
        self._stop_pondering()
        if self._search is None:
            priors = self._alone(position)
            order = [int(a) for a in np.argsort(-priors, kind="stable") if priors[a] >= 0]
            return [{"move": a, "visits": 1, "winrate": 0.5, "prior": float(priors[a]), "pv": [a]} for a in order]
        if seconds == 0 and self._last_analysis is not None and self._last_analysis[0] is position:
            return self._last_analysis[1]
        if self.ponder:
            self._recognise(position)
        end = None if seconds == 0 else end_after(self.seconds if seconds is None else seconds)
        return _table(self.kept.analyze(position, self.simulations if seconds is None else None, end))

    # pondering

    def _begin_pondering(self, position: Position, move: int) -> None:
        assert self.kept.trees is not None
        self._last_analysis = position, _table(self.kept.trees)
        after = position.play(move)
        if not after.is_over:
            self._stop.clear()
            self._thread = threading.Thread(target=self._ponder, args=(after,), daemon=True)
            self._thread.start()

    def _ponder(self, position: Position) -> None:
        try:
            trees, before = self.tree(position), -1
            while not self._stop.is_set() and trees.total[0, 0] > before:
                before = int(trees.total[0, 0])
                self.kept.grow(position, before + 32)
        except BaseException as error:
            self.kept.forget()
            self._pondering_error = error

    def _stop_pondering(self) -> None:
        """Call it before the tree is used. Raises the error that pondering ended with, if any."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            if (error := self._pondering_error) is not None:
                self._pondering_error = None
                raise error

    def _recognise(self, position: Position) -> None:
        """The position that was pondered is our own: where the game came by it, the game's stands for it."""
        ours = self.kept.position
        game: Position | None = position
        if ours is not None and ours.parent is not None:
            while game is not None and not (game.parent is ours.parent and game.last_move == ours.last_move):
                game = game.parent
            self.kept.position = game or ours

    # on disk

    def describe(self) -> dict[str, Any]:
        """What agent.json says besides the weights."""
        search = {"search": asdict(self._search.cfg)} if self._search else {}
        return {"kind": "alphago", "config": on_disk.describe(self.parts)[0] | search}

    @classmethod
    def from_files(
        cls, info: Mapping[str, Any], weights: dict[str, Tensor], device: torch.device | str = "cpu", **options: Any
    ) -> "AlphaGo":
        """Rebuild it; options: `functions`, and others of __init__.

        Raises KeyError, TypeError, ValueError, RuntimeError where the files do not fit.
        """
        search = SearchConfig(**info["config"].get("search", {}))
        return cls(on_disk.from_files(info, weights, device), info=info, **{"search": search, **options})


def _table(trees: DoubleTrees) -> list[dict[str, Any]]:
    """The visited moves as `table` has them, with Q where it has the mean of the rollouts."""
    Q, moves = trees.Q(), table(trees)
    return [move | {"winrate": float(Q[move["move"]] + 1) / 2} for move in moves]


def best_by_value(trees: DoubleTrees) -> int:
    """The root's move of the highest Q, among those that have a SHARE of the most visited one's visits."""
    N = trees.N[0, 0]
    return int(np.where(np.maximum(1, SHARE * N.max()) <= N, trees.Q(), -np.inf).argmax())
