"""Self-play by actors: the same games as in process where they take turns, and what is lost with one."""

import functools
import os
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.alphazero.games import SelfPlayConfig
from agents.alphazero.network import BoardNetwork, alphazero_loss
from agents.alphazero.selfplay import SelfPlay
from agents.alphazero.sources import Actor, ActorGames, LocalGames
from envs.tictactoe import SYMMETRIES, TicTacToe
from rlkit.parallel.stream import StreamConfig
from rlkit.trainer import TrainConfig, Trainer

pytestmark = pytest.mark.slow

CFG = SelfPlayConfig(games=16, parts=2, simulations=8, window=2000, batch_size=32, start=50)


def network() -> BoardNetwork:
    torch.manual_seed(3)
    return BoardNetwork(2, 8, 1, has_pass=False, heads=())


def actor(cfg: SelfPlayConfig, actors: int, index: int, start: int) -> Actor:
    net = network()
    return Actor(lambda start: LocalGames(TicTacToe(), net, cfg, 1, (index, actors), start), start)


def selfplay(net, actors: int, seen: list, cfg: SelfPlayConfig = CFG, **options) -> SelfPlay:
    source = None
    if actors:
        make = functools.partial(actor, cfg, actors)
        source = ActorGames(make, net, StreamConfig(actors=actors, **options), max(1, cfg.parts // actors))
    return SelfPlay(TicTacToe(), net, cfg, SYMMETRIES, 1, lambda game: seen.append(game.moves), source=source)


def learned(tmp_path, actors: int, steps: int = 40, **options):
    """(moves of the games, weights, self-play) after some updates."""
    seen: list[list[int]] = []
    net = network()
    plays = selfplay(net, actors, seen, **options)
    trainer = Trainer(net, alphazero_loss, TrainConfig(steps=steps, lr=0.01, progress=False), tmp_path / str(actors))
    for _ in trainer.run(plays):
        pass
    trainer.close()
    if actors:
        plays.source.close()  # type: ignore[attr-defined]
    return seen, torch.cat([p.detach().ravel() for p in net.parameters()]), plays


def test_an_actor_that_takes_turns_plays_the_games_of_one_process(cluster, tmp_path):
    alone, weights, plays = learned(tmp_path, 0)
    games, theirs, others = learned(tmp_path, 1, max_lag=0)
    assert games == alone and torch.equal(weights, theirs)
    assert others.evaluations == plays.evaluations and others.simulations == plays.simulations
    np.testing.assert_array_equal(others.window.rows["version"], plays.window.rows["version"])


def test_a_killed_actor_and_a_killed_node_lose_nothing_that_was_handed_over(cluster, monkeypatch):
    cfg = replace(CFG, opening_share=0.0)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    node = cluster.add_node(num_cpus=4)
    seen: list[list[int]] = []
    plays = selfplay(network(), 4, seen, replace(cfg, parts=4, start=10**6), max_lag=2)
    games = plays.source
    assert isinstance(games, ActorGames)

    def play(count: int) -> None:
        end = plays.finished + count
        until = time.monotonic() + 120
        while plays.finished < end:
            assert time.monotonic() < until
            plays.play()
        assert plays.finished == len(seen) and plays.positions == plays.window.added == sum(map(len, seen))

    play(40)
    games.stream.actors.ray.kill(games.stream.actors._handles[0])
    play(40)
    while not games.stream.actors.lost:
        plays.play()
    cluster.remove_node(node, allow_graceful=False)
    while games.stream.actors.lost < 2:
        plays.play()
    play(40)
    opened = {tuple(moves) for moves in seen}
    assert len(opened) > 40, "those that took a place play games of their own"
    games.close()


def test_less_than_an_update_in_each_game_does_not_keep_actors_waiting():
    plays = selfplay(network(), 0, [], replace(CFG, games=4, parts=1, batch_size=256))
    plays._due = 0.9  # all games together bring a sixteenth
    assert plays._wanted
    plays._due = 1.0
    assert not plays._wanted, "now the learner has something to do"
