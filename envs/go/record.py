"""A recorded game of Go: its facts, its moves with their variations, and its replay as positions."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from envs.go.game import Superko
from envs.go.position import BLACK, EMPTY, WHITE, IllegalMove, Position

_RESULT = re.compile(r"\s*([BW])\w*\s*\+", re.IGNORECASE)
_DRAW = re.compile(r"\s*(0|draw|jigo)\s*$", re.IGNORECASE)
_RATING = re.compile(r"(\d{3,4})\??\)?\s*$")
_AMOUNT = re.compile(
    r"\s*(?:(?:(\d{1,4})\s+)?(\d{1,2})/([1-9]\d?)|(\d{1,4}(?:[.,]\d{1,20})?|[.,]\d{1,20}))"
    r"(?!\s*(?:[\d/子又半]|目半|zi)|[.,]\d|e[+-]?\d)"
)


class BrokenSGF(ValueError):
    """What was read is no game that can be used; str() names file, line, game and reason."""


@dataclass(slots=True)
class Node:
    """One step of a record: first stones are set up, then a move is played; both may be missing.

    Points and moves are row * width + column from the top left, a pass is height * width.
    """

    colour: int = EMPTY
    """who moves: BLACK or WHITE; EMPTY where there is no move"""
    move: int | None = None
    comment: str = ""
    black: tuple[int, ...] = ()
    """points set to black, sorted; the same for white and for points cleared"""
    white: tuple[int, ...] = ()
    empty: tuple[int, ...] = ()
    to_play: int = EMPTY
    """who is said to be next; EMPTY where nothing is said"""
    parent: int = -1
    """index in `GameRecord.nodes`; -1 at the root"""


@dataclass
class GameRecord:
    """A game with its variations. Two records are equal when all but `place` is."""

    height: int = 19
    width: int = 19
    komi: float | None = None
    """points for White; None where the file does not say, which replays as 0"""
    black: str = ""
    """Black's name"""
    white: str = ""
    black_rank: str = ""
    white_rank: str = ""
    result: str = ""
    """as written: "B+9.5", "W+R", "0" for a draw, "Void", "?", "" """
    rules: str = ""
    handicap: int = 0
    date: str = ""
    event: str = ""
    nodes: list[Node] = field(default_factory=lambda: [Node()])
    """every node after its parent and every main line before its side lines; the first is the root"""
    place: str = field(default="", compare=False)
    """file, line and game number that it was read from"""

    @property
    def winner(self) -> int | None:
        """BLACK, WHITE, 0 for a draw, None where `result` says neither."""
        if found := _RESULT.match(self.result):
            return BLACK if found[1] in "Bb" else WHITE
        return EMPTY if _DRAW.match(self.result) else None

    @property
    def margin(self) -> float | None:
        """Points the winner won by; None without a count (resignation, time, unknown)."""
        if found := _RESULT.match(self.result):
            return amount(self.result[found.end() :])
        return 0.0 if self.winner == EMPTY else None

    def rating(self, colour: int) -> int | None:
        """A player's rating where the rank is a number of 3 or 4 digits, or the name ends in one: "Shusaku (2400)"."""
        rank, name = (self.black_rank, self.black) if colour == BLACK else (self.white_rank, self.white)
        found = _RATING.match(rank) or _RATING.search(name)
        return int(found[1]) if found else None

    @property
    def main_line(self) -> list[Node]:
        """The game as it was played: from the root, always the first child."""
        return next(self.lines())

    @property
    def moves(self) -> list[tuple[int, int]]:
        """(colour, move) of the main line."""
        return [(node.colour, node.move) for node in self.main_line if node.move is not None]

    @property
    def comments(self) -> list[str]:
        """One for each of `moves`; the root's own is `nodes[0].comment`."""
        return [node.comment for node in self.main_line if node.move is not None]

    def lines(self) -> Iterator[list[Node]]:
        """Every variation as a list of nodes from the root to a leaf, the main line first."""
        inner = {node.parent for node in self.nodes}
        for leaf in range(len(self.nodes)):
            if leaf not in inner:
                line, index = [], leaf
                while index >= 0:
                    line.append(self.nodes[index])
                    index = self.nodes[index].parent
                yield line[::-1]

    def positions(
        self, line: Sequence[Node] | None = None, *, superko: Superko = "simple", suicide: bool = False
    ) -> Iterator[tuple[Position, int]]:
        """Replay `line` (one of `lines()`; the main line if None): (position before a move, that move), in order.

        position.to_play is who made the move. superko, suicide: as for Position.empty, but that repeats are let
        through unless asked for, since people play them. They also play on after two passes: such a position says
        `is_over` and has no legal moves. Raises BrokenSGF at an illegal move, with its number and reason.
        """
        for position, move in self._replay(line, superko, suicide):
            if move is not None:
                yield position, move

    def position(
        self,
        number: int | None = None,
        line: Sequence[Node] | None = None,
        *,
        superko: Superko = "simple",
        suicide: bool = False,
    ) -> Position:
        """The position after `number` moves of `line`, or at its end if None or if it has fewer.

        Arguments and errors otherwise as in `positions`.
        """
        if number is not None and number < 0:
            raise ValueError(f"a game has no position after {number} moves")
        steps = enumerate(self._replay(line, superko, suicide))
        return next(position for played, (position, move) in steps if move is None or played == number)

    def _replay(
        self, line: Sequence[Node] | None, superko: Superko, suicide: bool
    ) -> Iterator[tuple[Position, int | None]]:
        position, number = self._empty(superko, suicide), 0
        for node in self.main_line if line is None else line:
            position = self._before(position, node, number)
            if node.move is not None:
                yield position, node.move
                number += 1
                position = self._after(position, node, number)
        yield position, None

    def positions_of_nodes(
        self, *, superko: Superko = "simple", suicide: bool = False
    ) -> list[tuple[Position, int] | BrokenSGF]:
        """Of each of `nodes`, the position after it and its number of moves; or why it, or a node above it, cannot be
        played. superko, suicide: as in `positions`.
        """
        found: list[tuple[Position, int] | BrokenSGF] = []
        for node in self.nodes:
            above = (self._empty(superko, suicide), 0) if node.parent < 0 else found[node.parent]
            if not isinstance(above, BrokenSGF):
                position, number = above
                try:
                    position = self._before(position, node, number)
                    if node.move is not None:
                        number += 1
                        position = self._after(position, node, number)
                    above = position, number
                except BrokenSGF as error:
                    above = error
            found.append(above)
        return found

    def _empty(self, superko: Superko, suicide: bool) -> Position:
        return Position.empty((self.height, self.width), self.komi or 0.0, superko=superko, suicide=suicide)

    def _before(self, position: Position, node: Node, number: int) -> Position:
        """Set up what a node sets up, and give the move to who makes it."""
        try:
            if node.black or node.white or node.empty:
                # without a word about it, White begins after handicap stones
                handicap = node.parent < 0 and self.handicap > 1 and not node.white
                to_play = node.to_play or (WHITE if handicap else position.to_play)
                position = position.setup(node.black, node.white, node.empty, to_play)
            elif node.to_play and node.to_play != position.to_play:
                position = position.replace(to_play=node.to_play)
        except ValueError as error:
            raise BrokenSGF(f"{self.place or 'game'}: set-up after move {number}: {error}") from error
        if node.move is not None and node.colour != position.to_play:
            position = position.replace(to_play=node.colour)
        return position

    def _after(self, position: Position, node: Node, number: int) -> Position:
        assert node.move is not None
        try:
            return position.play(node.move, node.colour, force=True)
        except IllegalMove as error:
            raise BrokenSGF(f"{self.place or 'game'}: move {number}: {error}") from error

    @classmethod
    def from_position(
        cls, position: Position, *, result: str | None = None, comments: Sequence[str] = (), **info: Any
    ) -> "GameRecord":
        """The game that led to `position`, from the last set-up on (or the empty board).

        comments: one for each move from the first on; fewer are fine. result: None writes the score of a finished
        game, and nothing of another. info: further fields, as in `from_position(p, black="me", white="you")`.
        """
        if result is None:
            result = result_text(position.score()) if position.is_over else ""
        start, moves = position.root(), position.moves()
        if len(comments) > len(moves):
            raise ValueError(f"{len(comments)} comments are too many for a game of {len(moves)} moves")
        stones = start.board.ravel().tolist()
        black, white = (tuple(p for p, stone in enumerate(stones) if stone == colour) for colour in (BLACK, WHITE))
        record = cls(position.height, position.width, float(position.komi), result=result, **info)
        stated = black or white or start.to_play == WHITE  # Black begins where nothing is said
        root = Node(black=black, white=white, to_play=start.to_play if stated else EMPTY)
        if len(black) > 1 and not white and start.to_play == WHITE and not record.handicap:
            record.handicap = len(black)
        record.nodes = [root]
        for number, (colour, move) in enumerate(moves):
            comment = comments[number] if number < len(comments) else ""
            record.nodes.append(Node(colour, move, comment, parent=number))
        return record


def result_text(score: float) -> str:
    """A score, Black minus White, as SGF writes results: "B+9.5", "W+0.5", "0" for a draw."""
    return f"{'B' if score > 0 else 'W'}+{abs(score):.12g}" if score else "0"


def amount(text: str) -> float | None:
    """The points that a text begins with: "6.5", "6,5 points", "3 1/2"; None where it begins otherwise.

    And where more belongs to the number than is read here: 1e3, a Japanese half, Chinese stones of two points each.
    """
    found = _AMOUNT.match(text.replace("\N{VULGAR FRACTION ONE HALF}", " 1/2"))
    if not found:
        return None
    whole, above, below, decimal = found.groups()
    return float(decimal.replace(",", ".")) if decimal else int(whole or 0) + int(above) / int(below)


def printable(text: str) -> str:
    """A text from elsewhere for a message: what would do something to a terminal is written as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
