"""From environments to batches: play a short rollout, compute its lambda returns, learn it, forget it.

A rollout is T moments of E environments. One forward pass a moment chooses the action and gives the value that the
moment before it bootstraps from; the last one's action is on its way while the trainer learns:

    experience   recv | Q(s_1) send | recv | ... | Q(s_T) send | targets, minibatches ->            recv | Q(s_1) ...
    trainer                                                                             updates
    emulators                      |--step--|                 |--step--|
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.dqn.agent import allowed, epsilon_greedy
from agents.pqn.agent import PQN
from rlkit.errors import ExperienceFailed
from rlkit.logger import EpisodeStats, Timer
from rlkit.returns import lambda_returns
from rlkit.schedule import Schedule


class Experience:
    """An endless iterator of minibatches {s [B, *obs_shape], a [B], target [B]} that acts while it is iterated.

    Args:
        envs: a vector environment: reset, send and recv, as envs/vector.py writes them down.
        epsilon: exploration over the clock `frames`.
        num_steps: T, agent steps of each environment in a rollout.
        epochs: how often each transition is learned; minibatches: equal parts of a rollout in each epoch, of
            T E / minibatches transitions, less the autoreset steps (so shapes vary).
        clip_reward: learn from rewards clipped to [-1, 1] instead of raw ones.
        reward_scale: what multiplies rewards before that.
        seed: of exploration and of the minibatches. timer: shared with the trainer's.
    Raises ValueError for more minibatches than transitions.
    """

    def __init__(
        self,
        envs: Any,
        agent: PQN,
        *,
        epsilon: Schedule,
        num_steps: int = 32,
        epochs: int = 2,
        minibatches: int = 32,
        clip_reward: bool = True,
        reward_scale: float = 1.0,
        seed: int = 0,
        timer: Timer | None = None,
    ):
        if num_steps * envs.num_envs < minibatches:
            raise ValueError(f"{num_steps} x {envs.num_envs} transitions are too few for {minibatches} minibatches")
        self.envs, self.agent, self.epsilon = envs, agent, epsilon
        self.epochs, self.minibatches = epochs, minibatches
        self.clip_reward, self.reward_scale = clip_reward, reward_scale
        self.timer = timer or Timer()
        self.steps = 0  # environment steps received, all environments together
        self.episodes = EpisodeStats()
        self._rng = np.random.default_rng(seed)
        shape, dtype = (num_steps, envs.num_envs), torch.from_numpy(np.zeros(0, envs.obs_dtype)).dtype
        self._rollout = {
            "s": torch.zeros(*shape, *envs.obs_shape, dtype=dtype, device=agent.device),
            "a": torch.zeros(shape, dtype=torch.int64, device=agent.device),
            "target": torch.zeros(shape, device=agent.device),
        }
        self._indices: list[Tensor] = []  # into the flattened rollout, of the minibatches still to come
        self._obs, self._mask = torch.from_numpy(envs.reset()), envs.mask
        self._actions = np.zeros(envs.num_envs, np.int64)
        self._outstanding = False  # a send without its recv
        self._received: dict[str, np.ndarray] | None = None  # received and not yet used
        self._failure: Exception | None = None  # of the environments: nothing goes on after it

    @property
    def frames(self) -> int:
        """The clock `frames`: emulator frames so far."""
        return self.steps * self.envs.frames_per_step

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self

    def __next__(self) -> dict[str, Tensor]:
        while not self._indices:
            self._collect()
        with self.timer("replay"):
            rows = self._indices.pop(0)
            return {name: x.flatten(0, 1)[rows] for name, x in self._rollout.items()}

    def stats(self) -> dict[str, float]:
        """Scalars for the log: returns of the episodes that ended since the last call, epsilon, steps a second."""
        return self.episodes.scalars(self.steps, self.epsilon(self.frames))

    def _collect(self) -> None:
        """Fill the rollout, and deal its transitions into minibatches."""
        shape = self._rollout["a"].shape
        a = np.zeros(shape, np.int64)
        r_t, discount_t, v_t = (np.zeros(shape, np.float32) for _ in range(3))
        last, first = np.zeros(shape, bool), np.zeros(shape, bool)
        if not (self._outstanding or self._received or self._failure):  # nothing moves yet
            self._send()
        for t in range(len(a)):
            step, s, a[t] = self._next_step(), self._obs, self._actions
            self._obs, self._mask = torch.from_numpy(step["obs"]).to(self.agent.device), step.get("mask")
            v_t[t] = self._send()
            self._rollout["s"][t] = s  # the emulators move meanwhile
            r_t[t], discount_t[t], last[t], first[t] = (step[x] for x in ("r_t", "discount_t", "last", "first"))
        target = self._targets(r_t, discount_t, v_t, last)
        self._rollout["a"].copy_(torch.from_numpy(a))
        self._rollout["target"].copy_(target)
        # Into a `first` leads an autoreset and no transition.
        transitions = np.flatnonzero(~first)
        for _ in range(self.epochs):
            parts = np.array_split(self._rng.permutation(transitions), self.minibatches)
            self._indices += [torch.from_numpy(part).to(self.agent.device) for part in parts if len(part)]

    def _targets(
        self,
        r_t: NDArray[np.float32],
        discount_t: NDArray[np.float32],
        v_t: NDArray[np.float32],
        last: NDArray[np.bool_],
    ) -> Tensor:
        """Lambda returns [T, E] of what followed each moment; at a truncation, the value of its own last observation.

        Exploring actions do not cut them, as they do in Watkins's Q(lambda).
        """
        r_t = r_t * np.float32(self.reward_scale)
        if self.clip_reward:
            r_t = np.clip(r_t, -1, 1)
        discount_t = discount_t * np.float32(self.agent.cfg.gamma)
        # A truncation, as the terminal that has the same return: the bootstrap is part of its reward.
        r_t = np.where(last, r_t + discount_t * v_t, r_t)
        discount_t = np.where(last, np.float32(0), discount_t)
        reward, discount, value = (torch.from_numpy(x) for x in (r_t, discount_t, v_t))
        return lambda_returns(reward, discount, value, self.agent.cfg.lambda_)

    def _send(self) -> NDArray[np.float32]:
        """Act on the present observations; returns their values max_a Q(s, a) [E], over the allowed a."""
        with self.timer("act"):
            q = self.agent.q_values(self._obs)
            self._actions = epsilon_greedy(q, self.epsilon(self.frames), self._rng, self._mask)
        with self.timer("env"):
            self.envs.send(self._actions)
        self._outstanding = True
        return (
            allowed(q, None if self._mask is None else torch.from_numpy(self._mask).to(q.device)).amax(1).cpu().numpy()
        )

    def _receive(self) -> None:
        if not self._outstanding:
            return
        self._outstanding = False
        with self.timer("env"):
            try:
                self._received = self.envs.recv()._asdict()
                if self.envs.mask is not None:
                    self._received["mask"] = self.envs.mask
            except Exception as error:
                self._failure = error  # for the next batch: what was learned may be saved before

    def _next_step(self) -> dict[str, np.ndarray]:
        self._receive()
        if self._failure:
            raise ExperienceFailed(str(self._failure) or repr(self._failure)) from self._failure
        step, self._received = self._received, None
        assert step is not None
        self.steps += self.envs.num_envs
        self.episodes.add(step)
        return step

    def state_dict(self) -> dict:
        """Everything, with the rollout where it is not yet learned; first receives a step that is on its way."""
        self._receive()
        step = self._received
        return {
            "steps": self.steps,
            "rng": self._rng.bit_generator.state,
            "episodes": self.episodes.state_dict(),
            "rollout": self._rollout if self._indices else None,
            "indices": self._indices,
            "obs": self._obs,
            "mask": None if self._mask is None else torch.from_numpy(self._mask),
            "actions": torch.from_numpy(self._actions),
            "step": None if step is None else {name: torch.from_numpy(x) for name, x in step.items()},
            "envs": self.envs.state_dict() if hasattr(self.envs, "state_dict") else None,
        }

    def begin_anew(self, state: dict, times: float) -> str:
        """Go on with the clock of a run of other ranks, of which this one makes up for `times`."""
        self.steps = int(state["steps"] * times)
        return "environments begin new episodes"

    def load_state_dict(self, state: dict) -> str | None:
        """Restore; environments that cannot save themselves begin new episodes. Returns a line that says so."""
        self._receive()  # else the next recv would return the step of an earlier send
        self.steps = state["steps"]
        self._rng.bit_generator.state = state["rng"]
        self.episodes.load_state_dict(state["episodes"])
        device = self.agent.device
        for name, saved in (state["rollout"] or {}).items():
            self._rollout[name].copy_(saved)
        self._indices = [rows.to(device) for rows in state["indices"]]
        if state["envs"] is None:  # what the emulators did last is lost with them
            self._received = None
            self._obs, self._mask = torch.from_numpy(self.envs.reset()).to(device), self.envs.mask
            return f"{self.envs.num_envs} environments begin new episodes"
        self.envs.load_state_dict(state["envs"])
        self._obs, self._actions, step = state["obs"].to(device), state["actions"].numpy(), state["step"]
        self._received = step and {name: array.numpy() for name, array in step.items()}
        self._mask = None if (mask := state.get("mask")) is None else mask.numpy()
        return None
