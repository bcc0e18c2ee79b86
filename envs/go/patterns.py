"""Local patterns: the features of AlphaGo's rollout policy (Silver et al. 2016, Extended Data Table 4) on small boards.

A candidate is a move that the light play-outs allow: no suicide, no own eye filled, no simple ko. It has up to six
features, each a number below NUM_FEATURES:

    3x3         what surrounds it: the colours of eight neighbours, and 1, 2 or more liberties of the four straight ones
    diamond     what surrounds the previous move, up to two steps away, and where in this diamond the candidate lies
    response    it lies in the diamond
    neighbour   it lies beside the previous move, straight or diagonally
    save atari  it saves a chain that the previous move stands beside: by two liberties, or by taking a chain beside it
    nakade      it is the vital point of what the previous move took: a three, a pyramid four, a bulky or crossed five,
                or a rabbity six

They do not change with the eight symmetries of the board, nor where both colours and the side to move are exchanged.

What surrounds a point is one number, a code, as Black sees it. Its fields lie clockwise, so that it is easily turned:

    bits 0-11   N E S W          3 bits each: 0 empty, 1-3 Black with so many liberties, 4 border, 5-7 White     N2
    bits 12-19  NE SE SW NW      2 bits each: colour                                                          NW N NE
    bits 20-27  N2 E2 S2 W2      2 bits each: colour (20 and up: in diamonds only)                         W2 W  .  E E2
    bits 28-29  the centre       liberties of its stone, 1-3                                                  SW S SE
                                                                                                                 S2
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.go.board import HEIGHT, KO, MOVES, RECENT, STRIDE, TO_PLAY, WIDTH, area_of, check_states, columns, to_move
from envs.go.chains import BLACK, BORDER, EMPTY, WHITE, add_once, few_liberties, in_atari, liberty, only_liberty
from rlkit.compiled import kernel, parallel_for, scratch

PADDING, RESPONSE, NEIGHBOUR, SAVE_ATARI, NAKADE = 0, 1, 2, 4, 5
"""2 and 3 are straight and diagonal neighbours; 5 to 9 are the five shapes"""
SURROUNDING = 15  # + 1 .. NUM_SURROUNDINGS: all 3x3 codes, up to symmetry
NUM_SURROUNDINGS = 27_210
DIAMOND = SURROUNDING + NUM_SURROUNDINGS + 1  # + bucket: there are too many to list
BUCKET_BITS = 16
NUM_FEATURES = DIAMOND + (1 << BUCKET_BITS)
SLOTS = 6
"""features of a candidate, in the order above; PADDING where it lacks one"""

# places of the diamond: N E S W, NE SE SW NW, N2 E2 S2 W2
DOWN = np.array([-1, 0, 1, 0, -1, 1, 1, -1, -2, 0, 2, 0])
RIGHT = np.array([0, 1, 0, -1, 1, 1, -1, -1, 0, 2, 0, -2])

# Notes beside a board, [rows, points with border + SPARE]: one array, as several cost more to hand to functions.
CODE = 0  # of an empty point
LEVEL = 1  # of a chain, at its head: 1, 2, or 3 liberties or more
SAVED = 2  # a list of points
SPARE = 16


class Surroundings(NamedTuple):
    """What is known beforehand of every 3x3 code."""

    kinds: NDArray[np.uint16]
    """[2 ** 20] 1 .. NUM_SURROUNDINGS, the same for the eight symmetries; 0: no such code"""
    sensible: NDArray[np.bool_]
    """[NUM_SURROUNDINGS + 1] whether Black may play there: no suicide, no own eye filled"""
    swapped: NDArray[np.uint16]
    """[NUM_SURROUNDINGS + 1] White's view"""


class Features(NamedTuple):
    """What the moves of positions look like."""

    ids: NDArray[np.int32]  # [games, points + 1, SLOTS]
    candidates: NDArray[np.bool_]  # [games, points + 1]


# codes


