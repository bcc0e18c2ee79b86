"""Two players of Go, many games: who is stronger, and how sure is that?

python -m experiments match mcts:1000 gnugo:1 --games 100 --size 9 --sgf games.sgf
python -m experiments match runs/alphazero/<run>:800 mcts:10000
python -m experiments match random gtp:"katago gtp -model small.bin.gz" --json

Each random opening is played with both colours. We are the referee: illegal moves, silence and crashes lose the game
they happen in, games are scored by area after two passes, and nothing is asked of the programs but their moves.
"""

import contextlib
import functools
import json
import math
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from envs import tictactoe
from envs.go.gtp_client import PlayerFailed
from envs.go.position import BLACK, EMPTY, RESIGN, WHITE, IllegalMove, Position
from envs.go.random_player import RandomPlayer
from envs.go.record import GameRecord, Node, result_text
from envs.go.sgf import write_sgf
from experiments.go.players import board_for, go_player
from rlkit import compiled, runtime, signals
from rlkit.config import AtLeast, Between, check_bounds
from rlkit.ratings import elo_difference, elo_interval, wilson_interval

Player = Callable[[Position], int]
Maker = Callable[[], Player]
RULES = "area scoring, positional superko, no suicide"


@dataclass
class Config:
    """Play a match and say how A does against B."""

    a: Annotated[str, tyro.conf.Positional]
    """random, mcts:SIMULATIONS, gnugo:LEVEL, gtp:COMMAND, an agent's or run's folder or alphazero:NAME, with or
    without :SIMULATIONS"""
    b: Annotated[str, tyro.conf.Positional]
    """its opponent, of the same kinds"""
    games: Annotated[int, AtLeast(1)] = 100
    size: int | None = None
    """lines of the board, 1 to 19; default: what A (or B) was trained on, else 9"""
    komi: Annotated[float | None, Between(-361, 361)] = None
    """default: what A (or B) was trained with, else 7.5"""
    openings: Annotated[int, AtLeast(0)] = 50
    """random openings, each played twice with changed colours; 0: all games begin on the empty board"""
    opening_moves: Annotated[int | None, AtLeast(0)] = None
    """their length; default: 2 on small boards, 4 on 9x9, 8 on 19x19"""
    time_limit: Annotated[float, AtLeast(0.1)] = 60.0
    """seconds that a program may take for a move; after that it loses"""
    parallel: Annotated[int, AtLeast(0)] = 0
    """games at once; 0: one a thread"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads of all games together; 0: one a core"""
    device: str = "cpu"
    """of agents with a network: cpu, cuda or auto"""
    seed: Annotated[int, AtLeast(0)] = 0
    sgf: Path | None = None
    """write all games to this file"""
    json: bool = False
    """print one JSON object"""


@dataclass(frozen=True)
class Game:
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


