"""From environments to batches: act, step the environments, store, sample.

One turn of the iterator, with the overlap that costs no threads of our own:

    experience   recv | store | act | send | sample ->                   recv | store | ...
    trainer                                            update
    emulators                              |---- step ----|
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.dqn.agent import DQN, random_actions
from rlkit.errors import ExperienceFailed
from rlkit.logger import EpisodeStats, Timer
from rlkit.replay import Replay
from rlkit.schedule import Schedule


def loss_that_draws(replay: Replay, loss: Callable) -> Callable:
    """`loss` on the batch at the shares that `Replay.draw_shares` drew: a captured graph then gathers the batch too."""
    return lambda model, shares: loss(model, replay.batch_at_shares(**shares))


class Experience:
    """An endless iterator of replayed batches that acts while it is iterated.

    Args:
        envs: a vector environment: reset, send and recv, as envs/vector.py writes them down.
        epsilon: exploration over the clock `frames`; 1 until learning starts, if it is to start from random play.
        batch_size: transitions, or sequences.
        learning_starts: agent steps in the replay before the first batch, kept between what one sample needs and the
            capacity; until then the iterator yields an empty batch now and then, so that the trainer can stop.
        samples_per_step: transitions (or sequences) to learn from for each environment step.
        clip_reward: store rewards clipped to [-1, 1] instead of raw ones.
        reward_scale: what multiplies rewards before that.
        repeats: of exploring actions (agents/dqn/exploration.py); None: each is drawn by itself.
        importance: of prioritised replay, over the clock `frames`.
        drawn_in_loss: yield what `Replay.draw_shares` returns, for the loss `loss_that_draws(replay, agent.loss)`.
        seed: of exploration. timer: shared with the trainer's.
    """

    def __init__(
        self,
        envs: Any,
        agent: DQN,
        replay: Replay,
        *,
        epsilon: Schedule,
        batch_size: int,
        samples_per_step: float = 8,
        learning_starts: int = 50_000,
        clip_reward: bool = True,
        reward_scale: float = 1.0,
        repeats: Any = None,
        importance: Schedule | None = None,
        drawn_in_loss: bool = False,
        seed: int = 0,
        timer: Timer | None = None,
    ):
        self.envs, self.agent, self.replay, self.epsilon = envs, agent, replay, epsilon
        self.batch_size, self.samples_per_step = batch_size, samples_per_step
        self.clip_reward, self.reward_scale, self.repeats = clip_reward, reward_scale, repeats
        least = (replay.stack + replay.n_step) * envs.num_envs  # below that, nothing can be drawn
        self.learning_starts = min(max(learning_starts, least), replay.rows * envs.num_envs)
        self.importance = importance or Schedule(1.0, 1.0)
        self._sample = replay.draw_shares if drawn_in_loss else replay.sample
        self.timer = timer or Timer()
        self.steps = 0  # environment steps, all environments together
        self.learning = False
        self.episodes = EpisodeStats()
        self._rng = np.random.default_rng(seed)
        self._obs = envs.reset()
        self._first = np.ones(envs.num_envs, bool)
        self._last = np.zeros(envs.num_envs, bool)
        self._mask = envs.mask
        self._actions = np.zeros(envs.num_envs, np.int64)
        self._credit = 0.0  # samples owed to the learner
        self._outstanding = False  # a send without its recv
        self._received: dict[str, np.ndarray] | None = None  # received and not yet stored
        self._failure: Exception | None = None  # of the environments: nothing goes on after it

    @property
    def frames(self) -> int:
        """The clock `frames`: emulator frames so far."""
        return self.steps * self.envs.frames_per_step

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self

    def __next__(self) -> dict[str, Tensor]:
        for _ in range(256):  # then an empty batch: the trainer updates its progress bar and looks for signals
            if self.learning and self._credit >= self.batch_size:
                self._credit -= self.batch_size
                with self.timer("replay"):
                    return self._sample(self.batch_size, self.importance(self.frames))
            self.turn()
        return {}

    def turn(self) -> None:
        """Store the step that is on its way, and act."""
        self._receive()
        self._store()
        self._send()

    def stats(self) -> dict[str, float]:
        """Scalars for the log: returns of the episodes that ended since the last call, epsilon, steps a second."""
        return self.episodes.scalars(self.steps, self.epsilon(self.frames))

    def _send(self) -> None:
        with self.timer("act"):
            epsilon = self.epsilon(self.frames)
            if np.min(epsilon) < 1.0 or self.agent.recurrent:  # a recurrent agent has to see everything
                singly = 0.0 if self.repeats else epsilon
                self._actions = self.agent.act(self._obs, singly, self._rng, self._first, self._mask)
            else:
                shape = self.envs.num_envs, self.agent.num_actions
                self._actions = random_actions(self._rng, shape, self._mask)
            if self.repeats:
                self._actions = self.repeats(
                    self._actions, self.agent.num_actions, epsilon, self._rng, self._first, self._mask
                )
        with self.timer("env"):
            self.envs.send(self._actions)
        self._outstanding = True
        self.steps += self.envs.num_envs
        if self.learning:
            self._credit += self.samples_per_step * self.envs.num_envs
        elif len(self.replay) >= self.learning_starts:
            self.learning = True

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

    def _store(self) -> None:
        """Add the moment before the received step to the replay, with the reward and discount that followed."""
        if self._failure:
            raise ExperienceFailed(str(self._failure) or repr(self._failure)) from self._failure
        step, self._received = self._received, None
        if step is None:
            return
        with self.timer("replay"):
            reward = step["r_t"] * np.float32(self.reward_scale)
            reward = np.clip(reward, -1, 1) if self.clip_reward else reward
            # Where the episode had ended (`last`), step is an autoreset: no transition, and `last` keeps it out.
            row = (self._obs[:, -1], self._actions, reward, step["discount_t"], self._first, self._last, self._mask)
            self.replay.add(*row, **self.agent.stored_state)
        self._obs, self._first, self._last, self._mask = step["obs"], step["first"], step["last"], step.get("mask")
        self.episodes.add(step)

    def state_dict(self) -> dict:
        """All that later batches depend on; first receives a step that is on its way, without storing it yet."""
        self._receive()
        received = self._received
        step = None if received is None else {name: torch.from_numpy(value) for name, value in received.items()}
        return {
            "steps": self.steps,
            "learning": self.learning,
            "credit": self._credit,
            "rng": self._rng.bit_generator.state,
            "episodes": self.episodes.state_dict(),
            "actions": torch.from_numpy(self._actions),
            "repeats": self.repeats and self.repeats.state_dict(),
            "now": [torch.from_numpy(x) for x in (self._obs, self._first, self._last)],
            "mask": None if self._mask is None else torch.from_numpy(self._mask),
            "step": step,
            "memory": [list(self.agent.state), self.agent.stored_state],
            "envs": self.envs.state_dict() if hasattr(self.envs, "state_dict") else None,
            "replay": self.replay.state_dict(),
        }

    def begin_anew(self, state: dict, times: float) -> str:
        """Go on with the clock of a run of other ranks, of which this one makes up for `times`."""
        self.steps = int(state["steps"] * times)
        return "replay and environments begin anew"

    def load_state_dict(self, state: dict) -> str:
        """Restore; environments that cannot save themselves begin new episodes. Returns a line that says so."""
        self._receive()  # else the next recv would return the step of an earlier send
        self.steps, self._credit = state["steps"], state["credit"]
        self._rng.bit_generator.state = state["rng"]
        self.episodes.load_state_dict(state["episodes"])
        self._actions = state["actions"].numpy()
        note = self.replay.load_state_dict(state["replay"])
        self.learning = state["learning"] and len(self.replay) >= self.learning_starts
        if self.repeats and state.get("repeats"):
            self.repeats.load_state_dict(state["repeats"])
        self._obs, self._first, self._last = (x.numpy() for x in state["now"])
        self._mask = None if (mask := state.get("mask")) is None else mask.numpy()
        memory, stored_state = state["memory"]
        self.agent.state = tuple(part.to(self.agent.device) for part in memory)
        self.agent.stored_state = {name: value.to(self.agent.device) for name, value in stored_state.items()}
        step = state["step"]
        self._received = step and {name: value.numpy() for name, value in step.items()}
        if state["envs"] is not None:
            self.envs.load_state_dict(state["envs"])
            return note
        self._store()
        if len(self.replay):
            # The episodes end here, truncated: no transition starts from their last moment.
            nothing = np.zeros(self.envs.num_envs)
            row = (self._obs[:, -1], nothing, nothing, nothing, self._first, np.ones(len(nothing), bool), self._mask)
            self.replay.add(*row, **self.agent.stored_state)
        self._obs, self._mask = self.envs.reset(), self.envs.mask
        self._first[:], self._last[:] = True, False
        return f"{note}; {self.envs.num_envs} environments begin new episodes"
