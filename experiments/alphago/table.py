"""The paper's table of variants: each of AlphaGo's parts on and off, in a round-robin, with Elo.

python -m experiments alphago_match runs/alphago/<run> --games 20 --simulations 100
python -m experiments alphago_match runs/alphago/<run> --variants rvp vp rp --opponents gnugo:10

rvp has rollouts, value network and policy network, p the policy network without a search. Source: Silver et al. 2016,
Figure 4b and Extended Data Table 7.
"""

import contextlib
import functools
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tqdm import tqdm

from agents.alphago.variants import VARIANTS
from envs.go.position import Position
from experiments.go.matches import at_once, play_match, random_openings
from experiments.go.players import Agent, agent_folder, go_player, trained_board
from rlkit import runtime
from rlkit.config import AtLeast, check_bounds
from rlkit.files import write_atomically
from rlkit.ratings import elo_ratings


@dataclass
class Config:
    """Play every variant against every other."""

    agent: Annotated[Path, tyro.conf.Positional]
    """run or agent folder of an AlphaGo with all its parts"""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """of the agent, that play: r for rollouts, v for the value network, p for the policy network"""
    opponents: tuple[str, ...] = ()
    """players as in `match`, who play too; the first one has Elo 0, or, without any, the last variant"""
    games: Annotated[int, AtLeast(2)] = 20
    """games of each pair, half with each colour"""
    simulations: Annotated[int, AtLeast(1)] = 100
    """simulations of a variant's move"""
    opening_moves: Annotated[int, AtLeast(0)] = 2
    """random moves that each pair of games begins with"""
    parallel: Annotated[int, AtLeast(0)] = 0
    """games at once; 0: one a thread"""
    threads: Annotated[int, AtLeast(0)] = 0
    """CPU threads of all games together; 0: one a core"""
    out: Path | None = None
    """also write the table to this JSON file"""
    seed: Annotated[int, AtLeast(0)] = 0
    """of all random numbers"""


def main(cfg: Config) -> dict[str, Any]:
    """Play and print; returns what `--out` writes."""
    check_bounds(cfg)
    if unknown := [name for name in cfg.variants if name not in VARIANTS]:
        raise ValueError(f"there is no variant {unknown[0]!r}; there are {', '.join(VARIANTS)}")
    folder = (agent_folder(str(cfg.agent)) or Agent(cfg.agent)).folder
    env = trained_board(folder)
    if len(env) < 2:
        raise ValueError(f"{folder} is no AlphaGo's: its agent.json names no board")
    names = [*cfg.variants, *cfg.opponents]
    if len(set(names)) < max(2, len(names)):
        raise ValueError("a table needs two players or more, each of them once")
    specs = {name: f"{folder}:{name}:{cfg.simulations}" for name in cfg.variants} | {o: o for o in cfg.opponents}
    parallel = at_once(cfg.parallel, cfg.threads, cfg.games)
    runtime.setup(cfg.seed, "cpu", threads=1)
    makers = {name: functools.partial(go_player, spec, cfg.seed) for name, spec in specs.items()}
    for make in makers.values():  # what is missing is said before the first game
        getattr(make(), "close", lambda: None)()
    empty = Position.empty(env["size"], env["komi"], max_moves=3 * env["size"] ** 2)
    starts = random_openings(empty, (cfg.games + 1) // 2, cfg.opening_moves, cfg.seed)
    n = len(names)
    score, played = np.zeros((n, n)), np.zeros((n, n))
    pairs = list(itertools.combinations(range(n), 2))
    bar = tqdm(total=len(pairs) * cfg.games, unit="game", dynamic_ncols=True, disable=None)
    with contextlib.suppress(KeyboardInterrupt), bar:
        for number, (i, j) in enumerate(pairs):
            bar.set_postfix_str(f"{names[i]} and {names[j]}", refresh=False)
            seed = runtime.derive_seed(cfg.seed, number)
            match = play_match(makers[names[i]], makers[names[j]], starts, cfg.games, seed, parallel)
            with contextlib.closing(match):
                for game in match:
                    score[i, j] += game.score
                    score[j, i] += 1 - game.score
                    played[[i, j], [j, i]] += 1
                    bar.update()
    ratings = elo_ratings(score, played, names, len(cfg.variants) if cfg.opponents else n - 1)
    print(f"{folder}: {env['size']}x{env['size']}, komi {env['komi']:g}, {cfg.simulations} simulations a move")
    print(ratings)
    out = {
        "agent": str(folder), "size": env["size"], "komi": env["komi"], "simulations": cfg.simulations,
        "games": cfg.games, "seed": cfg.seed, "opening_moves": cfg.opening_moves, "players": names,
        "score": score.tolist(), "played": played.tolist(), "elo": {name: ratings[name] for name in names},
    }  # fmt: skip
    if cfg.out:
        write_atomically(cfg.out, json.dumps(out, indent=1).encode())
    return out
