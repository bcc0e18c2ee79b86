"""AlphaGo 2016 on 9x9: what feeds its learners, its rollouts, and the search that joins networks and rollouts.

Networks and rollout policy are untrained, of the size of the preset `small`. A simulation is one rollout; an
evaluation, a position that both networks look at.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from agents.alphago.network import PolicyNetwork, ValueNetwork, policy_loss
from agents.alphago.parts import Parts
from agents.alphago.player import AlphaGo
from agents.alphago.search import SearchConfig
from envs.go import pattern_playouts
from envs.go.chains import BLACK
from envs.go.game import Go
from envs.go.patterns import NUM_FEATURES
from envs.go.position import Position
from envs.go.replay import Games, from_lists
from experiments import any_agent
from experiments.alphago import positions
from experiments.alphago import sl as alphago_sl
from experiments.bench.go import random_moves
from experiments.bench.turns import Config, in_turns, repeat, report
from rlkit import compiled, runtime
from rlkit.data import Batches
from rlkit.trainer import Trainer

SMALL = alphago_sl.PRESETS["small"]
CHANNELS, LAYERS, BATCH = SMALL.channels, SMALL.layers, SMALL.batch_size
GAMES, MOVES = 256, 50
SIMULATIONS = 400
"""of a single move"""


def random_games() -> Games:
    """GAMES games of MOVES random moves."""
    game, rng = Go(9), np.random.default_rng(1)
    states, moves = game.reset(GAMES), np.empty((GAMES, MOVES), np.int64)
    for i in range(MOVES):
        moves[:, i] = random_moves(game, states, rng)
        game.play(states, moves[:, i])
    return from_lists(game, list(moves), np.full(GAMES, BLACK))


def learner(device: torch.device, batches: Batches) -> Callable[[], int]:
    """The supervised policy's trainer; units are positions."""
    network = PolicyNetwork(9, channels=CHANNELS, layers=LAYERS).to(device)
    cfg = replace(SMALL.trainer, steps=1 << 60, log_every=1 << 60, save_every=0, progress=False)
    loop = Trainer(network, policy_loss, cfg).run(batches)
    return repeat(1, lambda: next(loop), BATCH)


