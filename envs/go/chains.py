"""Chains of stones and their liberties, kept from move to move.

A chain is a circular list of stones (`link`) with a name (`head`, one of its stones), a size and its liberties. These
are not kept as a set but as pseudo-liberties: a chain's word sums (1, point, point^2) over every pair of a stone and an
empty neighbour, packed into one integer. One addition puts a liberty in, one takes it out, one joins two chains; no
liberty is left exactly when the word is 0, and just one (however often it is counted) exactly when count * squares ==
sum^2.

Points lie in a frame of border points, so that no neighbour needs a check. The four neighbours are written out where
speed counts.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlkit.compiled import kernel

EMPTY, BLACK, WHITE, BORDER = 0, 1, 2, 3
NEVER, VACATED = 0, 1  # `head` of an empty point: whether a stone was once taken from it


class Columns(NamedTuple):
    """Views into a row, each [points with border]."""

    colour: NDArray[np.uint16]
    head: NDArray[np.uint16]
    """name of a stone's chain; of an empty point NEVER or VACATED"""
    link: NDArray[np.uint16]
    """the next stone of the chain"""
    size: NDArray[np.uint16]
    """stones of the chain, at its head"""
    past: NDArray[np.uint16]
    """bit k: a black stone was here k moves ago; bit 8 + k: a white one"""
    liberties: NDArray[np.int64]
    """the chain's word, at its head"""


@kernel
def neighbour(stride, p, i):
    """Point p's neighbour i: up, left, right, down."""
    return p - stride if i == 0 else p - 1 if i == 1 else p + 1 if i == 2 else p + stride


@kernel
def liberty(point):
    """What one liberty adds to a chain's word: 11 bits count, 20 bits sum, 28 bits sum of squares."""
    return 1 + (point << 11) + (point * point << 31)


@kernel
def in_atari(word):
    """Whether a chain with this word has exactly one liberty (by Cauchy-Schwarz; 0 for no liberty gives True)."""
    count = word & 0x7FF
    total = (word >> 11) & 0xFFFFF
    return count * (word >> 31) == total * total


@kernel
def only_liberty(word):
    """The liberty of a chain that has just one."""
    return ((word >> 11) & 0xFFFFF) // (word & 0x7FF)


@kernel
def few_liberties(c, stride, stone):
    """(number, one, another): the liberties of a stone's chain, if they are one or two; a number of 3 means more."""
    one = another = 0
    p = stone
    while True:
        for i in range(4):
            q = neighbour(stride, p, i)
            if c.colour[q] == EMPTY and q != one and q != another:
                if one == 0:
                    one = q
                elif another == 0:
                    another = q
                else:
                    return 3, one, another
        p = c.link[p]
        if p == stone:
            return (one != 0) + (another != 0), one, another


@kernel
def add_once(points, count, p):
    """Append p to points [:count] unless it is in there; returns how many there are now."""
    for i in range(count):
        if points[i] == p:
            return count
    points[count] = p
    return count + 1


@kernel
def _approach(c, q, me, word):
    """A stone of `me` takes a liberty from its neighbour q; returns the liberty that it finds there itself."""
    colour = c.colour[q]
    if colour == EMPTY:
        return liberty(q)
    if colour != BORDER:
        c.liberties[c.head[q]] -= word
    return 0


@kernel
def _give(c, q, them, word):
    """A stone beside q was taken off: q's chain has a liberty more, unless it is going as well."""
    colour = c.colour[q]
    if colour != EMPTY and colour != BORDER and colour != them:
        c.liberties[c.head[q]] += word


@kernel
def _remove(c, stride, q, taken, count):
    """Take the chain of q off the board and append its stones to `taken`; returns how many are in it now."""
    them = c.colour[q]
    stone = q
    while True:
        after = c.link[stone]
        c.colour[stone] = EMPTY
        c.head[stone] = VACATED
        word = liberty(stone)
        _give(c, stone - stride, them, word)
        _give(c, stone - 1, them, word)
        _give(c, stone + 1, them, word)
        _give(c, stone + stride, them, word)
        taken[count] = stone
        count += 1
        if after == q:
            return count
        stone = after


@kernel
def _take(c, stride, q, them, taken, count):
    if c.colour[q] == them and c.liberties[c.head[q]] == 0:
        return _remove(c, stride, q, taken, count)
    return count


@kernel
def _join(c, p, q, me):
    """Join the chains of p and q where they are two of the same colour; the larger keeps its name."""
    if c.colour[q] != me:
        return
    large = c.head[p]
    small = c.head[q]
    if large == small:
        return
    if c.size[large] < c.size[small]:
        large, small = small, large
    c.size[large] += c.size[small]
    c.liberties[large] += c.liberties[small]
    stone = small
    while True:
        c.head[stone] = large
        stone = c.link[stone]
        if stone == small:
            break
    c.link[large], c.link[small] = c.link[small], c.link[large]


@kernel
def place(c, stride, p, me, taken):
    """Put a stone of `me` on the empty point p and take off what has no liberty: chains, liberties and nothing else.

    The stones taken off are listed in `taken`. Returns how many: of the opponent, or, negative, of its own (suicide).
    """
    them = 3 - me
    word = liberty(p)
    c.colour[p] = me
    c.head[p] = p
    c.link[p] = p
    c.size[p] = 1
    own = _approach(c, p - stride, me, word)
    own += _approach(c, p - 1, me, word)
    own += _approach(c, p + 1, me, word)
    own += _approach(c, p + stride, me, word)
    c.liberties[p] = own
    count = _take(c, stride, p - stride, them, taken, 0)
    count = _take(c, stride, p - 1, them, taken, count)
    count = _take(c, stride, p + 1, them, taken, count)
    count = _take(c, stride, p + stride, them, taken, count)
    _join(c, p, p - stride, me)
    _join(c, p, p - 1, me)
    _join(c, p, p + 1, me)
    _join(c, p, p + stride, me)
    if c.liberties[c.head[p]] == 0:
        return -_remove(c, stride, p, taken, 0)
    return count


@kernel
def ko_after(c, p, count, taken):
    """The point that simple ko forbids after a stone on p has taken `count` stones; 0 for none.

    It is the one stone taken, if the taker stands alone and has no other liberty.
    """
    if count == 1 and c.size[c.head[p]] == 1 and (c.liberties[p] & 0x7FF) == 1:
        return np.int64(taken[0])
    return 0


@kernel
def _breathes(c, q, me):
    """Whether a stone of `me` beside q would live by it: an empty point, an own chain, or a chain it takes."""
    colour = c.colour[q]
    if colour == EMPTY:
        return True
    if colour == BORDER:
        return False
    return (colour == me) != in_atari(c.liberties[c.head[q]])


@kernel
def is_suicide(c, stride, p, me):
    """Whether a stone on the empty point p would be left without a liberty."""
    return not (
        _breathes(c, p - stride, me)
        or _breathes(c, p - 1, me)
        or _breathes(c, p + 1, me)
        or _breathes(c, p + stride, me)
    )
