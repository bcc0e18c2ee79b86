"""Light play-outs: uniformly random moves that do not fill an own eye, until both pass.

They use simple ko and a cap instead of superko; the search above them never does.
"""

import operator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.go.board import HEIGHT, KO, PASSES, STRIDE, TO_PLAY, WIDTH, columns
from envs.go.chains import BLACK, BORDER, EMPTY, WHITE, in_atari, ko_after, place
from envs.go.knowledge import diagonals_hold, own_points
from rlkit.compiled import kernel

FREE, SAFE, CAPTURE, OPPONENT = 1, 2, 4, 8  # what a neighbour offers to a move; bits


class Task(NamedTuple):
    """Which play-outs each state gets, and what they came to."""

    repeats: int
    seed: int  # 0 .. 2 ** 63 - 1
    cap: int  # moves
    value: NDArray[np.float32]  # [games] mean, for the side to move
    length: NDArray[np.int64]  # [games] moves played in all


def task_of(games: int, seed: int, repeats: int, cap: int) -> Task:
    """A task with room for its results. Raises ValueError."""
    seed, repeats = operator.index(seed) & (1 << 63) - 1, operator.index(repeats)
    if repeats < 1:
        raise ValueError(f"play-outs come in numbers of 1 and more, not {repeats}")
    return Task(repeats, seed, cap, np.empty(games, np.float32), np.empty(games, np.int64))


@kernel
def mix(seed, index):
    """A well-mixed state of 64 bits for stream `index` of a seed (splitmix64)."""
    z = np.uint64(seed) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(index + 1)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64(z ^ (z >> np.uint64(31)))


@kernel
def next_state(random):
    """The next state of a linear congruential generator (Knuth's constants); its high bits are good."""
    return random * 6364136223846793005 + 1442695040888963407


@kernel
def below(random, n):
    """A number in 0 .. n - 1 from the generator's high bits, without a division."""
    return (((random >> 32) & 0xFFFFFFFF) * n) >> 32


@kernel
def _offer(c, q, me):
    """What the neighbour q offers to a stone of `me`."""
    colour = c.colour[q]
    if colour == EMPTY:
        return FREE
    if colour == BORDER:
        return 0
    if in_atari(c.liberties[c.head[q]]):
        return 0 if colour == me else CAPTURE
    return SAFE if colour == me else OPPONENT


@kernel
def is_sensible(c, stride, p, me):
    """Whether a stone on the empty point p is no suicide and fills no own eye."""
    beside = _offer(c, p - stride, me) | _offer(c, p - 1, me) | _offer(c, p + 1, me) | _offer(c, p + stride, me)
    if beside & FREE:
        return True
    if beside & (CAPTURE | OPPONENT):
        return beside & (SAFE | CAPTURE) != 0
    return beside & SAFE != 0 and not diagonals_hold(c, stride, p, me)


@kernel
def _stones_at(c, q):
    """The colour of q as a bit of its own; 0 for the border."""
    colour = c.colour[q]
    return 0 if colour == BORDER else colour


@kernel
def playout(row, words, random, empties, taken, cap):
    """Play the game of a row to its end, in place; returns (Black minus White without komi, moves played)."""
    c = columns(row, words)
    height, width, stride = row[HEIGHT], row[WIDTH], row[STRIDE]
    n = 0
    score = 0
    for r in range(height):
        for p in range((r + 1) * stride + 1, (r + 1) * stride + 1 + width):
            colour = c.colour[p]
            if colour == EMPTY:
                empties[n] = p
                n += 1
            elif colour == BLACK:
                score += 1
            else:
                score -= 1
    me, ko, passes = np.int64(row[TO_PLAY]), np.int64(row[KO]), np.int64(row[PASSES])
    moves = 0
    while passes < 2 and moves < cap:
        left = n
        p = 0
        while left > 0:
            random = next_state(random)
            k = below(random, left)
            p = empties[k]
            if p != ko and is_sensible(c, stride, p, me):
                break
            left -= 1
            empties[k] = empties[left]
            empties[left] = p
            p = 0
        moves += 1
        if p == 0:
            passes += 1
            ko = 0
        else:
            passes = 0
            n -= 1
            empties[k] = empties[n]
            count = place(c, stride, p, me, taken)
            sign = 1 if me == BLACK else -1
            score += sign * (1 + count)
            ko = ko_after(c, p, count, taken)
            for i in range(count):
                empties[n] = taken[i]
                n += 1
        me = 3 - me
    if moves == 0 or moves >= cap:  # regions may be large
        return own_points(row, words, empties, taken), moves
    for i in range(n):  # eyes, and points that neither side may fill
        p = empties[i]
        touch = _stones_at(c, p - stride) | _stones_at(c, p - 1) | _stones_at(c, p + 1) | _stones_at(c, p + stride)
        if touch == BLACK:
            score += 1
        elif touch == WHITE:
            score -= 1
    return score, moves
