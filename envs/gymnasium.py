"""Any environment that gymnasium knows, behind the interface of `envs.vector`.

    name                          CartPole-v1, MinAtar/Breakout-v1, my_package.my_module:MyEnv-v0 (imported first), or
                                  my_module:function, which returns an environment
    observations   pictures       uint8 up to 255, both sides 36 and more -> uint8 [E, stack, (channels,) height, width]
                                  grey, unless 3 are asked for or there are neither 1, 3 nor 4
                   planes         other images of bytes or booleans -> as they are, [E, stack, channels, height, width]
                   vectors        all else, by gymnasium's own `flatten` -> float32 [E, stack, features]
    actions                       0 .. num_actions - 1, for Discrete, MultiDiscrete, MultiBinary and, in bins, Box
    mask                          of `action_mask` in info, where a world has that

gymnasium's own vectorisation moves them, with its NEXT_STEP autoreset. They cannot be saved: a resumed run begins new
episodes.
"""

import contextlib
import functools
import math
import os
import re
import signal
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState
from numpy.typing import NDArray

from envs.gymnasium_names import called, draws, maker, parse_kwargs
from envs.spaces import allowed_of, check_observations, numbered_actions, reader_of, view_of
from envs.vector import Episodes, Step


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


# -- one environment, and many -----------------------------------------------------------------------------------------


def make_one(name: str, number: int, options: Options, render: bool = False) -> gymnasium.Env:
    """Environment `number`, with what it returns checked. Raises ValueError, ModuleNotFoundError, EnvironmentFailed."""
    make, kwargs = maker(name), parse_kwargs(options.kwargs)
    if render and draws(make):
        kwargs.setdefault("render_mode", "rgb_array")
    wrappers = [called(wrapper, "wrapper") for wrapper in options.wrappers]
    try:
        env = make(**kwargs)
        for wrapper in wrappers:
            env = wrapper(env)
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise ModuleNotFoundError(f"{name} needs what is not installed: {error}") from error
    except TypeError as error:
        if re.search("multiple values|unexpected keyword|takes no arg|required (positional|keyword)", str(error)):
            raise ValueError(f"{name} does not fit its --env-kwargs: {error}") from error
        raise EnvironmentFailed(f"{name} cannot be made: {error!r}") from error
    except Exception as error:
        raise EnvironmentFailed(f"{name} cannot be made: its constructor raised {error!r}") from error
    if not isinstance(env, gymnasium.Env):
        raise ValueError(
            f"{' '.join([name, *options.wrappers])} made a {type(env).__name__}, which is no gymnasium.Env"
        )
    return Checked(env, name, number, options.bins)


def in_own_process(make: Callable[[], gymnasium.Env], parent: int) -> gymnasium.Env:
    """make(), where it is in another process than `parent` without the signals that are for that one: it ends both."""
    if os.getpid() != parent:
        for name, action in ("SIGINT", signal.SIG_IGN), ("SIGHUP", signal.SIG_IGN), ("SIGTERM", signal.SIG_DFL):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), action)
    return make()


