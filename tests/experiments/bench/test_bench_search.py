"""The benchmark of AlphaZero's search, in small: that its contestants do what its rows say."""

import json

import numpy as np
import pytest
import torch

from experiments.bench import search, turns
from rlkit import compiled, runtime
from rlkit.search.inference import Inference

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    threads, of_envs = torch.get_num_threads(), compiled._threads
    for name, value in (("CHANNELS", 8), ("BLOCKS", 1), ("ROWS", 4), ("MOVE", 16)):
        monkeypatch.setattr(search, name, value)
    yield
    torch.set_num_threads(threads)
    compiled.set_threads(of_envs)


def test_a_traced_network_says_the_same():
    network = search.board_network(8, 1)
    ours, traced = (
        form(search.boards(4)) for form in (Inference(network, "fp32"), search.frozen(network, "fp32", "traced", 4))
    )
    for one, other in zip(ours, traced, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert ours[0].shape == (4, 82) and ours[0].std() > 0.01


def test_units_are_what_was_done():
    seen = []
    assert search.alone(lambda planes: seen.append(len(planes)), 10, 2)() == sum(seen) == 160
    work = search.search_alone("puct", simulations=8, count=4)
    assert work() == 4 * 7  # the first of the eight steps evaluates the roots
    assert work() >= 4 * 7
    plays = search.SelfPlayConfig(games=4, parts=2, simulations=3)
    assert search.self_play(search.board_network(8, 1), plays)() == 4 * 3
    assert search.self_play(search.board_network(8, 1), plays, search.Constant())() == 4 * 3


@pytest.mark.slow
def test_main_prints_every_row(capsys, monkeypatch):
    """With stand-ins for the peer and for what starts processes, and without compiling."""
    monkeypatch.setattr(torch, "compile", lambda module: module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    monkeypatch.setattr(search, "openspiel", lambda threads: lambda: 1)
    monkeypatch.setattr(search, "first_move", lambda network: 2.0)
    monkeypatch.setenv("CXX", "no such compiler")
    search.main(turns.Config(json=True, rounds=1, seconds=0.01))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(row) == {"bench", "value", "unit", "peer", "peer_value", "ratio"} for row in rows)
    assert [row["unit"] for row in rows if row["value"] is None] == [
        "not measured: no C++ compiler", "not measured: no GPU"
    ]  # fmt: skip
    plays = [row for row in rows if row["bench"].startswith("self-play")]
    assert [row["bench"].split(",")[1] for row in plays] == [" gumbel", " gumbel", " puct", " puct"]
    alone = {row["value"] for row in rows if row["bench"].startswith("network alone") and row["value"]}
    assert all(round(row["peer_value"], 4) in alone and row["ratio"] > 0 for row in plays)
    assert {row["peer_value"] for row in rows if row["bench"].startswith("search alone")} == {150_000}
    assert rows[-2]["value"] == 2.0


@pytest.mark.slow
def test_the_peer_makes_a_move():
    pytest.importorskip("pyspiel", reason="the comparison needs the extra `bench`")
    assert search.openspiel(1)() == 1
