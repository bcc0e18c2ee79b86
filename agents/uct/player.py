"""UCT with random play-outs as a player (Kocsis and Szepesvari, Bandit based Monte-Carlo planning, 2006)."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlkit.search.game import Game, Position, States
from rlkit.search.kept_tree import UNLIMITED, KeptTree, check_limits, end_after, same_moves
from rlkit.search.root import grow_trees, table
from rlkit.search.trees import OPEN, Edges, Trees


class PlayoutGame(Game, Protocol):
    """A `Game` with the two further functions that UCT needs."""

    def sensible(self, states: States) -> NDArray[np.bool_]:
        """The moves that are worth a look, [games, num_actions]: in Go those that fill no own eye, without which a won
        game looks won whatever is played.
        """

    def playouts(self, states: States, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Random play-outs: (values [games] for the sides to move, their lengths [games])."""


def simulate(
    trees: Trees,
    game: PlayoutGame,
    games: States,
    evaluate: Callable[[States], NDArray[np.float32]],
    goal: int,
    rng: np.random.Generator,
    end: float = np.inf,
) -> None:
    """Search from games [G, game_size] until each root has had `goal` simulations, or `time.monotonic()` is `end`.

    Args:
        trees: planted. evaluate: states [B, game_size] -> value [B] for the side to move.
    One batch at least is searched.
    """

    def opened(edges: Edges) -> None:
        states = game.states_after(games, trees, edges.tree, edges.node, edges.action)
        over, value = game.outcome(states)
        value = np.where(over, value, evaluate(states))
        trees.expand(edges, states, random_order(rng, game.sensible(states)), value, over)

    grow_trees(trees, opened, goal, end)


def random_order(rng: np.random.Generator, moves: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Priors under which UCB1 visits these edges for the first time in random order: [B, num_actions]."""
    return np.where(moves, rng.random(moves.shape, np.float32), np.float32(-1))


class UCTPlayer:
    """Plays the most visited move after `simulations` play-outs from a position of a `PlayoutGame`.

    Equal seeds play equal moves, unless `seconds` is set, which ends the search of a move early.
    """

    def __init__(self, simulations: int, seed: int = 0, c: float = 0.5):
        check_limits(simulations)
        self.simulations, self.c = simulations, c
        self.seconds: float | None = None
        self.name = f"mcts:{simulations}"
        self.new_game(seed)

    def new_game(self, seed: int) -> None:
        """From here on the moves are those of this seed."""
        self.rng = np.random.default_rng(seed)
        self._searched, self._analysed = KeptTree(self.plant, self.grow), KeptTree(self._plant_allowed, self.grow)
        self._allowed: NDArray[np.bool_] | None = None
        """[num_actions], the moves that `_analysed` may begin with; None: all sensible ones"""

    def plant(self, _: Trees | None, nodes: int, game: PlayoutGame, games: States) -> Trees:
        """A new tree of games [1, game_size], with room for `nodes` nodes."""
        trees = Trees(1, nodes, game.num_actions, game.state_size, exploration="ucb1", c=self.c)
        trees.plant(games, random_order(self.rng, game.sensible(games)))
        return trees

    def _plant_allowed(self, trees: Trees | None, nodes: int, game: PlayoutGame, games: States) -> Trees:
        trees = self.plant(trees, nodes, game, games)
        if self._allowed is not None:
            moves = game.sensible(games) & self._allowed
            trees.plant(games, random_order(self.rng, moves if moves.any() else game.legal(games) & self._allowed))
        return trees

    def grow(self, trees: Trees, game: PlayoutGame, games: States, goal: int, end: float) -> None:
        """Search on until the root has had `goal` simulations, the tree is full, or `time.monotonic()` is `end`."""

        def evaluate(states: States) -> NDArray[np.float32]:
            return game.playouts(states, int(self.rng.integers(1 << 62)))[0]

        simulate(trees, game, games, evaluate, goal, self.rng, end)

    def search(self, position: Position) -> Trees:
        """The tree that the move comes from, begun anew."""
        trees = self._searched.begin(position, self.simulations + 1)
        if self.seconds != 0:
            self._searched.grow(position, self.simulations, end_after(self.seconds))
        return trees

    def __call__(self, position: Position) -> int:
        """The move. Raises ValueError where the game is over."""
        trees = self.search(position)
        if trees.status[0, 0] != OPEN:
            raise ValueError("the game is over: there is no move to choose")
        return int(trees.ranked()[0])

    def analyze(
        self, position: Position, seconds: float | None = None, allowed: NDArray[np.bool_] | None = None
    ) -> list[dict[str, Any]]:
        """The moves by visits, with win rate (0 to 1), prior and principal variation.

        seconds: None for as many simulations as a move gets; 0: the search that the last move came from, if it was
        chosen in this position. Asked about the same position again, it searches on where it was, up to a gigabyte.
        allowed: [num_actions], the moves that the search may begin with; None: all sensible ones.
        """
        if (
            seconds == 0
            and allowed is None
            and self._searched.trees is not None
            and self._searched.position is position
        ):
            trees = self._searched.trees
        else:
            if self._analysed.position is not position or not same_moves(self._allowed, allowed):
                self._analysed.forget()
                self._allowed = allowed
            trees = self._analysed.at(position, None)
            if seconds is None:
                goal = int(trees.total[0, 0]) + self.simulations
                self._analysed.grow(position, goal, end_after(self.seconds))
            elif seconds:
                self._analysed.grow(position, UNLIMITED, end_after(seconds))
        legal = int((trees.P[0, 0] >= 0).sum())
        return table(trees, priors=np.full(len(trees.P[0, 0]), 1 / max(legal, 1)))