def feeding(cfg: Config, games: Games) -> None:
    """The learner on batches that are made as it asks for them, beside one batch again and again."""
    device = runtime.setup(1, cfg.device, cfg.threads)
    compiled.set_threads(cfg.threads or runtime.cores())
    make = positions.position_batches(games, np.arange(len(games.moves)), BATCH, seed=1)
    ready = make(0)
    batches = Batches.for_device(make, device)
    contestants = {
        "drawn": learner(device, batches),
        "ready": learner(device, Batches(lambda number: ready)),
        "made": repeat(1, lambda: make(1), BATCH),
    }
    rates = in_turns(cfg, contestants)
    title = f"learner, batches of {BATCH} with 48 planes, {device.type}"
    report(cfg, title, rates["drawn"], "positions/s", "on one batch again and again", rates["ready"])
    report(cfg, "its batches alone", rates["made"], "positions/s")


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """All threads that this process has now on the first so many of its cores, as far as the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)

    def pin(cores: set[int]) -> None:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(int(thread.name), cores)

    pin(set(sorted(before)[:count]))
    try:
        yield
    finally:
        pin(before)


def shared(threads: int, call: Callable[[NDArray[np.int64]], Any], items: int, size: int) -> Callable[[], int]:
    """Calls for items, so many at once, on so many threads; units are items."""
    pool, batches = ThreadPoolExecutor(threads), np.array_split(np.arange(items), items // size)

    def work() -> int:
        with on_cores(threads):
            list(pool.map(call, batches))
        return items

    return work


def rolling(cfg: Config, rows: NDArray[np.int16], weights: NDArray[np.float32]) -> None:
    """Rollouts by patterns and light ones from the same positions, on one core and on all."""
    game, policy, seeds, cores = Go(9), pattern_playouts.policy_of(weights), iter(range(1 << 62)), runtime.cores()

    def on(threads: int, playouts: Callable[[], tuple[Any, NDArray]]) -> Callable[[], int]:
        def work() -> int:
            compiled.set_threads(threads)
            return int(playouts()[1].sum())

        return work

    def patterns() -> tuple[Any, NDArray]:
        return pattern_playouts.playouts(rows, policy, next(seeds))

    contestants = {"patterns": on(1, patterns), "light": on(1, lambda: game.playouts(rows, next(seeds)))}
    rates = in_turns(cfg, contestants | {"all": on(cores, patterns)})
    report(cfg, "rollouts by patterns", rates["patterns"], "moves/s", "light ones", rates["light"])
    report(cfg, f"rollouts by patterns, threads: {cores}", rates["all"], "moves/s", "one thread", rates["patterns"])


def player(weights: NDArray[np.float32], threads: int) -> AlphaGo:
    """One with untrained networks."""
    torch.manual_seed(1)
    policy, value = PolicyNetwork(9, channels=CHANNELS, layers=LAYERS), ValueNetwork(9, 49, CHANNELS, LAYERS)
    nn.init.normal_(policy.point.weight, std=0.5)  # or a search would see no difference between moves
    return AlphaGo(Parts(policy, value, weights), any_agent.go_functions(), SIMULATIONS, threads=threads)


def searching(cfg: Config, rows: NDArray[np.int16], weights: NDArray[np.float32]) -> None:
    """The search for a move against its networks and its rollouts alone, on one core and on all."""
    compiled.set_threads(1)
    torch.set_num_threads(1)
    counts, empty, seeds = sorted({1, runtime.cores()}), Position.empty(9), iter(range(1 << 62))
    planes = positions.planes(rows)
    contestants: dict[str, Callable[[], int]] = {}
    for threads in counts:
        ours = player(weights, threads)
        rollouts = ours.functions.rollouts(weights)

        def search(ours: AlphaGo = ours, threads: int = threads) -> int:
            ours.new_game(0)
            with on_cores(threads):
                trees = ours.search(empty)
            assert trees.used[0] == trees.total[0, 0] + 1  # an evaluation each
            return int(trees.total[0, 0])

        def roll(batch: NDArray[np.int64], rollouts: Callable = rollouts) -> None:
            rollouts(rows[batch], next(seeds))

        def networks(batch: NDArray[np.int64], ours: AlphaGo = ours) -> None:
            assert ours.policy and ours.value
            ours.policy(planes[batch])
            ours.value(planes[batch])

        def both(batch: NDArray[np.int64], networks: Callable = networks, roll: Callable = roll) -> None:
            networks(batch)
            roll(batch)

        leaves = SearchConfig().leaves
        contestants |= {
            f"both {threads}": shared(threads, both, len(rows), leaves),
            f"search {threads}": search,
            f"networks {threads}": shared(threads, networks, len(rows), leaves),
            f"rollouts {threads}": shared(threads, roll, len(rows), leaves),
        }
    rates = in_turns(cfg, contestants)
    for threads in counts:
        on = f"cores: {threads}"
        report(cfg, f"both networks alone, {on}", rates[f"networks {threads}"], "evaluations/s")
        report(cfg, f"rollouts alone, {on}", rates[f"rollouts {threads}"], "rollouts/s")
        peer = f"both in turns without a search, by {leaves}"
        report(cfg, f"APV-MCTS, {on}", rates[f"search {threads}"], "simulations/s", peer, rates[f"both {threads}"])
    one, most = (rates[f"search {threads}"] for threads in (counts[0], counts[-1]))
    report(cfg, f"APV-MCTS, cores: {counts[-1]}", most, "simulations/s", "one core", one)


def main(cfg: Config) -> None:
    """All rows; what is compared takes turns."""
    games = random_games()
    feeding(cfg, games)
    rows = games.states(np.arange(0, len(games.moves), 25))
    weights = np.random.default_rng(1).normal(0, 0.5, NUM_FEATURES).astype(np.float32)
    rolling(cfg, rows, weights)
    searching(cfg, rows, weights)
