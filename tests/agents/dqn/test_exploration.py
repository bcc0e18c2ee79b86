"""Repeated exploring actions, by their law."""

import numpy as np
import pytest

from agents.dqn.exploration import RepeatedActions

GREEDY = np.full(1000, 2)


def run(steps, epsilon, exponent=2.0, first=None, mask=None, seed=0):
    explore, rng = RepeatedActions(1000, exponent), np.random.default_rng(seed)
    nowhere = np.zeros(1000, bool)
    return np.array([explore(GREEDY, 3, epsilon, rng, nowhere if first is None else first, mask) for _ in range(steps)])


def test_without_epsilon_every_action_is_greedy():
    assert (run(20, 0.0) == 2).all()


def test_durations_follow_the_zeta_law():
    """Of one action alone, with few chances to begin: P(n) = n^-2 / zeta(2), so 61 % last a step, 15 % two."""
    actions = run(400, 0.002).T
    begins = (actions[:, 1:] != 2) & (actions[:, :-1] == 2)
    durations = []
    for row, starts in zip(actions, begins, strict=True):
        for start in np.flatnonzero(starts) + 1:
            if start < 300:
                durations.append(int(np.argmax(np.append(row[start:] == 2, True))))
    durations = np.array(durations)
    assert len(durations) > 300
    assert np.mean(durations == 1) == pytest.approx(0.61, abs=0.08)
    assert np.mean(durations == 2) == pytest.approx(0.15, abs=0.06) and durations.max() > 20


def test_an_exploration_ends_with_its_episode():
    explore, rng = RepeatedActions(1000, 1.1), np.random.default_rng(1)
    everywhere = np.ones(1000, bool)
    explore(GREEDY, 3, 1.0, rng, ~everywhere, None)
    assert (explore.left > 5).mean() > 0.5
    assert (explore(GREEDY, 3, 0.0, rng, everywhere, None) == 2).all()


def test_masked_actions_are_neither_begun_nor_kept_up():
    mask = np.tile([True, False, True], (1000, 1))
    assert not (run(10, 0.8, mask=mask) == 1).any()
    explore, rng = RepeatedActions(1000, 1.1), np.random.default_rng(1)
    nowhere = np.zeros(1000, bool)
    explore(GREEDY, 3, 1.0, rng, nowhere, None)
    assert not (explore(GREEDY, 3, 0.0, rng, nowhere, mask) == 1).any()


def test_it_goes_on_where_it_was_saved():
    one, two = RepeatedActions(1000, 1.5), RepeatedActions(1000, 1.5)
    rng, nowhere = np.random.default_rng(3), np.zeros(1000, bool)
    one(GREEDY, 3, 0.5, rng, nowhere, None)
    two.load_state_dict(one.state_dict())
    again = np.random.default_rng(4), np.random.default_rng(4)
    ours, theirs = (x(GREEDY, 3, 0.3, r, nowhere, None) for x, r in zip((one, two), again, strict=True))
    assert np.array_equal(ours, theirs)


def test_an_exponent_without_a_law_is_refused():
    with pytest.raises(ValueError, match="above 1"):
        RepeatedActions(2, 0.5)
