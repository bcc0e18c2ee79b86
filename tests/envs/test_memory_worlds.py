"""Worlds that need memory, by their known answers: what a player with memory scores by hand, and one without."""

import sys

import gymnasium
import numpy as np
import pytest

from envs.atari import Atari
from envs.catch import Catch
from envs.memory import EAST, NORTH, SOUTH, WEST, Flicker, HiddenCartPole, Popgym, TMaze

UP, DOWN, CORRIDOR, JUNCTION = [0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0]


def play(envs, policy, steps):
    """Steps of a policy(obs, memory, first) -> (actions, memory), with memory None at the start."""
    obs, memory, first, out = envs.reset(), None, np.ones(envs.num_envs, bool), []
    for _ in range(steps):
        actions, memory = policy(obs, memory, first)
        out.append(envs.step(actions))
        obs, first = out[-1].obs, out[-1].first
    return out


def scores(steps):
    return np.concatenate([s.score[s.last] for s in steps])


def assert_same_steps(one, two):
    for x, y in zip(one, two, strict=True):
        np.testing.assert_array_equal(x, y)


def resume(make, policy_seed, steps=60):
    """Play half, save, and go on in two worlds: the old one and a new one of another seed."""
    envs, other = make(5), make(9)
    actions = np.random.default_rng(policy_seed).integers(0, envs.num_actions, (2 * steps, envs.num_envs))
    envs.reset()
    for a in actions[:steps]:
        envs.step(a)
    other.load_state_dict(envs.state_dict())
    for a in actions[steps:]:
        assert_same_steps(envs.step(a), other.step(a))


# -- T-maze ----------------------------------------------------------------------------------------------------------


def follow_the_sign(obs, turn, first):
    """Remember the sign, walk east, turn at the junction."""
    seen = np.where((obs[:, 0] == UP).all(1), NORTH, SOUTH)
    turn = seen if turn is None else np.where(first, seen, turn)
    return np.where((obs[:, 0] == JUNCTION).all(1), turn, EAST), turn


def against_the_sign(obs, turn, first):
    actions, turn = follow_the_sign(obs, turn, first)
    return np.where(actions == EAST, EAST, NORTH + SOUTH - actions), turn


def always_north(obs, memory, first):
    return np.where((obs[:, 0] == JUNCTION).all(1), NORTH, EAST), None


def test_the_sign_decides_the_score():
    # 5 steps east, the turn, the autoreset: 10 episodes in 70 steps
    best, worst = (
        scores(play(TMaze(8, length=5), follow_the_sign, 70)),
        scores(play(TMaze(8, length=5), against_the_sign, 70)),
    )
    assert len(best) == len(worst) == 80 and (best == 1).all() and (worst == 0).all()
    blind = scores(play(TMaze(64, length=1), always_north, 150))
    assert len(blind) == 64 * 50 and set(blind) == {0, 1} and abs(blind.mean() - 0.5) < 2.5 / np.sqrt(len(blind))


def test_the_sign_is_seen_once_and_the_corridor_looks_alike():
    envs = TMaze(32, length=3, seed=1)
    signs = envs.reset()
    assert signs.shape == (32, *envs.obs_shape) == (32, 1, 3) and signs.dtype == np.float32
    assert {tuple(s) for s in signs[:, 0].tolist()} == {tuple(UP), tuple(DOWN)}
    for action, sight in (
        (WEST, CORRIDOR),  # a wall; the sign at the start is gone
        (NORTH, CORRIDOR),
        (EAST, CORRIDOR),
        (WEST, CORRIDOR),  # at the start again
        (EAST, CORRIDOR),
        (SOUTH, CORRIDOR),
        (EAST, CORRIDOR),
        (EAST, JUNCTION),
        (EAST, JUNCTION),  # a wall
        (WEST, CORRIDOR),
        (EAST, JUNCTION),
    ):
        step = envs.step(np.full(32, action))
        assert (step.obs[:, 0] == sight).all() and not step.last.any() and (step.r_t == 0).all()
    end = envs.step(np.full(32, NORTH))
    np.testing.assert_array_equal(end.r_t, np.where((signs[:, 0] == UP).all(1), 1, 0))
    assert (end.obs == 0).all()


