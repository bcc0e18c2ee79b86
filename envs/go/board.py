"""The rules of Go on rows of integers: one game is one row, and these functions work on one row each.

A row of int16 holds a header, then one number a point for each of the columns below; the points lie in a frame of
border points, so that no neighbour needs a check (stride = width + 1, one border column serves both sides):

    #####        point = (row + 1) * stride + column + 1
    #. . .       up, left, right, down = point - stride, point - 1, point + 1, point + stride
    #. . .       0 is never a point of the board: it stands for a pass
    ####
    #

The columns (`envs/go/chains.py`) keep the chains, their liberties, and what stood on each point before the last moves.

After the columns a game's row has room for the hashes of its positions, which superko asks for. A search keeps only
the first `state_size` numbers of a row in a node: the hashes lie in the game and along the path.
"""

import numpy as np
from numpy.typing import NDArray

from envs.go.chains import BLACK, BORDER, EMPTY, NEVER, WHITE, Columns, in_atari, is_suicide, ko_after, neighbour, place
from rlkit.compiled import kernel

SIMPLE, POSITIONAL, SITUATIONAL = 0, 1, 2

# the header's words
HEIGHT, WIDTH, STRIDE, TO_PLAY, PASSES, MOVES, MAX_MOVES, KO, SUPERKO, SUICIDE = range(10)
TAKEN = 9  # TAKEN + colour: stones that the colour has captured
STORED = 12  # hashes in the row
REMOVED = 13  # a stone was once taken off this board
STATE_SIZE = 14
RECENT = 16  # the points of the last eight moves, at move number % 8; 0 for a pass
KOMI = 6  # of the words of 8 bytes
HASH = 7
HEADER = 32
COLUMNS = 9  # colour, head, link, size, past, and four for the liberties

KEYS = np.random.default_rng(2016).integers(-(1 << 63), (1 << 63) - 1, (3, 424), np.int64)
"""Zobrist keys [colour, point]: a position's hash is the exclusive or of its stones' keys"""
WHITE_TO_PLAY = int(KEYS[0, 0])


def area_of(height: int, width: int) -> int:
    """Points with their border, rounded up to whole words of 8 bytes."""
    return ((height + 2) * (width + 1) + 1 + 3) // 4 * 4


def state_size_of(height: int, width: int) -> int:
    """Numbers (int16) in a row without hashes."""
    return HEADER + COLUMNS * area_of(height, width)


def check_states(states: NDArray[np.int16], height: int, width: int) -> NDArray[np.int16]:
    """These states [games, ...]. Raises ValueError unless they are of boards of this size.

    Compiled code checks nothing: on a foreign slab it would write beside it.
    """
    size = state_size_of(height, width)
    if states.ndim != 2 or states.dtype != np.int16 or states.shape[1] < size:
        found = f"{states.dtype} {states.shape}"
        raise ValueError(f"states of {height} x {width} are int16 [games, {size} or more], not {found}")
    both = height | width << 16  # HEIGHT and WIDTH in one read a row: each is a cache miss
    if (states.view(np.int64).view(np.int32)[:, 0] != both).any():
        raise ValueError(f"these are not all states of boards of {height} x {width}")
    return states


@kernel
def copy(target, source, count):
    """The first `count` numbers; a slice's assignment would allocate, for fear of an overlap."""
    for i in range(count):
        target[i] = source[i]


