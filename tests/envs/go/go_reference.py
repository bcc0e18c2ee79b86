"""The rules of Go and the features of AlphaGo a second time: slow, obvious, and without a line of `envs/go`.

Stones are a dict from (row, column) to BLACK or WHITE, chains and regions are flood fills, superko compares whole
boards, and a move is tried by playing it on a copy. Tests hold the fast implementation against this one; it is also
the place to look a rule up. Moves are row * width + column, and the number of points is the pass.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np

BLACK, WHITE = 1, 2  # the other colour is 3 - colour
SUPERKO = ("positional", "situational", "simple")
Point = tuple[int, int]


@cache
def neighbours(height: int, width: int) -> dict[Point, list[Point]]:
    """Every point of the board, in the order of moves, with the points to its north, west, east and south."""
    points = [(row, column) for row in range(height) for column in range(width)]
    return {(r, c): [p for p in ((r - 1, c), (r, c - 1), (r, c + 1), (r + 1, c)) if p in points] for r, c in points}


class Board:
    """Stones on a rectangle, and what a stone does where it is put. The ladder reader needs no more than this.

    `ko` is None or (point, colour): that colour may not take back on that point with its very next move.
    """

    def __init__(self, height: int, width: int, stones: dict[Point, int]):
        self.height, self.width, self.stones = height, width, stones
        self.near = neighbours(height, width)
        self.ko: tuple[Point, int] | None = None

    def flood(self, start: Point, inside: Callable[[Point], bool]) -> set[Point]:
        """The points that are reached from `start` by steps to neighbours that are inside."""
        found, todo = {start}, [start]
        while todo:
            for point in self.near[todo.pop()]:
                if point not in found and inside(point):
                    found.add(point)
                    todo.append(point)
        return found

    def border(self, points: Iterable[Point]) -> set[Point]:
        """The neighbours of a set of points that are not in the set."""
        return {neighbour for point in points for neighbour in self.near[point]}.difference(points)

    def chain(self, point: Point) -> set[Point]:
        """The stones that live and die with the one on `point`; KeyError where there is none."""
        colour = self.stones[point]
        return self.flood(point, lambda p: self.stones.get(p) == colour)

    def liberties(self, point: Point) -> set[Point]:
        """The empty points next to the chain on `point`."""
        return self.border(self.chain(point)).difference(self.stones)

    def after(self, point: Point, colour: int) -> tuple[Board, set[Point]]:
        """The board after a stone on an empty point, and the opponent's stones that it took.

        Opponent's chains without liberties go first, then the stone's own chain if it has none: after a suicide
        the point is empty. Whether the move is legal is not asked here.
        """
        board = Board(self.height, self.width, {**self.stones, point: colour})
        taken: set[Point] = set()
        for p in self.near[point]:
            if board.stones.get(p) == 3 - colour and not board.liberties(p):
                taken |= board.chain(p)
        for p in taken:
            del board.stones[p]
        if not board.liberties(point):
            for p in board.chain(point):
                del board.stones[p]
        elif len(taken) == 1 and board.chain(point) == {point} and board.liberties(point) == taken:
            board.ko = (min(taken), 3 - colour)
        return board, taken


class Game(Board):
    """A game of Go: a board, whose turn it is, and what has been.

    Attributes beside the board's: `to_play`; `passes` (in a row, at the end); `last`, all moves so far as
    (colour, move), the latest at the end; `boards`, the stones at the start and after each move; `past`, what superko
    asks: every position that has been, the present one too (situational: each with the side that was to move);
    `captures`, how many stones each colour took, stones lost by suicide counted for the opponent.

    `play` replaces these and never changes them in place, so that copies can share them.
    """

    def __init__(
        self,
        height: int,
        width: int,
        komi: float = 7.5,
        superko: str = "positional",
        suicide: bool = False,
        max_moves: int | None = None,
    ):
        if superko not in SUPERKO:
            raise ValueError(f"superko is {superko!r}; choose one of {', '.join(SUPERKO)}")
        super().__init__(height, width, {})
        self.komi, self.superko, self.suicide, self.max_moves = komi, superko, suicide, max_moves
        self.set_up(["." * width] * height)

    def set_up(self, rows: list[str], to_play: int = BLACK) -> None:
        """Begin anew from a drawing: `height` strings of `width` characters, X Black, O White, . empty."""
        if [len(row) for row in rows] != [self.width] * self.height or not set("".join(rows)) <= set(".XO"):
            raise ValueError(f"draw {self.height} rows of {self.width} characters out of . X O")
        self.stones = {(r, c): ".XO".index(rows[r][c]) for r, c in self.near if rows[r][c] != "."}
        self.ko, self.to_play, self.passes = None, to_play, 0
        self.last: list[tuple[int, int]] = []
        self.boards = [self.stones]
        self.past = {self.situation(self.stones, to_play)}
        self.captures = {BLACK: 0, WHITE: 0}

    def copy(self) -> Game:
        """A game that goes its own way from here."""
        return copy.copy(self)

    def situation(self, stones: dict[Point, int], to_play: int):
        """What superko compares: the position, under situational superko with the side to move."""
        position = frozenset(stones.items())
        return (position, to_play) if self.superko == "situational" else position

    @property
    def points(self) -> int:
        """How many points the board has; as a move, the pass."""
        return self.height * self.width

    @property
    def move_number(self) -> int:
        """How many moves were played since the start or the last set-up, passes included."""
        return len(self.last)

    @property
    def is_over(self) -> bool:
        return self.passes >= 2 or (self.max_moves is not None and self.move_number >= self.max_moves)

    def legal(self, move: int, colour: int | None = None) -> bool:
        """Whether a colour (the side to move, if None) may play a move."""
        colour = colour or self.to_play
        if self.is_over:
            return False
        if move == self.points:
            return True
        point = divmod(move, self.width)
        if point in self.stones:
            return False
        board, _ = self.after(point, colour)
        if point not in board.stones and not self.suicide:
            return False
        if self.superko == "simple":
            return self.ko != (point, colour)
        return self.situation(board.stones, 3 - colour) not in self.past

    def legal_moves(self) -> list[bool]:
        """For each move, pass last, whether the side to move may play it."""
        return [self.legal(move) for move in range(self.points + 1)]

    def play(self, move: int, colour: int | None = None) -> None:
        """Play a move for a colour (the side to move, if None), whose opponent then is to move.

        Raises ValueError on an illegal move.
        """
        colour = colour or self.to_play
        if not self.legal(move, colour):
            raise ValueError(f"move {move} is illegal for {'.XO'[colour]} here; ask legal_moves() first")
        if move == self.points:
            self.ko, self.passes = None, self.passes + 1
        else:
            board, taken = self.after(divmod(move, self.width), colour)
            suicides = len(self.stones) + 1 - len(taken) - len(board.stones)
            self.captures = {
                colour: self.captures[colour] + len(taken),
                3 - colour: self.captures[3 - colour] + suicides,
            }
            self.stones, self.ko, self.passes = board.stones, board.ko, 0
        self.to_play = 3 - colour
        self.last = [*self.last, (colour, move)]
        self.boards = [*self.boards, self.stones]
        self.past = self.past | {self.situation(self.stones, self.to_play)}

    def ownership(self) -> list[list[int]]:
        """For each row and column +1 where Black owns the point, -1 where White does, else 0.

        A stone owns its point; an empty region belongs to the colour of its border if that has only one.
        """
        owners = [[0] * self.width for _ in range(self.height)]
        for point in self.near:
            if point in self.stones:
                colours = {self.stones[point]}
            else:
                region = self.flood(point, lambda p: p not in self.stones)
                colours = {self.stones[p] for p in self.border(region)}
            owners[point[0]][point[1]] = (colours == {BLACK}) - (colours == {WHITE})
        return owners

    def score(self) -> float:
        """Points owned by Black, minus points owned by White, minus komi."""
        return sum(map(sum, self.ownership())) - self.komi


def true_eye(game: Board, point: Point, colour: int) -> bool:
    """Whether an empty point is an eye of a colour that stays one.

    All neighbours are stones of the colour, and of the diagonal points the opponent holds none if the point lies on an
    edge, at most one elsewhere.
    """
    row, column = point
    on_edge = row in (0, game.height - 1) or column in (0, game.width - 1)
    diagonals = [(row - 1, column - 1), (row - 1, column + 1), (row + 1, column - 1), (row + 1, column + 1)]
    return (
        point not in game.stones
        and all(game.stones.get(p) == colour for p in game.near[point])
        and sum(game.stones.get(p) == 3 - colour for p in diagonals) <= (0 if on_edge else 1)
    )


def may_play(board: Board, point: Point, colour: int) -> bool:
    """Legality as the ladder reader sees it: simple ko, no suicide, no superko; `point` is empty."""
    return board.ko != (point, colour) and point in board.after(point, colour)[0].stones


def saving_moves(board: Board, stone: Point) -> set[Point]:
    """What may save the chain on `stone` from atari: its liberty, and those of chains in atari that surround it."""
    around = [p for p in board.border(board.chain(stone)) if board.stones.get(p) == 3 - board.stones[stone]]
    in_atari = [p for p in around if len(board.liberties(p)) == 1]
    return board.liberties(stone).union(*(board.liberties(p) for p in in_atari))


def captured(board: Board, stone: Point, max_depth: int = 100) -> bool:
    """Whether the chain on `stone`, in atari and its owner to move, is lost in a ladder.

    It is where no saving move helps. A chain that still runs after `max_depth` moves of the attacker has escaped.
    """
    if max_depth == 0:
        return False
    owner = board.stones[stone]
    moves = [point for point in saving_moves(board, stone) if may_play(board, point, owner)]
    return all(capturable(board.after(point, owner)[0], stone, max_depth) for point in moves)


def capturable(board: Board, stone: Point, max_depth: int = 100) -> bool:
    """Whether the chain on `stone` is lost in a ladder, the attacker to move.

    With three liberties it is safe, with one it is lost (even if a ko should forbid to take it), and with two it is
    lost if an atari on one of them captures it.
    """
    liberties, attacker = board.liberties(stone), 3 - board.stones[stone]
    if len(liberties) != 2:
        return len(liberties) < 2
    ataris = [point for point in liberties if may_play(board, point, attacker)]
    return any(captured(board.after(point, attacker)[0], stone, max_depth - 1) for point in ataris)


def ladder_capture(game: Game, move: int, max_depth: int = 100) -> bool:
    """Whether a legal move of the side to move puts a chain of two liberties into atari and that chain is lost."""
    point = divmod(move, game.width)
    after, _ = game.after(point, game.to_play)
    targets = [p for p in game.near[point] if game.stones.get(p) == 3 - game.to_play and len(game.liberties(p)) == 2]
    # A suicide next to the chain gives it no atari.
    return any(len(after.liberties(p)) == 1 and captured(after, p, max_depth) for p in targets)


def ladder_escape(game: Game, move: int, max_depth: int = 100) -> bool:
    """Whether a legal move of the side to move saves a chain of its own from atari, and no ladder gets that chain."""
    point = divmod(move, game.width)
    after, _ = game.after(point, game.to_play)
    own = [p for p, colour in game.stones.items() if colour == game.to_play and len(game.liberties(p)) == 1]
    saved = [p for p in own if point in saving_moves(game, p) and p in after.stones]
    return any(not capturable(after, p, max_depth) for p in saved)


COLOUR, ONES, TURNS, LIBERTIES, CAPTURES, SELF_ATARI, LIBERTIES_AFTER = 0, 3, 4, 12, 20, 28, 36
LADDER_CAPTURE, LADDER_ESCAPE, SENSIBLE, ZEROS, BLACK_TO_MOVE = 44, 45, 46, 47, 48


def alphago_planes(game: Game, colour_plane: bool = False) -> np.ndarray:
    """The 48 input planes of AlphaGo's policy networks, or the 49 of its value network: uint8 [48 or 49, H, W].

    All are relative to the side to move, in the order of the constants above; eight planes in a row say a number.
    """
    own = game.to_play
    planes = np.zeros((49, game.height, game.width), np.uint8)
    planes[ONES] = 1
    planes[BLACK_TO_MOVE] = own == BLACK
    recent = [move for _, move in reversed(game.last[-7:])]
    for move, point in enumerate(game.near):
        colour = game.stones.get(point)
        planes[COLOUR + (2 if colour is None else colour != own)][point] = 1
        if colour is not None:
            planes[TURNS + (recent.index(move) if move in recent else 7)][point] = 1
            planes[LIBERTIES + min(len(game.liberties(point)), 8) - 1][point] = 1
        if game.legal(move):
            after, taken = game.after(point, own)
            planes[CAPTURES + min(len(taken), 7)][point] = 1
            if point in after.stones:
                liberties = len(after.liberties(point))
                planes[LIBERTIES_AFTER + min(liberties, 8) - 1][point] = 1
                if liberties == 1:
                    planes[SELF_ATARI + min(len(after.chain(point)), 8) - 1][point] = 1
            planes[LADDER_CAPTURE][point] = ladder_capture(game, move)
            planes[LADDER_ESCAPE][point] = ladder_escape(game, move)
            planes[SENSIBLE][point] = not true_eye(game, point, own)
    return planes if colour_plane else planes[:BLACK_TO_MOVE]


def alphagozero_planes(game: Game) -> np.ndarray:
    """The 17 input planes of AlphaGo Zero: uint8 [17, H, W].

    Eight of the stones of the side to move, now and after each of the seven moves before (passes are moves too), eight
    of the opponent's, and one that is 1 if Black is to move. There were no stones before the start or the set-up.
    """
    planes = np.zeros((17, game.height, game.width), np.uint8)
    for ago, stones in enumerate(reversed(game.boards[-8:])):
        for point, colour in stones.items():
            planes[ago if colour == game.to_play else 8 + ago][point] = 1
    planes[16] = game.to_play == BLACK
    return planes
