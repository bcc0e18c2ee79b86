"""Pictures of boards: stones and their numbers, shares of moves, ownership; for TensorBoard, pages and files.

    Image.fromarray(draw_board(position, heat=visits, title="visits")).save("board.png")

All is drawn three times as large and reduced, which smooths the edges.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont

from envs.go.points import LETTERS, fixed_handicap
from envs.go.position import BLACK, EMPTY, WHITE, Position

Picture = NDArray[np.uint8]
"""[height, width, red green blue]"""
Moves = Sequence[int] | Sequence[tuple[int, int]]
"""in order, of colours in turn (Black begins), or as (colour, move)"""

WOOD, PAPER, INK, GREY = (222, 184, 112), (250, 249, 246), (40, 30, 20), (128, 128, 128)
HOT = (212, 30, 22)
"""colour of the square of a move that has all"""
LAST = {BLACK: (255, 120, 95), WHITE: (205, 20, 10)}
"""of the last move's number, by its stone"""
STONE = {BLACK: (20, 20, 22), WHITE: (250, 250, 248)}
SCALE = 3


def draw_board(
    position: Position | ArrayLike,
    *,
    moves: Moves = (),
    heat: ArrayLike | None = None,
    ownership: ArrayLike | None = None,
    marks: Mapping[int, str] | None = None,
    title: str = "",
    cell: int = 36,
) -> Picture:
    """A board of [(height + 2) cell, (width + 2) cell], and the lines of text above and below it, 3/4 cell each.

    The point of row r and column c is ((r + 1.5) cell, (c + 1.5) cell) from the board's upper left. The last move, of
    `moves` or else of the position, has a ring, or its number is red. Raises ValueError.

    Args:
        position: or its colours [H, W], 1 to 19 each.
        moves: of the game that led here. A stone bears the number of its move; that of a captured one is left out.
            Passes are listed below the board.
        heat: [H W + 1], the pass last and written below the board; or [H W] or [H, W]. Probabilities, or visits, whose
            shares are taken; negative ones (of illegal moves) are 0. Colours the empty points; percents from 1 on.
        ownership: [H, W], 1 Black's to -1 White's: squares of that colour and size, none below 0.1.
        marks: what stands on points, move -> a letter or so, instead of number or percent.
        title: above the board, in ASCII; wrapped where it is long.
        cell: pixels from point to point, at least 8.
    """
    board = np.asarray(position.board if isinstance(position, Position) else position)
    if board.ndim != 2 or not all(1 <= n <= 19 for n in board.shape) or not np.isin(board, (EMPTY, BLACK, WHITE)).all():
        raise ValueError(
            f"a board is [height, width], 1 to 19 each, of 0, 1 (Black) and 2 (White), not {list(board.shape)}"
        )
    if cell < 8:
        raise ValueError(f"a cell has at least 8 pixels, not {cell}")
    points, stones = board.size, board.ravel().tolist()
    order, marks = [move for _, move in _pairs(moves)], marks or {}
    if not all(0 <= move <= points for move in order) or not all(0 <= move < points for move in marks):
        raise ValueError(f"moves go from 0 to {points} on this board, marks to {points - 1}: of another board?")
    shares, owners = _shares(heat, board), _owners(ownership, board)

    labels = {move: f"{share:.0%}" for move, share in enumerate(shares[:points]) if share >= 0.01 and not stones[move]}
    labels |= {move: str(number) for number, move in enumerate(order, 1) if move < points and stones[move]}
    labels |= marks
    last = order[-1] if order else position.last_move if isinstance(position, Position) else None

    drawing = _Drawing(board.shape[0], board.shape[1], cell)
    drawing.grid()
    for move in labels:
        drawing.square(move, 0.9, WOOD)  # no lines under what is written
    for move, share in enumerate(shares[:points]):
        if share and not stones[move]:
            drawing.square(move, 0.9, (*HOT, round(240 * share**0.42)))  # so that 1 % can be seen too
    drawing.stones(stones)
    for move, value in enumerate(owners):
        if abs(value) >= 0.1:
            owner = BLACK if value > 0 else WHITE
            size, aside = (0.3, 0.31) if move in labels else (0.44, 0)
            drawing.square(move, size * abs(value), STONE[owner], aside, GREY if stones[move] == owner else None)
    if last is not None and last < points and last not in labels and stones[last]:
        drawing.ring(last, STONE[BLACK + WHITE - stones[last]])
    for move, text in labels.items():
        if stones[move]:
            colour = LAST[stones[move]] if move == last else STONE[BLACK + WHITE - stones[move]]
        else:
            colour = STONE[WHITE] if move < len(shares) and shares[move] > 0.4 else INK
        drawing.write(text, *drawing.centre(move), 0.4 if text.endswith("%") else 0.5, colour, bold=True)

    below = [f"pass {shares[points]:.0%}"] if len(shares) > points else []
    below.append(", ".join(f"{number} pass" for number, move in enumerate(order, 1) if move == points))
    picture = drawing.picture()
    return np.concatenate([_lines([title], picture.shape[1], cell), picture, _lines(below, picture.shape[1], cell)])


