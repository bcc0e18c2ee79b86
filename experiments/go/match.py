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
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from envs.go.position import Position
from envs.go.sgf import write_sgf
from experiments.go.matches import RULES, MatchGame, Pair, at_once, play_match, random_openings, summary
from experiments.go.players import board_for, go_player
from rlkit import runtime, signals
from rlkit.config import AtLeast, Between, check_bounds
from rlkit.parallel.actors import ActorConfig, spread


@dataclass
class Config:
    """Play a match and say how A does against B."""

    a: Annotated[str, tyro.conf.Positional]
    """player A: random, mcts:SIMULATIONS, gnugo:LEVEL, gtp:COMMAND, an agent's or run's folder or alphazero:NAME, with
    or without :SIMULATIONS"""
    b: Annotated[str, tyro.conf.Positional]
    """player B, of the same kinds"""
    games: Annotated[int, AtLeast(1)] = 100
    """games of the match; A is Black in every other one"""
    size: int | None = None
    """lines of the board, 1 to 19; default: what A (or B) was trained on, else 9"""
    komi: Annotated[float | None, Between(-361, 361)] = None
    """points for White; default: what A (or B) was trained with, else 7.5"""
    openings: Annotated[int, AtLeast(0)] = 50
    """random openings, each played twice with changed colours; 0: all games begin on the empty board"""
    opening_moves: Annotated[int | None, AtLeast(0)] = None
    """moves of a random opening; default: 2 on small boards, 4 on 9x9, 8 on 19x19"""
    time_limit: Annotated[float, AtLeast(0.1)] = 60.0
    """seconds that a program may take for a move; after that it loses"""
    parallel: Annotated[int, AtLeast(0)] = 0
    """games at once in this process; 0: one a thread"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads of all games together; 0: one a core"""
    device: str = "cpu"
    """where the networks of agents are: cpu, cuda or auto"""
    seed: Annotated[int, AtLeast(0)] = 0
    """of all random numbers"""
    sgf: Path | None = None
    """write all games to this file"""
    json: bool = False
    """print one JSON object"""
    elsewhere: tyro.conf.OmitArgPrefixes[ActorConfig] = field(default_factory=ActorConfig)


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
        functools.partial(go_player, anywhere(spec), cfg.seed, cfg.time_limit, device=device) for spec in (cfg.a, cfg.b)
    )
    games: list[MatchGame] = []
    began = time.perf_counter()
    match: Generator[MatchGame, None, None] = play_match(make_a, make_b, starts, cfg.games, cfg.seed, parallel)
    if cfg.elsewhere.actors:
        pair = functools.partial(Pair, make_a, make_b, starts, cfg.seed)
        match = (game for _, game in spread(pair, range(cfg.games), cfg.elsewhere))
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


def anywhere(spec: str) -> str:
    """The same player for a process that works in another folder."""
    folder, colon, rest = spec.partition(":")
    return f"{Path(folder).absolute()}{colon}{rest}" if Path(folder).is_dir() else spec


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
