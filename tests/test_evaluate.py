import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.bench import dqn, turns
from experiments.control import curves
from rlkit.evaluate import bootstrap_interval, elo_ratings, episodes


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


def table(n, *results):
    """score, games [n, n] of results (i, j, points of i, games)."""
    score, games = np.zeros((2, n, n))
    for i, j, points, count in results:
        score[i, j] += points
        score[j, i] += count - points
        games[i, j] += count
        games[j, i] += count
    return score, games


def test_ratings_of_two_players_by_hand():
    # 9.5 of 10 and the prior's draw: odds of 10 to 1, so 400 Elo. Variance of the log odds: 1 / (11 * 10/11 * 1/11).
    both = elo_ratings(*table(2, (1, 0, 9.5, 10)), names=("weak", "strong"))
    assert both["weak"] == (0, 0, 0) and both.elo[1] == pytest.approx(400)
    half = 1.959964 * math.sqrt(1.1) * 400 / math.log(10)
    assert both["strong"] == pytest.approx((400, 400 - half, 400 + half))
    other = elo_ratings(*table(2, (1, 0, 9.5, 10)), anchor=1)
    assert other.elo == pytest.approx([-400, 0]) and other.low[0] == pytest.approx(-400 - half)
    assert other.names == ("0", "1") and other.games.tolist() == [10, 10] and other.score.tolist() == [0.5, 9.5]
    all_won = elo_ratings(*table(2, (0, 1, 0, 20)))
    assert all_won.elo[1] == pytest.approx(400 * math.log10(41)) and np.isfinite(all_won.high[1])
    even = elo_ratings(*table(2, (0, 1, 4, 8)))
    assert even.elo.tolist() == [0, 0] and even.high[1] == pytest.approx(-even.low[1])
    narrow = elo_ratings(*table(2, (0, 1, 4, 8)), level=0.5)
    assert narrow.high[1] / even.high[1] == pytest.approx(0.674490 / 1.959964, rel=1e-5)


def test_ratings_add_up_along_a_chain_however_long():
    # Games that form a tree: each link is its own log odds, and the variances add up.
    link = 400 * math.log10(20.5 / 0.5)
    n = 60
    chain = elo_ratings(*table(n, *((i + 1, i, 20, 20) for i in range(n - 1))))
    assert chain.elo == pytest.approx(link * np.arange(n))
    half = (chain.high - chain.low) / 2
    assert half == pytest.approx(half[1] * np.sqrt(np.arange(n)))
    middle = elo_ratings(*table(n, *((i + 1, i, 20, 20) for i in range(n - 1))), anchor=30)
    assert middle.elo == pytest.approx(link * np.arange(-30, 30))


def test_ratings_agree_with_results_round_a_circle():
    # 75 % along each side of a triangle, which no ratings explain: the middle one is still in the middle.
    ratings = elo_ratings(*table(3, (1, 0, 75, 100), (2, 1, 75, 100), (2, 0, 75, 100)))
    assert 0 < ratings.elo[1] == pytest.approx(ratings.elo[2] / 2)
    # At the most probable ratings the expected points of each player are those it has, the prior's draws included.
    score, games = table(4, (0, 1, 3, 10), (1, 2, 6, 10), (2, 3, 2, 20), (3, 0, 17, 20), (1, 3, 1, 5))
    elo = elo_ratings(score, games).elo
    expected = 1 / (1 + 10 ** ((elo - elo[:, None]) / 400))
    met = games > 0
    assert ((games + met) * expected).sum(1) == pytest.approx((score + met / 2).sum(1))
    # so much consistent evidence that the prior is nothing
    truth = np.array([0, 150, -80, 600])
    expected = 1 / (1 + 10 ** ((truth - truth[:, None]) / 400))
    np.fill_diagonal(expected, 0)
    assert elo_ratings(1e7 * expected, 1e7 * (1 - np.eye(4))).elo == pytest.approx(truth, abs=0.01)


def test_intervals_of_ratings_cover_the_truth():
    """Five players, the way a ladder plays: each against its neighbour, and three against the first."""
    rng, truth = np.random.default_rng(2), np.array([0, 120, 250, 300, 500])
    hits = []
    for _ in range(300):
        pairs = [(1, 0), (2, 1), (3, 2), (4, 3), (2, 0), (3, 0), (4, 0)]
        chance = [1 / (1 + 10 ** ((truth[j] - truth[i]) / 400)) for i, j in pairs]
        points = rng.binomial(40, chance)
        ratings = elo_ratings(*table(5, *((i, j, won, 40) for (i, j), won in zip(pairs, points, strict=True))))
        hits.append((ratings.low <= truth) & (truth <= ratings.high))
    assert np.all(hits, 0)[0] and (abs(np.mean(hits, 0)[1:] - 0.95) < 0.035).all()


def test_players_that_nothing_links_to_the_anchor_are_unknown():
    ratings = elo_ratings(*table(5, (1, 0, 8, 10), (2, 3, 5, 10)), names=("a", "b", "c", "d", "e"))
    assert np.isnan(ratings.elo).tolist() == [False, False, True, True, True]
    assert ratings.low[2] == -math.inf and ratings.high[2] == math.inf
    assert ratings.elo[1] == elo_ratings(*table(2, (1, 0, 8, 10))).elo[1]
    lines = str(ratings).splitlines()
    assert lines[1].split()[:4] == ["b", "10", "80%", "+213"] and lines[-1].split() == ["e", "0", "-", "unknown"]
    assert elo_ratings(np.zeros((1, 1)), np.zeros((1, 1))).elo.tolist() == [0]


def test_tables_that_are_none_are_refused():
    score, games = table(2, (1, 0, 8, 10))
    for wrong in (
        (score, 2 * games),
        (score - 9, games),
        (score, games + np.eye(2)),
        (score * np.nan, games),
        (score + np.inf, games + np.inf),
    ):
        with pytest.raises(ValueError, match="must be games"):
            elo_ratings(*wrong)
    for options in ({"names": ("a",)}, {"anchor": 2}, {"level": 1}):
        with pytest.raises(ValueError, match="no ratings of 2 players"):
            elo_ratings(score, games, **options)


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
