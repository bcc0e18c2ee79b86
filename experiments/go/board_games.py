"""The board games that AlphaZero trains on, with the opponents and the pictures that an experiment asks for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.alphazero.player import AlphaZero
from envs import tictactoe
from envs.go import features
from envs.go.game import Go
from envs.go.picture import draw_game
from envs.go.position import Position
from envs.go.record import GameRecord, result_text
from envs.go.sgf import to_sgf
from experiments.go.matches import random_openings
from experiments.go.pictures import analysis_pictures
from experiments.go.players import go_player


class BoardGame:
    """A board game as AlphaZero trains on it and is measured on it.

    Args:
        name: "go" or "tictactoe". openings: random ones that matches begin from, each with both colours.
    """

    def __init__(self, name: str, size: int, komi: float, openings: int, seed: int):
        self.game: Any
        self.empty: Any
        mover: Any = None
        if name == "tictactoe":
            self.game, self.empty, self.symmetries = tictactoe.TicTacToe(), tictactoe.Board(), tictactoe.SYMMETRIES
            mover = tictactoe.RandomTicTacToe(seed)
        else:
            self.game, self.symmetries = Go(size, komi=komi), features.symmetries(size)
            self.empty = Position.empty(size, komi, max_moves=3 * size**2)
        self.varied = random_openings(self.empty, openings, 2, seed, mover)
        # small boards are decided by their first moves: from the empty one both colours play what they know
        self.starts = [self.empty] if size <= 5 else self.varied

    def player(self, spec: str, seed: int) -> Any:
        """A rung of the ladder."""
        if isinstance(self.empty, Position):
            return go_player(spec, seed)
        return (tictactoe.PerfectPlayer if spec == "perfect" else tictactoe.RandomTicTacToe)(seed)

    def record(self, moves: list[int], value: float | None) -> str:
        """A game as SGF; value: for Black, of a game that was resigned."""
        position = self._after(moves)
        result = result_text(position.score()) if value is None else f"{'B' if value > 0 else 'W'}+R"
        return to_sgf(GameRecord.from_position(position, result=result))

    def _after(self, moves: list[int]) -> Position:
        position = self.empty
        for move in moves:
            position = position.play(move, force=True)
        return position

    def pictures(self, player: AlphaZero, moves: list[int]) -> dict[str, NDArray[np.uint8]]:
        """The latest game of self-play; and what the player thinks of its middle, and of the empty board."""
        if not isinstance(self.empty, Position) or not moves:
            return {}
        size, middle = self.empty.height, self._after(moves[: len(moves) // 2])
        out = {"board/game": draw_game(moves, size, size)}
        for name, position in (("empty", self.empty), ("middle", middle)):
            out |= {f"board/{name}_{what}": picture for what, picture in analysis_pictures(player, position).items()}
        return out