def draw_game(moves: Moves, height: int, width: int, **more) -> Picture:
    """The board after a whole game, with the numbers of its moves; `more` as in `draw_board`.

    The game begins on an empty board, under any rules. Raises ValueError, for an illegal move too.
    """
    position = Position.empty((height, width), superko="simple", suicide=True)
    for colour, move in _pairs(moves):
        position = position.play(move, colour, force=True)
    return draw_board(position, moves=moves, **more)


def side_by_side(*pictures: Picture, gap: int = 12) -> Picture:
    """One picture of several, from left to right, tops aligned, on paper. Raises ValueError."""
    for picture in pictures:
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ValueError(f"a picture is uint8 [height, width, 3], not {picture.dtype} {list(picture.shape)}")
    if not pictures:
        raise ValueError("no picture to put side by side")
    height = max(len(picture) for picture in pictures)
    width = sum(picture.shape[1] for picture in pictures) + gap * (len(pictures) - 1)
    whole = np.full((height, width, 3), PAPER, np.uint8)
    left = 0
    for picture in pictures:
        whole[: len(picture), left : left + picture.shape[1]] = picture
        left += picture.shape[1] + gap
    return whole


def _pairs(moves: Moves) -> list[tuple[int | None, int]]:
    return [(None, move) if isinstance(move, int | np.integer) else move for move in moves]


def _shares(heat: ArrayLike | None, board: NDArray) -> list[float]:
    """What each move has of all: numbers whose sum is at most 1 as they are. None where there is no heat."""
    if heat is None:
        return []
    values = np.asarray(heat, np.float64)
    if values.shape not in ((board.size + 1,), (board.size,), board.shape) or not np.isfinite(values).all():
        raise ValueError(
            f"heat is finite, [{board.size + 1}] with the pass, [{board.size}] or {list(board.shape)} on this board, "
            f"not {list(values.shape)}"
        )
    values = values.ravel().clip(min=0)
    return (values / max(1.0, values.sum())).tolist()


def _owners(ownership: ArrayLike | None, board: NDArray) -> list[float]:
    """The values in reading order; none where there is no ownership."""
    if ownership is None:
        return []
    values = np.asarray(ownership, np.float64)
    if values.shape != board.shape or not (abs(values) <= 1.001).all():
        raise ValueError(
            f"ownership is {list(board.shape)} on this board, from -1 (White's) to 1, not {list(values.shape)} "
            f"from {values.min():.3g} to {values.max():.3g}"
        )
    return values.ravel().tolist()


