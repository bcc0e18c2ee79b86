"""Play-outs that choose their moves by local patterns, AlphaGo's fast rollouts.

A move is drawn in proportion to exp(sum of the weights of its features). The 3x3 features of all empty points are kept
from move to move: a move changes the codes of the eight points around each stone that comes or goes, and of the
liberties of chains that now have another number of them (1, 2, more). The other features concern a few points around
the previous move; their factors are put on for one choice, and taken off again.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.go.board import (
    HEIGHT,
    KO,
    PASSES,
    STATE_SIZE,
    STRIDE,
    TO_PLAY,
    WIDTH,
    area_of,
    check_states,
    columns,
    copy,
    komi_of,
)
from envs.go.chains import BLACK, EMPTY, WHITE, ko_after, place
from envs.go.knowledge import own_points
from envs.go.patterns import (
    CODE,
    DIAMOND,
    LEVEL,
    NEIGHBOUR,
    NUM_FEATURES,
    PLACES,
    RESPONSE,
    SAVE_ATARI,
    SAVED,
    SPARE,
    SURROUNDING,
    bucket_of,
    code_at,
    diamond_at,
    just_taken,
    liberty_level,
    nakade,
    near,
    place_at,
    previous,
    rescues,
    surroundings,
    survey,
)
from envs.go.playouts import mix, next_state, task_of
from rlkit.compiled import kernel, parallel_for, scratch

ONE = 1 << 16  # a factor of 1: weights are integers, as their sums do not drift
MOST = 1 << 42  # so that the sum over a board stays exact as a float
CHANGED = 1 << 30  # a mark on a code

# more rows of the notes (`patterns.py`)
STACK = 3  # points whose code has changed; the last number says how many
WEIGHT = 4  # of a move of Black's; the next row: of White's; 0 where there is no candidate
BLOCK = 6  # sums of 16 weights each, likewise
SUM = 8  # those of one side while a move is chosen
UNDO = 9  # points, and in the next row their weights before the factors of one choice
ROWS = 11


class Policy(NamedTuple):
    """Weights in the form that play-outs use; made by `policy_of`."""

    kinds: NDArray[np.uint16]
    """[2 ** 20] as in `Surroundings`"""
    move: NDArray[np.int32]
    """[NUM_SURROUNDINGS + 1, 2] exp(weight) * ONE of a move of Black's and of White's there"""
    diamond: NDArray[np.float32]
    """[buckets] exp(weight)"""
    near: NDArray[np.float64]
    """[3] of a place straight, diagonal and two steps from the previous move: response and neighbour"""
    other: NDArray[np.float64]
    """[SURROUNDING + 1] exp(weight)"""


class Turn(NamedTuple):
    """What a choice goes by besides the board."""

    me: int
    last: int  # the point of the previous move; 0: a pass
    ko: int  # the point that simple ko forbids; 0: none
    captured: int  # stones that the previous move took: the first of `taken`


# Functions take the columns of a row as c and the notes as n.


@kernel
def _mark(c, n, q, shift, width, value):
    """Write a field of the code of q, if it is empty, and list it as changed."""
    if c.colour[q] == EMPTY:
        code = n[CODE, q]
        if code & CHANGED == 0:
            count = n[STACK, -1]
            n[STACK, count] = q
            n[STACK, -1] = count + 1
        n[CODE, q] = code & ~(width << shift) | value << shift | CHANGED


@kernel
def _show_stone(c, n, stride, p, value):
    """Tell the empty points beside a stone what they see of it: its north is their south."""
    for i in range(4):
        _mark(c, n, place_at(stride, p, i), 3 * ((i + 2) & 3), 7, value)


@kernel
def _show_corner(c, n, stride, p, colour):
    """The same for the empty points across its corners."""
    for i in range(4):
        _mark(c, n, place_at(stride, p, i + 4), 12 + 2 * ((i + 2) & 3), 3, colour)


@kernel
def _show_chain(c, n, stride, q, level):
    value = level + 4 * (c.colour[q] == WHITE)
    n[LEVEL, c.head[q]] = level
    stone = q
    while True:
        _show_stone(c, n, stride, stone, value)
        stone = c.link[stone]
        if stone == q:
            break


@kernel
def _look(c, n, stride, q, colour):
    """Bring the level of q's chain up to date, if q is of that colour."""
    if c.colour[q] == colour:
        level = liberty_level(c, stride, q)
        if level != n[LEVEL, c.head[q]]:
            _show_chain(c, n, stride, q, level)


@kernel
def _blocks(c):
    return (len(c.colour) + 15) // 16


