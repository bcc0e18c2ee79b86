"""KataGo's parallel analysis engine with our networks: JSON lines on standard input and output, as KaTrain speaks them.

python -m experiments analysis --agent alphazero:9x9

This command line, with the whole path of python, is KaTrain's engine ("override engine command" in its settings), or
that of any program that speaks the protocol: https://github.com/lightvector/KataGo/blob/master/docs/Analysis_Engine.md
"""

import atexit
import contextlib
import gc
import io
import json
import os
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from experiments.go.analysis_engine import AnalysisEngine
from experiments.go.analysis_queries import PERSPECTIVES
from experiments.go.gtp import version
from experiments.go.players import agent_folder, go_player
from rlkit.config import AtLeast, check_bounds


@dataclass
class Config:
    """Answer questions about positions of Go, many at once."""

    agent: str = "alphazero:9x9"
    """who analyses: an agent's or run's folder, or alphazero:NAME; :SIMULATIONS behind it stands for --visits"""
    visits: Annotated[int, AtLeast(1)] = 200
    """visits of a position, where a query does not say maxVisits"""
    report_winrates_as: Literal["black", "white", "sidetomove"] = "black"
    """whose win rates, scores and ownership are told, where a query does not override reportAnalysisWinratesAs"""
    quit_without_waiting: bool = False
    """end with the input, and not only once all questions are answered"""
    device: str = "cpu"
    """where the agent's network is: cpu, cuda or auto"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads; 0: those of the cores that are idle"""
    seed: Annotated[int, AtLeast(0)] = 0
    """of all random numbers; a search has none"""


def main(cfg: Config) -> None:
    """Answer until the end of the input, or Ctrl-C."""
    check_bounds(cfg)
    found = agent_folder(cfg.agent)
    if not found:
        raise ValueError(f"{cfg.agent} has no network to analyse with: name an agent's folder, or one as alphazero:9x9")
    atexit.register(gc.freeze)  # else Python, before it ends, looks through all that torch has for a second or more
    from rlkit import runtime

    player = go_player(cfg.agent, device=runtime.setup(cfg.seed, cfg.device, cfg.threads))
    if not hasattr(player, "searches"):
        raise ValueError(f"{cfg.agent} cannot search many positions at once: name an agent of kind alphazero")
    lines, out = sys.stdin, sys.stdout
    for stream in (lines, out):
        if isinstance(stream, io.TextIOWrapper):  # any bytes come in, and only line feeds end a line
            stream.reconfigure(encoding="utf-8", errors="surrogateescape", newline="\n")

    def write(answer: dict[str, Any]) -> None:
        out.write(json.dumps(answer, separators=(",", ":")) + "\n")
        out.flush()

    engine = AnalysisEngine(
        player,
        write,
        visits=found.simulations or cfg.visits,
        perspective=PERSPECTIVES[cfg.report_winrates_as.upper()],
        name=cfg.agent,
        version=version(),
    )
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyboardInterrupt):
            print("Started, ready to begin handling requests")  # as KataGo does, for programs that wait for it
            engine.run(lines, wait=not cfg.quit_without_waiting)
    except BrokenPipeError:  # said once; Python would flush again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
