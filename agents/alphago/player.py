"""AlphaGo as a player: what the four learners left, in one search, or some of it (Silver et al. 2016, Figure 4b)."""

import math
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
from agents.alphago.search import Search, SearchConfig, moves_of
from agents.alphago.trees import DoubleTrees
from agents.alphazero.inference import priors_of
from agents.alphazero.player import RESIGN, UNLIMITED, AlphaZero
from rlkit.search.root import table
from rlkit.search.trees import OPEN, Trees

VARIANTS = {
    "rvp": ("rollout", "value", "policy"),
    "vp": ("value", "policy"),
    "rp": ("rollout", "policy"),
    "rv": ("rollout", "value"),
    "v": ("value",),
    "p": ("policy",),
    "r": ("rollout",),
}
"""the paper's names, and the parts that each plays by; without a policy network the priors are the tree policy's"""
SHARE = 0.1
"""of the most visited move's visits: a move with fewer says nothing by its Q, which may be one lucky rollout's"""


@dataclass(frozen=True)
class World:
    """What an AlphaGo asks of its game beside the verbs that a search calls."""

    encode: Callable[[NDArray[np.int16]], NDArray[np.uint8]]
    """whole games [B, game_size] -> planes [B, C, H, W]"""
    rollouts: Callable[[NDArray[np.float32]], Callable[[NDArray[np.int16], int], NDArray[np.float32]]]
    """a rollout policy's weights -> ((states, seed) -> [B], +1 where a rollout is won by the side to move)"""
    features: Callable[[NDArray[np.int16]], tuple[NDArray[np.int32], NDArray[np.bool_]]] | None = None
    """states -> (numbers of each move's features [B, A, slots], 0 for none; which moves are candidates [B, A])"""
    symmetries: Callable[[int], NDArray[np.int64]] | None = None
    """lines of the board -> where each point comes from under each symmetry [K, A]"""

    def tree_policy(self, weights: NDArray[np.float32]) -> Callable[[NDArray[np.int16]], NDArray[np.float32]] | None:
        """The linear softmax as a function: states -> probabilities of the candidates, -1 of other moves [B, A]."""
        if self.features is None:
            return None
        features, known = self.features, np.append(np.float32(0), weights[1:])

        def policy(states: NDArray[np.int16]) -> NDArray[np.float32]:
            numbers, candidates = features(states)
            return priors_of(known[numbers].sum(2), candidates)

        return policy