def main(cfg: Config) -> dict[str, Any]:
    """Play and print; returns what `--json` prints. Raises KeyboardInterrupt where one came, once all is written."""
    check_bounds(cfg)
    if cfg.sgf and not cfg.sgf.absolute().parent.is_dir():
        raise FileNotFoundError(f"--sgf {cfg.sgf}: there is no folder {cfg.sgf.parent}")
    size, komi = board_for((cfg.a, cfg.b), cfg.size, cfg.komi)
    empty = Position.empty(size, komi, max_moves=max(3 * size**2, 1))
    length = max(size // 4 * 2, 2 * (size > 1)) if cfg.opening_moves is None else cfg.opening_moves
    starts = random_openings(empty, min(cfg.openings, (cfg.games + 1) // 2), length, cfg.seed)
    parallel = at_once(cfg.parallel, cfg.threads, cfg.games)
    device = runtime.setup(cfg.seed, cfg.device, threads=1)  # a network's small batches gain little from more
    make_a, make_b = (
        functools.partial(go_player, spec, cfg.seed, cfg.time_limit, device=device) for spec in (cfg.a, cfg.b)
    )
    games: list[Game] = []
    began = time.perf_counter()
    match = play_match(make_a, make_b, starts, cfg.games, cfg.seed, parallel)
    bar = tqdm(total=cfg.games, unit="game", dynamic_ncols=True, smoothing=0.05, disable=None)
    stopped: KeyboardInterrupt | None = None
    try:
        with bar, contextlib.closing(match):
            for game in match:
                games.append(game)
                score, forfeits = sum(game.score for game in games), sum(bool(game.forfeit) for game in games)
                running = f"A {score:g} : {len(games) - score:g} B"
                bar.set_postfix_str(f"{running}, {forfeits} forfeits" if forfeits else running, refresh=False)
                bar.update()
    except KeyboardInterrupt as interrupt:
        stopped = interrupt
    seconds = time.perf_counter() - began
    out = {"a": cfg.a, "b": cfg.b, "size": size, "komi": komi, "seed": cfg.seed} | {
        "rules": RULES,
        "move_cap": empty.max_moves,
        "openings": len(starts),
        "opening_moves": starts[0].move_number,
        "asked_for": cfg.games,
        **summary(games),
        "moves_per_second": sum(len(game.moves) for game in games) / seconds,
        "seconds": seconds,
    }
    with signals.signals_held():
        if wrote := cfg.sgf if games else None:  # before a print, which fails where the terminal was closed
            write_sgf(wrote, (game.record(cfg.a, cfg.b) for game in sorted(games, key=lambda game: game.number)))
        print(json.dumps(out) if cfg.json else _text(out), flush=True)
        if wrote:
            print(f"wrote {wrote}: {len(games)} games", file=sys.stderr)
    if stopped:
        raise stopped
    return out


def at_once(parallel: int, threads: int, games: int) -> int:
    """Games that are played at once, and shared threads for their own searches; 0: a game a thread, a thread a core."""
    threads = threads or runtime.cores()
    parallel = min(parallel or threads, games)
    compiled.set_threads(max(1, threads // parallel))
    return parallel


def play_game(black: Player, white: Player, start: Position) -> Game:
    """Play from `start` to two passes, a resignation, a forfeit or the cap that `start` has (`max_moves`)."""
    position = start

    def ended(winner: int, result: str, forfeit: str = "", story: str = "", capped: bool = False) -> Game:
        return Game(start, position.moves()[len(start.moves()) :], winner, result, forfeit, story, capped)

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


def play_match(
    make_a: Maker,
    make_b: Maker,
    starts: list[Position],
    games: int | Sequence[int],
    seed: int,
    parallel: int = 1,
    end: float = math.inf,
) -> Generator[Game, None, None]:
    """Play so many games, or those of these numbers, and yield each as it ends; game i begins from
    starts[i // 2 % len(starts)].

    Each of the `parallel` threads holds a pair of players of its own. Those with `new_game(seed)` get a seed for each
    game, so that a match can be repeated however its games fall to the threads; those with `close()` are closed at
    the end. Exceptions other than PlayerFailed end the match. Close the generator to end it early; games that have not
    ended when `time.monotonic()` passes `end` are left out.
    """
    stop, idle = threading.Event(), queue.SimpleQueue[list[Player]]()

    def until_stopped(player: Player, position: Position) -> int:
        if stop.is_set() or time.monotonic() > end:
            raise futures.CancelledError
        return player(position)

    def play(number: int) -> Game:
        pair = idle.get_nowait()
        try:
            for i, player in enumerate(pair):
                if hasattr(player, "new_game"):
                    player.new_game(runtime.derive_seed(seed, 2 * number + i))
            black, white = (functools.partial(until_stopped, p) for p in (pair if number % 2 == 0 else pair[::-1]))
            return replace(play_game(black, white, starts[number // 2 % len(starts)]), number=number)
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


def summary(games: list[Game]) -> dict[str, Any]:
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


def _counts(games: list[Game]) -> dict[str, Any]:
    scores = [game.score for game in games]
    counts = {name: scores.count(score) for name, score in (("wins", 1), ("losses", 0), ("draws", 0.5))}
    return {"games": len(games), **counts, "score": sum(scores) / len(scores) if scores else None}


def _text(out: dict) -> str:
    lines = [f"A {out['a']}, B {out['b']}; {out['size']}x{out['size']}, komi {out['komi']:.12g}, {RULES}"]
    if out["opening_moves"]:
        lines.append(f"{out['openings']} random openings of {out['opening_moves']} moves, each with both colours")
    if out["games"] < out["asked_for"]:
        lines.append(f"interrupted after {out['games']} of {out['asked_for']} games")
    if not out["games"]:
        return "\n".join(lines)
    lines.append(f"{'':18}  games  A won  B won  drawn  score of A")
    rows = [("A is Black", out["as_black"]), ("A is White", out["as_white"]), ("all", out)]
    if out["forfeits"]:
        rows.append(("without forfeits", out["without_forfeits"]))
    for label, row in rows:
        line = f"{label:18}" + "".join(f"{row[key]:7}" for key in ("games", "wins", "losses", "draws"))
        lines.append(f"{line}{row['score']:12.1%}" if row["games"] else line)
    low, high = out["interval_95"]
    elo, *ends = (f"{x:+.0f}" if x is not None else "unbounded" for x in (out["elo"], *out["elo_interval_95"]))
    lines.append(f"95 % interval {low:.1%} to {high:.1%}; Elo difference {elo}, 95 % interval {ends[0]} to {ends[1]}")
    for loser, reason in dict.fromkeys((f["loser"], f["reason"]) for f in out["forfeits"]):
        same = [f for f in out["forfeits"] if (f["loser"], f["reason"]) == (loser, reason)]
        lines.append(f"{loser.upper()} forfeited {len(same)}, first game {same[0]['game']}: {same[0]['story']}")
    lines.append(
        f"{out['distinct_games']} of {out['games']} games are different; {out['mean_length']:.1f} moves a game; "
        f"{out['ended_by_move_cap']} ended by the cap of {out['move_cap']}; {out['moves_per_second']:.0f} moves/s"
    )
    return "\n".join(lines)
