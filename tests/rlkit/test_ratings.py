import math

import numpy as np
import pytest

from rlkit.ratings import elo_difference, elo_interval, elo_ratings, wilson_interval


def test_wilson_interval_and_elo():
    # By hand for 7 of 10 with z = 1.96: (8.9207 -+ 3.4327) / 13.8415.
    assert wilson_interval(7, 10) == pytest.approx((0.3968, 0.8922), abs=1e-4)
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson_interval(0, 10) == pytest.approx((0, 3.8415 / 13.8415), abs=1e-4)
    assert wilson_interval(10, 10)[1] == 1 and wilson_interval(0, 0) == (0, 1)
    narrow, wide = wilson_interval(7, 10, 0.5), wilson_interval(7, 10, 0.99)
    assert wide[0] < narrow[0] < 0.7 < narrow[1] < wide[1]
    assert elo_difference(0.5) == 0 and elo_difference(10 / 11) == pytest.approx(400)
    assert elo_difference(0.25) == pytest.approx(-190.85, abs=0.01)
    assert (elo_difference(0), elo_difference(1)) == (-math.inf, math.inf)
    assert elo_interval(50, 100) == pytest.approx((-67.67, 67.67), abs=0.01)
    assert elo_interval(3, 3)[1] == math.inf
    with pytest.raises(ValueError, match="no interval of 3 wins in 2 games"):
        wilson_interval(3, 2)


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
