"""Environments for tests: small, exact, and some that misbehave. Named as gym_toys:NAME."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Told(gymnasium.Env):
    """Observes, in order, what it is told to (each once an episode), whatever the actions are, which it keeps.

    An episode ends with the last observation, truncated if its number is odd.
    """

    def __init__(self, space, seen, actions=None, mask=None, render_mode=None):
        self.observation_space, self.action_space = space, actions or spaces.Discrete(2)
        self.seen, self.mask, self.episodes, self.taken = list(seen), mask, 0, []
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.episodes = 0, self.episodes + 1
        return self.seen[0], self.info()

    def step(self, action):
        self.taken.append(action)
        self.t += 1
        end = self.t == len(self.seen) - 1
        odd = self.episodes % 2 == 1
        return self.seen[self.t], float(self.t), end and not odd, end and odd, self.info()

    def info(self):
        return {} if self.mask is None else {"action_mask": self.mask}


class Pictures(gymnasium.Env):
    """Random pictures of any layout, episodes of three steps."""

    def __init__(self, shape=(48, 40, 3), high=255, dtype="uint8"):
        self.observation_space = spaces.Box(0, high, tuple(shape), np.dtype(dtype))
        self.action_space = spaces.Discrete(2)

    def _picture(self):
        space = self.observation_space
        return self.np_random.integers(0, int(space.high.max()) + 1, space.shape).astype(space.dtype)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._picture(), {}

    def step(self, action):
        self.t += 1
        return self._picture(), 1.0, False, self.t == 3, {}


class Endings(gymnasium.Env):
    """A counter that ends by chance: a third of the steps that may, half of them truncated. Reward: action - 1."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._obs(), {"of": "reset"}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        draw = self.np_random.random()
        return self._obs(), action - 1, draw < 1 / 6, 1 / 6 <= draw < 1 / 3, {"t": self.t, "none": None}

    def _obs(self):
        return np.array([self.t, self.np_random.random()], np.float32)


class Forbidden(gymnasium.Env):
    """A walk over five cells whose last one pays 1. Of four actions two are illegal at each cell, and each illegal one
    would pay 10: whoever takes one is counted. Only at even cells is 0 the way on, at odd ones it is 1.
    """

    illegal = 0
    observation_space = spaces.Discrete(5)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.t = 0, 0
        return self.at, {"action_mask": self.mask()}

    def mask(self):
        """Even cells: on by 0, back by 2. Odd cells: on by 1, back by 3."""
        odd = self.at % 2
        return np.array([not odd, odd, not odd, odd], np.int8)

    def step(self, action):
        legal = bool(self.mask()[action])
        Forbidden.illegal += not legal
        self.at = max(0, min(4, self.at + (1 if action < 2 else -1))) if legal else self.at
        self.t += 1
        end = self.at == 4
        return self.at, 10.0 if not legal else float(end), end, self.t == 20, {"action_mask": self.mask()}


class Breaks(gymnasium.Env):
    """Does `what`, in step `when` of all steps that it makes (or in the reset after that many episodes)."""

    metadata = {"render_modes": ["ansi"]}
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Discrete(2)
    healed = False
    WHAT = ("step", "reset", "constructor", "shape", "nan", "inf", "text", "reward_nan", "reward_none", "reward_text",
            "spaces", "tuple", "late_mask", "long_mask", "die")  # fmt: skip

    def __init__(self, what="nothing", when=3, render_mode=None):
        what = "nothing" if Breaks.healed else what
        if what == "constructor":
            raise OSError("no licence")
        assert render_mode in (None, "ansi")
        self.what, self.when, self.steps, self.t, self.resets = what, when, 0, 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.resets = 0, self.resets + 1
        if self.what == "reset" and self.resets > self.when:
            raise KeyError("level 7")
        if self.what == "spaces" and self.resets > self.when:
            self.action_space = spaces.Discrete(5)
        return np.zeros(3, np.float32), {"action_mask": np.ones(5, np.int8)} if self.what == "long_mask" else {}

    def step(self, action):
        self.t, self.steps = self.t + 1, self.steps + 1
        obs, reward, info = np.full(3, self.t / 10, np.float32), 1.0, {"words": ["of", "any", "length"][: self.t]}
        if self.steps == self.when:
            if self.what == "step":
                raise ZeroDivisionError("speed of nothing")
            if self.what == "tuple":
                return obs, reward, False, info
            if self.what == "die":
                import os

                os._exit(3)
            obs = {"shape": np.zeros(4, np.float32), "nan": obs * np.nan, "inf": np.full(3, 1e39), "text": "up"}.get(
                self.what, obs
            )
            reward = {"reward_nan": np.nan, "reward_none": None, "reward_text": "much"}.get(self.what, reward)
            info = {"action_mask": np.ones(2)} if self.what == "late_mask" else info
        return obs, reward, self.t == 5, False, info


class Odd(gymnasium.Env):
    """Any spaces, given by their names in SPACES; samples of them."""

    def __init__(self, observes="box", acts="two"):
        self.observation_space, self.action_space = SPACES[observes], SPACES[acts]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), np.array([0.5]), self.t == 4, False, {}


SPACES = {
    "box": spaces.Box(-1, 1, (3,)),
    "two": spaces.Discrete(2),
    "text": spaces.Text(5),
    "graph": spaces.Graph(spaces.Box(0, 1, (2,)), None),
    "sequence": spaces.Sequence(spaces.Discrete(3)),
    "minigrid": spaces.Dict(image=spaces.Box(0, 255, (7, 7, 3), np.uint8), mission=spaces.Text(5)),
    "dict": spaces.Dict(
        a=spaces.Discrete(3, start=2), b=spaces.Dict(c=spaces.Box(0, 1, (2, 2)), d=spaces.MultiBinary(3))
    ),
    "tuple": spaces.Tuple((spaces.Discrete(2), spaces.Text(3))),
    "one_of": spaces.OneOf((spaces.Discrete(2), spaces.Box(0, 1, (2,)))),
    "force": spaces.Box(-2, 2, (2,)),
    "endless": spaces.Box(-np.inf, 2, (2,)),
    "many": spaces.MultiDiscrete([17, 17, 17]),
    "pair": spaces.MultiDiscrete([2, 3]),
    "acts_dict": spaces.Dict(a=spaces.Discrete(2)),
}  # fmt: skip


def double():
    """Returns an environment that is wrapped already."""
    return gymnasium.wrappers.TimeLimit(Endings(), 7)


def number():
    """Returns none."""
    return 7


def lift(env):
    """A wrapper that is a function: rewards and 1 more."""
    return gymnasium.wrappers.TransformReward(env, lambda r: r + 1)


def missing(**_):
    raise gymnasium.error.DependencyNotInstalled("box3d is not installed, run `pip install box3d`")


NUMBER = 7

gymnasium.register("GymToys/Endings-v3", Endings, max_episode_steps=6)
