"""AlphaZero's search on 9x9: self-play against the network alone, search alone, and a single move.

An evaluation is a position that the network looks at. A part of self-play is a thread with a batch of its own.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from agents.alphazero.games import OpenGames, SelfPlayConfig
from agents.alphazero.network import BoardNetwork
from agents.alphazero.player import AlphaZero
from agents.alphazero.selfplay import SelfPlay
from agents.alphazero.sources import LocalGames
from envs.go import features
from envs.go.game import Go
from envs.go.position import Position
from experiments.bench.board_networks import alone, board_network, boards, frozen
from experiments.bench.openspiel import SCRIPT
from experiments.bench.turns import Config, in_process, in_turns, repeat, report
from experiments.go.alphazero import PRESETS
from rlkit import compiled, runtime
from rlkit.bf16 import fastest_precision
from rlkit.checkpoint import save_agent
from rlkit.search.inference import Evaluate, Inference

CHANNELS, BLOCKS = 64, 6
ROWS = 128
"""games of a part: the default is two parts, and here is one for each core"""
MOVE = 400
"""simulations of a single move"""
AGES: dict[str, Any] = {"opening_share": 1.0, "opening_moves": 80}
"""random openings, so that games are of all ages, as after the first minutes of self-play"""


def self_play(network: BoardNetwork, cfg: SelfPlayConfig, evaluate: Any = None) -> Callable[[], int]:
    """Whole self-play, about a move in every game at a time; `evaluate`: instead of the network."""
    cfg = replace(cfg, window=20_000, **AGES)
    games = LocalGames(Go(9), network, cfg, seed=1)
    games.evaluate = evaluate or games.evaluate
    selfplay = SelfPlay(Go(9), network, cfg, features.symmetries(9), seed=1, source=games)

    def work() -> int:
        before = selfplay.evaluations
        selfplay.play()
        return selfplay.evaluations - before

    return work


class Constant:
    """An evaluator that knows nothing and takes no time."""

    logits, value = np.zeros((1 << 13, 82), np.float32), np.zeros(1 << 13, np.float32)

    def __call__(self, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.logits[: len(planes)], self.value[: len(planes)]

    def refresh(self) -> None:
        pass


def search_alone(root: Any, simulations: int = 200, count: int = 64) -> Callable[[], int]:
    """All of self-play's own work, the search and the game's verbs; units are simulations."""
    games = OpenGames(Go(9), SelfPlayConfig(root=root, simulations=simulations, **AGES), count, seed=1)
    evaluate = Constant()

    def done() -> int:
        return games.simulations + int(games.trees.total[:, 0].sum())  # of moves played, and of those to come

    def work() -> int:
        before = done()
        for _ in range(simulations):
            games.step(evaluate)
        games.ended.clear()
        return done() - before

    return work


def openspiel(threads: int) -> Callable[[], int]:
    """A move by OpenSpiel's Python MCTSBot as its AlphaZero sets it up, with the same network in fp32, on so many
    threads of torch (0: its default). It sits in a process of its own, asleep between its turns.
    """
    return in_process("pyspiel", SCRIPT, MOVE, CHANNELS, BLOCKS, threads)


def first_move(network: BoardNetwork) -> float:
    """Seconds from the start of `gtp` to the answer of its first genmove."""
    with tempfile.TemporaryDirectory() as folder:
        info = AlphaZero(network).describe() | {"env": {"game": "go", "size": 9, "komi": 7.5}}
        save_agent(Path(folder), info, network.state_dict())
        command = [sys.executable, "-m", "experiments", "gtp", "--agent", folder, "--simulations", str(MOVE)]
        began = time.perf_counter()
        subprocess.run(command, input=b"genmove b\nquit\n", check=True, capture_output=True)
        return time.perf_counter() - began


def left_out(cfg: Config, bench: str, reason: str) -> None:
    """A row without a figure."""
    row = {"bench": bench, "value": None, "unit": reason, "peer": "", "peer_value": None, "ratio": None}
    print(json.dumps(row) if cfg.json else f"{bench:<44}{reason:>12}", flush=True)


def on_cpu(cfg: Config, network: BoardNetwork) -> None:
    """Self-play, and the network alone in all its forms."""
    parts, fast = runtime.cores(), fastest_precision(torch.device("cpu"))
    forms: dict[str, Evaluate] = {f"eager {precision}": Inference(network, precision) for precision in ("fp32", fast)}
    at_once = list(forms)
    for form in ("traced", "compiled"):
        name = f"{fast}, {form} and frozen"
        if form == "compiled" and not shutil.which(os.environ.get("CXX", "g++")):
            left_out(cfg, f"network alone, {name}", "not measured: no C++ compiler")
            continue
        frozen(board_network(CHANNELS, BLOCKS, seed=2), fast, form, ROWS)  # imports, and what caches may keep
        began = time.perf_counter()
        forms[name] = frozen(network, fast, form, ROWS)
        report(cfg, f"{name}: for each new weights", time.perf_counter() - began, "s")
    gumbel = SelfPlayConfig(games=parts * ROWS, parts=parts)
    plays = {"gumbel": gumbel, "puct": replace(gumbel, root="puct", simulations=64)}
    contestants = {name: alone(evaluate, parts * ROWS, parts) for name, evaluate in forms.items()}
    rates = in_turns(cfg, contestants | {root: self_play(network, how) for root, how in plays.items()})
    unit = "evaluations/s"
    for name in forms:
        report(cfg, f"network alone, {name}", rates[name], unit, "eager fp32", rates["eager fp32"])
    for root, how in plays.items():
        for which, names in (("that takes new weights at once", at_once), ("form", list(forms))):
            best = max(names, key=rates.__getitem__)
            peer = f"network alone, the fastest {which}: {best}"
            report(cfg, f"self-play, {root}, {how.simulations} simulations", rates[root], unit, peer, rates[best])


def on_gpu(cfg: Config) -> None:
    """Self-play of the preset `gpu`, and its bounds."""
    preset = PRESETS["gpu"]
    plays = replace(preset.selfplay, parts=min(preset.selfplay.parts, runtime.cores()))
    title = f"GPU, {preset.blocks}x{preset.channels}, {plays.parts} parts"
    if not torch.cuda.is_available():
        left_out(cfg, title, "not measured: no GPU")
        return
    network = board_network(preset.channels, preset.blocks).to(runtime.setup(1, "cuda", threads=1))
    contestants = {
        "network alone": alone(Inference(network), plays.games, plays.parts),
        "network alone, 2 batches of 4096": alone(Inference(network), 8192, 2),
        "search alone, a constant for the network": self_play(network, plays, Constant()),
        f"self-play, gumbel, {plays.simulations} simulations": self_play(network, plays),
        "self-play, puct, 64 simulations": self_play(network, replace(plays, root="puct", simulations=64)),
    }
    rates = in_turns(cfg, contestants)
    for name, rate in rates.items():
        report(cfg, f"{title}: {name}", rate, "evaluations/s", "network alone", rates["network alone"])


def main(cfg: Config) -> None:
    """All rows; what is compared takes turns."""
    runtime.setup(1, "cpu", threads=1)
    compiled.set_threads(1)
    network = board_network(CHANNELS, BLOCKS)
    on_cpu(cfg, network)
    for root, rate in in_turns(cfg, {root: search_alone(root) for root in ("gumbel", "puct")}).items():
        report(cfg, f"search alone, {root}, 200 simulations a move", rate, "simulations/s", "target", 150_000)

    player, empty = AlphaZero(network, MOVE), Position.empty(9)
    player.use_threads(runtime.cores(), empty)  # those that it plays with
    threads = torch.get_num_threads()

    def move() -> int:
        player.new_game(0)
        return player(empty) >= 0

    def call(rows: int) -> Callable[[], int]:
        planes = boards(rows)
        return repeat(20, lambda: player.evaluate(planes), 1)

    peers = {"torch's default threads": openspiel(0), "one thread": openspiel(1)}
    rates = in_turns(cfg, {"ours": move, "1": call(1), "8": call(8)} | peers)
    for name in peers:
        bench, peer = f"a move of {MOVE} simulations, threads: {threads}", f"OpenSpiel's MCTSBot, {name}"
        report(cfg, bench, rates["ours"], "moves/s", peer, rates[name])
    for rows in ("1", "8"):
        report(cfg, f"a call of the network, batch {rows}, threads: {threads}", 1000 / rates[rows], "ms")
    report(cfg, "start to the first move by GTP", statistics.median(first_move(network) for _ in range(3)), "s")
    on_gpu(cfg)
