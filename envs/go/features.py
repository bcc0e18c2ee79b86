"""What networks see of a board: the 17 planes of AlphaGo Zero, the 48 of AlphaGo, and the eight symmetries."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from envs.go import ladders
from envs.go.board import (
    HEIGHT,
    MOVES,
    RECENT,
    STRIDE,
    TO_PLAY,
    WIDTH,
    area_of,
    check_states,
    columns,
    legal_moves,
    state_size_of,
    to_move,
)
from envs.go.chains import BLACK, EMPTY, is_suicide
from envs.go.knowledge import after_move, chain_liberties, is_true_eye
from rlkit.compiled import kernel, parallel_for, scratch

ALPHAGOZERO_PLANES = 17
ALPHAGO_PLANES = 48

# The first of AlphaGo's planes of each kind; the eight of a number are one-hot.
COLOUR, ONES, TURNS, LIBERTIES, CAPTURES, SELF_ATARI, LIBERTIES_AFTER = 0, 3, 4, 12, 20, 28, 36
LADDER_CAPTURE, LADDER_ESCAPE, SENSIBLE, ZEROS, BLACK_TO_MOVE = 44, 45, 46, 47, 48
ALPHAGO_ORDER = (
    "colour 3, ones 1, turns 8, liberties 8, captures 8, self-atari 8, liberties after 8, ladder capture, escape,"
    " sensible, zeros, black to move"
)
"""what agents are saved with: others have learned from other planes"""


@kernel
def _alphagozero(_, begin, end, rows, out):
    for g in range(begin, end):
        row = rows[g]
        past = columns(row, row.view(np.int64)).past
        black = row[TO_PLAY] == BLACK
        own, other = (0, 8) if black else (8, 0)
        height, width, stride = row[HEIGHT], row[WIDTH], row[STRIDE]
        for k in range(8):
            for r in range(height):
                first = (r + 1) * stride + 1
                for j in range(width):
                    bits = past[first + j] >> k
                    out[g, k, r, j] = (bits >> own) & 1
                    out[g, 8 + k, r, j] = (bits >> other) & 1
        out[g, 16] = black


def alphagozero_slab(states: NDArray[np.int16], height: int, width: int) -> NDArray[np.uint8]:
    """AlphaGo Zero's planes [games, 17, height, width]: own stones now and after each of the last seven moves, the
    opponent's likewise, and ones if Black is to move (Silver et al. 2017, Methods).
    """
    out = np.empty((len(states), ALPHAGOZERO_PLANES, height, width), np.uint8)
    parallel_for(_alphagozero, len(states), check_states(states, height, width), out)
    return out


@kernel
def _stone_planes(row, c, out, number, marks):
    """Colour, turns since and liberties; number [points with border] = liberties of each chain, at its head."""
    me, stride = row[TO_PLAY], row[STRIDE]
    mark = 0
    move = 0
    for r in range(row[HEIGHT]):
        for p in range((r + 1) * stride + 1, (r + 2) * stride):
            colour = c.colour[p]
            if colour == EMPTY:
                out[COLOUR + 2, move] = 1
            else:
                head = c.head[p]
                if number[head] == 0:
                    mark += 1
                    number[head] = chain_liberties(c, stride, p, marks, mark)
                out[COLOUR + (colour != me), move] = 1
                out[TURNS + 7, move] = 1
                out[LIBERTIES + min(number[head], 8) - 1, move] = 1
            move += 1
    for age in range(7):
        p = row[RECENT + ((row[MOVES] - 1 - age) & 7)]
        if p != 0 and c.colour[p] != EMPTY:
            move = to_move(row, p)
            if out[TURNS + 7, move]:  # else the point has been played on since
                out[TURNS + 7, move] = 0
                out[TURNS + age, move] = 1
    return mark


@kernel
def _move_planes(row, c, legal, out, marks, mark):
    """Captures, self-atari, liberties after the move, and sensibleness."""
    me, stride = row[TO_PLAY], row[STRIDE]
    move = 0
    for r in range(row[HEIGHT]):
        for p in range((r + 1) * stride + 1, (r + 2) * stride):
            if legal[move]:
                mark += 1
                taken, size, liberties = after_move(c, stride, p, me, marks, mark)
                out[CAPTURES + min(taken, 7), move] = 1
                if liberties > 0:
                    out[LIBERTIES_AFTER + min(liberties, 8) - 1, move] = 1
                if liberties == 1:
                    out[SELF_ATARI + min(size, 8) - 1, move] = 1
                out[SENSIBLE, move] = not is_true_eye(c, stride, p, me)
            move += 1


@kernel
def _ladder_planes(row, c, legal, out, number, moves, taken, boards):
    """Ladder capture: a legal move that puts a chain of two liberties into a ladder. Ladder escape: one that saves an
    own chain from atari, and from the ladder after it.
    """
    me, stride, words = row[TO_PLAY], row[STRIDE], boards.view(np.int64)
    for r in range(row[HEIGHT]):
        for p in range((r + 1) * stride + 1, (r + 2) * stride):
            if c.colour[p] == EMPTY or c.head[p] != p:
                continue
            own = c.colour[p] == me
            count = 0
            if own and number[p] == 1:
                count = ladders.saving_moves(c, stride, p, moves)
            elif not own and number[p] == 2:
                count, moves[0], moves[1] = ladders.few_liberties(c, stride, p)
            plane = LADDER_ESCAPE if own else LADDER_CAPTURE
            for i in range(count):
                move = to_move(row, moves[i])
                if legal[move] and not out[plane, move] and not is_suicide(c, stride, moves[i], me):
                    out[plane, move] = ladders.works(row, moves[i], p, boards, words, taken)


@kernel
def _alphago(slot, begin, end, rows, out, legal, work, boards):
    number, marks, moves, taken = work[slot, 0], work[slot, 1], work[slot, 2], work[slot, 3]
    for g in range(begin, end):
        row, words = rows[g], rows[g].view(np.int64)
        c = columns(row, words)
        number[:] = 0
        marks[:] = 0
        legal_moves(row, words, legal[slot])
        out[g, ONES] = 1
        out[g, BLACK_TO_MOVE:] = row[TO_PLAY] == BLACK
        mark = _stone_planes(row, c, out[g], number, marks)
        _move_planes(row, c, legal[slot], out[g], marks, mark)
        _ladder_planes(row, c, legal[slot], out[g], number, moves, taken, boards[slot])


def alphago_slab(states: NDArray[np.int16], height: int, width: int, colour_plane: bool = False) -> NDArray[np.uint8]:
    """AlphaGo's planes [games, 48, height, width] (Silver et al. 2016, Extended Data Table 2).

    They are relative to the side to move: colour (own, opponent, empty), ones, and, one-hot in eight planes each, turns
    since (0 for the latest stone .. 7 and more), liberties (1 .. 8 and more), captures of a move (0 .. 7 and more),
    self-atari (own stones in it, 1 .. 8 and more), liberties after a move (1 .. 8 and more); then ladder capture,
    ladder escape, sensibleness (legal, and no own true eye filled) and zeros. The planes of moves are empty where a
    move is illegal. A slab's states must be whole games (`game_size`): legality asks for superko.

    colour_plane: add a 49th of ones if Black is to move, as the value network has it.
    """
    planes = ALPHAGO_PLANES + colour_plane
    out = np.zeros((len(states), planes, height * width), np.uint8)
    work = scratch(area_of(height, width))
    legal = np.empty((len(work), height * width + 1), np.bool_)
    boards = np.empty((len(work), ladders.BOARDS, state_size_of(height, width)), np.int16)
    parallel_for(_alphago, len(states), check_states(states, height, width), out, legal, work, boards, least=16)
    return out.reshape(len(states), planes, height, width)


# the eight symmetries of a square board

INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
"""Symmetry INVERSE[k] takes back what symmetry k did."""


@cache
def symmetries(size: int) -> NDArray[np.int64]:
    """Where each point, and the pass, comes from: x[..., symmetries(size)[k]] is x [..., size * size + 1] transformed.

    Symmetry k turns the board anticlockwise k % 4 times, from 4 on after a left-right reflection. A stone on a move
    goes to symmetries(size)[INVERSE[k], move]. Indices, int64 [8, size * size + 1], read-only: they serve for tensors
    as well, and for another symmetry in each row of a batch.
    """
    points = np.arange(size * size).reshape(size, size)
    boards = [np.rot90(board, k) for board in (points, points[:, ::-1]) for k in range(4)]
    table = np.stack([np.append(board, size * size) for board in boards])
    table.setflags(write=False)
    return table
