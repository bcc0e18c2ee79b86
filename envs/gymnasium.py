"""Any environment that gymnasium knows, behind the interface of `envs.vector`.

    name                          CartPole-v1, MinAtar/Breakout-v1, my_package.my_module:MyEnv-v0 (imported first), or
                                  my_module:function, which returns an environment
    observations   pictures       uint8 up to 255, both sides 36 and more -> uint8 [E, stack, (3,) height, width]
                   planes         other images of bytes or booleans -> as they are, [E, stack, channels, height, width]
                   vectors        all else, by gymnasium's own `flatten` -> float32 [E, stack, features]
    actions                       0 .. num_actions - 1, for Discrete, MultiDiscrete, MultiBinary and, in bins, Box
    mask                          of `action_mask` in info, where a world has that

gymnasium's own vectorisation moves them, with its NEXT_STEP autoreset. They cannot be saved: a resumed run begins new
episodes.
"""

import ast
import difflib
import functools
import importlib
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from numpy.typing import NDArray

from envs.spaces import check_observations, numbered_actions, view_of
from envs.vector import Episodes, Step

PACKAGES = {
    "minatar": "minatar.gym:register_envs",
    "minigrid": "minigrid",
    "babyai": "minigrid",
    "ale": "ale_py",
    **dict.fromkeys(
        ("highway", "exit", "intersection", "lane", "merge", "parking", "racetrack", "roundabout", "u"), "highway_env"
    ),
}
"""first word of a name, before / or -: what registers it; others come as module:Name-v0"""


class EnvironmentFailed(RuntimeError):
    """An environment raised an error, or returned what no learner can use."""


class Options(NamedTuple):
    """How an environment is made and seen. What is not for its kind of observations does nothing."""

    kwargs: tuple[str, ...] = ()  # key=value, for its constructor
    wrappers: tuple[str, ...] = ()  # module:Class, the first one innermost
    vectorization: Literal["sync", "async"] = "sync"  # in this process, or in one each
    stack: int = 0  # newest observations in a state; 0: 4 of pictures, else 1
    resize: int = 84  # side of pictures; 0: their own
    colour: bool = False
    bins: int = 0  # values of each dimension of a Box of actions


DEFAULT = Options()


# -- from a name to an environment -------------------------------------------------------------------------------------