class _Drawing:
    """A board in the making. Lengths are in cells, places (x, y) in pixels of the large image."""

    def __init__(self, height: int, width: int, cell: int):
        self.height, self.width, self.cell = height, width, cell
        y, x = np.ogrid[: (height + 2) * cell, : (width + 2) * cell]
        grain = np.sin(1.9 * y / cell + 0.6 * np.sin(0.31 * x / cell) + 1.3 * np.sin(0.47 * y / cell))
        wood = np.asarray(WOOD) + 3 * np.rint(grain + np.sin(7.3 * y / cell + 0.9 * np.sin(0.53 * x / cell)))[..., None]
        small = Image.fromarray(wood.astype(np.uint8))
        self.image = small.resize((SCALE * small.width, SCALE * small.height), Image.Resampling.NEAREST)
        self.draw = ImageDraw.Draw(self.image, "RGBA")  # which mixes translucent colours with what is there

    def picture(self) -> Picture:
        return np.asarray(self.image.reduce(SCALE))

    def place(self, row: float, column: float) -> tuple[int, int]:
        """The middle of a cell, in the middle of a pixel of the picture: lines of one pixel are sharp."""
        y, x = (SCALE * int((at + 1.5) * self.cell) + SCALE // 2 for at in (row, column))
        return x, y

    def centre(self, move: int) -> tuple[int, int]:
        return self.place(*divmod(move, self.width))

    def grid(self) -> None:
        """Lines, star points and coordinates."""
        thick = SCALE * max(1, round(self.cell / 36)) // 2
        (left, top), (right, bottom) = self.place(0, 0), self.place(self.height - 1, self.width - 1)
        for row in range(self.height):
            y = self.place(row, 0)[1]
            self.draw.rectangle((left - thick, y - thick, right + thick, y + thick), INK)
            for column in (-1, self.width):
                self.write(str(self.height - row), *self.place(row, column), 0.38, INK)
        for column in range(self.width):
            x = self.place(0, column)[0]
            self.draw.rectangle((x - thick, top - thick, x + thick, bottom + thick), INK)
            for row in (-1, self.height):
                self.write(LETTERS[column], *self.place(row, column), 0.38, INK)
        for move in _stars(self.height, self.width):
            x, y = self.centre(move)
            around = round(0.1 * self.cell * SCALE)
            self.draw.ellipse((x - around, y - around, x + around, y + around), INK)

    def stones(self, colours: Sequence[int]) -> None:
        """All the shadows lie below all the stones."""
        side = self.cell * SCALE
        shadow = Image.fromarray(_round(side, 0.53, 0.18) // 3)
        for move in np.flatnonzero(colours).tolist():
            x, y = self.centre(move)
            self.image.paste((0, 0, 0), (x - side + side // 40, y - side + side // 16), shadow)
        shape = Image.fromarray(_round(side, 0.475, 1 / side))
        faces = {colour: Image.fromarray(_face(side, colour)) for colour in (BLACK, WHITE)}
        for move in np.flatnonzero(colours).tolist():
            x, y = self.centre(move)
            self.image.paste(faces[colours[move]], (x - side, y - side), shape)

    def square(self, move: int, side: float, colour: tuple, aside: float = 0, outline: tuple | None = None) -> None:
        """`aside`: how far to the lower right of the point."""
        half, shift = round(side * self.cell * SCALE / 2), round(aside * self.cell * SCALE)
        x, y = self.centre(move)
        if half:
            box = (x + shift - half, y + shift - half, x + shift + half, y + shift + half)
            self.draw.rectangle(box, colour, outline, SCALE if outline else 0)

    def ring(self, move: int, colour: tuple) -> None:
        x, y = self.centre(move)
        radius = round(0.27 * self.cell * SCALE)
        self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), None, colour, self.cell * SCALE // 18)

    def write(self, text: str, x: int, y: int, size: float, colour: tuple, bold: bool = False) -> None:
        side = self.cell * SCALE
        _write(self.draw, text, x, y, size * side, 0.78 * side, colour, bold)


def _round(side: int, radius: float, soft: float) -> NDArray[np.uint8]:
    """A disc as an opacity [2 side + 1, 2 side + 1]; its edge is `soft` sides wide."""
    y, x = np.ogrid[-side : side + 1, -side : side + 1]
    distance = np.hypot(y, x) / side
    return (255 * ((radius - distance) / soft + 0.5).clip(0, 1)).astype(np.uint8)


def _face(side: int, colour: int) -> Picture:
    """What a stone looks like under light from the upper left, in the frame of `_round`."""
    y, x = np.ogrid[-side : side + 1, -side : side + 1]
    far = np.hypot(y / side + 0.2, x / side + 0.17)
    black, white = 22 + 75 * np.exp(-((far / 0.19) ** 2)), 252 - 42 * (far / 0.72).clip(0, 1) ** 2.5
    return np.repeat((black if colour == BLACK else white)[..., None], 3, axis=2).astype(np.uint8)


def _stars(height: int, width: int) -> list[int]:
    odd, least = bool(height % 2 and width % 2), min(height, width)
    around = fixed_handicap(height, width, 9 if odd and least >= 15 else 4) if least >= 7 else []
    return [*around, height // 2 * width + width // 2] if odd else around


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return font


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    x: float,
    y: float,
    size: float,
    room: float,
    colour: tuple,
    bold: bool = False,
) -> None:
    """Text with the middle of its capitals at (x, y), smaller where it would be wider than `room`."""
    size = min(size, size * room / max(1.0, _font(round(size)).getlength(text)))
    font = _font(max(1, round(size)))
    stroke = round(size / 40) if bold else 0
    draw.text((x, y - font.getbbox("0", anchor="ls")[1] / 2), text, colour, font, "ms", stroke_width=stroke)


def _lines(paragraphs: Sequence[str], width: int, cell: int) -> Picture:
    """Centred lines of text on paper, [lines * (3/4 cell), width]."""
    size = round(0.44 * cell * SCALE)
    lines = [line for text in paragraphs for part in text.splitlines() for line in _wrapped(part, size, SCALE * width)]
    high = cell * 3 // 4
    strip = Image.new("RGB", (SCALE * width, max(1, SCALE * high * len(lines))), PAPER)
    for number, line in enumerate(lines):
        middle = SCALE * high * (number + 0.5)
        _write(ImageDraw.Draw(strip), line, strip.width / 2, middle, size, 0.94 * strip.width, INK)
    return np.asarray(strip.reduce(SCALE))[: high * len(lines)]


def _wrapped(text: str, size: int, room: float) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _font(size).getlength(longer) > 0.94 * room:
            yield line
            longer = word
        line = longer
    if line:
        yield line
