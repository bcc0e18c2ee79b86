"""Games that a value network learns from: those that are there, and those that two policies make."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from agents.alphago.parts import Evaluator
from agents.alphago.value_data import SampledGames, Store, sample
from envs.go.features import alphago_slab
from envs.go.game import Go
from experiments.alphago import outcomes, positions, stages
from experiments.alphago.outcomes import Outcomes
from rlkit.logger import Logger, say
from rlkit.run import command
from rlkit.schedule import Deadline

SAVE_SECONDS = 60.0
"""between two savings of the games made so far"""


def given(cfg: Any) -> Outcomes | None:
    """The games of --games or --data; None where they have to be made. Raises FileNotFoundError, ValueError."""
    if cfg.games:
        return outcomes.recorded(positions.read(cfg.games), cfg.positions, cfg.seed)
    if not cfg.data:
        return None
    store = Store(Path(cfg.data) / "games")
    if not store.load():
        raise FileNotFoundError(f"--data {cfg.data} is no run of `alphago_value` that has made games")
    game = Go(store.header["size"], komi=store.header["komi"])
    theirs = store.header["positions"]  # not one more, or other games would be held out
    return outcomes.made(store.all(), game, min(cfg.positions or theirs, theirs))


class GameMaker(NamedTuple):
    """What makes games in lock-step."""

    game: Go
    header: dict[str, Any]
    """what they are made by, in plain values"""
    make: Callable[[np.random.Generator], SampledGames]
    """makes a set of them"""


def game_maker(cfg: Any, device: torch.device) -> GameMaker:
    """Games by the policies --policy and --rl. Raises FileNotFoundError, DamagedFile, ValueError."""
    supervised, theirs = stages.load(cfg.policy, "policy", "--policy", device)
    learned, info = stages.load(cfg.rl, "policy", "--rl", device)
    assert supervised.policy is not None and learned.policy is not None
    size, other = learned.policy.config["size"], supervised.policy.config["size"]
    if size != other:
        raise ValueError(f"--policy is for {other} lines and --rl for {size}: take two of one board")
    game = Go(size, komi=info["env"]["komi"] if cfg.komi is None else cfg.komi)
    most = cfg.most_moves or round(450 / 361 * game.points)
    header = {"size": size, "komi": game.komi, "most_moves": most, "seed": cfg.seed, "at_once": cfg.at_once}
    header |= {"positions": cfg.positions, "policy": theirs["weights_sha256"][0], "rl": info["weights_sha256"][0]}
    first, then = (Evaluator(network, cfg.trainer.precision) for network in (supervised.policy, learned.policy))
    encode = functools.partial(alphago_slab, height=size, width=size)
    return GameMaker(game, header, functools.partial(sample, game, encode, first, then, cfg.at_once, most))


def make_games(cfg: Any, maker: GameMaker, run_dir: Path, deadline: Deadline) -> Outcomes | None:
    """Make games in a run's folder until there are enough, or go on with those that are there; None where the time is
    over before. All that were made are saved. Raises ValueError, also for a KeyboardInterrupt.
    """
    store, go_on = Store(run_dir / "games", maker.header), command("alphago_value", "--resume", run_dir)
    if store.load():
        say(f"{store.games:,} of {cfg.positions:,} games are there")
    try:
        _fill(cfg, store, maker, deadline)
    except KeyboardInterrupt:
        raise ValueError(f"stopped with {store.games:,} games, which are saved; go on: {go_on}") from None
    if store.games < cfg.positions:
        say(f"{store.games:,} of {cfg.positions:,} games are made; go on: {go_on}")
        return None
    return outcomes.made(store.all(), maker.game, cfg.positions)


def _fill(cfg: Any, store: Store, maker: GameMaker, deadline: Deadline) -> None:
    began, saved, before, said = 0.0, time.monotonic(), 0, False
    bar = Logger(None, cfg.positions, " games", store.games, cfg.trainer.progress, deadline.left)
    try:
        while store.games < cfg.positions and not deadline.reached({}):
            here = store.games
            rng = np.random.default_rng([cfg.seed, store.sets])  # the set's own: a kill changes nothing
            store.add(maker.make(rng))
            if store.games == here:
                raise ValueError(f"none of {cfg.at_once} games lasted for its random move: lower --most-moves")
            if not began:  # the first set compiles
                began, before = time.monotonic(), store.games
            elif not said and time.monotonic() - began > 10:
                rate, said = (store.games - before) / (time.monotonic() - began), True
                say(f"{rate:.1f} games/s: about {(cfg.positions - store.games) / rate / 60:.1f} minutes more")
            bar.advance(min(store.games, cfg.positions))
            if time.monotonic() - saved > SAVE_SECONDS:
                store.save()
                saved = time.monotonic()
    finally:
        bar.close()
        store.save()
