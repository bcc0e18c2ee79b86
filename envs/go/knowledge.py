"""What the rules imply about a position: whose points, whose eyes, and what a move would leave.

Ladders are in `envs/go/ladders.py`.
"""

from envs.go.board import HEIGHT, STRIDE, WIDTH, columns
from envs.go.chains import BLACK, BORDER, EMPTY, WHITE, in_atari, neighbour
from rlkit.compiled import kernel


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
