"""Many recorded games of one board as arrays, and the position before any of their moves, replayed when asked for.

A replay from the empty board takes about as long as the planes of one position, and a game's moves take two bytes each:
so all positions of a collection are at hand, and none is kept.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs.go.board import KOMI, is_over, play_point, to_point
from envs.go.chains import BLACK, WHITE
from envs.go.game import Go, States
from rlkit.compiled import kernel, parallel_for

if TYPE_CHECKING:
    from envs.go.record import GameRecord

UNKNOWN = -1


class Lines(NamedTuple):
    """The moves to replay of each of n games."""

    moves: NDArray[np.int16]  # [moves] of all games
    first: NDArray[np.int64]  # [n] where a game's begin
    last: NDArray[np.int64]  # [n] where to stop
    komi: NDArray[np.float64]  # [n]


@kernel
def _replay(slot, begin, end, rows, lines, work):
    for g in range(begin, end):
        row, words = rows[g], rows[g].view(np.int64)
        words[KOMI : KOMI + 1].view(np.float64)[0] = lines.komi[g]
        for i in range(lines.first[g], lines.last[g]):
            if is_over(row):
                break
            play_point(row, words, to_point(row, lines.moves[i]), work[slot, 0])


@dataclass
class Games:
    """Games from the empty board, Black first, sides alternating."""

    game: Go
    """board and rules; the komi is each game's own"""
    moves: NDArray[np.int16]
    """[moves] of all games, one after the other: row * width + column, the pass last"""
    begins: NDArray[np.int64]
    """[games + 1] where each game's begin"""
    winner: NDArray[np.int8]
    """[games] BLACK, WHITE, 0 for a draw, UNKNOWN: by the record's result field, never by the final board"""
    komi: NDArray[np.float64]
    """[games]"""

    def __len__(self) -> int:
        return len(self.winner)

    @property
    def of(self) -> NDArray[np.int64]:
        """[moves] the game that each belongs to"""
        return np.repeat(np.arange(len(self)), np.diff(self.begins))

    def which(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """[n] the games that moves[index] belong to"""
        return np.searchsorted(self.begins, index, "right") - 1

    def number(self, index: NDArray[np.integer]) -> NDArray[np.int64]:
        """[n] how many moves of its game come before moves[index]"""
        return index - self.begins[self.which(index)]

    def select(self, games: NDArray[np.integer]) -> "Games":
        """Some of the games [n], in this order."""
        pieces = [self.moves[self.begins[g] : self.begins[g + 1]] for g in games]
        return from_lists(self.game, pieces, self.winner[games], self.komi[games])

    def states(self, index: NDArray[np.integer]) -> States:
        """The positions before moves[index]: whole games [n, game_size]."""
        last = np.asarray(index, np.int64)
        which = self.which(last)
        rows = self.game.reset(len(which))
        lines = Lines(self.moves, self.begins[which], last, self.komi[which])
        parallel_for(_replay, len(which), rows, lines, self.game.work(), least=32)
        return rows

    def z(self, index: NDArray[np.integer]) -> NDArray[np.float32]:
        """[n] the outcome for the side that makes moves[index]: 1 a win, -1 a loss, 0 a draw or unknown."""
        colour = np.where(self.number(index) % 2 == 0, BLACK, WHITE)
        winner = self.winner[self.which(index)]
        return np.where(winner <= 0, 0, np.where(winner == colour, 1, -1)).astype(np.float32)


def from_lists(
    game: Go,
    moves: Sequence[Sequence[int] | NDArray],
    winner: Sequence[int] | NDArray,
    komi: Sequence[float] | NDArray | None = None,
) -> Games:
    """Games from the moves of each. The moves are taken as legal."""
    begins = np.concatenate([[0], np.cumsum([len(one) for one in moves], dtype=np.int64)])
    flat = np.concatenate([np.empty(0, np.int16), *(np.asarray(one, np.int16) for one in moves)])
    komis = np.full(len(moves), game.komi) if komi is None else np.asarray(komi, np.float64)
    return Games(game, flat, begins, np.asarray(winner, np.int8), komis)


def gather(
    records: "Iterable[GameRecord]", size: int | None = None, least_moves: int = 1, least_rating: int = 0
) -> tuple[Games, Counter[str]]:
    """(the usable games of a collection, how many were left out for which reason).

    size: lines of the board; None: that of the first usable game. least_rating: of both players, where it is not 0.
    A game without komi is taken to have none. What follows two passes, and an illegal move and all after it, is cut
    off. Raises ValueError where no game is left.
    """
    left_out: Counter[str] = Counter()
    moves: list[list[int]] = []
    winner, komi = [], []
    for record in records:
        played = record.moves
        ratings = [record.rating(colour) or 0 for colour in (BLACK, WHITE)]
        root = record.main_line[0]
        if record.height != record.width or (size and record.height != size):
            left_out["another board"] += 1
        elif record.handicap > 1 or any(node.black or node.white or node.empty for node in record.main_line):
            left_out["stones set up"] += 1
        elif any(colour != (BLACK, WHITE)[i % 2] for i, (colour, _) in enumerate(played)) or root.to_play == WHITE:
            left_out["sides that do not alternate"] += 1
        elif len(played) < least_moves:
            left_out["too few moves"] += 1
        elif min(ratings) < least_rating:
            left_out["players rated too low, or not at all"] += 1
        else:
            size = record.height
            moves.append([move for _, move in played])
            winner.append(UNKNOWN if record.winner is None else record.winner)
            komi.append(record.komi or 0.0)
    if not moves or size is None:
        reasons = ", ".join(f"{count:,} with {reason}" for reason, count in left_out.items()) or "there is none"
        raise ValueError(f"no game can be used: {reasons}")
    longest = max(map(len, moves))
    game = Go(size, superko="simple", max_moves=max(longest + 2, 2 * size * size))
    games = _legal_part(from_lists(game, moves, winner, komi))
    return games, left_out


def _legal_part(games: Games) -> Games:
    """Each game up to its end by two passes, or up to its first illegal move."""
    states, lengths = games.game.reset(len(games)), np.diff(games.begins)
    kept = np.zeros(len(games), np.int64)
    going = np.flatnonzero(lengths > 0)
    while len(going):
        move = games.moves[games.begins[going] + kept[going]].astype(np.int64)
        rows = states[going]
        fine = games.game.legal(rows)[np.arange(len(going)), move]
        rows, going = rows[fine], going[fine]
        games.game.play(rows, move[fine])
        states[going] = rows
        kept[going] += 1
        going = going[kept[going] < lengths[going]]
    pieces = [games.moves[b : b + n] for b, n in zip(games.begins, kept, strict=False)]
    # From here on repeats are illegal in the planes, as they are in the games that the learners play.
    rules = Go(games.game.height, superko="positional", max_moves=games.game.max_moves)
    return from_lists(rules, pieces, games.winner, games.komi)
