"""Time for a move: the clock of Go's time systems, and a share of what it shows."""

from dataclasses import dataclass

from envs.go.position import Position


@dataclass
class Clock:
    """One side's time: main time first, then periods of `byo_yomi` seconds for `stones` moves each (0: none)."""

    main: float
    byo_yomi: float = 0.0
    stones: int = 0

    def __post_init__(self) -> None:
        self.left, self.stones_left = self.main, 0
        """seconds left of main time or period; moves still to be made in the period, 0 in main time"""
        self._next_period()

    def budget(self, moves: float) -> float:
        """Seconds for the next move, where about `moves` own ones are still to come (at least 1).

        In a period its even share; in main time an even share of that, and what byo-yomi gives for a move besides.
        A twentieth and 50 ms stay in reserve. The least is 10 ms, because no move can be made in none.
        """
        if self.stones_left:
            seconds = self.left / self.stones_left
        else:
            seconds = self.left / max(moves, 1.0) + (self.byo_yomi / self.stones if self.stones else 0.0)
        return max(0.95 * seconds - 0.05, 0.01)

    def spend(self, seconds: float) -> None:
        """Take the seconds of a move off the clock."""
        self.left -= seconds
        if self.stones_left == 1:
            self.left = self.stones_left = 0
        elif self.stones_left:
            self.stones_left -= 1
        self._next_period()

    def _next_period(self) -> None:
        if self.left <= 0 and self.stones and not self.stones_left:
            self.left, self.stones_left = self.left + self.byo_yomi, self.stones


def moves_to_come(position: Position) -> float:
    """About how many moves each side will still make: a game is about as long as nine tenths of its board."""
    return max(0.45 * position.points - position.move_number / 2, position.points / 8)
