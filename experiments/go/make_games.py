"""Games to learn from: two players from many openings, into one SGF collection.

python -m experiments make_games games.sgf --a mcts:1000 --games 2000 --size 5
python -m experiments make_games games.sgf --a gnugo:10 --games 500 --size 9

The same command goes on where it was stopped. Games that a forfeit ended are left out.
"""

import contextlib
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm

from envs.go.position import BLACK, Position
from envs.go.record import GameRecord
from envs.go.sgf import read_collection, to_sgf
from experiments.go.matches import RULES, at_once, play_match, random_openings
from experiments.go.players import board_for, go_player
from rlkit import runtime
from rlkit.config import AtLeast, Between, check_bounds
from rlkit.files import write_atomically


@dataclass
class Config:
    """Play games into an SGF collection."""

    out: Annotated[Path, tyro.conf.Positional]
    """the collection; games that it has are not played again"""
    a: str = "mcts:1000"
    """player A, as in `match`; Black in every other game"""
    b: str = ""
    """player B, A's opponent; by default A plays itself"""
    games: Annotated[int, AtLeast(1)] = 1000
    """games that the collection will have"""
    size: int | None = None
    """lines of the board, 1 to 19; default: what A was trained on, else 9"""
    komi: Annotated[float | None, Between(-361, 361)] = None
    """points for White; default: what A was trained with, else 7.5"""
    opening_moves: Annotated[int, AtLeast(0)] = 2
    """random moves that each pair of games begins with"""
    time_limit: Annotated[float, AtLeast(0.1)] = 60.0
    """seconds that a program may take for a move; after that its game is left out"""
    parallel: Annotated[int, AtLeast(0)] = 0
    """games at once; 0: one a thread"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads of all games together; 0: one a core"""
    seed: Annotated[int, AtLeast(0)] = 0
    """of all random numbers"""


def main(cfg: Config) -> Path:
    """Play what is missing; returns the collection's path."""
    check_bounds(cfg)
    if not cfg.out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{cfg.out}: there is no folder {cfg.out.parent}")
    specs = (cfg.a, cfg.b or cfg.a)
    size, komi = board_for(specs, cfg.size, cfg.komi)
    recipe = f"{specs[0]} and {specs[1]}, seed {cfg.seed}, {cfg.opening_moves} random moves"
    done = _done(cfg.out, recipe, size, komi)
    numbers = [number for number in range(cfg.games) if number not in done]
    if not numbers:
        print(f"{cfg.out} has its {len(done):,} games", file=sys.stderr)
        return cfg.out
    empty = Position.empty(size, komi, max_moves=3 * size**2)
    starts = random_openings(empty, (cfg.games + 1) // 2 if cfg.opening_moves else 0, cfg.opening_moves, cfg.seed)
    parallel = at_once(cfg.parallel, cfg.threads, len(numbers))
    runtime.setup(cfg.seed, "cpu", threads=1)
    makers = [functools.partial(go_player, spec, cfg.seed, cfg.time_limit) for spec in specs]
    match = play_match(makers[0], makers[1], starts, numbers, cfg.seed, parallel)
    bar = tqdm(total=cfg.games, initial=len(done), unit="game", dynamic_ncols=True, smoothing=0.05, disable=None)
    forfeits = 0
    with cfg.out.open("a") as file, contextlib.suppress(KeyboardInterrupt), bar, contextlib.closing(match):
        for game in match:
            bar.update()
            if game.forfeit:
                forfeits += 1
                bar.write(f"game {game.number} is left out: {game.story}", file=sys.stderr)
                continue
            names = dict(zip(("black", "white"), specs if game.a_colour == BLACK else specs[::-1], strict=True))
            event = f"game {game.number} of {recipe}"
            record = GameRecord.from_position(game.position(), result=game.result, rules=RULES, event=event, **names)
            file.write(to_sgf(record))
            file.flush()
            done.add(game.number)
    print(f"{cfg.out}: {len(done):,} games" + (f"; {forfeits:,} left out" * bool(forfeits)), file=sys.stderr)
    return cfg.out


def _done(path: Path, recipe: str, size: int, komi: float) -> set[int]:
    """The numbers of the games that a collection has; what an interruption cut off is taken out of it.

    Raises ValueError for a collection of other games.
    """
    if not path.exists():
        return set()
    whole, _, cut = path.read_text(encoding="utf-8").rpartition("\n")
    if cut:
        write_atomically(path, (whole + "\n" if whole else "").encode())
    if not whole:
        return set()
    done = set()
    for record in read_collection(path):
        number, _, theirs = record.event.removeprefix("game ").partition(" of ")
        if (theirs, record.height, record.width, record.komi) != (recipe, size, size, komi):
            raise ValueError(
                f"{record.place}: not a game of {recipe} on {size} lines with komi {komi:g}: name another file"
            )
        done.add(int(number))
    return done
