"""The Go world: play-outs, search, rules and features, on one core unless a row says otherwise."""

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from agents.uct.player import UCTPlayer
from envs.go import features, pattern_playouts
from envs.go.game import Go
from envs.go.patterns import NUM_FEATURES
from envs.go.position import Position
from experiments.bench.turns import Config, in_turns, report
from rlkit import compiled
from rlkit.search.trees import Trees

SIZES = {5: 4000, 9: 1500, 13: 800, 19: 300}
"""boards, and play-outs a turn of work"""
SIMULATIONS = 10_000
GAMES = 256
"""games in a slab: what a self-play keeps going"""


def playouts(size: int) -> Callable[[], int]:
    """Light play-outs from the empty board."""
    game = Go(size)
    states = game.reset(SIZES[size])
    seeds = iter(range(1 << 62))

    def work() -> int:
        game.playouts(states, next(seeds))
        return len(states)

    return work


def peer(size: int, rollouts: int, simulations: int) -> Callable[[], int]:
    """OpenSpiel's C++ MCTSBot from the empty board; units are its random rollouts."""
    if not importlib.util.find_spec("pyspiel"):
        raise ModuleNotFoundError("the comparison needs the extra `bench`: pip install -e '.[bench]'")
    import pyspiel

    game = pyspiel.load_game("go", {"board_size": size, "komi": 7.5})
    bot = pyspiel.MCTSBot(game, pyspiel.RandomRolloutEvaluator(rollouts, 1), 1.4, simulations, 1000, False, 1, False)

    def work() -> int:
        bot.step(game.new_initial_state())
        return rollouts * simulations

    return work


def moves_of_a_rollout(size: int) -> float:
    """Mean length of OpenSpiel's uniformly random games, passes included."""
    import pyspiel

    game, rng, games = pyspiel.load_game("go", {"board_size": size, "komi": 7.5}), np.random.default_rng(0), 30
    length = 0
    for _ in range(games):
        state = game.new_initial_state()
        while not state.is_terminal():
            state.apply_action(int(rng.choice(state.legal_actions())))
        length += state.move_number()
    return length / games


def middle_game(game: Go, moves: int = 50) -> np.ndarray:
    """GAMES states after random moves; the actions to play next."""
    states, rng = game.reset(GAMES), np.random.default_rng(1)
    for _ in range(moves):
        game.play(states, random_moves(game, states, rng))
    return states


def random_moves(game: Go, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uniform among the legal moves but the pass, which is played where there is no other: [games]."""
    points = np.where(game.legal(states)[:, :-1], rng.random((len(states), game.points)), 0)
    return np.where(points.max(1) > 0, points.argmax(1), game.points)


def rules(game: Go) -> Callable[[], int]:
    """All legal moves with superko, a copy, and a move on it."""
    states = middle_game(game)
    actions = random_moves(game, states, np.random.default_rng(2))

    def work() -> int:
        game.legal(states)
        game.play(states.copy(), actions)
        return len(states)

    return work


def first_answer(environment: dict[str, str]) -> float:
    """Seconds from the start of `gtp` to the answer of its first genmove."""
    command = [sys.executable, "-m", "experiments", "gtp", "--agent", "mcts:100", "--size", "9"]
    began = time.perf_counter()
    subprocess.run(
        command, input=b"genmove b\nquit\n", env=os.environ | environment, check=True, capture_output=True
    )  # fmt: skip
    return time.perf_counter() - began


def main(cfg: Config) -> None:
    """All rows; peers and ours in turns."""
    compiled.set_threads(1)
    for size in SIZES:
        rates = in_turns(cfg, {"ours": playouts(size), "peer": peer(size, SIZES[size] // 10, 1)})
        name = f"play-outs {size}x{size}"
        report(cfg, name, rates["ours"], "games/s", "OpenSpiel", rates["peer"])
        game = Go(size)
        length = game.playouts(game.reset(1000), 1)[1].mean()
        moves = rates["peer"] * moves_of_a_rollout(size)
        report(cfg, f"{name}, {length:.0f} moves each", rates["ours"] * length, "moves/s", "OpenSpiel", moves)

    empty, player = Position.empty(9), UCTPlayer(SIMULATIONS)
    contestants = {"ours": lambda: int(player.search(empty).total[0, 0]), "peer": peer(9, 1, SIMULATIONS // 5)}
    rates = in_turns(cfg, contestants)
    report(cfg, "mcts from the empty 9x9 board", rates["ours"], "simulations/s", "OpenSpiel's MCTSBot", rates["peer"])

    game = Go(9)
    states = middle_game(game)

    def encode(planes: Callable) -> Callable[[], int]:
        return lambda: len(planes(states, 9, 9))

    rates = in_turns(
        cfg,
        {
            "legal moves with superko, and play on a copy": rules(game),
            "17 planes": encode(features.alphagozero_slab),
            "48 planes with ladders": encode(features.alphago_slab),
        },
    )
    for name, rate in rates.items():
        report(cfg, f"{name}, 9x9", rate, "positions/s")
        report(cfg, f"{name}, 9x9", 1e6 / rate, "us a position")

    policy = pattern_playouts.policy_of(np.zeros(NUM_FEATURES, np.float32))
    begin, seeds = game.reset(400), iter(range(1 << 62))

    def by_patterns() -> int:
        return int(pattern_playouts.playouts(begin, policy, next(seeds))[1].sum())

    def light() -> int:
        return int(game.playouts(begin, next(seeds))[1].sum())

    rates = in_turns(cfg, {"patterns": by_patterns, "light": light})
    report(cfg, "play-outs by patterns, 9x9", rates["patterns"], "moves/s", "light play-outs", rates["light"])

    alone = playouts(9)

    def with_two() -> int:
        compiled.set_threads(2)
        done = alone()
        compiled.set_threads(1)
        return done

    rates = in_turns(cfg, {"one": alone, "two": with_two})
    report(cfg, "play-outs 9x9, two threads", rates["two"], "games/s", "one thread", rates["one"])

    for size in SIZES:
        game = Go(size)
        node = Trees(1, 2, game.num_actions, game.state_size).bytes_per_node
        report(cfg, f"a game, {size}x{size}", 2 * game.game_size, "bytes")
        report(cfg, f"a position, {size}x{size}", 2 * game.state_size, "bytes")
        report(cfg, f"a node of a search tree, {size}x{size}", node, "bytes")
    report(cfg, "warm start to the first move by GTP", statistics.median(first_answer({}) for _ in range(3)), "s")
    with tempfile.TemporaryDirectory() as empty_cache:
        report(cfg, "cold start (compiles everything it uses)", first_answer({"NUMBA_CACHE_DIR": empty_cache}), "s")
