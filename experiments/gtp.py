"""A player behind the Go Text Protocol, for graphical boards, servers and other people's programs.

python -m experiments.gtp --agent mcts:2000 --size 9

then `genmove b`, `showboard`, `quit` from the keyboard, or this command line as the engine of Sabaki, GoGui or Lizzie.
"""

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from importlib import metadata

import tyro

from envs.go.gtp import Engine
from experiments.players import go_player
from rlkit import run


@dataclass
class Config:
    """Speak GTP 2 on standard input and output."""

    agent: str = "random"
    """who plays: random, mcts:SIMULATIONS, gnugo:LEVEL, gtp:COMMAND or an agent's folder"""
    size: int = 9
    """lines of the first board, 1 to 19"""
    komi: float = 7.5
    """points for White"""
    seed: int = 0
    """of the player's randomness"""


def main(cfg: Config) -> None:
    """Answer until `quit`, the end of the input, or Ctrl-C."""
    run.at_least(cfg, {"seed": 0})
    player = go_player(cfg.agent, cfg.seed)
    engine = Engine(player, cfg.size, cfg.komi, name=f"rlkit {cfg.agent}", version=_version())
    lines, out = sys.stdin, sys.stdout
    for stream in (lines, out):
        if isinstance(stream, io.TextIOWrapper):  # any bytes come in, and only line feeds end a line
            stream.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyboardInterrupt):
            engine.run(lines, out)  # what a player prints would not be GTP
        out.flush()
    except BrokenPipeError:  # said once; Python would flush again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    finally:
        if hasattr(player, "close"):
            player.close()


def _version() -> str:
    try:
        return metadata.version("lecture-rl")
    except metadata.PackageNotFoundError:  # not installed: run from a copy
        return "0.0"


if __name__ == "__main__":
    run.cli(main, lambda: tyro.cli(Config))