@kernel
def columns(row, words):
    """The columns of a row; words is the same memory as int64.

    Unsigned, because an index that cannot be negative costs no check for Python's counting from the end (10 %).
    """
    points = row.view(np.uint16)
    area = (row[STATE_SIZE] - HEADER) // COLUMNS
    a = HEADER
    return Columns(
        points[a : a + area],
        points[a + area : a + 2 * area],
        points[a + 2 * area : a + 3 * area],
        points[a + 3 * area : a + 4 * area],
        points[a + 4 * area : a + 5 * area],
        words[(a + 5 * area) // 4 : (a + 9 * area) // 4],
    )


@kernel
def to_point(row, move):
    """The point of a move = row * width + column; 0 for the pass."""
    width = row[WIDTH]
    if move >= row[HEIGHT] * width:
        return 0
    return move + row[STRIDE] + 1 + move // width


@kernel
def to_move(row, point):
    """The move of a point; the number of points for a pass (0)."""
    if point == 0:
        return row[HEIGHT] * row[WIDTH]
    stride = row[STRIDE]
    return (point // stride - 1) * row[WIDTH] + point % stride - 1


@kernel
def _without_chain(c, q, key):
    """key without the stones of q's chain."""
    colour = c.colour[q]
    stone = q
    while True:
        key ^= KEYS[colour, stone]
        stone = c.link[stone]
        if stone == q:
            return key


@kernel
def hash_after(c, stride, key, p, me, suicide):
    """Hash of the position after a stone of `me` on p, where `key` is the one before."""
    gone = me if suicide else 3 - me
    if not suicide:
        key ^= KEYS[me, p]
    h0 = h1 = h2 = 0  # the chains taken off so far: one may touch p on several sides
    for i in range(4):
        q = neighbour(stride, p, i)
        if c.colour[q] == gone:
            head = c.head[q]
            if in_atari(c.liberties[head]) and head != h0 and head != h1 and head != h2:
                key = _without_chain(c, q, key)
                h0, h1, h2 = head, h0, h1
    return key


@kernel
def seen(row, words, key):
    """Whether the game has had this hash."""
    first = row[STATE_SIZE] // 4
    found = False
    for i in range(first, min(first + row[STORED], len(words))):  # no early end: a few vector instructions
        found |= words[i] == key
    return found


@kernel
def is_legal_point(row, words, c, p, me):
    """Whether `me` may put a stone on point p of a game that is not over."""
    if c.colour[p] != EMPTY:
        return False
    stride = row[STRIDE]
    suicide = is_suicide(c, stride, p, me)
    if suicide and not row[SUICIDE]:
        return False
    if row[SUPERKO] == SIMPLE:
        return p != row[KO] or me != row[TO_PLAY]  # the taker itself may fill the ko
    # The position after it has a stone on p. If the game had that position, the stone was there then and is not
    # there now: only points that a stone was once taken from need a look at the past. (A suicide leaves no stone.)
    if c.head[p] == NEVER and not suicide:
        return True
    key = hash_after(c, stride, words[HASH], p, me, suicide)
    if row[SUPERKO] == SITUATIONAL and me == BLACK:
        key ^= WHITE_TO_PLAY
    return not seen(row, words, key)


@kernel
def is_over(row):
    return row[PASSES] >= 2 or (row[MAX_MOVES] > 0 and row[MOVES] >= row[MAX_MOVES])


@kernel
def legal_moves(row, words, out):
    """out [points + 1] = which moves are legal; none where the game is over."""
    if is_over(row):
        out[:] = False
        return
    c = columns(row, words)
    me = row[TO_PLAY]
    height, width, stride = row[HEIGHT], row[WIDTH], row[STRIDE]
    ko = row[KO]
    plain = not row[SUICIDE] and (row[SUPERKO] == SIMPLE or not row[REMOVED])
    move = 0
    for r in range(height):
        p = (r + 1) * stride + 1
        for _ in range(width):
            if c.colour[p] != EMPTY:
                out[move] = False
            elif plain or (c.head[p] == NEVER and not row[SUICIDE]):
                out[move] = p != ko and not is_suicide(c, stride, p, me)
            else:
                out[move] = is_legal_point(row, words, c, p, me)
            p += 1
            move += 1
    out[move] = True


@kernel
def remember(row, words, key, to_play):
    """Add a position (and, for situational superko, the side to move) to the row's hashes, if it has room."""
    at = row[STATE_SIZE] // 4 + row[STORED]
    if row[SUPERKO] != SIMPLE and at < len(words):
        if row[SUPERKO] == SITUATIONAL and to_play == WHITE:
            key ^= WHITE_TO_PLAY
        words[at] = key
        row[STORED] += 1


@kernel
def play_point(row, words, p, taken):
    """Play a legal stone on point p, or pass (0), for the side to move."""
    c = columns(row, words)
    me = row[TO_PLAY]
    row[KO] = 0
    row[TO_PLAY] = 3 - me
    row[RECENT + (row[MOVES] & 7)] = p
    row[MOVES] += 1
    if p == 0:
        row[PASSES] += 1
        if row[SUPERKO] == SITUATIONAL:
            remember(row, words, words[HASH], 3 - me)
    else:
        row[PASSES] = 0
        count = place(c, row[STRIDE], p, me, taken)
        key = words[HASH] ^ KEYS[me, p]
        if count != 0:
            row[REMOVED] = 1
            gone = 3 - me if count > 0 else me
            for i in range(abs(count)):
                key ^= KEYS[gone, taken[i]]
            row[TAKEN + 3 - gone] += abs(count)
            row[KO] = ko_after(c, p, count, taken)
        words[HASH] = key
        remember(row, words, key, 3 - me)
    for i in range(len(c.past)):  # one vector instruction for 16 or 32 points
        colour = c.colour[i]
        c.past[i] = ((c.past[i] << 1) & 0xFEFE) | (colour == BLACK) | ((colour == WHITE) << 8)


@kernel
def reset(row, words, height, width, komi, superko, suicide, max_moves, state_size):
    """An empty board, Black to move."""
    row[:state_size] = 0
    row[HEIGHT], row[WIDTH], row[STRIDE] = height, width, width + 1
    row[TO_PLAY] = BLACK
    row[SUPERKO], row[SUICIDE], row[MAX_MOVES] = superko, suicide, max_moves
    row[STATE_SIZE] = state_size
    words[KOMI : KOMI + 1].view(np.float64)[0] = komi
    c = columns(row, words)
    c.colour[:] = BORDER
    for r in range(height):
        p = (r + 1) * (width + 1) + 1
        c.colour[p : p + width] = EMPTY
    remember(row, words, 0, BLACK)


@kernel
def komi_of(words):
    return words[KOMI : KOMI + 1].view(np.float64)[0]


@kernel
def set_up(row, words, colours, taken):
    """Put the stones of colours [height * width] on an empty board; returns whether each has a liberty."""
    c = columns(row, words)
    for move in range(len(colours)):
        if colours[move] != EMPTY:
            p = to_point(row, move)
            if place(c, row[STRIDE], p, colours[move], taken) != 0:
                return False
            words[HASH] ^= KEYS[colours[move], p]
    for i in range(len(c.past)):
        c.past[i] = (c.colour[i] == BLACK) | ((c.colour[i] == WHITE) << 8)
    return True


# What Python asks about one row: kernels that return views can be called from kernels only.


@kernel
def is_legal_for(row, words, p, colour):
    return is_legal_point(row, words, columns(row, words), p, colour)


@kernel
def is_suicide_for(row, words, p, colour):
    return is_suicide(columns(row, words), row[STRIDE], p, colour)
