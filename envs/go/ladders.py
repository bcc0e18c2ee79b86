"""Ladders, read out to the end.

A chain in atari runs: it extends at its liberty, or takes a chain in atari that surrounds it. With three liberties it
has escaped; with two, the attacker tries an atari on either of them; with one it is lost (even if a ko should forbid
to take it). Reading knows simple ko, and neither suicide nor superko.

Alternatives are tried on copies of the board: a stack of BOARDS rows, of which most stay untouched. The last
alternative of all is played in place. A copy has no use for the column `past`, which holds its moves to try.
"""

from envs.go.board import KO, MOVES, PASSES, RECENT, STATE_SIZE, STRIDE, TO_PLAY, columns, copy
from envs.go.chains import add_once, few_liberties, in_atari, is_suicide, ko_after, neighbour, only_liberty, place
from rlkit.compiled import kernel

DEPTH = 100
"""a chain that is not captured after this many moves of the attacker has escaped"""
BOARDS = 2 * DEPTH + 2
BUDGET = 10_000
"""Moves tried in one reading; where they run out the chain has escaped."""

# words of a copy's header
LEFT = PASSES  # moves that are not tried yet
ATARIS = MOVES  # moves of the attacker that led there
TRIED = RECENT  # moves of the whole reading, on the first board


@kernel
def saving_moves(c, stride, stone, moves):
    """What may save a stone's chain from atari: its liberty, and those of chains in atari that surround it.

    Lists them in `moves`; returns how many.
    """
    them = 3 - c.colour[stone]
    moves[0] = only_liberty(c.liberties[c.head[stone]])
    count = 1
    p = stone
    while True:
        for i in range(4):
            q = neighbour(stride, p, i)
            if c.colour[q] == them and in_atari(c.liberties[c.head[q]]):
                count = add_once(moves, count, only_liberty(c.liberties[c.head[q]]))
        p = c.link[p]
        if p == stone:
            return count


@kernel
def _play(row, c, p, taken):
    """Play for the side to move, with what a ladder's reader has to know of it."""
    count = place(c, row[STRIDE], p, row[TO_PLAY], taken)
    row[KO] = ko_after(c, p, count, taken)
    row[TO_PLAY] = 3 - row[TO_PLAY]


@kernel
def _lost(boards, words, stone, taken):
    """Whether a stone's chain is lost on the first board: in atari if its owner is to move there.

    A tree is searched to its first proof. The owner needs one move that saves the chain, the attacker one atari that
    does not let it get away: the side that has tried all of its moves has failed. The last in a list is tried first:
    captures before the extension, which makes for half the work in human games.
    """
    level = 0
    fresh = True
    while True:
        row = boards[level]
        c = columns(row, words[level])
        runs = row[TO_PLAY] == c.colour[stone]
        known, lost = False, False
        if fresh and runs:
            known = row[ATARIS] == DEPTH or boards[0, TRIED] > BUDGET
            row[LEFT] = saving_moves(c, row[STRIDE], stone, c.past)
        elif fresh:
            number, c.past[0], c.past[1] = few_liberties(c, row[STRIDE], stone)
            known, lost = number != 2, number < 2
            row[LEFT] = 2
        elif row[LEFT] == 0:
            known, lost = True, runs
        fresh = False
        if known:
            while level > 0:
                level -= 1
                if (boards[level, TO_PLAY] == c.colour[stone]) == lost:
                    break  # that side has another move to try
            else:
                return lost
            continue
        row[LEFT] -= 1
        p = c.past[row[LEFT]]
        if p == row[KO] or is_suicide(c, row[STRIDE], p, row[TO_PLAY]):
            continue
        if row[LEFT] > 0:
            level += 1
            copy(boards[level], row, row[STATE_SIZE])
            row = boards[level]
            c = columns(row, words[level])
        boards[0, TRIED] += 1
        row[ATARIS] += not runs
        _play(row, c, p, taken)
        fresh = True


@kernel
def works(row, p, stone, boards, words, taken):
    """Whether a legal move p, no suicide, decides the ladder of a stone's chain for the side to move.

    The opponent's chain, of which p is one of two liberties: whether that atari captures it in the end. An own chain
    in atari, for which p is one of its saving moves: whether the chain escapes.
    """
    copy(boards[0], row, row[STATE_SIZE])
    row = boards[0]
    c = columns(row, words[0])
    own = c.colour[stone] == row[TO_PLAY]
    row[ATARIS] = row[TRIED] = 0
    _play(row, c, p, taken)
    return _lost(boards, words, stone, taken) != own
