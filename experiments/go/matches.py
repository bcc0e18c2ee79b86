"""Matches of two players: openings, games under a referee, games at once on threads, and what came of them."""

import contextlib
import functools
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from typing import Any

from envs import tictactoe
from envs.go.gtp_client import PlayerFailed
from envs.go.position import BLACK, EMPTY, RESIGN, WHITE, IllegalMove, Position
from envs.go.random_player import RandomPlayer
from envs.go.record import GameRecord, Node, result_text
from rlkit import compiled, runtime
from rlkit.ratings import elo_difference, elo_interval, wilson_interval

Player = Callable[[Position], int]
Maker = Callable[[], Player]
RULES = "area scoring, positional superko, no suicide"


@dataclass(frozen=True)
class MatchGame:
    """One game that has ended."""

    start: Position
    moves: list[tuple[int, int]]
    """(colour, move) from there on"""
    winner: int
    """BLACK, WHITE, or EMPTY for a draw"""
    result: str
    """as SGF has it: B+3.5, W+R (resigned), W+F (forfeit), 0 (draw)"""
    forfeit: str = ""
    """one word for why the loser forfeited; empty where the board or a resignation decided"""
    story: str = ""
    """the forfeit in one line"""
    capped: bool = False
    """ended by the cap on moves, and scored as it stood"""
    number: int = 0
    """in its match; A is Black in the even ones"""

    @property
    def a_colour(self) -> int:
        return BLACK if self.number % 2 == 0 else WHITE

    @property
    def score(self) -> float:
        """Of A: 1, 1/2 or 0."""
        return 0.5 if self.winner == EMPTY else float(self.winner == self.a_colour)

    def position(self) -> Position:
        """The last one. It is replayed: a long match cannot keep every position of its games in memory."""
        return functools.reduce(lambda position, step: position.play(step[1]), self.moves, self.start)

    def record(self, a: str, b: str) -> GameRecord:
        """The whole game from the root of `start`. a, b: names of the players."""
        black, white = (a, b) if self.a_colour == BLACK else (b, a)
        record = GameRecord.from_position(self.start, result=self.result, rules=RULES, black=black, white=white)
        for colour, move in self.moves:  # a replay would take thirty times as long
            record.nodes.append(Node(colour, move, parent=len(record.nodes) - 1))
        return record


def random_openings(empty: Position, count: int, moves: int, seed: int, player: Player | None = None) -> list[Position]:
    """Up to `count` different positions, `moves` random moves after `empty`, no passes; [empty] if `count` is 0.

    player: makes the moves; None: the random player of Go, with this seed.
    Small boards may have fewer: it gives up after a hundred tries for each. Raises ValueError where it finds none.
    """
    player = player or RandomPlayer(seed)
    found: dict[bytes, Position] = {}
    for _ in range(100 * count):
        position = empty
        for _ in range(moves):
            if position.is_over or (move := player(position)) == position.pass_move:
                break
            position = position.play(move)
        else:
            found.setdefault(position.board.tobytes(), position)
        if len(found) == count:
            break
    if count and not found:
        raise ValueError(f"found no openings of {moves} moves on this board; ask for shorter ones, or for none")
    return list(found.values()) or [empty]


def play_game(black: Player, white: Player, start: Position) -> MatchGame:
    """Play from `start` to two passes, a resignation, a forfeit or the cap that `start` has (`max_moves`)."""
    position = start

    def ended(winner: int, result: str, forfeit: str = "", story: str = "", capped: bool = False) -> MatchGame:
        return MatchGame(start, position.moves()[len(start.moves()) :], winner, result, forfeit, story, capped)

    while not position.is_over:
        mover, other = position.to_play, 3 - position.to_play
        won = "_BW"[other]
        try:
            move = (black if mover == BLACK else white)(position)
            if move == RESIGN:
                return ended(other, f"{won}+R")
            position = position.play(move)
        except PlayerFailed as failure:
            return ended(other, f"{won}+F", failure.reason, str(failure))
        except (IllegalMove, tictactoe.IllegalMove) as error:
            return ended(other, f"{won}+F", "illegal move", f"illegal move: {error}")
    score = position.score()
    capped = position.pass_move is not None and position.passes < 2
    return ended(BLACK if score > 0 else WHITE if score < 0 else EMPTY, result_text(score), capped=capped)