def test_tmaze_ends_and_begins_as_the_interface_says():
    steps = play(TMaze(3, length=2), follow_the_sign, 8)
    assert [s.last.all() for s in steps] == [False, False, True, False] * 2
    assert [s.first.all() for s in steps] == [False, False, False, True] * 2
    assert [s.discount_t.tolist() for s in steps] == [[1] * 3, [1] * 3, [0] * 3, [1] * 3] * 2
    assert [s.length.tolist() for s in steps] == [[1] * 3, [2] * 3, [3] * 3, [0] * 3] * 2
    assert [s.r_t.tolist() for s in steps] == [[0] * 3, [0] * 3, [1] * 3, [0] * 3] * 2
    assert np.isnan(steps[1].score).all()


def test_the_cap_of_the_tmaze_is_a_truncation_unless_the_last_step_turns():
    envs = TMaze(2, length=2)
    envs.reset()
    for _ in range(2):  # the second episode begins its count anew
        steps = [envs.step(np.array([EAST, EAST])) for _ in range(15)]
        steps.append(envs.step(np.array([EAST, NORTH])))
        assert not any(s.last.any() for s in steps[:-1])
        assert (
            steps[-1].last.all() and steps[-1].discount_t.tolist() == [1, 0] and steps[-1].length.tolist() == [16, 16]
        )
        assert steps[-1].score[0] == 0 and steps[-1].score[1] in (0, 1)
        begun = envs.step(np.array([NORTH, NORTH]))  # ignored
        assert begun.first.all() and not begun.last.any()
        assert begun.r_t.tolist() == [0, 0] and begun.discount_t.tolist() == [1, 1]


