"""UCT with random play-outs as a player (Kocsis and Szepesvari, Bandit based Monte-Carlo planning, 2006)."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlkit.search.root import deepen, table
from rlkit.search.trees import OPEN, Edges, Trees


def simulate(
    trees: Trees,
    game: Any,
    games: NDArray,
    evaluate: Callable,
    goal: int,
    rng: np.random.Generator,
    seconds: float | None = None,
) -> None:
    """Search from games [G, game_size] until each root has had `goal` simulations, or the time is over.

    Args:
        game: the verbs `follow`, `sensible` and `outcome`; evaluate(states [B, game_size]) -> value [B] for the side
            to move. trees: planted. seconds: None for no limit; at least one batch is searched if more than 0.
    """

    def opened(edges: Edges) -> None:
        states = game.follow(games, trees, edges.tree, edges.node, edges.action)
        over, value = game.outcome(states)
        value = np.where(over, value, evaluate(states))
        trees.expand(edges, states, random_order(rng, game.sensible(states)), value, over)

    if seconds != 0:
        deepen(trees, opened, goal, np.inf if seconds is None else time.monotonic() + seconds)


def random_order(rng: np.random.Generator, moves: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Priors under which UCB1 visits these edges for the first time in random order: [B, num_actions]."""
    return np.where(moves, rng.random(moves.shape, np.float32), np.float32(-1))


class UCTPlayer:
    """Plays the most visited move after `simulations` play-outs from a position.

    The position answers `states() -> (game, states [1, game_size])`; the game has the verbs above,
    `playouts(states, seed) -> (value, length)`, and says with `sensible(states) -> bool [games, num_actions]` which
    moves are worth a look: in Go those that fill no own eye, without which a won game looks won whatever is played.
    Equal seeds play equal moves, unless `seconds` is set, which ends the search of a move early.
    """

    def __init__(self, simulations: int, seed: int = 0, c: float = 0.5):
        if simulations < 1:
            raise ValueError(f"a search needs 1 simulation at least, not {simulations}")
        self.simulations, self.c = simulations, c
        self.seconds: float | None = None
        self.name = f"mcts:{simulations}"
        self.new_game(seed)

    def new_game(self, seed: int) -> None:
        """From here on the moves are those of this seed."""
        self.rng = np.random.default_rng(seed)
        self._searched: tuple[Any, Trees] | None = None  # of the last move
        self._analysed: tuple[Any, Trees] | None = None

    def plant(self, position: Any, nodes: int) -> Trees:
        """A tree of this position, with room for so many nodes."""
        game, games = position.states()
        trees = Trees(1, nodes, game.num_actions, game.state_size, exploration="ucb1", c=self.c)
        trees.plant(games, random_order(self.rng, game.sensible(games)))
        return trees

    def grow(self, trees: Trees, position: Any, goal: int, seconds: float | None = None) -> None:
        """Search on until the root has had `goal` simulations, the tree is full, or the seconds are over."""
        game, games = position.states()

        def evaluate(states: NDArray[np.int16]) -> NDArray[np.float32]:
            return game.playouts(states, int(self.rng.integers(1 << 62)))[0]

        simulate(trees, game, games, evaluate, goal, self.rng, seconds)

    def search(self, position: Any) -> Trees:
        """The tree that the move comes from."""
        trees = self.plant(position, self.simulations + 1)
        self.grow(trees, position, self.simulations, self.seconds)
        return trees

    def __call__(self, position: Any) -> int:
        """The move. Raises ValueError where the game is over."""
        trees = self.search(position)
        if trees.status[0, 0] != OPEN:
            raise ValueError("the game is over: there is no move to choose")
        self._searched = position, trees
        return int(trees.ranked()[0])

    def analyze(self, position: Any, seconds: float | None = None) -> list[dict[str, Any]]:
        """The moves by visits, with win rate (0 to 1), prior and principal variation.

        seconds: None for as many simulations as a move gets; 0 to hear what the last move came from, if it was chosen
        in this position. Asked about the same position again, it searches on where it was, up to a gigabyte.
        """
        if seconds == 0 and self._searched is not None and self._searched[0] is position:
            trees = self._searched[1]
        else:
            if self._analysed is None or self._analysed[0] is not position:
                game, _ = position.states()
                self._analysed = position, self.plant(position, 10**9 // (2 * game.state_size + 16 * game.num_actions))
            trees = self._analysed[1]
            goal = int(trees.total[0, 0]) + self.simulations if seconds is None else 1 << 30
            self.grow(trees, position, goal, seconds)
        legal = int((trees.P[0, 0] >= 0).sum())
        return table(trees, priors=np.full(len(trees.P[0, 0]), 1 / max(legal, 1)))
