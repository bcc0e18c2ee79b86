"""Worlds that need memory: what decides is not in the present observation.

    TMaze            a sign at the start says which way to turn at the far end
    HiddenCartPole   balance a pole whose velocities are hidden
    Popgym           tasks of Morad et al. 2023: repeat the first card, the card k steps ago, ...
    Flicker          any world of images, blanked at random (Hausknecht and Stone 2015)

The honest measure is a gap: the same agent and budget with a memory and without. Vectors of D numbers are float32
[E, 1, D] with obs_shape (1, D): a stack of one.
"""

import difflib
import re
from typing import Any

import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.spaces import Discrete, flatdim, flatten
from numpy.typing import NDArray

from envs.vector import LockStep, Step

NORTH, EAST, SOUTH, WEST = range(4)
SIGHTS = np.array([[0, 1, 1], [1, 1, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0]], np.float32)  # in the order of `_look`


class TMaze(LockStep):
    """E corridors of `length` steps; the first observation alone says where to turn at their end (Bakker 2001).

                                 + north
        start . . . . . . . . . junction
                                 + south

    Actions: 0 north, 1 east, 2 south, 3 west; into a wall: stays. The right turn is worth 1, the wrong one 0, and
    either is the end; a step costs nothing, and after 3 * length + 10 of them the episode is truncated. So the mean
    score is the share of right turns, 1/2 without memory. (A wrong turn of -1 would make it 0, and an agent
    that cannot remember yet would have no reason to go there.) Bakker pays 4 and -0.1, and shows the sign whenever the
    agent is at the start; here it is seen once. Observations are his three bits: 011 turn north, 110 turn south, 101
    corridor, 010 junction (and 000 an arm, the end).
    """

    num_actions = 4
    obs_shape = (1, 3)
    protocol = "tmaze"

    def __init__(self, num_envs: int = 1, *, length: int = 10, seed: int = 0):
        if length < 1:
            raise ValueError(f"a T-maze has a corridor of at least 1 step, not {length}")
        super().__init__(num_envs)
        self.length, self.max_steps = length, 3 * length + 10
        self._rng = np.random.default_rng(seed)
        self._position = np.zeros(num_envs, np.int64)  # steps from the start; the junction is at `length`
        self._north = np.zeros(num_envs, bool)  # the right turn

    def reset(self) -> NDArray[np.float32]:
        """Begin new episodes everywhere; returns obs [E, 1, 3]."""
        self._episodes.restart()
        everywhere = np.ones(self.num_envs, bool)
        self._begin(everywhere)
        return self._look(everywhere, ~everywhere)

    def _move(self, actions: NDArray[np.int64]) -> Step:
        first = self._episodes.ended
        turned = (self._position == self.length) & ((actions == NORTH) | (actions == SOUTH)) & ~first
        r_t = np.where(turned & ((actions == NORTH) == self._north), 1.0, 0.0)
        move = (actions == EAST).astype(np.int64) - (actions == WEST)
        self._position = np.clip(self._position + move, 0, self.length)
        self._begin(first)
        last = turned | (self._episodes.length + 1 >= self.max_steps)
        return self._episodes.step(self._look(first, turned), r_t, ~turned, last)

    def state_dict(self) -> dict:
        """All of the mazes: they resume exactly."""
        return {
            "position": self._position.tolist(),
            "north": self._north.tolist(),
            "rng": self._rng.bit_generator.state,
            "episodes": self._episodes_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state_dict` was taken."""
        self._position, self._north = np.array(state["position"]), np.array(state["north"])
        self._rng.bit_generator.state = state["rng"]
        self._load_episodes(state["episodes"])

    def _begin(self, where: NDArray[np.bool_]) -> None:
        self._position[where] = 0
        self._north[where] = self._rng.random(where.sum()) < 0.5

    def _look(self, first: NDArray[np.bool_], turned: NDArray[np.bool_]) -> NDArray[np.float32]:
        corridor = self._position < self.length
        sight = np.select([first & self._north, first, corridor, ~turned], [0, 1, 2, 3], default=4)
        return SIGHTS[sight][:, None]


class HiddenCartPole(LockStep):
    """CartPole-v1 without its velocities (Wierstra et al. 2010): gymnasium's physics, E poles at once.

    Actions: 0 push left, 1 push right. Observations: the cart's position in metres and the pole's angle in radians.
    Each step is worth 1, a fall (12 degrees, or 2.4 m from the middle) is the end, and 500 steps truncate; the line
    at which the task counts as solved is a mean score of 475.
    """

    num_actions = 2
    obs_shape = (1, 2)
    protocol = "hidden_cartpole"

    def __init__(self, num_envs: int = 1, *, seed: int = 0):
        super().__init__(num_envs)
        self._envs: Any = CartPoleVectorEnv(num_envs, max_episode_steps=500)
        self._envs.reset(seed=seed)  # later resets go on from there

    def reset(self) -> NDArray[np.float32]:
        """Begin new episodes everywhere; returns obs [E, 1, 2]."""
        self._episodes.restart()
        obs, _ = self._envs.reset()
        return obs[:, None, ::2]

    def _move(self, actions: NDArray[np.int64]) -> Step:
        obs, r_t, terminated, truncated, _ = self._envs.step(actions)
        return self._episodes.step(obs[:, None, ::2], r_t, ~terminated, terminated | truncated)

    def state_dict(self) -> dict:
        """All of the poles: they resume exactly."""
        return {
            "state": self._envs.state.tolist(),
            "rng": self._envs.np_random.bit_generator.state,
            "episodes": self._episodes_state(),
        }

    def load_state_dict(self, state: dict) -> None:
        """Continue where `state_dict` was taken."""
        self._envs.state = np.array(state["state"])
        self._envs.np_random.bit_generator.state = state["rng"]
        self._load_episodes(state["episodes"])
        # gymnasium keeps both as well, and writes into them
        self._envs.steps, self._envs.prev_done = self._episodes.length.copy(), self._episodes.ended.copy()


class Popgym(LockStep):
    """E copies of one POPGym task with discrete actions (Morad et al. 2023), in a Python loop.

    Observations [E, 1, D] are flat, discrete parts one-hot; the tasks that cannot be played without knowing the last
    action (bandits, concentration) have it appended. Perfect play of a task of cards scores 1. POPGym counts the
    present card: k = 4, 32, 64 of repeat_previous_easy, _medium, _hard is the card of 3, 31, 63 steps ago.
    The games cannot be saved: a resumed run begins new ones.

    Raises ValueError for a `name` without a task or a task without discrete actions, ModuleNotFoundError without the
    package.
    """

    def __init__(self, name: str, num_envs: int = 1, *, seed: int = 0):
        super().__init__(num_envs)
        self.protocol, self._envs = _popgym(name, num_envs)
        self._space = self._envs[0].observation_space
        self.num_actions = int(self._envs[0].action_space.n)
        self.obs_shape = (1, flatdim(self._space))
        for env, s in zip(self._envs, np.random.SeedSequence(seed).generate_state(num_envs).tolist(), strict=True):
            env.reset(seed=s)  # later resets go on from there

    def reset(self) -> NDArray[np.float32]:
        """Begin new episodes everywhere; returns obs [E, 1, D]."""
        self._episodes.restart()
        return self._flat([env.reset()[0] for env in self._envs])

    def _move(self, actions: NDArray[np.int64]) -> Step:
        observations = []
        r_t, discount_t, last = np.zeros(self.num_envs), np.ones(self.num_envs), np.zeros(self.num_envs, bool)
        for e, (env, action) in enumerate(zip(self._envs, actions.tolist(), strict=True)):
            if self._episodes.ended[e]:
                obs, _ = env.reset()
            else:
                obs, r_t[e], terminated, truncated, _ = env.step(action)
                discount_t[e], last[e] = not terminated, terminated or truncated
            observations.append(obs)
        return self._episodes.step(self._flat(observations), r_t, discount_t, last)

    def _flat(self, observations: list[Any]) -> NDArray[np.float32]:
        return np.stack([np.asarray(flatten(self._space, obs), np.float32)[None] for obs in observations])


def _popgym(name: str, num_envs: int) -> tuple[str, list[Any]]:
    """The task's name in snake_case, and new copies of it."""
    try:
        from popgym.envs import ALL
        from popgym.wrappers import PreviousAction
    except ImportError as error:
        raise ModuleNotFoundError("POPGym's tasks need the extra `memory`: pip install -e '.[memory]'") from error

    def snake(name: str) -> str:
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()

    tasks = {snake(task.__name__): task for task in ALL}
    name = snake(name)
    if name not in tasks:
        near = ", ".join(difflib.get_close_matches(name, tasks, n=3) or tasks)
        raise ValueError(f"there is no POPGym task {name!r}; choose from {near}")
    envs = [tasks[name]() for _ in range(num_envs)]
    if not isinstance(envs[0].action_space, Discrete):
        raise ValueError(f"{name} has actions {envs[0].action_space}; choose a task with discrete ones, as autoencode")
    return name, [PreviousAction(env) if env.obs_requires_prev_action else env for env in envs]


class Flicker:
    """The newest frame of each of E worlds of images, blank with `probability` (Hausknecht and Stone 2015).

    Each world draws anew at each step, its first and last observations too. Probability 0 leaves a stack of one
    frame, which shows no velocities. It can be saved where `envs` can, and has state_dict only there.
    """

    def __init__(self, envs: Any, probability: float = 0.5, *, seed: int = 0):
        if not 0 <= probability <= 1:
            raise ValueError(f"a probability lies between 0 and 1, not at {probability}")
        self.envs, self.probability = envs, probability
        self.num_envs, self.num_actions, self.frames_per_step = envs.num_envs, envs.num_actions, envs.frames_per_step
        self.obs_shape, self.obs_dtype = (1, *envs.obs_shape[1:]), envs.obs_dtype
        self.protocol = f"{envs.protocol}, flicker {probability:g}"
        self._rng = np.random.default_rng(seed)
        if hasattr(envs, "state_dict"):
            self.state_dict, self.load_state_dict = self._state_dict, self._load_state_dict

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        return self.envs.mask

    def reset(self) -> NDArray[np.uint8]:
        """Begin new episodes everywhere; returns obs [E, 1, height, width]."""
        return self._flicker(self.envs.reset())

    def send(self, actions: NDArray[np.int64]) -> None:
        """Hand actions [E] on."""
        self.envs.send(actions)

    def recv(self) -> Step:
        """The step of the worlds, all but obs unchanged."""
        step = self.envs.recv()
        return step._replace(obs=self._flicker(step.obs))

    def step(self, actions: NDArray[np.int64]) -> Step:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()

    def _flicker(self, obs: NDArray[np.uint8]) -> NDArray[np.uint8]:
        frame = obs[:, -1:].copy()
        frame[self._rng.random(self.num_envs) < self.probability] = 0
        return frame

    def _state_dict(self) -> dict:
        return {"envs": self.envs.state_dict(), "rng": self._rng.bit_generator.state}

    def _load_state_dict(self, state: dict) -> None:
        self.envs.load_state_dict(state["envs"])
        self._rng.bit_generator.state = state["rng"]
