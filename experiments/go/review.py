"""A game reviewed: what each move cost, the biggest mistakes, and what was better.

python -m experiments review game.sgf --agent alphazero:9x9 --html out.html --sgf out.sgf
python -m experiments review games.sgf --game 3 --agent mcts:500 --json out.json

The page is one file, for any browser; the SGF has the analysis in comments, variations and the properties that Sabaki
and KaTrain show. Ctrl-C ends the analysis, and what is known by then is written.
"""

import itertools
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tqdm import tqdm

from envs.go.record import GameRecord
from envs.go.sgf import read_collection
from experiments.go.game_analysis import GameAnalysis, GameSearch, check_player
from experiments.go.players import agent_folder, go_player, trained_board
from experiments.go.review_page import page
from experiments.go.review_sgf import analysed_sgf, loss
from rlkit import runtime
from rlkit.config import AtLeast, Between, check_bounds
from rlkit.files import write_atomically


@dataclass
class Config:
    """Analyse a recorded game of Go."""

    record: Annotated[Path, tyro.conf.Positional]
    """an SGF file"""
    agent: str = "alphazero:9x9"
    """who judges: an agent's or run's folder, alphazero:NAME, or mcts:SIMULATIONS (one position after the other,
    without scores)"""
    game: Annotated[int, AtLeast(1)] = 1
    """which game of the file, from 1"""
    simulations: Annotated[int, AtLeast(1)] = 200
    """simulations of each position, by an agent with a network whose name says none"""
    variations: bool = False
    """analyse side lines too, and not only the game as it was played; they are kept in any case"""
    komi: Annotated[float | None, Between(-361, 361)] = None
    """points for White, instead of the record's"""
    html: Path | None = None
    """write a page for a browser to this file"""
    sgf: Path | None = None
    """write the record with the analysis to this file"""
    json: Path | None = None
    """write all that was found to this file; - prints it"""
    device: str = "cpu"
    """where an agent's network is: cpu, cuda or auto"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads; 0: those of the cores that are idle"""
    seed: Annotated[int, AtLeast(0)] = 0
    """of the randomness of mcts"""


def main(cfg: Config) -> GameAnalysis:
    """Analyse, write and print. Raises KeyboardInterrupt where one came, once what is known is written."""
    check_bounds(cfg)
    outputs = {"--html": cfg.html, "--sgf": cfg.sgf, "--json": cfg.json}
    for flag, path in outputs.items():
        if path and not path.absolute().parent.is_dir():
            raise FileNotFoundError(f"{flag} {path}: there is no folder {path.parent}")
        if path and path.exists() and path.samefile(cfg.record):
            raise ValueError(f"{flag} {path} is the record itself: name another file")
    record = read_game(cfg.record, cfg.game)
    player, simulations, trained = reviewer(cfg.agent, cfg.simulations, cfg.device, cfg.threads, cfg.seed)
    if cfg.komi is not None:
        record.komi = cfg.komi
    search = GameSearch(player, record, simulations, variations=cfg.variations, komi=trained, name=cfg.agent)
    interrupted = False
    with tqdm(total=search.total, unit="move", dynamic_ncols=True, smoothing=0.1, disable=None) as bar:
        try:
            while search.step():
                bar.update(int(search.finished) - bar.n)
        except KeyboardInterrupt:
            interrupted = True
    found = search.result()
    if cfg.html:
        write_atomically(cfg.html, page(found).encode())
    if cfg.sgf:
        write_atomically(cfg.sgf, analysed_sgf(record, found).encode())
    if cfg.json:
        text = json.dumps(asdict(found))
        print(text) if str(cfg.json) == "-" else write_atomically(cfg.json, text.encode())
    report(found, search)
    if interrupted:
        raise KeyboardInterrupt
    return found


def read_game(path: Path, number: int = 1) -> GameRecord:
    """The game of this number, from 1, in an SGF file. Raises BrokenSGF, and ValueError where the file has fewer."""
    games = read_collection(path)
    record = next(itertools.islice(games, number - 1, None), None)
    if record is None:
        raise ValueError(f"{path} has no game {number}: name one with --game")
    return record


def reviewer(
    agent: str, simulations: int = 200, device: str = "cpu", threads: int = 0, seed: int = 0
) -> tuple[Any, int, float | None]:
    """(a player that can analyse, its simulations of a position, the komi that it was trained with if known), from what
    a person types. Raises what `go_player` does, and ValueError for players that only play.
    """
    found = agent_folder(agent)
    if not found:
        player = go_player(agent, seed)
        try:
            check_player(player, agent, 9, 9)
        except ValueError:
            if hasattr(player, "close"):
                player.close()
            raise
        return player, simulations, None
    place = runtime.setup(seed, device, threads)
    return go_player(agent, device=place), found.simulations or simulations, trained_board(found.folder).get("komi")


def report(found: GameAnalysis, search: GameSearch) -> None:
    """Print to stderr what a person wants to know first."""
    say: list[str] = [*found.notes]
    speed = search.finished / found.seconds if found.seconds else 0.0
    say.append(f"{search.finished:.0f} of {search.total} positions in {found.seconds:.1f} s, {speed:.1f} moves/s")
    for mistake in found.mistakes:
        side = "Black" if mistake.colour == "B" else "White"
        cost = loss(mistake.winrate_loss, mistake.points_loss)
        say.append(f"move {mistake.number:>3} {side} {mistake.move:<4} cost {cost}; better {' '.join(mistake.pv[:6])}")
    print("\n".join(say), file=sys.stderr)
