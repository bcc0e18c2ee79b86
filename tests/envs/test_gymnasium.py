"""Environments of gymnasium against single ones stepped by hand; what goes wrong in them, and with their names."""

import functools
import warnings

import ale_py  # noqa: F401  (registers Atari's games, which no hint should name)
import gym_toys
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces import Box, flatten

import envs.go  # noqa: F401  (registers rlkit/Go-v0)
from envs.gymnasium import EnvironmentFailed, Gymnasium, Options
from envs.gymnasium_names import draws, maker, name_of
from envs.spaces import view_of
from experiments.control import worlds
from rlkit.replay import Replay

# -- the same transitions ----------------------------------------------------------------------------------------------


def by_hand(name, seeds, actions, make):
    """Steps of single environments, each a dict, with actions [T, E] as gymnasium takes them; the action after an end
    is left out.
    """
    steps = [[] for _ in actions]
    for e, seed in enumerate(seeds):
        env = make()
        obs, info = env.reset(seed=seed)
        start = [(obs, info)]
        ended, score, length = False, 0.0, 0
        for t, row in enumerate(actions):
            if ended:
                obs, info = env.reset()
                now = {"r_t": 0.0, "discount_t": 1.0, "last": False, "first": True, "score": np.nan, "length": 0}
                ended, score, length = False, 0.0, 0
            else:
                obs, reward, terminated, truncated, info = env.step(row[e])
                ended, score, length = terminated or truncated, score + reward, length + 1
                now = {"r_t": reward, "discount_t": float(not terminated), "last": ended, "first": False}
                now |= {"score": score if ended else np.nan, "length": length}
            steps[t].append(now | {"obs": flatten(env.observation_space, obs), "mask": info.get("action_mask")})
        steps[0][-1]["start"] = start
    return steps


def seeds_of(seed, num_envs):
    return (np.random.SeedSequence(seed).generate_state(num_envs) >> 1).tolist()


EXACT = {
    "CartPole": (
        lambda: gymnasium.make("CartPole-v1", max_episode_steps=20), "CartPole-v1", ("max_episode_steps=20",), 0
    ),
    "FrozenLake": (lambda: gymnasium.make("FrozenLake-v1", is_slippery=True), "FrozenLake-v1", (), 0),
    "Taxi": (lambda: gymnasium.make("Taxi-v4", max_episode_steps=9), "Taxi-v4", ("max_episode_steps=9",), 0),
    "Go": (
        lambda: gymnasium.make("rlkit/Go-v0", size=5, max_moves=20),
        "envs.go:rlkit/Go-v0",
        ("size=5", "max_moves=20"),
        0,
    ),
    "toy": (lambda: gymnasium.make("GymToys/Endings-v3"), "gym_toys:GymToys/Endings-v3", (), -1),
}  # fmt: skip


@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize("kind", EXACT)
def test_the_same_as_single_environments_stepped_by_hand(kind, vectorization):
    make, name, kwargs, start = EXACT[kind]
    num_envs, steps = 3, 60
    envs = Gymnasium(name, num_envs, options=Options(kwargs, vectorization=vectorization), seed=7)
    actions = np.random.default_rng(1).integers(0, envs.num_actions, (steps, num_envs))
    expected = by_hand(name, seeds_of(7, num_envs), actions + start, make)
    obs, masked = envs.reset(), kind in ("Taxi", "Go")
    assert (envs.mask is not None) == masked and obs.shape == (num_envs, *envs.obs_shape)
    for e, one in enumerate(expected[0]):
        first, info = one["start"][0]
        np.testing.assert_array_equal(obs[e].ravel(), np.ravel(flatten(make().observation_space, first)))
        assert not masked or (envs.mask[e] == info["action_mask"]).all()
    ends = {"terminated": 0, "truncated": 0}
    for row, singles in zip(actions, expected, strict=True):
        step = envs.step(row)
        for e, one in enumerate(singles):
            np.testing.assert_array_equal(step.obs[e].ravel(), one["obs"].ravel())
            for field in ("r_t", "discount_t", "last", "first", "score", "length"):
                np.testing.assert_array_equal(getattr(step, field)[e], np.float32(one[field]), field)
            if masked:
                assert (envs.mask[e] == (one["mask"] if one["mask"].any() else 1)).all()
        ends["terminated"] += (step.last & (step.discount_t == 0)).sum()
        ends["truncated"] += (step.last & (step.discount_t == 1)).sum()
    assert sum(ends.values()) > 2 and (kind != "toy" or min(ends.values()) > 2)
    envs.close()


def test_another_reset_begins_other_episodes_even_in_the_middle_of_a_step():
    one, other = (Gymnasium("gym_toys:Endings", 2, seed=seed) for seed in (3, 3))
    first = one.reset()
    np.testing.assert_array_equal(first, other.reset())
    one.send(np.zeros(2, int))
    again = one.reset()
    assert (again[..., 0] == 0).all() and (again != first).any()
    assert one.step(np.zeros(2, int)).length.tolist() == [1, 1]
    other.step(np.zeros(2, int))
    assert (Gymnasium("gym_toys:Endings", 2, seed=4).reset() != first).any()
    with pytest.raises(RuntimeError, match="without a send"):
        one.recv()
    one.send(np.zeros(2, int))
    with pytest.raises(RuntimeError, match="twice"):
        one.send(np.zeros(2, int))