class Checked(gymnasium.Wrapper):
    """One environment with numbered actions and arrays as observations, whose failures say which one it is and where
    it was. Its info holds the mask alone: what others hold may not go together in one batch.
    """

    def __init__(self, env: gymnasium.Env, name: str, number: int, bins: int):
        super().__init__(env)
        self._name, self._number, self._steps = name, number, 0
        self._spaces = env.observation_space, env.action_space
        check_observations(env.observation_space, name)
        self._read = reader_of(env.observation_space)
        if not isinstance(env.observation_space, spaces.Box):
            self.observation_space = spaces.flatten_space(env.observation_space)
        num_actions, self._action_of = numbered_actions(env.action_space, bins, name)
        self.action_space = spaces.Discrete(num_actions)
        self._masked: bool | None = None  # whether the first info had a mask

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        try:
            obs, info = self.env.reset(**kwargs)
        except Exception as error:
            raise self._failed(f"raised {error!r} in reset") from error
        now = self.env.observation_space, self.env.action_space
        if any(one is not two and one != two for one, two in zip(now, self._spaces, strict=True)):
            raise self._failed("has other spaces than at the beginning")
        return self._observed(obs), self._info(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        try:
            obs, reward, terminated, truncated, info = self.env.step(self._action_of(int(action)))
        except Exception as error:
            raise self._failed(f"raised {error!r}") from error
        try:
            r_t = float(reward.item() if isinstance(reward, np.ndarray) else reward)
        except (TypeError, ValueError):
            r_t = math.nan
        if not math.isfinite(r_t):
            raise self._failed(f"returned the reward {reward!r}, which is no number to learn from")
        return self._observed(obs), r_t, bool(terminated), bool(truncated), self._info(info)

    def _observed(self, obs: Any) -> NDArray:
        try:
            return self._read(obs)
        except Exception as error:
            raise self._failed(f"observed {error}") from error

    def _info(self, info: Any) -> dict[str, Any]:
        mask = info.get("action_mask") if isinstance(info, dict) else None
        if self._masked is None:
            self._masked = mask is not None
        if mask is None:
            return {}
        if not self._masked:
            raise self._failed("masks actions, and its first reset did not: let that return an action_mask too")
        allowed, most = allowed_of(mask), int(self.action_space.n)  # type: ignore[attr-defined]
        if len(allowed) != most:
            raise self._failed(f"masks {len(allowed)} actions and has {most}")
        return {"action_mask": allowed}

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
        try:
            if options.vectorization == "sync":
                self._envs: SyncVectorEnv | AsyncVectorEnv = SyncVectorEnv(makers)
            else:
                self._envs = AsyncVectorEnv([functools.partial(in_own_process, make, os.getpid()) for make in makers])
        except EnvironmentFailed:
            raise
        except (EOFError, OSError, AssertionError, RuntimeError) as error:
            raise EnvironmentFailed(f"{name} is not the same each time that it is made: {error!r}") from error
        self.num_actions = int(self._envs.single_action_space.n)  # type: ignore[attr-defined]
        self._view = view_of(self._envs.single_observation_space, options.stack, options.resize, options.colour)  # type: ignore[arg-type]
        self.obs_shape, self.obs_dtype = (self._view.stack, *self._view.shape), self._view.dtype
        self._is_float = self.obs_dtype == np.float32
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
        self._obs[:, -1] = self._seen(raw, self._episodes.length)
        self.mask = self._mask(infos)
        return self._obs.copy()

    def send(self, actions: NDArray[np.int64]) -> None:
        """Begin to move by actions [E]; with processes, they move while this one goes on."""
        if self._moves:
            raise RuntimeError("send was called twice without recv between")
        self._moves, self._first, self._actions = True, None, np.asarray(actions, np.int64)
        if isinstance(self._envs, AsyncVectorEnv):
            with contextlib.suppress(OSError):  # a process that has died, as `recv` will say
                self._envs.step_async(self._actions)

    def recv(self) -> Step:
        """The step of the last `send`. Raises EnvironmentFailed."""
        if not self._moves:
            raise RuntimeError("recv was called without a send before it")
        self._moves = False
        try:
            if isinstance(self._envs, AsyncVectorEnv):
                raw, r_t, terminated, truncated, infos = self._envs.step_wait()
            else:
                raw, r_t, terminated, truncated, infos = self._envs.step(self._actions)
        except Exception as error:
            self.close()
            if isinstance(error, (EOFError, OSError, gymnasium.error.NoAsyncCallError)):
                raise EnvironmentFailed(f"a process of {self.name} has died; was there too little memory?") from error
            raise
        begins = self._episodes.ended
        newest = self._seen(raw, np.where(begins, 0, self._episodes.length + 1))
        self._obs = np.roll(self._obs, -1, axis=1) if self._view.stack > 1 else np.empty_like(self._obs)
        self._obs[begins] = 0
        self._obs[:, -1] = newest
        self.mask = self._mask(infos)
        return self._episodes.step(self._obs.copy(), r_t, ~terminated, terminated | truncated)

    def step(self, actions: NDArray[np.int64]) -> Step:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()

    def _seen(self, raw: NDArray, steps: NDArray[np.int64]) -> NDArray:
        """Frames [E, *shape] of raw observations [E, ...] at these steps [E] of their episodes."""
        frames = self._view.of(raw)
        if self._is_float and not np.isfinite(frames).all():
            e = int(np.flatnonzero(~np.isfinite(frames).all(1))[0])
            raise EnvironmentFailed(
                f"environment {e} ({self.name}) observed numbers that are not finite, at step {steps[e]} of an episode"
            )
        return frames

    def _mask(self, infos: dict[str, Any]) -> NDArray[np.bool_] | None:
        if not self._masked:
            return None
        mask = np.ones((self.num_envs, self.num_actions), bool)
        if "action_mask" in infos:
            given = infos["_action_mask"] & infos["action_mask"].any(1)  # nothing is allowed at ends, where none counts
            mask[given] = infos["action_mask"][given]
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

    @property
    def pictures_per_second(self) -> float | None:
        """As the environment wants to be shown; None where it does not say."""
        rate = self._envs.metadata.get("render_fps")
        return float(rate) if isinstance(rate, (int, float)) and 1 <= rate <= 1000 else None

    def close(self) -> None:
        """End its processes and windows."""
        if isinstance(self._envs, AsyncVectorEnv) and self._envs._state != AsyncState.DEFAULT:
            self._envs._state = AsyncState.DEFAULT  # else it would wait for what may have died
            self._envs.close(terminate=True)
        self._envs.close()
