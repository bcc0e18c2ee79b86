"""A trained network as a player: search without noise from one position, in a tree that is kept from move to move."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.alphazero.network import BoardNetwork
from agents.alphazero.searches import Heads, Searches
from rlkit import runtime
from rlkit.saved_agents import rebuild
from rlkit.search.game import RESIGN, Game, Position, States
from rlkit.search.inference import Inference, open_edges, priors_of
from rlkit.search.kept_tree import UNLIMITED, KeptTree, check_limits, end_after, same_moves
from rlkit.search.root import grow_trees, table
from rlkit.search.trees import OPEN, Edges, Trees


class AlphaZero:
    """Plays the most visited move. Equal positions of equal games get equal moves, unless `seconds` is set.

    A position is a `rlkit.search.game.Position`. Where moves lead to it from the position that was searched before, the
    search goes on from what was found then.

    Args:
        simulations: of each move, those of the kept tree included; None: as many as `seconds` allow.
        c_puct: exploration in the search; leaves: positions in one call of the network.
        resign: None, or return RESIGN where even the best move's mean value, in -1 .. 1, is below -resign.
        info: the agent's agent.json; a board larger than its env's "size" is refused.
    """

    def __init__(
        self,
        network: BoardNetwork,
        simulations: int | None = 400,
        c_puct: float = 1.5,
        leaves: int = 8,
        resign: float | None = None,
        info: Mapping[str, Any] | None = None,
    ):
        check_limits(simulations, resign)
        self.network, self.evaluate = network, Inference(network)
        self.simulations, self.c_puct, self.leaves, self.resign = simulations, c_puct, leaves, resign
        self.info = info or {}
        self.seconds: float | None = None
        """a limit for each move, which still gets one batch of evaluations"""
        self.name = f"alphazero:{simulations or 'time'}"
        self.heads: Heads | None = None
        """what `searches` evaluates by"""
        self.kept = KeptTree(self._plant, self._grow)
        self.new_game(0)

    def new_game(self, seed: int) -> None:
        """Forget the tree, so that no game depends on those before it. No move depends on the seed."""
        self.kept.forget()
        self._allowed: NDArray[np.bool_] | None = None
        """[num_actions], the moves that the kept tree may begin with; None: all"""
        self._evaluated: Position | None = None  # that _heads and _leads belong to
        self._heads: dict[str, NDArray[np.float32]] = {}
        self._leads: dict[int, float] = {}

    def _plant(self, trees: Trees | None, nodes: int, game: Game, games: States) -> Trees:
        planes = self._checked(game, game.encode(games))
        if trees is None:
            trees = Trees(1, nodes, game.num_actions, game.state_size, exploration="puct", c=self.c_puct)
        logits, value = self.evaluate(planes)
        legal = game.legal(games)
        trees.plant(games, priors_of(logits, legal if self._allowed is None else legal & self._allowed), value)
        return trees

    def _restrict(self, position: Position, allowed: NDArray[np.bool_] | None) -> None:
        """Let the next search begin with these moves alone: in a new tree, unless its root has been just so."""
        if allowed is None and self._allowed is None:
            return
        # below the root nothing was restricted
        if self.kept.position is not position or not same_moves(self._allowed, allowed):
            self.kept.forget()
            self._allowed = allowed

    def _grow(self, trees: Trees, game: Game, games: States, goal: int, end: float) -> None:
        def opened(edges: Edges) -> None:
            runtime.share_cores()
            open_edges(trees, game, games, edges, self.evaluate)

        grow_trees(trees, opened, goal, end, self.leaves)

    @property
    def _most_lines(self) -> float:
        """Lines of the largest board that it can play on: as in its training, if recorded, and in its network."""
        limits = [size] if (size := self.info.get("env", {}).get("size")) else []
        if self.network.config["backbone"] == "alphago":
            limits.append(self.network.config["size"])
        return min(limits, default=np.inf)

    def can_play(self, height: int, width: int) -> bool:
        """Whether it can play on a board of this size."""
        return max(height, width) <= self._most_lines

    def _checked(self, game: Game, planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The planes [1, C, H, W]. Raises ValueError where they are not what the network was made for."""
        channels, height, width = planes.shape[1:]
        config = self.network.config
        if channels != config["planes"] or game.num_actions != height * width + config["has_pass"]:
            raise ValueError(
                f"this agent plays another game: it looks at {config['planes']} planes"
                f" {'and may' if config['has_pass'] else 'and cannot'} pass; here are {channels} planes and"
                f" {game.num_actions} moves on {height} x {width} points"
            )
        if not self.can_play(height, width):
            raise ValueError(
                f"this agent was trained on boards of up to {self._most_lines} lines, not {height} x {width}: choose a"
                " smaller board, or train an agent on this one"
            )
        return planes

    def use_threads(self, most: int, position: Position) -> None:
        """Let torch have as many threads, up to `most`, as make the network fastest on the machine as it is now: on
        small boards, or with company, one. Raises ValueError where the position is not the network's.
        """
        game, games = position.states()
        planes = self._checked(game, game.encode(games)).repeat(self.leaves, 0)

        def seconds(threads: int) -> float:
            torch.set_num_threads(threads)
            self.evaluate(planes)
            began = time.perf_counter()
            for _ in range(3):
                self.evaluate(planes)
            return time.perf_counter() - began

        threads, least = 1, seconds(1)
        while 2 * threads <= most and (took := seconds(2 * threads)) < 0.9 * least:
            threads, least = 2 * threads, took
        runtime.limit_threads(threads)

    def search(self, position: Position) -> Trees:
        """The tree that the move comes from. The next search may go on in it."""
        if self.simulations is None and self.seconds is None:
            raise ValueError("a move needs a limit: set simulations, or seconds")
        end = end_after(self.seconds)
        self._restrict(position, None)
        trees = self.kept.at(position, self.simulations)
        self.kept.grow(position, self.simulations or UNLIMITED, end)
        return trees

    def __call__(self, position: Position) -> int:
        """The move, or RESIGN. Raises ValueError where the game is over, or is not the network's."""
        trees = self.search(position)
        if trees.status[0, 0] != OPEN:
            raise ValueError("the game is over: there is no move to choose")
        N, W = trees.N[0, 0], trees.W[0, 0]
        if self.resign is not None and (W[N > 0] / N[N > 0]).max() < -self.resign:
            return RESIGN
        return int(trees.ranked()[0])

    def analyze(
        self, position: Position, seconds: float | None = None, allowed: NDArray[np.bool_] | None = None
    ) -> list[dict[str, Any]]:
        """The moves by visits, with win rate (0 to 1), prior and principal variation, and where the network has these
        heads, "score", the lead in points after that move, and "ownership" [H, W], the same for all moves; all of
        the side to move.

        seconds: None for as many simulations as a move gets; 0: without searching, as after a move was chosen here.
        allowed: [num_actions], the moves that the search may begin with; None: all legal ones.
        Asked about the same position again, or about one that moves lead to, it goes on where it was, but begins anew
        where other moves are allowed.
        """
        self._restrict(position, allowed)
        end = None if seconds == 0 else end_after(self.seconds if seconds is None else seconds)
        trees = self.kept.analyze(position, self.simulations if seconds is None else None, end)
        moves = table(trees)
        if moves:
            self._add_heads(moves, position, trees)
        return moves

    def _add_heads(self, moves: list[dict[str, Any]], position: Position, trees: Trees) -> None:
        """Add the other heads' outputs at the position and after its moves; each is evaluated once."""
        game, games = position.states()
        if self._evaluated is not position:
            self._evaluated, self._leads, self._heads = position, {}, self.evaluate.heads(game.encode(games))
        new = np.array([move["move"] for move in moves if move["move"] not in self._leads])
        if "score" in self._heads and len(new):
            planes = game.encode(game.states_after(games, trees, 0 * new, 0 * new, new))
            score = -self.evaluate.heads(planes)["score"] * planes[0, 0].size
            self._leads.update(zip(new.tolist(), score.tolist(), strict=True))
        for move in moves:
            if "score" in self._heads:
                move["score"] = self._leads[move["move"]]
            if "ownership" in self._heads:
                move["ownership"] = self._heads["ownership"][0]

    def searches(
        self,
        positions: Sequence[Position],
        simulations: int | NDArray[np.integer],
        allowed: NDArray[np.bool_] | None = None,
    ) -> Searches:
        """Trees of many positions, to be grown together; arguments and errors as `Searches` has them, and ValueError
        where these are not the network's.
        """
        for game, games in (position.states() for position in positions[:1]):
            self._checked(game, game.encode(games))
        if self.heads is None:
            self.heads = Heads(self.network)
        komi = self.info.get("env", {}).get("komi")
        return Searches(
            self.heads, positions, simulations, c_puct=self.c_puct, leaves=self.leaves, allowed=allowed, komi=komi
        )

    def describe(self) -> dict[str, Any]:
        """What agent.json says besides the weights."""
        return {"kind": "alphazero", "config": self.network.config}

    @classmethod
    def from_files(
        cls, info: Mapping[str, Any], weights: dict[str, Tensor], device: torch.device | str = "cpu", **options: Any
    ) -> "AlphaZero":
        """Rebuild it. Raises KeyError, TypeError, ValueError, RuntimeError where the files do not fit."""
        network = rebuild(lambda: BoardNetwork(**info["config"]), weights)
        return cls(network.to(device), info=info, **options)