@kernel
def _weigh(n, side, p, weight):
    n[BLOCK + side, p >> 4] += weight - n[WEIGHT + side, p]
    n[WEIGHT + side, p] = weight


@kernel
def refresh(n, policy):
    """Weigh the changed points anew."""
    for i in range(n[STACK, -1]):
        p = n[STACK, i]
        code = n[CODE, p] & ~CHANGED
        kind = policy.kinds[code & 0xFFFFF]
        _weigh(n, 0, p, policy.move[kind, 0])
        _weigh(n, 1, p, policy.move[kind, 1])
        n[CODE, p] = code
    n[STACK, -1] = 0


@kernel
def begin(c, n, row, policy):
    """Write the notes of a board."""
    n[:] = 0
    survey(c, n, row)
    for p in range(len(c.colour)):
        if c.colour[p] == EMPTY:
            n[STACK, n[STACK, -1]] = p
            n[STACK, -1] += 1
    refresh(n, policy)


@kernel
def play(c, n, policy, stride, p, me, taken):
    """Put a stone of `me` on p (no suicide), and keep the notes: returns how many stones were taken."""
    _weigh(n, 0, p, 0)
    _weigh(n, 1, p, 0)
    before = 0
    for i in range(4):
        q = place_at(stride, p, i)
        if c.colour[q] == me:
            before |= 1 << n[LEVEL, c.head[q]]
    count = place(c, stride, p, me, taken)
    for i in range(count):
        _show_corner(c, n, stride, np.int64(taken[i]), EMPTY)
    level = liberty_level(c, stride, p)
    if before & ~(1 << level):
        _show_chain(c, n, stride, p, level)
    else:
        n[LEVEL, c.head[p]] = level
        _show_stone(c, n, stride, p, level + 4 * (me == WHITE))
    _show_corner(c, n, stride, p, me)
    for i in range(4):
        _look(c, n, stride, place_at(stride, p, i), 3 - me)
    for i in range(count):
        for j in range(4):
            q = place_at(stride, taken[i], j)
            if c.colour[q] == me and n[LEVEL, c.head[q]] < 3:  # a chain that was freed cannot have fewer
                _look(c, n, stride, q, me)
    for i in range(count):
        q = np.int64(taken[i])
        if n[CODE, q] & CHANGED == 0:
            n[STACK, n[STACK, -1]] = q
            n[STACK, -1] += 1
        n[CODE, q] = code_at(c, n, stride, q) | CHANGED
    refresh(n, policy)
    return count


@kernel
def _times(n, side, p, factor, count):
    """Multiply a weight for this choice only; returns how many are to be undone."""
    old = n[WEIGHT + side, p]
    new = max(np.int64(min(old * factor, MOST)), old != 0)
    n[WEIGHT + side, p] = new
    n[SUM, p >> 4] += new - old
    n[UNDO, count] = p
    n[UNDO + 1, count] = old
    return count + 1


@kernel
def respond(c, n, policy, stride, turn, taken):
    """Put on the factors of one choice: ko, response, neighbour, diamond, save atari, nakade; returns how many."""
    me, last, ko, side = turn.me, turn.last, turn.ko, turn.me - 1
    for i in range(_blocks(c)):
        n[SUM, i] = n[BLOCK + side, i]
    n[SUM, ko >> 4] -= n[WEIGHT + side, ko]
    n[UNDO, 0], n[UNDO + 1, 0] = ko, n[WEIGHT + side, ko]
    n[WEIGHT + side, ko] = 0
    count = 1
    if last != 0:
        diamond, bits = diamond_at(c, n, stride, last, me)
        for i in range(12):  # without a branch: stones have no weight, and nor has point 0
            bucket = bucket_of(diamond, PLACES[bits, i])
            factor = policy.diamond[bucket] * policy.near[i >> 2]
            count = _times(n, side, near(c, stride, last, i), factor, count)
        for i in range(rescues(c, stride, last, me, n[SAVED])):
            count = _times(n, side, n[SAVED, i], policy.other[SAVE_ATARI], count)
    if turn.captured >= 3:
        vital, shape = nakade(c, stride, taken, turn.captured)
        count = _times(n, side, vital, policy.other[shape], count)
    return count


@kernel
def draw(c, n, side, random):
    """A point in proportion to the weights, or 0 where all are 0."""
    total = 0
    for i in range(_blocks(c)):
        total += n[SUM, i]
    if total == 0:
        return 0
    rest = np.int64(((random >> 24) & 0xFFFFFFFFFF) * (total * 2.0**-40))
    block = 0
    while rest >= n[SUM, block]:
        rest -= n[SUM, block]
        block += 1
    p = 16 * block
    while rest >= n[WEIGHT + side, p]:
        rest -= n[WEIGHT + side, p]
        p += 1
    return p


