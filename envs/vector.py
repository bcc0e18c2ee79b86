"""The one interface of all single-player worlds: many environments in lock-step.

    obs = envs.reset()
    envs.send(actions)          # the worlds move while the caller does something else
    step = envs.recv()          # or, in one call: step = envs.step(actions)

After an episode's end the next `send` ignores that environment's action and `recv` hands out the first
observation of a new episode (gymnasium calls this NEXT_STEP autoreset):

    time        t          t+1         t+2         t+3
    obs         s_t    ->  s_T     |   s_0     ->  s_1
    last        .          True    |   .           .
    first       .          .       |   True        .
    discount_t  1          0       |   (no transition leads into s_0)
"""

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Step(NamedTuple):
    """What `recv` returns for E environments; every field has E rows.

    A terminal is `discount_t = 0`, a truncation keeps its discount, and a lost life may be a terminal that is not
    `last`: the return ends there, and the game goes on. Where `first` is True only obs counts: r_t and discount_t lead
    nowhere, and last is False.
    """

    obs: NDArray  # [E, *obs_shape] of obs_dtype, the newest frame at stack - 1
    r_t: NDArray[np.float32]  # [E], raw: neither clipped nor scaled
    discount_t: NDArray[np.float32]  # [E], 0 or 1; the learner multiplies by its gamma
    last: NDArray[np.bool_]  # [E], obs ends an episode
    first: NDArray[np.bool_]  # [E], obs begins an episode
    score: NDArray[np.float32]  # [E], sum of raw rewards of the episode that ends here; nan where it does not
    length: NDArray[np.int64]  # [E], steps of the episode so far


class VectorEnv(Protocol):
    """What an agent may rely on. `frames_per_step` is what one action costs on the frames clock.

    obs_shape is (stack, height, width) or (stack, channels, height, width) of images, (stack, features) of vectors; of
    numbers of obs_dtype: uint8 stands for 0 .. 1, others for themselves. `protocol` names the rules that a score was
    made under. mask [E, actions] says what may be done at the observations handed out last; None: everything, always.

    A world that can be saved also has state_dict and load_state_dict; others begin new episodes on resume.
    """

    num_envs: int
    num_actions: int
    frames_per_step: int
    protocol: str

    @property
    def obs_shape(self) -> tuple[int, ...]: ...
    @property
    def obs_dtype(self) -> Any: ...
    @property
    def mask(self) -> NDArray[np.bool_] | None: ...

    def reset(self) -> NDArray: ...
    def send(self, actions: NDArray[np.int64]) -> None: ...
    def recv(self) -> Step: ...
    def step(self, actions: NDArray[np.int64]) -> Step: ...


class Episodes:
    """Running score and length of E episodes: the bookkeeping that every world shares."""

    def __init__(self, num_envs: int):
        self.score = np.zeros(num_envs, np.float64)
        self.length = np.zeros(num_envs, np.int64)
        self.ended = np.zeros(num_envs, bool)

    def restart(self) -> None:
        """Forget everything, as after `reset`."""
        self.score[:], self.length[:], self.ended[:] = 0, 0, False

    def step(self, obs: NDArray, r_t: NDArray, discount_t: NDArray, last: NDArray) -> Step:
        """Complete one step; environments that ended a step ago begin anew here."""
        first = self.ended
        self.score = np.where(first, 0.0, self.score + r_t)
        self.length = np.where(first, 0, self.length + 1)
        self.ended = last & ~first
        score = np.where(self.ended, self.score, np.nan).astype(np.float32)
        return Step(obs, r_t.astype(np.float32), discount_t.astype(np.float32), self.ended, first, score, self.length)


class LockStep:
    """Worlds that move in `recv`: `send` only keeps the actions for `_move`."""

    frames_per_step = 1
    mask = None
    obs_dtype: Any = np.float32

    def __init__(self, num_envs: int):
        self.num_envs = num_envs
        self._episodes = Episodes(num_envs)
        self._actions: NDArray[np.int64] | None = None

    def send(self, actions: NDArray[np.int64]) -> None:
        """Take actions [E] in 0..num_actions - 1."""
        if self._actions is not None:
            raise RuntimeError("send was called twice without recv between")
        self._actions = np.asarray(actions, np.int64)

    def recv(self) -> Step:
        """Move by the actions of the last `send`."""
        if self._actions is None:
            raise RuntimeError("recv was called without a send before it")
        actions, self._actions = self._actions, None
        return self._move(actions)

    def step(self, actions: NDArray[np.int64]) -> Step:
        """`send`, then `recv`."""
        self.send(actions)
        return self.recv()

    def _move(self, actions: NDArray[np.int64]) -> Step:
        raise NotImplementedError

    def _episodes_state(self) -> dict[str, list]:
        return {name: value.tolist() for name, value in vars(self._episodes).items()}

    def _load_episodes(self, state: dict[str, list]) -> None:
        vars(self._episodes).update({name: np.array(value) for name, value in state.items()})
        self._actions = None