class AlphaGo(AlphaZero):
    """Plays the most visited move; its tree is kept from move to move as AlphaZero's is.

    Equal games with equal seeds get equal moves, unless `seconds` is set or it ponders.

    Args:
        parts: of which it plays by those that `variant` names (None: by all that are there).
        simulations: of each move, those of the kept tree included; None: as many as `seconds` allow. Where the most
            visited move is not that of the highest Q, up to as many again, until it is.
        resign: None, or answer RESIGN where even the highest Q, in -1 .. 1, is below -resign; the paper's is 0.8.
        ponder: grow the tree while the other side thinks: no two games are then alike.
        threads: that evaluate positions. info: the agent's agent.json.
    """

    def __init__(
        self,
        parts: Parts,
        world: World,
        simulations: int | None = 400,
        variant: str | None = None,
        search: SearchConfig | None = None,
        resign: float | None = None,
        ponder: bool = False,
        threads: int = 1,
        info: Mapping[str, Any] | None = None,
    ):
        if simulations is not None and simulations < 1:
            raise ValueError(f"a search needs 1 simulation at least, not {simulations}")
        if resign is not None and not 0 <= resign <= 1:
            raise ValueError(f"resign is a value in 0 .. 1, not {resign}")
        there = {name for name in VARIANTS["rvp"] if getattr(parts, name) is not None}
        variant = variant or next((name for name, on in VARIANTS.items() if there == set(on)), "rvp")
        if variant not in VARIANTS:
            raise ValueError(f"there is no variant {variant!r}; there are {', '.join(VARIANTS)}")
        if missing := [name for name in VARIANTS[variant] if name not in there]:
            raise ValueError(
                f"variant {variant} needs the part {' and '.join(missing)}, which this agent does not have"
            )
        self.parts = Parts(**{name: getattr(parts, name) for name in VARIANTS[variant]})
        self.world, self.variant, self.ponder, self.resign, self.info = world, variant, ponder, resign, info or {}
        self.simulations, self.seconds = simulations, None
        self.name = f"alphago:{variant}" + ("" if variant == "p" else f":{simulations or 'time'}")
        self.policy, self.value = on_disk.evaluators(self.parts)
        self._networks = [net for net in (self.parts.policy, self.parts.value) if net is not None]
        self._search: Search | None = None
        if variant != "p":
            self._search = Search(
                search or SearchConfig(),
                world.encode,
                self.policy,
                self.value,
                None if self.parts.rollout is None else world.rollouts(self.parts.rollout),
                None if parts.rollout is None else world.tree_policy(parts.rollout),
                world.symmetries(self._networks[0].config["size"]) if self._networks and world.symmetries else None,
                threads,
            )
        self._trees = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._trouble: BaseException | None = None
        self.new_game(0)

    def new_game(self, seed: int) -> None:
        """Forget what is known; from here on rollouts and symmetries are those of this seed."""
        self._stop_pondering()
        super().new_game(seed)
        self._said: tuple[Any, list[dict[str, Any]]] | None = None  # of the last move, where its tree went on
        if self._search:
            self._search.rng = np.random.default_rng(seed)

    def close(self) -> None:
        """End its threads."""
        self._stop_pondering()
        if self._search:
            self._search.close()

    # the search

    def _planted(self, trees: Trees | None, nodes: int, game: Any, games: NDArray[np.int16]) -> Trees:
        assert self._search and (trees is None or isinstance(trees, DoubleTrees))
        self._check(game, games)
        if trees is None:
            trees = self._search.trees(1, nodes, game, self.simulations)
        self._search.plant(trees, game, games)
        return trees

    def can_play(self, height: int, width: int) -> bool:
        """Whether it plays on a board of so many lines: its networks know those of one size."""
        return all(height == width == network.config["size"] for network in self._networks)

    def _check(self, game: Any, games: NDArray[np.int16]) -> None:
        """Raises ValueError where the networks were made for another game."""
        if not self._networks:
            return
        planes, height, width = self.world.encode(games).shape[1:]
        for network in self._networks:
            config = network.config
            actions = config["size"] ** 2 + config.get("has_pass", game.num_actions > height * width)
            if not self.can_play(height, width) or config["planes"] > planes or game.num_actions != actions:
                raise ValueError(
                    f"this agent plays on {config['size']} x {config['size']} points with {config['planes']} planes and"
                    f" {actions} moves; here are {height} x {width}, {planes} and {game.num_actions}"
                )

    def use_threads(self, most: int, position: Any) -> None:
        """Let the search have threads, up to `most`, and torch one in each; at most one for 200 simulations, as their
        leaves are chosen without the others' answers. Raises ValueError where the position is not the networks'.
        """
        self._check(*position.states())
        torch.set_num_threads(1)
        if self._search:
            self._search.use_threads(max(1, min(most, (self.simulations or UNLIMITED) // 200)))

    def grow(self, trees: Trees, position: Any, goal: int, end: float = math.inf) -> None:
        """As `AlphaZero.grow`."""
        assert self._search and isinstance(trees, DoubleTrees)
        try:
            game, games = position.states()
            self._search.grow(trees, game, games, goal, end)
        except BaseException:
            self._position = None  # some edges still have their virtual losses
            raise

    def search(self, position: Any) -> DoubleTrees:
        """The tree that the move comes from. The next search may go on in it. Raises ValueError for variant p."""
        if self._search is None:
            raise ValueError("variant p plays by its policy network alone: it has no search")
        if self.simulations is None and self.seconds is None:
            raise ValueError("a move needs a limit: set simulations, or seconds")
        self._stop_pondering()
        most, end = self.simulations or UNLIMITED, self._end(self.seconds)
        trees = self.tree(position, self._room)
        assert isinstance(trees, DoubleTrees)
        self.grow(trees, position, most, end)
        if self.simulations:
            self._agree(trees, position, end)
        return trees

    @property
    def _room(self) -> int | None:
        """Simulations that a tree has room for."""
        return self.simulations and self.simulations * (10 if self.ponder else 2)

    def _agree(self, trees: DoubleTrees, position: Any, end: float) -> None:
        """Search on, up to as many simulations again, while the most visited move is not that of the highest Q."""
        assert self.simulations
        now, limit = int(trees.total[0, 0]), 2 * self.simulations
        while now < limit and time.monotonic() < end and best_by_value(trees) != trees.ranked()[0]:
            self.grow(trees, position, min(limit, now + max(1, self.simulations // 8)), end)
            before, now = now, int(trees.total[0, 0])
            if now == before:
                return

    def __call__(self, position: Any) -> int:
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

    def _alone(self, position: Any) -> NDArray[np.float32]:
        """The policy network's probabilities [A] of the sensible moves, -1 of others."""
        game, games = position.states()
        self._check(game, games)
        assert self.policy
        moves = moves_of(game, games) & ~game.is_over(games)[:, None]
        return priors_of(self.policy(self.world.encode(games)), moves)[0]

    def analyze(self, position: Any, seconds: float | None = None) -> list[dict[str, Any]]:
        """As `AlphaZero.analyze`; the win rate is by Q. Variant p has no visits to show: it counts each move once."""
        self._stop_pondering()
        if self._search is None:
            priors = self._alone(position)
            order = [int(a) for a in np.argsort(-priors, kind="stable") if priors[a] >= 0]
            return [{"move": a, "visits": 1, "winrate": 0.5, "prior": float(priors[a]), "pv": [a]} for a in order]
        if seconds == 0 and self._said is not None and self._said[0] is position:
            return self._said[1]
        return super().analyze(position, seconds)

    def _add_heads(self, moves: list[dict[str, Any]], trees: Trees, position: Any) -> None:
        """Put Q where the table has the mean of the rollouts."""
        assert isinstance(trees, DoubleTrees)
        for move in moves:
            move["winrate"] = float(trees.Q()[move["move"]] + 1) / 2

    # pondering

    def _begin_pondering(self, position: Any, move: int) -> None:
        assert self._trees is not None
        moves = table(self._trees)
        self._add_heads(moves, self._trees, position)
        self._said = position, moves
        after = position.play(move)
        if not after.is_over:
            self._stop.clear()
            self._thread = threading.Thread(target=self._ponder, args=(after,), daemon=True)
            self._thread.start()

    def _ponder(self, position: Any) -> None:
        try:
            trees, before = self.tree(position, self._room), -1
            while not self._stop.is_set() and trees.total[0, 0] > before:
                before = int(trees.total[0, 0])
                self.grow(trees, position, before + 32)
        except BaseException as error:
            self._position, self._trouble = None, error

    def _stop_pondering(self) -> None:
        """Nobody else may touch the tree before. Raises what went wrong meanwhile."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
            if (error := self._trouble) is not None:
                self._trouble = None
                raise error

    def _went_on(self, trees: Trees, position: Any) -> bool:
        """As `AlphaZero._went_on`. The position that was pondered is our own; the game's stands for it."""
        ours, game = self._position, position
        if self.ponder and ours is not None and ours.parent is not None:
            while game is not None and not (game.parent is ours.parent and game.last_move == ours.last_move):
                game = game.parent
            self._position = game or ours
        return super()._went_on(trees, position)

    # on disk

    def describe(self) -> dict[str, Any]:
        """What agent.json says besides the weights."""
        search = {"search": asdict(self._search.cfg)} if self._search else {}
        return {"kind": "alphago", "config": on_disk.describe(self.parts)[0] | search}

    @classmethod
    def from_files(
        cls, info: Mapping[str, Any], weights: dict[str, Tensor], device: torch.device | str = "cpu", **options: Any
    ) -> "AlphaGo":
        """Rebuild it; options: `world`, and others of __init__.

        Raises KeyError, TypeError, ValueError, RuntimeError where the files do not fit.
        """
        search = SearchConfig(**info["config"].get("search", {}))
        return cls(on_disk.from_files(info, weights, device), info=info, **{"search": search, **options})


def best_by_value(trees: DoubleTrees) -> int:
    """The root's move of the highest Q, among those that have a SHARE of the most visited one's visits."""
    N = trees.N[0, 0]
    return int(np.where(np.maximum(1, SHARE * N.max()) <= N, trees.Q(), -np.inf).argmax())
