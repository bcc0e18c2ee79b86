"""What the rules imply about a position: whose points, whose eyes and life, and what a move would leave.

Ladders are in `envs/go/ladders.py`.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from envs.go.board import HEIGHT, STRIDE, SUICIDE, WIDTH, area_of, columns
from envs.go.chains import BLACK, BORDER, EMPTY, WHITE, in_atari, neighbour
from rlkit.compiled import kernel

if TYPE_CHECKING:
    from envs.go.position import Position


@kernel
def own_points(row, words, owner, stack):
    """owner [points with border] = BLACK, WHITE or EMPTY (neither's), by area; returns Black minus White."""
    c = columns(row, words)
    height, width, stride = row[HEIGHT], row[WIDTH], row[STRIDE]
    score = 0
    owner[:] = BORDER
    for r in range(height):
        for p in range((r + 1) * stride + 1, (r + 1) * stride + 1 + width):
            if c.colour[p] != EMPTY:
                owner[p] = c.colour[p]
                score += 1 if c.colour[p] == BLACK else -1
            elif owner[p] == BORDER:
                owner[p] = EMPTY
                stack[0] = p
                first, last, touch = 0, 1, 0  # the region is stack[:last]
                while first < last:
                    here = stack[first]
                    first += 1
                    for i in range(4):
                        q = neighbour(stride, here, i)
                        colour = c.colour[q]
                        if colour == EMPTY:
                            if owner[q] == BORDER:
                                owner[q] = EMPTY
                                stack[last] = q
                                last += 1
                        elif colour != BORDER:
                            touch |= colour
                if touch in (BLACK, WHITE):
                    for i in range(last):
                        owner[stack[i]] = touch
                    score += last if touch == BLACK else -last
    return score


@kernel
def diagonals_hold(c, stride, p, me):
    """Whether the empty point p, all of whose neighbours are own stones or border, is a true eye by its diagonals.

    The opponent may hold one of them, on the edge of the board none.
    """
    them = 3 - me
    a, b, d, e = c.colour[p - stride - 1], c.colour[p - stride + 1], c.colour[p + stride - 1], c.colour[p + stride + 1]
    bad = (a == them) + (b == them) + (d == them) + (e == them)
    edge = (a == BORDER) | (b == BORDER) | (d == BORDER) | (e == BORDER)
    return bad + edge < 2


@kernel
def is_true_eye(c, stride, p, me):
    """Whether the empty point p is an eye of `me`, and a true one."""
    for i in range(4):
        q = neighbour(stride, p, i)
        if c.colour[q] != me and c.colour[q] != BORDER:
            return False
    return diagonals_hold(c, stride, p, me)


@kernel
def _free(c, q, marks, mark):
    """Mark the point q and return 1 if it is empty, or freed by the move in question, and has no mark yet."""
    if marks[q] != mark and (c.colour[q] == EMPTY or marks[q] == -mark):
        marks[q] = mark
        return 1
    return 0


@kernel
def chain_liberties(c, stride, stone, marks, mark):
    """The number of liberties of a stone's chain that have no mark yet; they get it.

    marks: [points with border] of anything but `mark` and -`mark`, so that a new mark saves clearing them.
    """
    number = 0
    q = stone
    while True:
        number += _free(c, q - stride, marks, mark) + _free(c, q - 1, marks, mark)
        number += _free(c, q + 1, marks, mark) + _free(c, q + stride, marks, mark)
        q = c.link[q]
        if q == stone:
            return number


@kernel
def after_move(c, stride, p, me, marks, mark):
    """What a stone of `me` on the empty point p would take and leave, without playing it.

    Returns (opponent's stones taken, stones of the own chain, its liberties; 0 of them: suicide). Marks: see
    `chain_liberties`; -`mark` goes to the stones taken.
    """
    taken, size, liberties = 0, 1, 0
    them = 3 - me
    for i in range(4):
        q = neighbour(stride, p, i)
        if c.colour[q] == them and marks[q] != -mark and in_atari(c.liberties[c.head[q]]):
            taken += c.size[c.head[q]]
            stone = q
            while True:
                marks[stone] = -mark
                stone = c.link[stone]
                if stone == q:
                    break
    marks[p] = mark
    for i in range(4):
        q = neighbour(stride, p, i)
        liberties += _free(c, q, marks, mark)
        head = c.head[q]
        if c.colour[q] == me and marks[head] != mark:  # a chain that touches p on two sides counts once
            marks[head] = mark
            size += c.size[head]
            liberties += chain_liberties(c, stride, q, marks, mark)
    return taken, size, liberties


@kernel
def _touches(c, stride, p, head):
    """Whether a stone of the chain of that name is next to p."""
    up, left, right, down = p - stride, p - 1, p + 1, p + stride
    beside = c.head[up] == head or c.head[left] == head or c.head[right] == head
    return beside or c.head[down] == head


@kernel
def _find_region(c, stride, me, name, region, stack, vital, suicide):
    """Give all points of a region without stones of `me` the name of its first point, and list in vital[:, name] the
    chains that it is vital to; 0 for none.
    """
    region[name] = name
    stack[0] = name
    first, last = 0, 1
    while first < last:
        here = stack[first]
        first += 1
        for i in range(4):
            q = neighbour(stride, here, i)
            if c.colour[q] != me and c.colour[q] != BORDER and region[q] == 0:
                region[q] = name
                stack[last] = q
                last += 1
    chains = vital[:, name]
    fresh = True
    for k in range(last):
        p = stack[k]
        if suicide or c.colour[p] == EMPTY:
            for i in range(4):
                if fresh:  # only the first point's neighbours can be next to all of them
                    q = neighbour(stride, p, i)
                    head = c.head[q]
                    if c.colour[q] == me and head != chains[0] and head != chains[1] and head != chains[2]:
                        chains[i] = head
                elif not _touches(c, stride, p, chains[i]):
                    chains[i] = 0
            fresh = False


@kernel
def unconditional_life(row, words, me, alive, work):
    """alive [points with border] = 1 on chains of `me` that live though it always passes, and on their vital regions.

    Benson, Life in the game of Go (1976): a region is a connected set of points without own stones. It is vital to a
    chain if each of its empty points is a liberty of that chain; where suicide is allowed, each of its points is next
    to it, as the opponent can fill a region, and has it empty again. Chains with fewer than two vital regions go,
    regions next to a chain that went go with it, and what is left when nothing goes any more is alive.

    work: [7, points with border].
    """
    c = columns(row, words)
    stride = row[STRIDE]
    region, stack, eyes, vital = work[0], work[1], work[2], work[3:]
    region[:] = 0
    vital[:] = 0
    alive[:] = 0
    for r in range(row[HEIGHT]):
        for p in range((r + 1) * stride + 1, (r + 2) * stride):
            alive[p] = 1
            if c.colour[p] != me and region[p] == 0:
                _find_region(c, stride, me, p, region, stack, vital, row[SUICIDE])
    changed = True
    while changed:
        changed = False
        eyes[:] = 0
        for p in range(len(region)):
            if region[p] == p and alive[p] != 0:
                for i in range(4):
                    eyes[vital[i, p]] += 1
        for p in range(len(region)):
            if c.colour[p] == me and alive[p] != 0 and eyes[c.head[p]] < 2:
                alive[p] = 0
                changed = True
                for i in range(4):
                    q = neighbour(stride, p, i)
                    alive[region[q]] = 0  # point 0, of no region, takes the rest
    alive[0] = 0
    for p in range(1, len(region)):
        name = region[p]
        if name == p:
            alive[p] &= vital[0, p] + vital[1, p] + vital[2, p] + vital[3, p] != 0
        elif name != 0:
            alive[p] = alive[name]


def pass_alive(position: "Position", colour: int) -> NDArray[np.bool_]:
    """Benson's unconditional life, bool [height, width]: the chains of a colour that live even if it always passes,
    and the regions (empty points and dead stones in them) that are vital to one of those.
    """
    game, states = position.states()
    work = np.empty((8, area_of(game.height, game.width)), np.int16)
    unconditional_life(states[0], states[0].view(np.int64), colour, work[0], work[1:])
    stride = game.width + 1
    return work[0, stride : stride * (game.height + 1)].reshape(game.height, stride)[:, 1:] != 0
