"""Names and lists of points: vertices as in GTP, where handicap stones go, and the chains on a board."""

import contextlib
import re

import numpy as np
from numpy.typing import NDArray

from envs.go.chains import EMPTY

LETTERS = "ABCDEFGHJKLMNOPQRST"


def to_vertex(move: int, height: int, width: int) -> str:
    """The name of a move as in GTP: "D4" (no letter I, row 1 at the bottom), or "pass"."""
    if move == height * width:
        return "pass"
    return f"{LETTERS[move % width]}{height - move // width}"


def from_vertex(text: str, height: int, width: int) -> int:
    """The move that a name as in GTP stands for. Raises ValueError."""
    if text.lower() == "pass":
        return height * width
    match = re.fullmatch(r"([A-HJ-T])([1-9][0-9]?)", text, re.ASCII | re.IGNORECASE)
    column, row = (LETTERS.index(match[1].upper()), height - int(match[2])) if match else (-1, -1)
    if not (0 <= column < width and 0 <= row < height):
        raise ValueError(f"{text!r} is no point of a board of {height} x {width}: use a letter and a number, or pass")
    return row * width + column


def fixed_handicap(height: int, width: int, stones: int) -> list[int]:
    """The standard's handicap points, as moves: 2 to 9, at most 4 on small and even boards; ValueError otherwise."""
    odd = height % 2 and width % 2 and min(height, width) >= 9
    if min(height, width) < 7 or not 2 <= stones <= (9 if odd else 4):
        raise ValueError(f"no {stones} fixed handicap stones on a {height}x{width} board")
    edge = 3 if min(height, width) >= 13 else 2
    rows, columns = (height - 1 - edge, edge, height // 2), (edge, width - 1 - edge, width // 2)
    order = [(0, 0), (1, 1), (1, 0), (0, 1), (2, 0), (2, 1), (0, 2), (1, 2)]  # the lower left corner is the first
    centre = stones % 2 if stones > 4 else 0
    return [rows[row] * width + columns[column] for row, column in order[: stones - centre] + [(2, 2)] * centre]


def free_handicap(height: int, width: int, stones: int) -> list[int]:
    """As many points, as moves: the fixed ones, then always the one with most room to the edge and to the others."""
    points: list[int] = []
    for fixed in range(min(stones, 9), 1, -1):
        with contextlib.suppress(ValueError):
            points = fixed_handicap(height, width, fixed)
            break
    row, column = np.divmod(np.arange(height * width), width)
    room = np.minimum.reduce([row + 1, height - row, column + 1, width - column])
    for number in range(stones):
        if number == len(points):
            points.append(int(room.argmax()))
        room = np.minimum(room, abs(row - points[number] // width) + abs(column - points[number] % width))
    return points


def chains(board: NDArray[np.int8]) -> list[list[int]]:
    """The connected stones of a board [H, W], as lists of moves, in reading order."""
    height, width = board.shape
    seen, found = board == EMPTY, []
    for start in np.argwhere(board != EMPTY).tolist():
        if seen[tuple(start)]:
            continue
        seen[tuple(start)] = True
        chain = [start]
        for row, column in chain:  # it grows meanwhile
            for y, x in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
                if 0 <= y < height and 0 <= x < width and not seen[y, x] and board[y, x] == board[row, column]:
                    seen[y, x] = True
                    chain.append([y, x])
        found.append(sorted(row * width + column for row, column in chain))
    return found