def play_numbered(
    pair: list[Player], number: int, starts: Sequence[Position], seed: int, asked: Callable[..., int] | None = None
) -> MatchGame:
    """Game `number` of a match of A and B, from starts[number // 2 % len(starts)]; A is Black in the even ones.

    Players with `new_game(seed)` get a seed of their own for each, so that a match can be repeated however its games
    fall to those who play them. asked: asked(player, position) -> move, in place of player(position).
    """
    for i, player in enumerate(pair):
        if hasattr(player, "new_game"):
            player.new_game(runtime.derive_seed(seed, 2 * number + i))
    order = pair if number % 2 == 0 else pair[::-1]
    black, white = (functools.partial(asked, player) if asked else player for player in order)
    return replace(play_game(black, white, starts[number // 2 % len(starts)]), number=number)


class Pair:
    """Both players of a match in an actor's process."""

    def __init__(self, make_a: Maker, make_b: Maker, starts: list[Position], seed: int, index: int, start: int):
        self.pair, self.starts, self.seed = [make_a(), make_b()], starts, seed

    def do(self, number: int) -> MatchGame:
        return play_numbered(self.pair, number, self.starts, self.seed)


def play_match(
    make_a: Maker,
    make_b: Maker,
    starts: list[Position],
    games: int | Sequence[int],
    seed: int,
    parallel: int = 1,
    end: float = math.inf,
) -> Generator[MatchGame, None, None]:
    """Play so many games, or those of these numbers, as `play_numbered` does, and yield each as it ends.

    Each of the `parallel` threads holds a pair of players of its own; those with `close()` are closed at the end.
    Exceptions other than PlayerFailed end the match. Close the generator to end it early; games that have not ended
    when `time.monotonic()` passes `end` are left out.
    """
    stop, idle = threading.Event(), queue.SimpleQueue[list[Player]]()

    def until_stopped(player: Player, position: Position) -> int:
        if stop.is_set() or time.monotonic() > end:
            raise futures.CancelledError
        return player(position)

    def play(number: int) -> MatchGame:
        pair = idle.get_nowait()
        try:
            return play_numbered(pair, number, starts, seed, until_stopped)
        finally:
            idle.put(pair)

    numbers = range(games) if isinstance(games, int) else games
    threads = max(min(parallel, len(numbers)), 1)
    with contextlib.ExitStack() as held, futures.ThreadPoolExecutor(threads) as pool:
        try:
            for _ in range(threads):
                pair = []
                for make in (make_a, make_b):
                    pair.append(make())
                    held.callback(getattr(pair[-1], "close", lambda: None))
                idle.put(pair)
            for game in futures.as_completed([pool.submit(play, number) for number in numbers]):
                if not isinstance(game.exception(), futures.CancelledError):
                    yield game.result()
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            held.close()  # wakes threads that wait for a program


def at_once(parallel: int, threads: int, games: int) -> int:
    """Games that are played at once, and shared threads for their own searches; 0: a game a thread, a thread a core."""
    threads = threads or runtime.cores()
    parallel = min(parallel or threads, games)
    compiled.set_threads(max(1, threads // parallel))
    return parallel


def summary(games: list[MatchGame]) -> dict[str, Any]:
    """What `--json` prints of the games; infinite Elo differences, and means of nothing, are None."""
    games = sorted(games, key=lambda game: game.number)
    total = sum(game.score for game in games)
    elo = (elo_difference(total / len(games)) if games else math.inf, *elo_interval(total, len(games)))
    return {
        **_counts(games),
        "interval_95": wilson_interval(total, len(games)),
        "elo": elo[0] if math.isfinite(elo[0]) else None,
        "elo_interval_95": [end if math.isfinite(end) else None for end in elo[1:]],
        "as_black": _counts([game for game in games if game.a_colour == BLACK]),
        "as_white": _counts([game for game in games if game.a_colour == WHITE]),
        "without_forfeits": _counts([game for game in games if not game.forfeit]),
        "forfeits": [
            {"game": game.number, "loser": "b" if game.score else "a", "reason": game.forfeit, "story": game.story}
            for game in games
            if game.forfeit
        ],
        "ended_by_move_cap": sum(game.capped for game in games),
        "distinct_games": len({(*game.start.moves(), *game.moves) for game in games}),
        "mean_length": sum(game.start.move_number + len(game.moves) for game in games) / len(games) if games else None,
    }


def _counts(games: list[MatchGame]) -> dict[str, Any]:
    scores = [game.score for game in games]
    counts = {name: scores.count(score) for name, score in (("wins", 1), ("losses", 0), ("draws", 0.5))}
    return {"games": len(games), **counts, "score": sum(scores) / len(scores) if scores else None}