@kernel
def turn(code):
    """A code of 30 bits turned by a quarter: what lay north lies east."""
    straight = ((code << 3) & 0xFF8) | ((code >> 9) & 7)
    return straight | ((code & 0x3F3F000) << 2) | ((code >> 6) & 0x303000) | (code & 0x30000000)


@kernel
def flip(code):
    """A code of 30 bits with east and west exchanged."""
    straight = (code & 0x1C7) | ((code & 0x38) << 6) | ((code >> 6) & 0x38)
    diagonal = ((code & 0x3000) << 6) | ((code >> 6) & 0x3000) | ((code & 0xC000) << 2) | ((code >> 2) & 0xC000)
    far = ((code & 0xC00000) << 4) | ((code >> 4) & 0xC00000)
    return straight | diagonal | far | (code & 0x33300000)


@kernel
def swap(code):
    """A code of 30 bits with the colours exchanged."""
    code ^= ((code | (code >> 1)) & 0x249) << 2
    return code ^ ((code ^ (code >> 1)) & 0x5555000) * 3


def _eight(value, turned, flipped):
    """A value under the eight symmetries."""
    values = [value]
    for i in range(1, 8):
        values.append(flipped(value) if i == 4 else turned(values[-1]))
    return values


def _places() -> NDArray[np.int8]:
    """[256, 12] where a place of the diamond goes: the first of those that a set of symmetries (bits) takes it to."""
    i = np.arange(12)
    flipped = np.where(i // 4 == 1, 11 - i, i & 12 | -i & 3)
    images = _eight(i, lambda place: place & 12 | (place + 1) & 3, lambda place: flipped[place])
    chosen = [[images[s] for s in range(8) if bits >> s & 1] for bits in range(256)]
    return np.array([np.min(images, 0) if images else i for images in chosen], np.int8)


PLACES = _places()


@cache
def surroundings() -> Surroundings:
    """The tables of all 3x3 codes; they take a tenth of a second, once."""
    code = np.arange(1 << 20, dtype=np.int32)
    straight = np.array([code >> 3 * i & 7 for i in range(4)])
    diagonal = np.array([code >> 12 + 2 * i & 3 for i in range(4)])
    border = straight == 4
    exists = ((diagonal == BORDER) == (border | np.roll(border, -1, 0))).all(0)
    least = np.min(_eight(code, turn.py_func, flip.py_func), 0)
    first = np.flatnonzero(exists & (least == code))
    kinds = np.zeros(1 << 20, np.uint16)
    kinds[first] = np.arange(1, NUM_SURROUNDINGS + 1)
    kinds[exists] = kinds[least[exists]]

    s, d = straight[:, first], diagonal[:, first]
    breathes = (s == 0) | (s == 2) | (s == 3) | (s == 5)  # an empty point, an own chain, a chain that it takes
    is_eye = ((s >= 1) & (s <= 4)).all(0) & ((d == WHITE).sum(0) + (d == BORDER).any(0) < 2)
    sensible = np.append(False, breathes.any(0) & ~is_eye)
    return Surroundings(kinds, sensible, np.append(np.uint16(0), kinds[swap.py_func(first)]))


@kernel
def place_at(stride, p, i):
    """The point at place i of the diamond around p, if the board has one."""
    return p + DOWN[i] * stride + RIGHT[i]


@kernel
def near(c, stride, p, i):
    """The point at place i of the diamond around p; 0 where it lies two steps away, behind the border."""
    return 0 if i >= 8 and c.colour[place_at(stride, p, i - 8)] == BORDER else place_at(stride, p, i)


@kernel
def liberty_level(c, stride, q):
    """Liberties of the chain of the stone q: 1, 2, or 3 for more."""
    word = c.liberties[c.head[q]]
    if in_atari(word):
        return 1
    if (word & 0x7FF) > 8:  # each liberty has four neighbours
        return 3
    return few_liberties(c, stride, q)[0]


@kernel
def _straight(c, n, q):
    """The field of a straight neighbour q."""
    colour = c.colour[q]
    if colour == EMPTY:
        return 0
    if colour == BORDER:
        return 4
    return n[LEVEL, c.head[q]] + 4 * (colour == WHITE)


@kernel
def code_at(c, n, stride, p):
    """The 3x3 code around p, by the levels in the notes."""
    code = 0
    for i in range(4):
        code |= _straight(c, n, place_at(stride, p, i)) << 3 * i
        code |= np.int64(c.colour[place_at(stride, p, i + 4)]) << (12 + 2 * i)
    return code


@kernel
def diamond_at(c, n, stride, p, me):
    """(the diamond around the stone p in its least form, as `me` sees it; the symmetries that give it, as bits)."""
    code = code_at(c, n, stride, p) | n[LEVEL, c.head[p]] << 28
    for i in range(4):
        q = near(c, stride, p, i + 8)
        code |= (BORDER if q == 0 else np.int64(c.colour[q])) << (20 + 2 * i)
    if me == WHITE:
        code = swap(code)
    least, bits, start = code, 1, code
    for i in range(1, 8):
        code = flip(start) if i == 4 else turn(code)
        if code < least:
            least, bits = code, 0
        bits |= (code == least) << i
    return least, bits


@kernel
def bucket_of(diamond, place):
    """Multiplicative hashing.

    In 5,046 human games 117,529 kinds of (diamond, place) occur, 13,970 of them ten times or more; 8 % of the
    occurrences fall into a bucket where another kind is more frequent. A table of all kinds predicts no better.
    """
    return (((diamond * 12 + place) * -7046029254386353131) >> (64 - BUCKET_BITS)) & ((1 << BUCKET_BITS) - 1)


# the other features


@kernel
def previous(row, c):
    """The point of the opponent's stone that was just played; 0 after a pass or a set-up."""
    p = np.int64(row[RECENT + ((row[MOVES] + 7) & 7)])
    return p if c.colour[p] == 3 - row[TO_PLAY] else 0


@kernel
def just_taken(row, c, taken):
    """List the stones of the side to move that the previous move took; returns how many."""
    bit = 1 if row[TO_PLAY] == BLACK else 9
    count = 0
    for p in range(len(c.past)):
        taken[count] = p
        count += c.colour[p] == EMPTY and (c.past[p] >> bit) & 1 != 0
    return count


@kernel
def nakade(c, stride, taken, count):
    """(the vital point of the hole that a capture has left, its feature), or (0, PADDING)."""
    if count < 3 or count > 6:
        return 0, PADDING
    vital, most, total = 0, 0, 0
    for i in range(count):
        p = taken[i]
        holes = 0
        for j in range(4):
            holes += c.colour[place_at(stride, p, j)] == EMPTY
        total += holes
        if holes > most:
            vital, most = np.int64(p), holes
    links = total // 2  # count - 1 in a tree; one more for a square of four
    if count == 3 and most == 2:
        return vital, NAKADE
    if count == 4 and most == 3:
        return vital, NAKADE + 1
    if count == 5 and most == 3 and links == 5:
        return vital, NAKADE + 2
    if count == 5 and most == 4:
        return vital, NAKADE + 3
    if count == 6 and most == 4 and links == 6:
        return vital, NAKADE + 4
    return 0, PADDING


@kernel
def _extends(c, stride, p, me):
    """Whether a stone on the empty point p has two liberties or more; of what it takes, only its neighbours count."""
    word = 0
    for i in range(4):
        q = place_at(stride, p, i)
        colour, head = c.colour[q], c.head[q]
        if colour == EMPTY:
            word += liberty(q)
        elif colour == me:
            again = False
            for j in range(i):
                r = place_at(stride, p, j)
                again |= c.colour[r] == me and c.head[r] == head
            word += (0 if again else c.liberties[head]) - liberty(p)
        elif colour != BORDER and in_atari(c.liberties[head]):
            word += liberty(q)
    return not in_atari(word)


@kernel
def rescues(c, stride, last, me, points):
    """List the moves that save a chain which the opponent's stone on `last` stands beside; returns how many."""
    count = 0
    for i in range(4):
        q = place_at(stride, last, i)
        if c.colour[q] == me and in_atari(c.liberties[c.head[q]]):
            p = only_liberty(c.liberties[c.head[q]])
            if _extends(c, stride, p, me):
                count = add_once(points, count, p)
            stone = q
            while True:
                for j in range(4):
                    r = place_at(stride, stone, j)
                    if c.colour[r] == 3 - me and in_atari(c.liberties[c.head[r]]):
                        count = add_once(points, count, only_liberty(c.liberties[c.head[r]]))
                stone = c.link[stone]
                if stone == q:
                    break
    return count


# the slab of features


@kernel
def survey(c, n, row):
    """Write levels and codes of a whole board into the notes."""
    height, width, stride = row[HEIGHT], row[WIDTH], np.int64(row[STRIDE])
    for r in range(height):
        for p in range((r + 1) * stride + 1, (r + 1) * stride + 1 + width):
            if c.colour[p] != EMPTY and c.head[p] == p:
                n[LEVEL, p] = liberty_level(c, stride, p)
    for r in range(height):
        for p in range((r + 1) * stride + 1, (r + 1) * stride + 1 + width):
            if c.colour[p] == EMPTY:
                n[CODE, p] = code_at(c, n, stride, p)


@kernel
def _features(slot, begin, end, rows, known, notes, work, found):
    for g in range(begin, end):
        row, out, mask = rows[g], found.ids[g], found.candidates[g]
        c = columns(row, row.view(np.int64))
        n = notes[slot]
        me, stride, width = row[TO_PLAY], np.int64(row[STRIDE]), row[WIDTH]
        survey(c, n, row)
        vital, shape = nakade(c, stride, work[slot, 0], just_taken(row, c, work[slot, 0]))
        out[:] = PADDING
        mask[:] = False
        for move in range(row[HEIGHT] * width):
            p = move + stride + 1 + move // width
            if c.colour[p] == EMPTY and p != row[KO]:
                kind = known.kinds[n[CODE, p] if me == BLACK else swap(n[CODE, p])]
                if known.sensible[kind]:
                    mask[move] = True
                    out[move, 0] = SURROUNDING + kind
                    if p == vital:
                        out[move, 5] = shape
        last = previous(row, c)
        if last != 0:
            diamond, bits = diamond_at(c, n, stride, last, me)
            for i in range(12):
                q = near(c, stride, last, i)
                move = to_move(row, q)
                if c.colour[q] == EMPTY and mask[move]:
                    out[move, 1] = DIAMOND + bucket_of(diamond, PLACES[bits, i])
                    out[move, 2] = RESPONSE
                    out[move, 3] = NEIGHBOUR + i // 4 if i < 8 else PADDING
            for i in range(rescues(c, stride, last, me, n[SAVED])):
                move = to_move(row, n[SAVED, i])
                if mask[move]:
                    out[move, 4] = SAVE_ATARI


def features(states: NDArray[np.int16]) -> Features:
    """What the moves of positions look like.

    Args:
        states: [games, size], rows of one board size, at least one. The last action, the pass, is never a candidate;
        what is none has PADDING in all its slots. Whether a game is over is not asked.
    """
    games, height, width = len(states), int(states[0, HEIGHT]), int(states[0, WIDTH])
    shape = games, height * width + 1
    found = Features(np.empty((*shape, SLOTS), np.int32), np.empty(shape, np.bool_))
    work = scratch(area_of(height, width))
    notes = np.empty((len(work), SAVED + 1, work.shape[2] + SPARE), np.int64)
    parallel_for(_features, games, check_states(states, height, width), surroundings(), notes, work, found, least=64)
    return found