LAYOUTS = {
    "hwc": ((48, 40, 3), {}),
    "chw in colour": ((3, 48, 40), {"colour": True}),
    "grey": ((48, 40), {"resize": 0}),
    "rgba": ((48, 40, 4), {"resize": 36, "colour": True, "stack": 2}),
    "planes": ((5, 6, 3), {"stack": 3}),
    "vector": ((6,), {"stack": 3}),
    "stacked": ((2, 40, 40), {"resize": 0}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_stacks_begin_empty_and_the_replay_rebuilds_them(layout):
    shape, options = LAYOUTS[layout]
    kwargs = (f"shape={shape}",)
    envs = Gymnasium("gym_toys:Pictures", 2, options=Options(kwargs, **options), seed=2)
    view = view_of(
        Box(0, 255, shape, np.uint8), *(getattr(Options(**options), x) for x in ("stack", "resize", "colour"))
    )
    assert envs.obs_shape == (view.stack, *view.shape) and envs.obs_dtype == view.dtype
    replay = Replay(
        40, 2, envs.obs_shape[1:], stack=envs.obs_shape[0], dtype=worlds.frame_dtype(envs), n_step=2, gamma=1.0
    )  # fmt: skip
    make = functools.partial(gym_toys.Pictures, shape)
    expected = by_hand("", seeds_of(2, 2), np.zeros((12, 2), int), make)
    obs, first, last = envs.reset(), np.ones(2, bool), np.zeros(2, bool)
    history = [obs]
    frames = [np.zeros((2, *shape), np.uint8)] * view.stack
    frames[-1] = np.stack([one["start"][0][0] for one in expected[0]])
    for singles in expected:
        step = envs.step(np.zeros(2, int))
        replay.add(obs[:, -1], np.zeros(2), step.r_t, step.discount_t, first, last)
        obs, first, last = step.obs, step.first, step.last
        history.append(obs)
        assert singles[0]["first"] == singles[1]["first"]
        if singles[0]["first"]:
            frames = [np.zeros((2, *shape), np.uint8)] * view.stack
        frames = [*frames[1:], np.stack([one["obs"].reshape(shape) for one in singles])]
        np.testing.assert_array_equal(obs, np.stack([view.of(frame) for frame in frames], 1))
    for time, env in [(0, 0), (1, 1), (2, 0), (4, 1), (5, 0), (8, 1)]:
        batch = replay.batch_at_moments(np.array([time]), np.array([env]))
        np.testing.assert_array_equal(batch["s_tm1"][0], history[time][env])
        end = min(time + 2, time - time % 4 + 3)
        np.testing.assert_array_equal(batch["s_t"][0], history[end][env])
        assert batch["r_t"].item() == end - time and batch["discount_t"].item() == 1


@pytest.mark.parametrize("observes", ["dict", "one_of", "box"])
@pytest.mark.parametrize("acts", ["pair", "force"])
def test_nested_observations_and_composed_actions(observes, acts):
    kwargs = (f"observes={observes}", f"acts={acts}")
    options = Options(kwargs, bins=2, vectorization="sync")
    envs = Gymnasium("gym_toys:Odd", 2, options=options, seed=5)
    assert envs.num_actions == (6 if acts == "pair" else 4)
    obs, space = envs.reset(), gym_toys.SPACES[observes]
    assert obs.shape == (2, 1, spaces.flatdim(space)) and obs.dtype == np.float32
    for number in range(envs.num_actions):
        step = envs.step(np.array([number, 0]))
    assert step.r_t.dtype == np.float32 and envs.mask is None


# -- masks -------------------------------------------------------------------------------------------------------------


def test_a_mask_may_be_of_dimensions_and_of_nothing_at_an_end():
    two, four = spaces.MultiDiscrete([2, 2]), np.zeros((4, 1), np.float32)
    box = Box(-1, 1, (1,))
    envs = Gymnasium(name_of(lambda: gym_toys.Told(box, four, two, (np.array([1, 0]), np.array([1, 1])))), 2)
    envs.reset()
    assert envs.mask.tolist() == [[True, True, False, False]] * 2
    envs = Gymnasium(name_of(lambda: gym_toys.Told(box, four, mask=np.zeros(2, np.int8))))
    assert envs.mask.tolist() == [[True, True]]
    envs = Gymnasium(name_of(lambda: gym_toys.Told(box, four)))
    assert envs.mask is None and envs.step(np.zeros(1, int)).first.tolist() == [False] and envs.mask is None


def test_actions_arrive_as_the_space_has_them():
    told = gym_toys.Told(Box(-1, 1, (1,)), np.zeros((9, 1), np.float32), spaces.MultiDiscrete([2, 3], start=[5, -1]))
    envs = Gymnasium(name_of(lambda: told))
    envs.reset()
    for number in range(6):
        envs.step(np.array([number]))
    assert [action.tolist() for action in told.taken] == [[x, y] for x in (5, 6) for y in (-1, 0, 1)]


# -- what goes wrong in an environment ---------------------------------------------------------------------------------

FAILS = {
    "step": (r"environment [01] \(gym_toys:Breaks\) raised ZeroDivisionError\('speed of nothing'\), at step 3", 4),
    "reset": (r"raised KeyError\('level 7'\) in reset, at step 0 of an episode", 20),
    "shape": (r"observed something of shape \(4,\), and its space has \(3,\), at step 3", 4),
    "nan": ("observed numbers that are not finite", 4),
    "inf": ("observed numbers that are not finite", 4),
    "text": (r"observed something of shape \(\)", 4),
    "reward_nan": ("returned the reward nan, which is no number", 4),
    "reward_none": ("returned the reward None, which is no number", 4),
    "reward_text": ("returned the reward 'much', which is no number", 4),
    "spaces": ("has other spaces than at the beginning, at step 0", 20),
    "tuple": ("raised ValueError.*unpack", 4),
    "late_mask": ("masks actions, and its first reset did not", 4),
}


@pytest.mark.parametrize("what", FAILS)
def test_a_failing_environment_says_which_and_where(what):
    words, steps = FAILS[what]
    envs = Gymnasium("gym_toys:Breaks", 2, options=Options((f"what={what}",)))
    envs.reset()
    with pytest.raises(EnvironmentFailed, match=words) as caught:
        for _ in range(steps):
            envs.step(np.zeros(2, int))
    assert (what in ("step", "reset")) == isinstance(caught.value.__cause__, ArithmeticError | LookupError)


@pytest.mark.parametrize("what", ["step", "die"])
def test_a_failing_process_says_so_too(what):
    envs = Gymnasium("gym_toys:Breaks", 2, options=Options((f"what={what}",), vectorization="async"))
    envs.reset()
    with warnings.catch_warnings(record=True) as told:  # which is how gymnasium shows their traceback
        warnings.simplefilter("always")
        with pytest.raises(EnvironmentFailed, match=FAILS["step"][0] if what == "step" else "a process .* has died"):
            for _ in range(4):
                envs.step(np.zeros(2, int))
    assert what == "die" or any("raise ZeroDivisionError(" in str(one.message) for one in told)
    envs.close()


def test_one_that_cannot_begin_says_so_before_a_run_does():
    for what, words in {
        "constructor": r"gym_toys:Breaks cannot be made: its constructor raised OSError\('no licence'\)",
        "long_mask": r"environment 0 \(gym_toys:Breaks\) masks 5 actions and has 2",
    }.items():
        with pytest.raises(EnvironmentFailed, match=words):
            Gymnasium("gym_toys:Breaks", 2, options=Options((f"what={what}",)))
    with pytest.raises(EnvironmentFailed, match=r"raised KeyError\('level 7'\) in reset"):
        Gymnasium("gym_toys:Breaks", options=Options(("what=reset", "when=0")))


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_environments_of_one_name_with_different_spaces_are_refused(vectorization):
    sizes = iter(range(3, 99))
    name = name_of(lambda: gym_toys.Told(Box(-1, 1, (next(sizes),)), np.zeros((9, 3), np.float32)))
    with pytest.raises(EnvironmentFailed, match=r"lambda.*not the same each time|has shape|of shape"):
        Gymnasium(name, 2, options=Options(vectorization=vectorization))


# -- pictures of them --------------------------------------------------------------------------------------------------


def test_what_can_be_drawn():
    pytest.importorskip("pygame")
    envs = Gymnasium("CartPole-v1", 1, render=True)
    envs.reset()
    frame = envs.picture()
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.shape[2] == 3
    envs.close()
    for name, kwargs in (("gym_toys:Endings", ()), ("gym_toys:Breaks", ()), ("rlkit/Go-v0", ("render_mode=ansi",))):
        assert name == "rlkit/Go-v0" or not draws(maker(name))
        envs = Gymnasium(name, 1, options=Options(kwargs), render=True)
        envs.reset()
        with pytest.raises(ValueError, match=r"draws no pictures: it has no render mode rgb_array|cannot be drawn"):
            envs.picture()
    with pytest.raises(ValueError, match="draws no pictures"):
        Gymnasium("CartPole-v1").picture()


# -- packages that users bring -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "package", "shape"),
    [
        ("MiniGrid-Empty-5x5-v0", {"wrappers": ("minigrid.wrappers:ImgObsWrapper",)}, "minigrid", (1, 3, 7, 7)),
        ("LunarLander-v3", {}, "Box2D", (1, 8)),
        ("Pendulum-v1", {"bins": 3}, "gymnasium", (1, 3)),
    ],
)
def test_known_packages(name, options, package, shape):
    pytest.importorskip(package)
    envs = Gymnasium(name, 2, options=Options(**options), seed=1)
    assert envs.obs_shape == shape and envs.reset().shape == (2, *shape)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = envs.step(rng.integers(0, envs.num_actions, 2))
    assert np.isfinite(step.obs).all()
    envs.close()
