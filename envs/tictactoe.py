"""Tic-tac-toe: a toy that a search solves in a blink, and the verbs of `rlkit/search/game.py` in their smallest form.

A state is 10 numbers: the nine points (0, 1 or 2) from the top left, and the side to move (1 or 2). `Board` is one
position of it for people and matches, `values` solves it.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

States = NDArray[np.int16]
EMPTY, BLACK, WHITE = 0, 1, 2
NAMES, SIGNS = {BLACK: "Black", WHITE: "White"}, ".XO"
LINES = np.array(
    [[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]]
)  # fmt: skip
POINTS = np.arange(9).reshape(3, 3)
SYMMETRIES = np.stack([np.rot90(board, k).ravel() for board in (POINTS, POINTS[:, ::-1]) for k in range(4)])
"""Where each point comes from, [8, 9]: turned anticlockwise k times, then the same after a left-right reflection."""


class IllegalMove(ValueError):
    """A move that the rules forbid."""


class TicTacToe:
    """The verbs, each on many games at once; values are those of the side to move."""

    num_actions, state_size, game_size, planes = 9, 10, 10, 2
    moves_cap = 9

    def reset(self, games: int) -> States:
        """Empty boards: [games, 10]."""
        states = np.zeros((games, 10), np.int16)
        states[:, 9] = 1
        return states

    def legal(self, states: States) -> NDArray[np.bool_]:
        """[games, 9]; none where a game is over."""
        return (states[:, :9] == 0) & ~self.outcome(states)[0][:, None]

    def play(self, states: States, actions: NDArray[np.integer]) -> None:
        """Play actions [games] in place. Raises ValueError on a taken point."""
        games = np.arange(len(states))
        if (taken := states[games, actions] != 0).any():
            raise ValueError(f"action {actions[int(taken.argmax())]} is taken: ask legal() first")
        states[games, actions] = states[:, 9]
        states[:, 9] = 3 - states[:, 9]

    def states_after(self, games: States, trees: Any, tree: NDArray, node: NDArray, actions: NDArray) -> States:
        """The states after edges of search trees: [edges, 10]. Nothing but the node matters in this game."""
        states = trees.states[tree, node]
        self.play(states, actions)
        return states

    def to_play(self, states: States) -> States:
        """1 or 2: [games]."""
        return states[:, 9].copy()

    def is_over(self, states: States) -> NDArray[np.bool_]:
        """[games], by three in a line or a full board."""
        return self.outcome(states)[0]

    def outcome(self, states: States) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """(over [games], value [games]): -1 where the side to move has just lost, else 0."""
        lines = states[:, LINES]
        lost = (lines == 3 - states[:, 9, None, None]).all(2).any(1)
        return lost | (states[:, :9] != 0).all(1), -lost.astype(np.float32)

    def encode(self, states: States) -> NDArray[np.uint8]:
        """Own and the opponent's points: [games, 2, 3, 3]."""
        points = states[:, :9].reshape(-1, 3, 3)
        own = states[:, 9, None, None]
        return np.stack([points == own, points == 3 - own], 1).astype(np.uint8)


class Board:
    """One position and the moves that led there: what a match and its players ask of a `Position` of Go. Immutable.

    A move is a point, 0 to 8 from the top left; Black (X) begins. Board() is empty; others come from `play`, or from
    a state [10].
    """

    pass_move, passes = None, 0  # there is no pass

    def __init__(self, row: States | None = None, parent: "Board | None" = None, last_move: int | None = None):
        self._row = (TicTacToe().reset(1)[0] if row is None else row).copy()
        self.parent, self.last_move = parent, last_move
        self.board = self._row[:9].astype(np.int8).reshape(3, 3)
        self.board.setflags(write=False)
        self.to_play, self.move_number = int(self._row[9]), int((self.board != EMPTY).sum())
        over, value = TicTacToe().outcome(self._row[None])
        self.is_over, self._value = bool(over[0]), float(value[0])

    def states(self) -> tuple[TicTacToe, States]:
        """The same game for the verbs: (game, states [1, 10])."""
        return TicTacToe(), self._row[None].copy()

    def legal_moves(self) -> NDArray[np.bool_]:
        """[9]; none when the game is over."""
        return TicTacToe().legal(self._row[None])[0]

    def score(self) -> float:
        """+1 where Black has three in a line, -1 where White has, 0 otherwise."""
        return self._value if self.to_play == BLACK else -self._value

    def moves(self) -> list[tuple[int, int]]:
        """(colour, move) from the first `play` on."""
        if self.parent is None or self.last_move is None:
            return []
        return [*self.parent.moves(), (self.parent.to_play, self.last_move)]

    def play(self, move: int) -> "Board":
        """The position after a move of the side to move. Raises IllegalMove."""
        if not 0 <= move < 9 or not self.legal_moves()[move]:
            why = "the game is over" if self.is_over else "occupied" if 0 <= move < 9 else "there is no such point"
            raise IllegalMove(f"{NAMES[self.to_play]} may not play {move}: {why}")
        game, states = self.states()
        game.play(states, np.array([move]))
        return Board(states[0], self, int(move))

    def __str__(self) -> str:
        lines = [" ".join(SIGNS[colour] for colour in row) for row in self.board]
        return "\n".join([*lines, f"{NAMES[self.to_play]} ({SIGNS[self.to_play]}) to move, move {self.move_number}"])


def values(states: States) -> NDArray[np.float32]:
    """What perfect play on both sides brings the side to move, 1, 0 or -1: [games]."""
    return np.array([_value(tuple(row[:9]), row[9]) for row in states.tolist()], np.float32)


@cache
def _value(points: tuple[int, ...], own: int) -> int:
    if any(points[a] == points[b] == points[c] == 3 - own for a, b, c in LINES.tolist()):
        return -1
    after = ((*points[:i], own, *points[i + 1 :]) for i, point in enumerate(points) if point == EMPTY)
    return max((-_value(board, 3 - own) for board in after), default=0)


class RandomTicTacToe:
    """A player, board -> move, that draws among the legal moves."""

    name = "random"

    def __init__(self, seed: int = 0):
        self.new_game(seed)

    def new_game(self, seed: int) -> None:
        """From here on the moves are those of this seed."""
        self._rng = np.random.default_rng(seed)

    def choices(self, board: Board) -> NDArray[np.int64]:
        """The moves that it draws from; none where the game is over."""
        return np.flatnonzero(board.legal_moves())

    def __call__(self, board: Board) -> int:
        """The move. Raises ValueError where the game is over."""
        if not len(moves := self.choices(board)):
            raise ValueError("the game is over: there is no move to choose")
        return int(self._rng.choice(moves))


class PerfectPlayer(RandomTicTacToe):
    """Draws among the moves of the best value: never loses, and wins where the other side lets it."""

    name = "perfect"

    def choices(self, board: Board) -> NDArray[np.int64]:
        """The best moves."""
        moves = super().choices(board)
        game, states = board.states()
        after = np.repeat(states, len(moves), 0)
        game.play(after, moves)
        worth = -values(after)
        return moves[worth == worth.max(initial=-1)]
