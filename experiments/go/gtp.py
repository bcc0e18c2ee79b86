"""A player behind the Go Text Protocol, for graphical boards, servers and other people's programs.

python -m experiments gtp --agent mcts:2000 --size 9
python -m experiments gtp --agent runs/alphazero/<run> --seconds 5 --resign 0.95

then moves, as `e5`, and `help` from the keyboard, or this command line as the engine of Sabaki, GoGui or Lizzie.
"""

import atexit
import contextlib
import gc
import io
import os
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any

from envs.go.gtp import Engine
from envs.go.gtp_terminal import typed_lines
from envs.go.position import Position
from experiments.go.players import agent_folder, board_for, go_player
from rlkit.config import AtLeast, Between, check_bounds


@dataclass
class Config:
    """Speak GTP 2 on standard input and output; in a terminal with a prompt, boards, `help`, and moves as `e5`."""

    agent: str = "random"
    """who plays: random, mcts:SIMULATIONS, gnugo:LEVEL, gtp:COMMAND, an agent's or run's folder, or alphazero:NAME"""
    size: int | None = None
    """lines of the first board, 1 to 19; default: what the agent was trained on, else 9"""
    komi: Annotated[float | None, Between(-361, 361)] = None
    """points for White; default: what the agent was trained with, else 7.5"""
    simulations: Annotated[int, AtLeast(0)] = 0
    """simulations of an agent with a network for each move; 0: its default, or as many as --seconds allow"""
    seconds: Annotated[float, AtLeast(0)] = 0.0
    """seconds for each move, until the clock of the protocol says otherwise; 0: no limit"""
    resign: Annotated[float | None, Between(0, 1)] = None
    """an agent with a network resigns where its best move's value, in -1 to 1, is below minus this; default: never"""
    device: str = "cpu"
    """where an agent's network is: cpu, cuda or auto"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads of an agent with a network; 0: as many as pay, of the cores that are idle"""
    seed: Annotated[int, AtLeast(0)] = 0
    """of the player's randomness"""


def main(cfg: Config) -> None:
    """Answer until `quit`, the end of the input, or Ctrl-C."""
    check_bounds(cfg)
    options: dict[str, Any] = {name: value for name in ("simulations", "seconds") if (value := getattr(cfg, name))}
    if cfg.resign is not None:
        options["resign"] = cfg.resign
    atexit.register(gc.freeze)  # else Python, before it ends, looks through all that torch has for a second or more
    if agent_folder(cfg.agent):
        from rlkit import runtime  # torch comes with it

        options["device"] = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    size, komi = board_for([cfg.agent], cfg.size, cfg.komi)
    player = go_player(cfg.agent, cfg.seed, **options)
    if "device" in options:
        player.use_threads(runtime.threads(), Position.empty(size, komi))
    engine = Engine(player, size, komi, name=f"rlkit {cfg.agent}", version=version())
    lines, out = sys.stdin, sys.stdout
    for stream in (lines, out):
        if isinstance(stream, io.TextIOWrapper):  # any bytes come in, and only line feeds end a line
            stream.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyboardInterrupt):
            # what a player prints would not be GTP
            engine.run(typed_lines(engine, lines, out) if lines.isatty() and out.isatty() else lines, out)
        out.flush()
    except BrokenPipeError:  # said once; Python would flush again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    finally:
        if hasattr(player, "close"):
            player.close()


def version() -> str:
    try:
        return metadata.version("lecture-rl")
    except metadata.PackageNotFoundError:  # not installed: run from a copy
        return "0.0"
