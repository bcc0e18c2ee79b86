"""One position of a game of Go, for people and tests: immutable, and it draws itself."""

import operator
import re
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from envs.go import board, knowledge
from envs.go.board import KOMI, MAX_MOVES, MOVES, PASSES, RECENT, REMOVED, STATE_SIZE, STORED
from envs.go.chains import BLACK, EMPTY, WHITE
from envs.go.game import MOST_MOVES, RULES, Go, States, Superko
from envs.go.points import LETTERS, from_vertex, to_vertex

__all__ = ["BLACK", "EMPTY", "RESIGN", "WHITE", "IllegalMove", "Position", "from_vertex", "to_vertex"]

RESIGN = -1
"""What a player may return instead of a move."""
NAMES = {BLACK: "Black", WHITE: "White"}
SIGNS = ".XO"


class IllegalMove(ValueError):
    """Says which rule forbids a move."""


def _colour(colour: int) -> int:
    if colour not in (BLACK, WHITE):
        raise ValueError(f"a colour is BLACK ({BLACK}) or WHITE ({WHITE}), not {colour}")
    return int(colour)


class Position:
    """A board, whose turn it is, and the game that led there. Made by `empty`, `parse`, `play` and `setup`.

    A move is row * width + column from the top left; `pass_move` (the number of points) passes.
    """

    def __init__(self, row: States, parent: "Position | None", last_colour: int | None):
        self._row = row
        self._row.setflags(write=False)
        self.parent = parent
        """the position before the last `play`; None where the game, or a set-up, began"""
        self.last_colour = last_colour

    @classmethod
    def empty(
        cls,
        size: int | tuple[int, int] = 9,
        komi: float = 7.5,
        *,
        superko: Superko = "positional",
        suicide: bool = False,
        max_moves: int | None = None,
    ) -> "Position":
        """An empty board of size, or (height, width), 1 to 19 each, Black to move. Raises ValueError.

        Args:
            superko: "positional", "situational", or "simple" for the ko rule alone; suicide: whether it is allowed.
            max_moves: the game ends after this many moves, passes included; None: after 30,000.
        """
        height, width = size if isinstance(size, tuple) else (size, size)
        if not width:  # which means a square to Go
            raise ValueError(f"a board has 1 to 19 rows and columns, not {height} x 0")
        cap = MOST_MOVES if max_moves is None else max_moves
        return cls(Go(height, width, komi, superko, suicide, cap).position_row(), None, None)

    @classmethod
    def parse(cls, text: str, komi: float | None = None, **rules) -> "Position":
        """The board of a drawing, as `str()` makes it or as bare rows of `.`, `X`, `O`.

        Whose turn it is, komi and captures are read from the line below the board where it has one (komi, if given,
        goes before it). Raises ValueError where the rows do not make a board.
        """
        lines = [re.sub(r"[\s()]", "", line) for line in text.upper().splitlines()]
        found = {i: m[1] for i, line in enumerate(lines) if (m := re.fullmatch(r"\d*([.XO+]+)\d*", line))}
        rows = list(found.values())
        gap = bool(found) and max(found) - min(found) >= len(found)  # a line between rows that is none
        if not rows or gap or len({len(r) for r in rows}) != 1:
            raise ValueError("no board there: give rows of equal length made of . X O")
        footer = re.search(r"(Black|White) \(.\) to move.*captures (\d+) and (\d+), komi (\S+)", text)
        if komi is None:
            komi = float(footer[4]) if footer else 7.5
        stones = "".join(rows).replace("+", ".")
        black, white = ([i for i, sign in enumerate(stones) if sign == wanted] for wanted in "XO")
        position = cls.empty((len(rows), len(rows[0])), komi, **rules)
        position = position.setup(black, white, to_play=WHITE if footer and footer[1] == "White" else BLACK)
        if footer:
            if max(int(footer[2]), int(footer[3])) > MOST_MOVES:
                raise ValueError(f"captures must be at most {MOST_MOVES}")
            row = position._row.copy()
            row[board.TAKEN + BLACK], row[board.TAKEN + WHITE] = int(footer[2]), int(footer[3])
            position = cls(row, None, None)
        return position

    # what it says of itself

    @cached_property
    def _words(self) -> NDArray[np.int64]:
        return self._row.view(np.int64)

    def _header(self, word: int) -> int:
        return int(self._row[word])

    @property
    def height(self) -> int:
        return self._header(board.HEIGHT)

    @property
    def width(self) -> int:
        return self._header(board.WIDTH)

    @property
    def points(self) -> int:
        return self.height * self.width

    @property
    def pass_move(self) -> int:
        return self.points

    @property
    def komi(self) -> float:
        return float(self._words.view(np.float64)[KOMI])

    @property
    def superko(self) -> Superko:
        return {code: name for name, code in RULES.items()}[self._header(board.SUPERKO)]  # type: ignore[return-value]

    @property
    def suicide(self) -> bool:
        return bool(self._header(board.SUICIDE))

    @property
    def max_moves(self) -> int:
        return self._header(MAX_MOVES)

    @property
    def to_play(self) -> int:
        """BLACK or WHITE."""
        return self._header(board.TO_PLAY)

    @property
    def move_number(self) -> int:
        """Moves since the board was empty or set up, passes included."""
        return self._header(MOVES)

    @property
    def last_move(self) -> int | None:
        if self.move_number == 0:
            return None
        return int(board.to_move.py_func(self._row, self._header(RECENT + (self.move_number - 1 & 7))))

    @property
    def captures(self) -> tuple[int, int]:
        """Stones taken by Black and by White."""
        return self._header(board.TAKEN + BLACK), self._header(board.TAKEN + WHITE)

    @property
    def passes(self) -> int:
        """Passes in a row up to here; two end the game."""
        return self._header(PASSES)

    @property
    def is_over(self) -> bool:
        return self.passes >= 2 or self.move_number >= self.max_moves

    @cached_property
    def board(self) -> NDArray[np.int8]:
        """Colours [height, width], read-only."""
        return self._inner(self._row[board.HEADER :])

    def _inner(self, column: NDArray[np.int16]) -> NDArray[np.int8]:
        """The points without their border, of a column."""
        stride = self.width + 1
        framed = column[stride : stride * (self.height + 1)].reshape(self.height, stride)
        inner = framed[:, 1:].astype(np.int8)
        inner.setflags(write=False)
        return inner

    @cached_property
    def _owned(self) -> tuple[NDArray[np.int8], int]:
        work = np.zeros((2, board.area_of(self.height, self.width)), np.int16)
        points = knowledge.own_points(self._row, self._words, work[0], work[1])
        return self._inner(np.array([0, 1, -1, 0], np.int8)[work[0]]), int(points)

    def ownership(self) -> NDArray[np.int8]:
        """[height, width]: +1 a point of Black's area, -1 of White's, 0 of neither (Tromp and Taylor)."""
        return self._owned[0]

    def score(self) -> float:
        """Black's area minus White's minus komi, as the board stands."""
        return self._owned[1] - self.komi

    def root(self) -> "Position":
        """Where this line of play began: the empty board, or the last set-up."""
        position = self
        while position.parent is not None:
            position = position.parent
        return position

    def moves(self) -> list[tuple[int, int]]:
        """(colour, move) since then."""
        line, position = [], self
        while position.parent is not None:
            assert position.last_colour is not None and position.last_move is not None
            line.append((position.last_colour, position.last_move))
            position = position.parent
        return line[::-1]

    # rules

    def states(self) -> tuple[Go, States]:
        """The same game for the verbs over many games: (Go, states [1, game_size]).

        Where the position's own cap is far away, the game's is twice the board's points from here.
        """
        cap = min(self.max_moves, self.move_number + max(2 * self.points, 8))
        game = Go(self.height, self.width, self.komi, self.superko, self.suicide, cap)
        row = self._with_past(np.zeros(game.game_size, np.int16))
        row[MAX_MOVES] = cap
        return game, row[None]

    def _with_past(self, row: States | None = None) -> States:
        """This position's row with the hashes that superko asks for."""
        size = self._header(STATE_SIZE)
        if row is None and not self._header(REMOVED) and not self.suicide:
            return self._row  # no stone was ever taken off: nothing can come back
        past, position = [], self
        while True:
            key = int(position._words[board.HASH])
            if self._header(board.SUPERKO) == board.SITUATIONAL and position.to_play == WHITE:
                key ^= board.WHITE_TO_PLAY
            past.append(key)
            if position.parent is None:
                break
            position = position.parent
        past = past[::-1]
        if self._header(board.SUPERKO) == board.POSITIONAL:
            past = list(dict.fromkeys(past))  # passes leave the board as it was
        if row is None:
            row = np.zeros(size + 4 * len(past), np.int16)
        row[:size] = self._row
        row[STORED] = len(past)
        row.view(np.int64)[size // 4 : size // 4 + len(past)] = past
        return row

    def legal_moves(self) -> NDArray[np.bool_]:
        """Which moves `to_play` has: [points + 1], the pass last; none when the game is over."""
        legal = np.empty(self.points + 1, np.bool_)
        row = self._with_past()
        board.legal_moves(row, row.view(np.int64), legal)
        return legal

    def is_legal(self, move: int, colour: int | None = None) -> bool:
        """Whether a colour (None: the one to move) may play there."""
        return self._refusal(operator.index(move), self.to_play if colour is None else _colour(colour)) is None

    def _refusal(self, move: int, colour: int) -> str | None:
        """Why a move is illegal."""
        if self.is_over:
            return "the game is over"
        if not 0 <= move <= self.points:
            return f"there is no move {move} on a board of {self.height} x {self.width}"
        p = int(board.to_point.py_func(self._row, int(move)))
        if p == 0:
            return None
        if self._row[board.HEADER + p] != EMPTY:
            return "occupied"
        row = self._with_past()
        if board.is_legal_for(row, row.view(np.int64), p, colour):
            return None
        if p == self._header(board.KO):
            return "ko"
        if not self.suicide and board.is_suicide_for(self._row, self._words, p, colour):
            return "suicide"
        return f"superko: the board ({self.superko}) has been so before"

    def play(self, move: int, colour: int | None = None, *, force: bool = False) -> "Position":
        """The position after a move of `colour` (None: the one to move). Raises IllegalMove.

        force: go on where two passes or the cap have ended the game, as recorded games and GTP may.
        """
        move, colour = operator.index(move), self.to_play if colour is None else _colour(colour)
        before = self
        if force and self.is_over and self.move_number < MOST_MOVES:
            row = self._row.copy()
            row[PASSES] = 0
            row[MAX_MOVES] = MOST_MOVES
            before = Position(row, self.parent, self.last_colour)
        if reason := before._refusal(move, colour):
            name = to_vertex(move, self.height, self.width) if 0 <= move <= self.points else str(move)
            raise IllegalMove(f"{NAMES[colour]} may not play {name}: {reason}")
        row = before._row.copy()
        row[board.TO_PLAY] = colour
        taken = np.empty(board.area_of(self.height, self.width), np.int16)
        board.play_point(row, row.view(np.int64), int(board.to_point.py_func(row, int(move))), taken)
        return Position(row, self, colour)

    def setup(
        self,
        black: Iterable[int] = (),
        white: Iterable[int] = (),
        empty: Iterable[int] = (),
        to_play: int | None = None,
    ) -> "Position":
        """Put stones on points and clear others; history, ko, captures and moves start afresh.

        Raises ValueError for a point off the board, or where a chain would have no liberty.
        """
        colours = self.board.astype(np.int16).ravel()
        for colour, moves in ((BLACK, black), (WHITE, white), (EMPTY, empty)):
            for move in moves:
                if not 0 <= move < self.points:
                    raise ValueError(f"there is no point {move} on a board of {self.height} x {self.width}")
                colours[operator.index(move)] = colour
        row = Go(self.height, self.width, self.komi, self.superko, self.suicide, self.max_moves).position_row()
        row[board.TO_PLAY] = self.to_play if to_play is None else _colour(to_play)
        taken = np.empty(board.area_of(self.height, self.width), np.int16)
        if not board.set_up(row, row.view(np.int64), colours, taken):
            raise ValueError("no such position: a chain would have no liberty")
        return Position(row, None, None)

    def replace(self, komi: float | None = None, to_play: int | None = None) -> "Position":
        """The same position and game with another komi or side to move."""
        row = self._row.copy()
        if komi is not None:
            row.view(np.float64)[KOMI] = Go(self.height, self.width, komi).komi  # which checks it
        if to_play is not None:
            if _colour(to_play) != self.to_play:
                row[board.KO] = 0  # it is the other side that may not take back
            row[board.TO_PLAY] = to_play
        return Position(row, self.parent, self.last_colour)

    def with_rules(self, superko: Superko, suicide: bool) -> "Position":
        """The same position and game under other rules, also where moves are taken back. Raises ValueError."""
        Go(self.height, self.width, superko=superko)  # which checks it
        line = [self]
        while (before := line[-1].parent) is not None:
            line.append(before)
        parent = None
        for position in reversed(line):
            row = position._row.copy()
            row[board.SUPERKO], row[board.SUICIDE] = RULES[superko], suicide
            parent = Position(row, parent, position.last_colour)
        assert parent is not None
        return parent

    # drawing

    def __str__(self) -> str:
        letters = "   " + " ".join(LETTERS[: self.width])
        lines = [letters]
        for r, row in enumerate(self.board):
            cells = "".join(f" {SIGNS[colour]}" for colour in row) + " "
            if self.last_move is not None and self.last_move // self.width == r:
                at = 2 * (self.last_move % self.width)
                cells = f"{cells[:at]}({cells[at + 1]}){cells[at + 3 :]}"
            lines.append(f"{self.height - r:2d}{cells}{self.height - r:<2d}".rstrip())
        lines.append(letters)
        last = "" if self.last_move is None else f", last {to_vertex(self.last_move, self.height, self.width)}"
        turn = f"{NAMES[self.to_play]} ({SIGNS[self.to_play]}) to move"
        black, white = self.captures
        lines.append(f"{turn}, move {self.move_number}{last}; captures {black} and {white}, komi {self.komi:.12g}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Position {self.height}x{self.width}, move {self.move_number}>"
