"""The benchmark of AlphaGo, in small."""

import json

import pytest
import torch

from experiments.bench import alphago, turns
from rlkit import compiled


def test_main_prints_its_rows(capsys, monkeypatch):
    threads, of_envs = torch.get_num_threads(), compiled._threads
    small = {"CHANNELS": 4, "LAYERS": 2, "BATCH": 8, "GAMES": 16, "SIMULATIONS": 24}
    for name, value in small.items():
        monkeypatch.setattr(alphago, name, value)
    alphago.main(turns.Config(what="alphago", json=True, rounds=1, seconds=0.001, device="cpu"))
    torch.set_num_threads(threads)
    compiled.set_threads(of_envs)
    rows = {(row["bench"], row["peer"]): row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    names = [name for name, _ in rows]
    assert names[0] == "learner, batches of 8 with 48 planes, cpu" and "rollouts by patterns" in names
    assert all(row["value"] > 0 for row in rows.values())
    two = [row for (name, peer), row in rows.items() if name.startswith("APV-MCTS") and peer == "one core"]
    assert len(two) == 1 and two[0]["ratio"] == pytest.approx(two[0]["value"] / two[0]["peer_value"], rel=1e-3)


def test_random_games_are_games():
    games = alphago.random_games()
    assert len(games) == alphago.GAMES and len(games.moves) == alphago.GAMES * alphago.MOVES
    before = games.states(games.begins[1:] - 1)
    legal = games.game.legal(before)
    assert legal[range(len(games)), games.moves[games.begins[1:] - 1]].all()


def test_shared_work_is_all_done_and_the_cores_are_given_back():
    import os

    seen, before = [], os.sched_getaffinity(0)
    assert alphago.shared(2, lambda batch: seen.extend(batch.tolist()), 20, 4)() == 20
    assert sorted(seen) == list(range(20)) and os.sched_getaffinity(0) == before
