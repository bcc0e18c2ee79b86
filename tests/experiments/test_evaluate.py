import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.bench import dqn, turns
from experiments.control import curves
from rlkit.evaluate import bootstrap_interval, episodes


class Uneven:
    """Games of one step that score 1 and are cut by the cap, beside games of four that score 5."""

    num_envs = 2

    def reset(self):
        self.t = 0
        return np.zeros((2, 1), np.uint8)

    def step(self, actions):
        self.t += 1
        last = np.array([True, self.t % 4 == 0])
        score, length = np.where(last, [1.0, 5.0], np.nan), np.array([1, 4])
        first, self.ended = self.ended, last
        return SimpleNamespace(
            obs=np.zeros((2, 1), np.uint8), last=last, first=first, discount_t=np.array([1.0, 0.0]), score=score,
            length=length,
        )  # fmt: skip

    ended = np.ones(2, bool)


def stay(obs, first):
    assert first.shape == (2,) and first.dtype == bool
    return np.zeros(len(obs), np.int64)


def test_short_games_are_not_favoured_and_the_cap_is_counted():
    scores = episodes(stay, Uneven(), 6)
    assert sorted(scores.scores) == [1, 1, 1, 5, 5, 5] and scores.mean == 3
    assert sorted(scores.lengths) == [1, 1, 1, 4, 4, 4] and scores.capped == 3
    assert scores.scalars()["eval/score"] == 3 and scores.steps_per_second > 0


def test_episodes_must_divide_among_the_environments():
    with pytest.raises(ValueError, match="do not divide"):
        episodes(stay, Uneven(), 5)


def test_bootstrap_interval_has_the_width_of_the_normal_one_and_covers():
    rng = np.random.default_rng(1)
    low, high = bootstrap_interval(rng.normal(10, 2, 400))
    assert high - low == pytest.approx(2 * 1.96 * 2 / 20, rel=0.1) and low < 10 < high
    hits = sum(low <= 0 <= high for low, high in (bootstrap_interval(rng.normal(size=30)) for _ in range(100)))
    assert 86 <= hits <= 99
    assert bootstrap_interval(np.full(5, 3.0)) == (3.0, 3.0)


def test_bench_takes_turns_and_reports_ratios(capsys):
    order = []
    work = {name: (lambda name=name: order.append(name) or 10) for name in ("ours", "peer")}
    rates = turns.in_turns(turns.Config(rounds=3, seconds=0.0), {k: turns.repeat(1, w, 10) for k, w in work.items()})
    assert order[:2] == ["ours", "peer"] and set(rates) == {"ours", "peer"}
    cfg = turns.Config(json=True)
    turns.report(cfg, "dqn", 300.0, "env steps/s", "them", 100.0)
    row = json.loads(capsys.readouterr().out)
    assert row == {
        "bench": "dqn", "value": 300.0, "unit": "env steps/s", "peer": "them", "peer_value": 100.0, "ratio": 3.0
    }  # fmt: skip


@pytest.mark.slow
def test_bench_main_prints_every_row(capsys, monkeypatch):
    """In small, with a stand-in for the peer, and without compiling."""
    import torch

    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(dqn, "NUM_ENVS", 2)
    monkeypatch.setattr(dqn, "BATCH", 16)
    monkeypatch.setattr(dqn, "sb3", lambda *_: lambda: 10)
    dqn.main(turns.Config(json=True, rounds=1, seconds=0.01, threads=1, device="cpu"))
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(set(row) == {"bench", "value", "unit", "peer", "peer_value", "ratio"} for row in rows)
    by_name = {row["bench"]: row for row in rows}
    bound = 1 / sum(1 / by_name[f"dqn fp32, {part} alone"]["value"] for part in ("env", "acting", "update"))
    assert by_name["dqn fp32, of the bound"]["peer_value"] == pytest.approx(bound, rel=0.01)
    assert by_name["replay of 1,000,000 frames"]["value"] <= 7.3
    assert {"update fp32, compile", "building a batch", "warm start to the first env step"} <= by_name.keys()


@pytest.mark.slow
def test_curves_draws_what_was_logged(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")
    from rlkit.logger import Logger

    log = Logger(tmp_path / "run__1__now", 100, "x", progress=False)
    for x in range(40):
        log.scalars({"charts/episodic_return": x / 2}, 10 * x)
    log.close()
    x, wall, y = curves.curve(tmp_path / "run__1__now", "charts/episodic_return")
    assert x.tolist() == list(range(0, 400, 10)) and y[-1] == 19.5 and (np.diff(wall) >= 0).all()
    out = curves.main(curves.Config((tmp_path / "run__1__now",), out=tmp_path / "c.png"))
    assert out.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(FileNotFoundError, match="there is no folder nosuch"):
        curves.main(curves.Config((Path("nosuch"),)))
    with pytest.raises(ValueError, match="has no scalars 'nothing'"):
        curves.curve(tmp_path / "run__1__now", "nothing")