def test_tmaze_resumes_exactly_and_seeds_reproduce():
    resume(lambda seed: TMaze(4, length=2, seed=seed), 0)
    one, two, other = (TMaze(64, seed=s).reset() for s in (3, 3, 4))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_memory_worlds_refuse_misuse():
    with pytest.raises(ValueError, match="at least 1 step"):
        TMaze(length=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        Flicker(Catch(), 1.5)
    envs = TMaze()
    with pytest.raises(RuntimeError, match="without a send"):
        envs.recv()
    envs.send(np.array([EAST]))
    with pytest.raises(RuntimeError, match="twice"):
        envs.send(np.array([EAST]))


# -- CartPole --------------------------------------------------------------------------------------------------------


def balance(obs, before, first):
    """Velocities from the last two observations; a linear rule on all four."""
    before = obs if before is None else np.where(first[:, None, None], obs, before)
    (x, angle), (x_dot, angle_dot) = obs[:, 0].T, (obs - before)[:, 0].T / 0.02
    return (angle + 0.4 * angle_dot + 0.05 * x + 0.1 * x_dot > 0).astype(np.int64), obs


def lean(obs, memory, first):
    return (obs[:, 0, 1] > 0).astype(np.int64), None


def test_cartpole_moves_as_gymnasiums_single_one():
    envs = HiddenCartPole(4, seed=1)
    obs = envs.reset()
    assert obs.shape == (4, *envs.obs_shape) == (4, 1, 2) and obs.dtype == np.float32
    singles = [gymnasium.make("CartPole-v1") for _ in range(4)]
    rng, ends = np.random.default_rng(0), 0

    def start(e):
        singles[e].reset()
        singles[e].unwrapped.state = envs._envs.state[:, e].copy()

    for e in range(4):
        start(e)
    for _ in range(150):
        actions = rng.integers(0, 2, 4)
        step = envs.step(actions)
        for e, single in enumerate(singles):
            if step.first[e]:
                assert step.r_t[e] == 0 and step.discount_t[e] == 1 and not step.last[e]
                assert (np.abs(step.obs[e]) <= 0.05).all()
                start(e)
                continue
            (x, _, angle, _), reward, terminated, truncated, _ = single.step(actions[e])
            np.testing.assert_allclose(step.obs[e, 0], [x, angle], atol=1e-6)
            assert step.r_t[e] == reward == 1 and not truncated
            assert step.last[e] == terminated and step.discount_t[e] == 1 - terminated
            ends += terminated
    assert ends >= 12


def test_cartpole_is_solved_with_two_observations_and_not_with_one():
    steps = play(HiddenCartPole(8, seed=2), balance, 501)
    capped = steps[499]
    assert not any(s.last.any() for s in steps[:499])
    assert capped.last.all() and (capped.discount_t == 1).all() and (capped.score == 500).all()
    assert steps[500].first.all() and (steps[500].length == 0).all()
    fallen = scores(play(HiddenCartPole(8, seed=2), lean, 300))
    assert len(fallen) > 40 and fallen.max() < 100


def test_cartpole_resumes_exactly_and_seeds_reproduce():
    resume(lambda seed: HiddenCartPole(4, seed=seed), 0)
    envs = HiddenCartPole(4, seed=3)
    first, second = envs.reset(), envs.reset()
    assert np.array_equal(first, HiddenCartPole(4, seed=3).reset()) and not np.array_equal(first, second)


def test_cartpole_counts_to_its_cap_across_a_resume():
    envs, other = HiddenCartPole(2, seed=2), HiddenCartPole(2)
    play(envs, balance, 499)
    envs._envs.state[:] = 0
    other.load_state_dict(envs.state_dict())
    step = other.step(np.zeros(2, np.int64))
    assert step.last.all() and (step.discount_t == 1).all() and other.step(np.zeros(2, np.int64)).first.all()


# -- POPGym ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def popgym():
    return pytest.importorskip("popgym", reason="needs the extra `memory`")


def remember(delay):
    """Say the suit of `delay` steps ago, or None: the first."""

    def policy(obs, seen, first):
        suits = obs[:, 0].argmax(1)
        seen = [[] for _ in suits] if seen is None else seen
        for e, suit in enumerate(suits):
            seen[e] = [suit] if first[e] else [*seen[e], suit]
        return np.array([s[0] if delay is None else s[max(len(s) - 1 - delay, 0)] for s in seen]), seen

    return policy


@pytest.mark.parametrize(
    "name, delay, length",
    [
        ("repeat_first_easy", None, 51),
        ("repeat_previous_easy", 3, 51),
        ("repeat_previous_medium", 31, 103),
        ("repeat_previous_hard", 63, 155),
    ],
)
def test_a_perfect_memory_scores_one(popgym, name, delay, length):
    envs = Popgym(name, 4, seed=1)
    assert (envs.protocol, envs.num_actions, envs.obs_shape) == (name, 4, (1, 4))
    steps = play(envs, remember(delay), 2 * length + 1)
    assert all((s.obs.sum(2) == 1).all() and s.obs.dtype == np.float32 for s in steps)
    assert [t for t, s in enumerate(steps) if s.last.any()] == [length - 1, 2 * length]
    assert steps[length].first.all() and (steps[length].length == 0).all() and (steps[length].r_t == 0).all()
    assert (steps[length - 1].discount_t == 0).all() and (steps[length - 2].discount_t == 1).all()
    np.testing.assert_allclose(scores(steps), 1, rtol=1e-6)


def test_a_constant_scores_what_it_should(popgym):
    def constant(obs, memory, first):
        return np.full(len(obs), 2), None

    envs = Popgym("RepeatFirstEasy", 16, seed=2)
    lucky = envs.reset()[:, 0, 2] == 1
    steps = [envs.step(np.full(16, 2)) for _ in range(51)]
    assert 0 < lucky.sum() < 16
    np.testing.assert_allclose(scores(steps), np.where(lucky, 1, -1), rtol=1e-6)
    # 13 cards of each suit: 9 to 13 of the 48 that count
    previous = scores(play(Popgym("repeat_previous_easy", 16, seed=2), constant, 51))
    right = (previous * 48 + 48) / 2
    np.testing.assert_allclose(right, right.round(), atol=1e-4)
    assert right.min() > 8.9 and right.max() < 13.1 and abs(right.mean() - 12) < 1


@pytest.mark.parametrize(
    "name, actions, shape",
    [
        ("autoencode_easy", 4, (1, 2 + 4)),  # a tuple
        ("count_recall_easy", 27, (1, 2 + 2)),  # two numbers of two values
        ("position_only_cart_pole_easy", 2, (1, 2)),  # real numbers
        ("multiarmed_bandit_easy", 10, (1, 2 + 10)),  # with the action before
    ],
)
def test_popgym_observations_are_flat(popgym, name, actions, shape):
    envs = Popgym(name, 3, seed=0)
    assert (envs.num_actions, envs.obs_shape) == (actions, shape) and envs.reset().shape == (3, *shape)
    step = envs.step(np.array([0, 1, 1]))
    assert step.obs.shape == (3, *shape) and step.obs.dtype == np.float32
    if name.startswith("multiarmed"):
        np.testing.assert_array_equal(step.obs[:, 0, 2:].argmax(1), [0, 1, 1])


def test_popgym_seeds_reproduce_and_copies_differ(popgym):
    one, two, other = (play(Popgym("repeat_first_easy", 4, seed=s), remember(None), 120) for s in (3, 3, 4))
    for a, b in zip(one, two, strict=True):
        assert_same_steps(a, b)
    games = np.stack([s.obs for s in one])
    assert not np.array_equal(games, np.stack([s.obs for s in other]))
    assert not np.array_equal(games[:, 0], games[:, 1])
    assert not hasattr(Popgym("repeat_first_easy"), "state_dict")


def test_popgym_refuses_with_a_remedy(popgym, monkeypatch):
    with pytest.raises(ValueError, match="choose from repeat_first_easy"):
        Popgym("repeat_frist_easy")
    with pytest.raises(ValueError, match="discrete"):
        Popgym("position_only_pendulum_easy")
    monkeypatch.setitem(sys.modules, "popgym.envs", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[memory\]'"):
        Popgym("repeat_first_easy")


# -- Flicker ---------------------------------------------------------------------------------------------------------


def test_flicker_blanks_half_of_the_frames_and_changes_nothing_else():
    envs, inner = Flicker(Catch(64, size=12, seed=1), seed=2), Catch(64, size=12, seed=1)
    assert (envs.obs_shape, envs.num_envs, envs.num_actions, envs.frames_per_step) == ((1, 12, 12), 64, 3, 1)
    assert envs.protocol == "catch, flicker 0.5"
    rng, blank = np.random.default_rng(0), []
    frames = [(envs.reset(), inner.reset())]
    for _ in range(60):
        actions = rng.integers(0, 3, 64)
        one, two = envs.step(actions), inner.step(actions)
        assert_same_steps(one[1:], two[1:])
        frames.append((one.obs, two.obs))
    for one, two in frames:
        assert one.shape == (64, 1, 12, 12) and one.dtype == np.uint8
        seen = one.any((1, 2, 3))
        np.testing.assert_array_equal(one[seen], two[seen, -1:])
        blank.append(~seen)
    blank = np.array(blank)  # Catch draws the paddle in every frame
    assert abs(blank.mean() - 0.5) < 5 * 0.5 / np.sqrt(blank.size)
    assert blank.mean(0).std() < 0.15 and blank.mean(1).std() < 0.15  # neither by world nor by step


@pytest.mark.parametrize("probability", [0, 1])
def test_flicker_at_its_ends(probability):
    envs, inner = Flicker(Catch(2, size=12, seed=1), probability), Catch(2, size=12, seed=1)
    for one, two in [(envs.reset(), inner.reset())] + [(envs.step(a).obs, inner.step(a).obs) for a in np.ones((20, 2))]:
        np.testing.assert_array_equal(one, two[:, -1:] * (1 - probability))


def test_flicker_can_be_saved_where_its_world_can():
    resume(lambda seed: Flicker(Catch(3, size=12, seed=seed), seed=seed), 0)
    envs = Flicker(Atari("pong", 2, seed=1), 0.0)
    assert not hasattr(envs, "state_dict") and envs.frames_per_step == 4
    assert envs.reset().shape == (2, 1, 84, 84) and envs.step(np.zeros(2, np.int64)).obs.any()
