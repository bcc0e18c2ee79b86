"""The plan for a cluster, against figures worked out by hand."""

from dataclasses import replace

import pytest

from experiments.bench.plan import Cluster, predicted, table

IT = Cluster(
    updates=10, batch=100, reuse=4, games=50, each=20, evaluations=500, position=1_000, weights=10**6, bandwidth=10**6,
    publish_every=10, max_lag=2, machine=4,
)  # fmt: skip
"""a call is 50 x 20 / 500 = 2 s of play, and 1.05 s on the link: 50 positions and the weights"""


def test_each_bound_by_hand():
    assert IT.call == pytest.approx(3.05)
    one = predicted(IT, 1)  # a call is worth 50 x 4 / 100 = 2 updates
    assert one.bound == "actors" and one.updates == pytest.approx(2 / 3.05)
    assert one.waits == pytest.approx(1 - one.updates / 10) and one.lag == pytest.approx(one.updates * 3.05 / 10)
    assert one.received == pytest.approx(one.updates * 25 * 1_000) and one.sent == pytest.approx(one.updates * 10**5)
    # 29 updates go by while calls are under way: (2 + 1) x 10 - 1
    near = replace(IT, machine=100)
    assert predicted(near, 14).bound == "actors" and predicted(near, 14).updates == pytest.approx(28 / 3.05)
    fast = replace(IT, updates=100.0, bandwidth=10**9)
    assert predicted(fast, 20).bound == "lag", "a call is worth 40 updates"
    assert predicted(fast, 20).updates == pytest.approx(40 / (fast.call + 11 / 100)) and predicted(fast, 20).lag == 2
    near = replace(fast, machine=500, max_lag=500)
    assert predicted(near, 500).bound == "the learner" and predicted(near, 500).updates == 100
    slow = replace(IT, bandwidth=2 * 10**5)  # eight machines fetch a megabyte every ten updates
    assert predicted(slow, 32).bound == "link" and predicted(slow, 32).updates == pytest.approx(0.25)


def test_the_table_says_what_is_enough():
    lines = table(65, 0).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "4", "8", "16", "32", "64"]
    assert "held up by" in lines[1] and lines[2].endswith("actors")