@kernel
def choose(c, n, policy, stride, turn, taken, random):
    """A move in proportion to exp(sum of its features' weights), or 0 where there is no candidate."""
    count = respond(c, n, policy, stride, turn, taken)
    side = turn.me - 1
    p = draw(c, n, side, random)
    while count > 0:
        count -= 1
        n[WEIGHT + side, n[UNDO, count]] = n[UNDO + 1, count]
    return p


@kernel
def playout(row, words, n, policy, random, work, cap):
    """Play the game of a row to its end, in place; returns (Black minus White without komi, moves played)."""
    c = columns(row, words)
    taken = work[0]
    stride = np.int64(row[STRIDE])
    begin(c, n, row, policy)
    last, captured = previous(row, c), just_taken(row, c, taken)
    me, ko, passes = np.int64(row[TO_PLAY]), np.int64(row[KO]), np.int64(row[PASSES])
    moves = 0
    while passes < 2 and moves < cap:
        random = next_state(random)
        p = choose(c, n, policy, stride, Turn(me, last, ko, captured), taken, random)
        last, ko, captured = p, 0, 0
        moves += 1
        if p == 0:
            passes += 1
        else:
            passes = 0
            captured = play(c, n, policy, stride, p, me, taken)
            ko = ko_after(c, p, captured, taken)
        me = 3 - me
    return own_points(row, words, work[1], work[2]), moves


class Room(NamedTuple):
    """Working memory of each thread."""

    copies: NDArray[np.int16]  # [threads, state_size]
    notes: NDArray[np.int64]  # [threads, ROWS, points with border + SPARE]
    work: NDArray[np.int16]  # [threads, 4, points with border]


@kernel
def _playouts(slot, begin, end, rows, policy, task, room):
    row, words, notes, work = room.copies[slot], room.copies[slot].view(np.int64), room.notes[slot], room.work[slot]
    for g in range(begin, end):
        komi = komi_of(rows[g].view(np.int64))
        total, moves = 0, 0
        for i in range(task.repeats):
            copy(row, rows[g], rows[g, STATE_SIZE])
            random = mix(task.seed, g * task.repeats + i)
            points, played = playout(row, words, notes, policy, random, work, task.cap)
            black = points - komi
            total += (black > 0) - (black < 0)
            moves += played
        task.value[g] = total / task.repeats if rows[g, TO_PLAY] == BLACK else -total / task.repeats
        task.length[g] = moves


def policy_of(weights: NDArray[np.floating]) -> Policy:
    """A policy from the weights [NUM_FEATURES] of a linear softmax over `patterns.features`.

    A weight beyond 10 counts as 10, one below -10 as -10, and that of PADDING not at all. Raises ValueError.
    """
    if weights.shape != (NUM_FEATURES,) or not np.isfinite(weights).all():
        raise ValueError(f"weights must be {NUM_FEATURES} finite numbers, one a feature, not of shape {weights.shape}")
    known = surroundings()
    factor = np.exp(np.clip(weights, -10, 10, dtype=np.float64))
    own = np.where(known.sensible, np.rint(ONE * factor[SURROUNDING:DIAMOND]), 0).astype(np.int32)
    near = factor[RESPONSE] * np.array([factor[NEIGHBOUR], factor[NEIGHBOUR + 1], 1])
    return Policy(
        known.kinds, np.stack([own, own[known.swapped]], 1), factor[DIAMOND:].astype(np.float32), near, factor[:16]
    )


def playouts(
    states: NDArray[np.int16], policy: Policy, seed: int, count: int = 1
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Play-outs from each state by a policy: (mean value [games] for its side to move, moves played [games]).

    Like `Go.playouts`, to which it comes down where all weights are 0: the same seed gives the same numbers on any
    number of threads, and a play-out that has not ended after three times the board's points is scored as it stands.
    """
    height, width = int(states[0, HEIGHT]), int(states[0, WIDTH])
    task, work = task_of(len(states), seed, count, 3 * height * width), scratch(area_of(height, width))
    notes = np.empty((len(work), ROWS, work.shape[2] + SPARE), np.int64)
    room = Room(np.empty((len(work), states[0, STATE_SIZE]), np.int16), notes, work)
    rows = check_states(states, height, width)
    parallel_for(_playouts, len(states), rows, policy, task, room, least=max(1, 8 // count))
    return task.value, task.length
