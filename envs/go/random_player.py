"""The weakest player that still ends its games: uniformly random, but it keeps its eyes."""

import numpy as np

from envs.go.position import Position


class RandomPlayer:
    """A move drawn uniformly among the legal ones that fill no eye of its own; a pass when none is left."""

    def __init__(self, seed: int = 0, name: str = "random"):
        self.name = name
        self.new_game(seed)

    def new_game(self, seed: int) -> None:
        """From here on the moves are those of this seed."""
        self._rng = np.random.default_rng(seed)

    def __call__(self, position: Position) -> int:
        game, states = position.states()
        moves = np.flatnonzero(game.sensible(states)[0, :-1])
        return int(self._rng.choice(moves)) if len(moves) else position.pass_move