def imported(name: str, what: str) -> Any:
    """The object that `module:Name` names. Raises ValueError, ModuleNotFoundError."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # as for `python -m`
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
        return getattr(found, attribute) if attribute else found
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{what} {name}: {error}; is it installed, or in this folder?") from error
    except AttributeError as error:
        raise ValueError(f"{what} {name}: {error}") from error


def maker(name: str) -> Callable[..., gymnasium.Env]:
    """What makes the environment of this name. Raises ValueError with the nearest names, ModuleNotFoundError."""
    module, _, bare = name.rpartition(":")
    if module and not re.search(r"-v\d+$", bare):
        return imported(name, "environment")
    if module:
        imported(module, "environment's module")
    elif name not in gymnasium.registry and (package := PACKAGES.get(re.split("[/-]", name)[0].lower())):
        try:
            registers = imported(package, "environment")
        except ModuleNotFoundError as error:
            install = package.partition(".")[0].replace("_", "-")
            raise ModuleNotFoundError(f"{name} needs a package: pip install {install}") from error
        if ":" in package:
            registers()
    try:
        gymnasium.spec(bare)
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(bare, gymnasium.registry, n=3)
        hint = f"did you mean {', '.join(near)}? Else" if near else "did you import its package?"
        raise ValueError(f"{error} {hint} name the module that registers it: --env module:{bare}") from error
    return functools.partial(gymnasium.make, bare, disable_env_checker=True)


def draws(make: Callable[..., gymnasium.Env]) -> bool:
    """Whether it can be asked for pictures."""
    entry = gymnasium.spec(make.args[0]).entry_point if isinstance(make, functools.partial) else make
    return not callable(entry) or "render_mode" in inspect.signature(entry).parameters


def name_of(make: Callable[..., gymnasium.Env]) -> str:
    """A name for a callable that returns an environment; for one that cannot be imported, in this process only."""
    name = f"{make.__module__}:{make.__qualname__}"
    if make.__module__ != "__main__" and re.fullmatch(r"[\w.]+", make.__qualname__):
        return name
    bare = re.sub(r"\W+", "_", make.__qualname__).strip("_")
    gymnasium.registry.pop(f"callable/{bare}-v0", None)
    gymnasium.register(f"callable/{bare}-v0", make)
    return f"callable/{bare}-v0"


def parse_kwargs(words: Sequence[str]) -> dict[str, Any]:
    """{key: value} of words key=value; a value is what Python reads it as, else text."""
    values = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"--env-kwargs wants key=value, not {word!r}")
        try:
            values[key] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            values[key] = value
    return values


def make_one(name: str, number: int, options: Options, render: bool = False) -> gymnasium.Env:
    """Environment `number`, with what it may return checked. Raises ValueError, EnvironmentFailed."""
    make, kwargs = maker(name), parse_kwargs(options.kwargs)
    if render and draws(make):
        kwargs.setdefault("render_mode", "rgb_array")
    wrappers = [imported(wrapper, "wrapper") for wrapper in options.wrappers]
    try:
        env = make(**kwargs)
        for wrapper in wrappers:
            env = wrapper(env)
    except (gymnasium.error.Error, AssertionError, TypeError) as error:
        if "multiple values" in str(error) or "unexpected keyword" in str(error):
            raise ValueError(f"{name} does not take these --env-kwargs: {error}") from error
        raise EnvironmentFailed(f"{name} cannot be made: {error!r}") from error
    except Exception as error:
        raise EnvironmentFailed(f"{name} cannot be made: its constructor raised {error!r}") from error
    if not isinstance(env, gymnasium.Env):
        raise ValueError(f"{name} returned a {type(env).__name__}, which is no gymnasium.Env")
    check_observations(env.observation_space, name)
    if not isinstance(env.observation_space, spaces.Box):
        env = gymnasium.wrappers.FlattenObservation(env)
    return Checked(env, name, number, options.bins)


# -- one environment, and many -----------------------------------------------------------------------------------------


class Checked(gymnasium.Wrapper):
    """One environment with numbered actions, whose failures say which one it is and where it was."""

    def __init__(self, env: gymnasium.Env, name: str, number: int, bins: int):
        super().__init__(env)
        self._spaces = env.observation_space, env.action_space
        num_actions, self._action_of = numbered_actions(env.action_space, bins, name)
        self.action_space = spaces.Discrete(num_actions)
        self._name, self._number, self._steps = name, number, 0
        self._shape, self._finite = env.observation_space.shape, np.dtype(env.observation_space.dtype).kind != "f"

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        try:
            obs, info = self.env.reset(**kwargs)
        except Exception as error:
            raise self._failed(f"raised {error!r} in reset") from error
        if self._spaces != (self.env.observation_space, self.env.action_space):
            raise self._failed("has other spaces than at the beginning")
        return self._checked(obs), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(self._action_of(int(action)))
        except Exception as error:
            raise self._failed(f"raised {error!r}") from error
        try:
            reward = float(reward)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            reward = math.nan
        if not math.isfinite(reward):
            raise self._failed("returned a reward that is no number")
        return self._checked(obs), reward, bool(terminated), bool(truncated), info

    def _checked(self, obs: Any) -> NDArray:
        if np.shape(obs) != self._shape:
            raise self._failed(f"observed something of shape {np.shape(obs)}, and its space has {self._shape}")
        if not (self._finite or np.isfinite(obs).all()):
            raise self._failed("observed numbers that are not finite")
        return obs

    def _failed(self, what: str) -> EnvironmentFailed:
        return EnvironmentFailed(
            f"environment {self._number} ({self._name}) {what}, at step {self._steps} of an episode"
        )


class Gymnasium:
    """E environments of one name.

    Args:
        name: see the head of this file.
        options: how they are made and seen.
        seed: of all their random numbers. Another reset goes on with them, not with the same episodes again.
        render: they can `picture` themselves.
    Raises ValueError for names and spaces that do not fit, EnvironmentFailed for worlds that cannot be made or reset.
    """

    frames_per_step = 1

    def __init__(
        self, name: str, num_envs: int = 1, *, options: Options = DEFAULT, seed: int = 0, render: bool = False
    ):
        self.name, self.num_envs = name, num_envs
        self.protocol = " ".join([name, *options.kwargs, *options.wrappers])
        makers = [functools.partial(make_one, name, number, options, render) for number in range(num_envs)]
        self._envs = SyncVectorEnv(makers) if options.vectorization == "sync" else AsyncVectorEnv(makers)
        self.num_actions = int(self._envs.single_action_space.n)  # type: ignore[attr-defined]
        self._view = view_of(self._envs.single_observation_space, options.stack, options.resize, options.colour)  # type: ignore[arg-type]
        self.obs_shape, self.obs_dtype = (self._view.stack, *self._view.shape), self._view.dtype
        self._obs = np.zeros((num_envs, *self.obs_shape), self.obs_dtype)
        self._episodes = Episodes(num_envs)
        self._moves = False  # a send without its recv
        # At once, so that what fails in its first reset fails before a run has begun; `reset` hands it out.
        seeds = np.random.SeedSequence(seed).generate_state(num_envs) >> 1
        self._first: Any = self._envs.reset(seed=seeds.tolist())
        self._masked = "action_mask" in self._first[1]
        self.mask = self._mask(self._first[1])

    def reset(self) -> NDArray:
        """Begin new episodes everywhere; returns obs [E, *obs_shape]."""
        if self._moves:
            self.recv()
        raw, infos = self._first or self._envs.reset()
        self._first = None
        self._episodes.restart()
        self._obs[:] = 0
        self._obs[:, -1] = self._view.of(raw)
        self.mask = self._mask(infos)
        return self._obs.copy()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Begin to move by actions [E]; with processes, they move while this one goes on."""
        if self._moves:
            raise RuntimeError("send was called twice without recv between")
        self._moves, self._first = True, None
        if isinstance(self._envs, AsyncVectorEnv):
            self._envs.step_async(np.asarray(actions, np.int64))
        else:
            self._actions = np.asarray(actions, np.int64)

    def recv(self) -> Step:
        """The step of the last `send`. Raises EnvironmentFailed."""
        if not self._moves:
            raise RuntimeError("recv was called without a send before it")
        self._moves = False
        if isinstance(self._envs, AsyncVectorEnv):
            raw, r_t, terminated, truncated, infos = self._envs.step_wait()
        else:
            raw, r_t, terminated, truncated, infos = self._envs.step(self._actions)
        begins = self._episodes.ended
        self._obs = np.roll(self._obs, -1, axis=1) if self._view.stack > 1 else np.empty_like(self._obs)
        self._obs[begins] = 0
        self._obs[:, -1] = self._view.of(raw)
        self.mask = self._mask(infos)
        return self._episodes.step(self._obs.copy(), r_t, ~terminated, terminated | truncated)

    def step(self, actions: NDArray[np.int64]) -> Step:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()

    def _mask(self, infos: dict[str, Any]) -> NDArray[np.bool_] | None:
        if not self._masked:
            return None
        mask = np.ones((self.num_envs, self.num_actions), bool)
        for e in np.flatnonzero(infos.get("_action_mask", np.zeros(self.num_envs))):
            now = np.asarray(infos["action_mask"][e], bool).ravel()
            if now.shape != mask[e].shape:
                raise EnvironmentFailed(f"environment {e} ({self.name}) masks {len(now)} of {self.num_actions} actions")
            if now.any():  # of nothing, at an end: no action counts there
                mask[e] = now
        return mask

    def picture(self, number: int = 0) -> NDArray[np.uint8]:
        """Environment `number` as it looks now, uint8 [height, width, 3]. Raises ValueError where it has no picture."""
        try:
            frames: Any = self._envs.render()
        except Exception as error:
            raise ValueError(f"{self.name} cannot be drawn: {error}") from error
        frame = frames[number] if frames else None
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise ValueError(f"{self.name} draws no pictures: it has no render mode rgb_array")
        return np.asarray(frame, np.uint8)

    def close(self) -> None:
        """End its processes and windows."""
        self._envs.close()
