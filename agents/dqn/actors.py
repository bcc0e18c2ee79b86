"""DQN's experience from other processes: Ape-X (Horgan et al. 2018).

    actor 0    act, step its environments, ... -> rows of moments  -.
    actor 1    act, step its environments, ... -> rows of moments  -+->  a replay for each -> batches
                      ^                                             |
                      '------------- weights, by version -----------'

What differs from the paper: a replay holds the moments of one actor, frame by frame, so that nothing is sent twice; a
batch has as many transitions from each. New ones get the highest priority, as without actors.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.dqn.experience import Experience
from rlkit.logger import EpisodeStats, Timer
from rlkit.parallel.stream import Piece, Stream, Weights, load_weights
from rlkit.replay import Replay
from rlkit.schedule import Schedule
from rlkit.sequences import SequenceReplay

TURNS = 64
"""steps of each environment in a call"""
EPSILON, POWER = 0.4, 7.0
"""Horgan et al. 2018, section 3 and appendix: environment i of N explores with EPSILON^(1 + POWER i / (N - 1))"""


def ladder(num_envs: int) -> NDArray[np.float64]:
    """Epsilon of each environment, falling."""
    return EPSILON ** (1 + POWER * np.arange(num_envs) / max(1, num_envs - 1))


class Rows:
    """In place of a replay: keeps the rows that an `Experience` stores, to hand them over."""

    def __init__(self, num_envs: int, stack: int):
        self.num_envs, self.stack, self.n_step, self.rows = num_envs, stack, 1, 1 << 30
        self.sample = self.draw_shares = None  # nothing is drawn here
        self.kept: list[tuple] = []

    def __len__(self) -> int:
        return 0  # so that learning never starts

    def add(self, *row: Any, state: Tensor | None = None) -> None:
        """Keep a row as `Replay.add` takes it, of a network with a memory the state before it too."""
        columns = *row, None if state is None else state.cpu().numpy()
        self.kept.append(tuple(None if column is None else column.copy() for column in columns))


class Actor:
    """The environments of one actor.

    Args:
        make: from how many have acted in its place before, in the same run, to (environments, agent, what keeps
            exploring actions up, a seed). epsilons: of these environments, once learning has started.
    """

    def __init__(self, make: Callable[[int], tuple[Any, Any, Any, int]], epsilons: NDArray[np.float64], start: int):
        self.make, self.epsilons = make, epsilons
        self.begin(start)

    def begin(self, start: int) -> None:
        self.version, self.random = -1, True
        envs, agent, repeats, seed = self.make(start)
        self.rows = Rows(envs.num_envs, envs.obs_shape[0])
        options = {"clip_reward": False, "repeats": repeats, "seed": seed}  # the learner clips
        self.experience = Experience(envs, agent, self.rows, epsilon=self._epsilon, batch_size=1, **options)  # type: ignore[arg-type]

    def _epsilon(self, frames: float) -> Any:
        return 1.0 if self.random else self.epsilons

    def play(self, weights: Weights, version: int, share: float, random: bool) -> Piece:
        """TURNS steps of each environment, or a share of them; `random`ly as long as nothing is learned."""
        began, experience = time.perf_counter(), self.experience
        if version != self.version:
            load_weights(experience.agent.network, weights)
        self.version, self.random = version, random
        while len(self.rows.kept) < max(1, round(TURNS * share)):
            experience.turn()
        columns = [None if column[0] is None else np.stack(column) for column in zip(*self.rows.kept, strict=True)]
        self.rows.kept.clear()
        episodes = experience.episodes.state_dict()
        experience.episodes.load_state_dict({"finished": [], "new": 0})
        content = {
            "rows": columns,
            "now": (experience._obs[:, -1].copy(), None if experience._mask is None else experience._mask.copy()),
            "episodes": episodes["finished"],
        }
        counts = {"steps": columns[1].size, "episodes": len(episodes["finished"])}  # type: ignore[union-attr]
        size = sum(column.nbytes for column in columns if column is not None)
        return Piece(content, version, time.perf_counter() - began, counts, size)


class Replays:
    """As many replays as there are actors, as one. seed: of who gives one transition more than others."""

    def __init__(self, replays: list[Replay], seed: int = 0):
        self.replays = replays
        self._drawn = [0] * len(replays)
        self._rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return sum(map(len, self.replays))

    def sample(self, batch_size: int, importance: float) -> dict[str, Tensor]:
        """A batch with an equal part from each that has transitions yet."""
        filled = self._rng.permutation([i for i, replay in enumerate(self.replays) if self._drawable(replay)])
        drawn = np.zeros(len(self.replays), int)
        drawn[filled] = [len(part) for part in np.array_split(np.arange(batch_size), len(filled))]
        self._drawn = drawn.tolist()
        parts = [replay.sample(n, importance) for replay, n in zip(self.replays, self._drawn, strict=True) if n]
        batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        if "weight" in batch:
            batch["weight"] = self._weights(batch["index"], importance)
        return batch

    def _weights(self, index: Tensor, importance: float) -> Tensor:
        """What makes up for drawing some more often, of all replays together: see `Replay.batch_at_shares`."""
        chance = []
        for replay, where in zip(self.replays, index.split(self._drawn), strict=True):
            assert replay.tree is not None
            chance.append(len(where) * replay.tree.leaves[where] / replay.tree.levels[-1].sum())
        chance_of = torch.cat(chance)
        return (chance_of.min() / chance_of).pow(importance).float()

    @staticmethod
    def _drawable(replay: Replay) -> bool:
        """Whether a transition (or sequence) is complete."""
        period = replay.period if isinstance(replay, SequenceReplay) else 1
        low, high = (-(-bound // period) for bound in replay._bounds())
        return low < high

    def prioritise(self, index: Tensor, priority: Tensor) -> None:
        """Give the transitions of the last batch the priorities that they have now."""
        parts = zip(self.replays, index.split(self._drawn), priority.split(self._drawn), strict=True)
        for replay, where, value in parts:
            if len(where):
                replay.prioritise(where, value)


class ActorExperience:
    """An endless iterator of replayed batches, as `Experience` is one, of what actors live through.

    Args:
        stream: of `Actor`s. replays: one for each. frames_per_step: of the clock `frames`.
        The others are those of `Experience`.
    """

    def __init__(
        self,
        stream: Stream,
        replays: list[Replay],
        *,
        frames_per_step: int,
        batch_size: int,
        samples_per_step: float,
        learning_starts: int,
        clip_reward: bool,
        reward_scale: float,
        importance: Schedule,
        timer: Timer | None = None,
    ):
        self.stream, self.replay, self.frames_per_step = stream, Replays(replays), frames_per_step
        self.batch_size, self.samples_per_step, self.importance = batch_size, samples_per_step, importance
        least = sum((replay.stack + replay.n_step) * replay.num_envs for replay in replays)
        most = sum(replay.rows * replay.num_envs for replay in replays)
        self.learning_starts = min(max(learning_starts, least), most)
        self.clip_reward, self.reward_scale = clip_reward, reward_scale
        self.timer, self.episodes = timer or Timer(), EpisodeStats()
        self.steps, self.learning, self._credit = 0, False, 0.0
        self._unseen = False
        """whether a batch was handed out since the actors were looked at"""
        self._now: list[tuple | None] = [None] * len(replays)
        """of each actor: the frames that its next piece begins with"""
        self._samples_per_call = TURNS * sum(replay.num_envs for replay in replays) * samples_per_step

    @property
    def frames(self) -> int:
        """The clock `frames`: emulator frames so far."""
        return self.steps * self.frames_per_step

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self

    def __next__(self) -> dict[str, Tensor]:
        if self._unseen:
            self._unseen = False
            self._store(self.stream.after_update(self._wanted, self._random))
        if not self.learning or self._credit < self.batch_size or self.stream.behind:
            with self.timer("actors"):
                pieces = self.stream.take(self._wanted, self._random)
            self._store(pieces)
            return {}
        self._credit -= self.batch_size
        self.stream.updates += 1
        self._unseen = True
        with self.timer("replay"):
            return self.replay.sample(self.batch_size, self.importance(self.frames))

    @property
    def _random(self) -> bool:
        """Whether actors act wholly at random, as before the first update of a new run."""
        return self.steps < self.learning_starts

    @property
    def _wanted(self) -> bool:
        """Whether the learner owes no more samples than a call of all actors brings: else they wait."""
        return self._credit < max(self.batch_size, self._samples_per_call)

    def _store(self, pieces: list[tuple[int, Piece]]) -> None:
        while self.stream.lost:
            self._cut(self.stream.lost.pop())
        for index, piece in pieces:
            replay, content = self.replay.replays[index], piece.content
            frame, action, reward, discount, first, last, mask, state = content["rows"]
            frame = frame.copy()  # what Ray hands over is read-only, of which torch warns
            reward = reward * np.float32(self.reward_scale)
            reward = np.clip(reward, -1, 1) if self.clip_reward else reward
            with self.timer("replay"):
                for t in range(len(frame)):
                    row = frame[t], action[t], reward[t], discount[t], first[t], last[t]
                    before: dict[str, Any] = {} if state is None else {"state": torch.tensor(state[t])}
                    replay.add(*row, None if mask is None else mask[t], **before)
            self._now[index] = tuple(None if part is None else part.copy() for part in content["now"])
            self.steps += action.size
            self._credit += self.samples_per_step * action.size if self.learning else 0
            score, length = np.array(content["episodes"]).reshape(-1, 2).T
            self.episodes.add({"last": np.ones(len(score), bool), "score": score, "length": length})
        self.learning |= len(self.replay) >= self.learning_starts

    def _cut(self, index: int) -> None:
        """No transition leads from what an actor lived through to what the one in its place does."""
        if self._now[index] is None:
            return
        (frame, mask), replay = self._now[index], self.replay.replays[index]  # type: ignore[misc]
        nothing, no = np.zeros(replay.num_envs), np.zeros(replay.num_envs, bool)
        before: dict[str, Any] = {"state": replay.states[0] * 0} if isinstance(replay, SequenceReplay) else {}
        replay.add(frame, nothing, nothing, nothing, no, ~no, mask, **before)
        self._now[index] = None

    def stats(self) -> dict[str, float]:
        """Scalars for the log: of episodes that ended since the last call, steps a second, the mean epsilon, actors."""
        num_envs = sum(replay.num_envs for replay in self.replay.replays)
        epsilon = 1.0 if self._random else float(ladder(num_envs).mean())
        return self.episodes.scalars(self.steps, epsilon) | self.stream.rates()

    def state_dict(self) -> dict[str, Any]:
        """All that later batches depend on, besides the actors, which begin new episodes."""
        return self.stream.state_dict() | {
            "steps": self.steps,
            "learning": self.learning,
            "credit": self._credit,
            "episodes": self.episodes.state_dict(),
            "now": [now and [None if part is None else torch.from_numpy(part) for part in now] for now in self._now],
            "replays": [replay.state_dict() for replay in self.replay.replays],
        }

    def load_state_dict(self, state: dict[str, Any]) -> str:
        """Restore; returns a line about the replays and the actors. Raises ValueError for another number of actors."""
        if len(state["replays"]) != len(self.replay.replays):
            raise ValueError(f"the run has {len(state['replays'])} actors with a replay each: resume with as many")
        self.steps, self._credit = state["steps"], state["credit"]
        self.episodes.load_state_dict(state["episodes"])
        notes = [r.load_state_dict(saved) for r, saved in zip(self.replay.replays, state["replays"], strict=True)]
        self.learning = state["learning"] and len(self.replay) >= self.learning_starts
        for index, now in enumerate(state["now"]):
            if now and len(self.replay.replays[index]):
                self._now[index] = tuple(part if part is None else part.numpy() for part in now)
                self._cut(index)
        self.stream.load_state_dict(state)
        return f"{'; '.join(dict.fromkeys(notes))}; actors begin new episodes"
