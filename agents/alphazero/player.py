"""A trained network as a player."""

from typing import Any

import torch

from agents.alphazero.network import BoardNetwork
from agents.alphazero.selfplay import evaluator, open_edges, priors_of
from rlkit.search import OPEN, Trees


class AlphaZero:
    """Plays the most visited move after `simulations` evaluations, without noise.

    A position answers `states() -> (game, states [1, game_size])`.
    """

    def __init__(self, network: BoardNetwork, simulations: int = 400, c: float = 1.5, leaves: int = 4):
        self.network, self.simulations, self.c, self.leaves = network.eval(), simulations, c, leaves
        self.evaluate = evaluator(self.network)
        self.name = f"alphazero:{simulations}"

    def search(self, position: Any) -> Trees:
        """The tree that the move comes from."""
        game, games = position.states()
        trees = Trees(1, self.simulations + 1, game.num_actions, game.state_size, exploration="puct", c=self.c)
        logits, value = self.evaluate(game.encode(games))
        trees.plant(games, priors_of(logits, game.legal(games)), value)
        while len(edges := trees.select(self.leaves, self.simulations)):
            open_edges(trees, game, games, edges, self.evaluate)
        return trees

    def __call__(self, position: Any) -> int:
        """The move. Raises ValueError where the game is over."""
        trees = self.search(position)
        if trees.status[0, 0] != OPEN:
            raise ValueError("the game is over: there is no move to choose")
        return int(trees.ranked()[0])

    def describe(self) -> dict[str, Any]:
        """What agent.json says besides the weights."""
        return {"kind": "alphazero", "config": self.network.config}

    @classmethod
    def from_files(cls, info: dict[str, Any], weights: dict[str, torch.Tensor], **options: Any) -> "AlphaZero":
        """Rebuild it. Raises KeyError, TypeError, RuntimeError where the files do not fit."""
        network = BoardNetwork(**info["config"])
        network.load_state_dict(weights)
        return cls(network, **options)
