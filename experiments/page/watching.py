"""An agent plays, and a page watches: what it sees, what it thinks its actions are worth, and what it does.

    {"do": "watch", "agent": NAME, "seed": 0, "speed": 1}       answers go on until something else is wanted; "epsilon":
                                                                the share of random actions, else that of `evaluate`

    {"do": "pause"}, {"do": "go"}, {"do": "step"}               meanwhile, and at once
    {"do": "speed", "speed": 2}                                 0: as fast as it can
    {"do": "hold", "action": 3}                                 this instead of the agent's, until another one is held
    {"do": "hand back"}                                         the agent plays on
    {"do": "saliency", "on": true}                              what the chosen action's value depends on
    {"do": "reset", "seed": 1}                                  a new game
    {"do": "record", "on": true, "video": false}                into the runs' folder `recordings`

The first answer has "world", what does not change. Others tell of one moment: "pictures", of all that was to be seen
since the last one, below each other; "seen", what the network sees, or "obs", numbers; "q", "returns"; "greedy" and
"choice", what is best and what the agent does; "took", the action before, and "by" whom.
"""

import contextlib
import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.control import worlds
from experiments.page.cameras import AtariFrames, action_names, camera, overlay, png, rate_of, tiles
from experiments.page.insides import Insides
from experiments.page.recordings import NOTHING, Recording, can_film
from rlkit.errors import DamagedFile

KINDS = ("dqn", "recurrent_dqn", "pqn")
MOST_SEED = 2**31 - 1
FASTEST = 64
EACH_UP_TO = 4
"""the speed above which not every moment is told"""
TOLD = 1 / 60
"""seconds between answers, above that"""
HEARTBEAT = 0.5
"""seconds after which a page that waits hears something, and a page that is gone is noticed"""
BEHIND = 0.2
"""seconds that are made up for, where the page or the network was slow"""


class Agents:
    """The agents that a page may watch.

    Args:
        runs: the folder of runs; agents elsewhere cannot be named from a page.
        device: says where networks are, and is called before the first one is loaded.
    """

    def __init__(self, runs: Path, device: Callable[[], Any] = lambda: "cpu"):
        self.runs, self.device = runs, device

    def offered(self) -> list[dict[str, Any]]:
        """Each with "name", "kind", "game", "score" (its mean, or None) and "frames" (of training, or None)."""
        found = []
        for file in sorted(self.runs.glob("*/*/agent/agent.json")):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # damaged, or not ours
                info = json.loads(file.read_text(encoding="utf-8"))
                if info["kind"] in KINDS and isinstance(info["env"]["game"], str):
                    score, frames = (info.get("score") or {}).get("mean"), (info.get("trained") or {}).get("frames")
                    row = {"name": str(file.parent.parent), "kind": info["kind"], "game": info["env"]["game"]}
                    row |= {"score": _finite(score), "frames": _finite(frames)}
                    found.append(row)
        return found

    def load(self, name: Any) -> Any:
        """The agent itself, its own for who asks. Raises ValueError for one that is not offered, or damaged."""
        if name not in [each["name"] for each in self.offered()]:
            raise ValueError(f"no agent {str(name)[:200]!r} is offered here")
        from experiments.any_agent import load_agent

        try:
            return load_agent(name, self.device())
        except DamagedFile as error:
            raise ValueError(str(error)) from error


def _finite(value: Any) -> float | None:
    return value if isinstance(value, (int, float)) and np.isfinite(value) else None


class Pace:
    """When the next step is due: moments of `period` seconds after each other, whatever each of them costs."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic):
        self.rate, self.clock, self.speed, self.due = rate, clock, 1.0, clock()

    def begin(self) -> None:
        """A moment begins; where the last one ended too late by more than BEHIND, from now."""
        self.due = max(self.due + self.period, self.clock() - BEHIND)

    @property
    def period(self) -> float:
        return 1 / (self.rate * self.speed) if self.speed else 0.0

    def left(self) -> float:
        """Seconds until the step; at most a moment, so that a change of speed holds at once."""
        now = self.clock()
        self.due = min(self.due, now + self.period)
        return self.due - now if self.speed else 0.0

    def hold(self) -> None:
        """While it pauses, nothing becomes due."""
        self.due = self.clock()


class Watch:
    """Answers one page. runs: below which recordings are written."""

    controls = frozenset({"pause", "go", "step", "speed", "hold", "hand back", "saliency", "reset", "record"})

    def __init__(self, agents: Agents, clock: Callable[[], float] = time.monotonic):
        self.agents, self.clock = agents, clock
        self._changed = threading.Condition()
        self._begin(1.0)

    def _begin(self, speed: float) -> None:
        self._speed, self._paused, self._steps = speed, False, 0
        self._held: int | None = None
        self._saliency, self._next_seed = False, None  # type: bool, int | None
        self._record, self._video = False, False

    def close(self) -> None:
        """Nothing is held between messages."""

    def control(self, message: dict[str, Any]) -> None:
        """Take note of what is wanted. Raises ValueError."""
        do = message["do"]
        with self._changed:
            if do in ("pause", "go"):
                self._paused = do == "pause"
            elif do == "step":
                self._paused, self._steps = True, self._steps + 1
            elif do == "speed":
                self._speed = _speed(message)
            elif do == "hold":
                self._held = _whole(message, "action", 1000)
            elif do == "hand back":
                self._held = None
            elif do == "saliency":
                self._saliency = message.get("on") is True
            elif do == "reset":
                self._next_seed = _whole(message, "seed", MOST_SEED)
            elif do == "record":
                self._record, self._video = message.get("on") is True, message.get("video") is True
            self._changed.notify()

    def answers(self, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Every moment of the agent's games, until it is closed. Raises ValueError, OSError."""
        if message["do"] != "watch":
            raise ValueError(f'to {message["do"][:20]!r}, first ask to "watch"')
        speed, seed = _speed(message), _whole(message, "seed", MOST_SEED)
        epsilon = message.get("epsilon")
        if epsilon is not None and (type(epsilon) not in (int, float) or not 0 <= epsilon <= 1):
            raise ValueError('"epsilon" is a number from 0 to 1')
        agent = self.agents.load(message.get("agent"))
        insides = Insides(agent)
        with self._changed:
            self._begin(speed)
        while True:
            with contextlib.closing(Game(agent, insides, seed, epsilon)) as game:
                yield from self._watch(game, str(message.get("agent")))
            with self._changed:
                assert self._next_seed is not None
                seed, self._next_seed = self._next_seed, None

    def _watch(self, game: "Game", name: str) -> Iterator[dict[str, Any]]:
        """Until another game is wanted."""
        yield {"world": game.about | {"agent": name, "video": can_film()}}
        pace, told = Pace(game.rate, self.clock), -1.0
        self._recording: Recording | None = None
        try:
            while True:
                game.decide()
                pace.begin()
                hurries = not self._speed or self._speed > EACH_UP_TO
                if game.last or not hurries or self._paused or self.clock() > told + TOLD:
                    told = self.clock()
                    yield self._told(game)
                yield from self._wait(game, name, pace)
                with self._changed:
                    if self._next_seed is not None:
                        return
                    held = self._held
                game.move(held)
                if self._recording:
                    self._recording.add(*game.row)
                    self._recording.film(game.pictures)
        finally:
            self._finish(game)

    def _told(self, game: "Game") -> dict[str, Any]:
        return game.told() | (game.salient() if self._saliency else {})

    def _wait(self, game: "Game", name: str, pace: Pace) -> Iterator[dict[str, Any]]:
        """Until the next step is due, and while it pauses: what is to be told meanwhile."""
        beat, salient = self.clock(), self._saliency
        while True:
            if self._recording and self._recording.full:
                self._record = False
            if self._record != (self._recording is not None):
                yield self._finish(game) if self._recording else self._start(game, name, pace)
            with self._changed:
                pace.speed = self._speed
                if self._next_seed is not None or (self._paused and self._steps):
                    self._steps = max(0, self._steps - 1)
                    pace.hold()
                    return
                if self._paused:
                    pace.hold()
                left = HEARTBEAT if self._paused else pace.left()
                if left <= 0:
                    return
                wanted = self._record, self._saliency
                if wanted == (self._recording is not None, salient):
                    self._changed.wait(min(left, HEARTBEAT))
            if self._saliency != salient:
                salient = self._saliency
                yield game.salient() if salient else {"saliency": None}
            if self.clock() > beat + HEARTBEAT:
                beat = self.clock()
                yield {"waiting": self._paused}

    def _start(self, game: "Game", name: str, pace: Pace) -> dict[str, Any]:
        films = self._video and can_film() and game.camera is not None
        rate = (60.0 if isinstance(game.camera, AtariFrames) else game.rate) if films else None
        self._recording = Recording(self.agents.runs / "recordings", game.facts | {"agent": name}, game.taken, rate)
        self._recording.film(game.pictures[-1:])
        return {"recording": self._recording.path.name}

    def _finish(self, game: "Game") -> dict[str, Any]:
        recording, self._recording = self._recording, None
        if not recording:
            return {}
        if not recording.rows:
            recording.drop()
            return {"recording": None, "saved": []}
        try:
            saved = recording.finish(game.obs[0, -1], game.first, game.last, game.insides.q)
        except OSError as error:
            return {"recording": None, "error": f"the recording could not be written: {error}"}
        return {"recording": None, "saved": [str(path) for path in saved]}


class Game:
    """An agent's episodes in one world, exactly as `evaluate --seed SEED --episodes 1` begins them.

    about: what a page is told of it. facts: what a recording says. taken: all actions so far.
    """

    def __init__(self, agent: Any, insides: Insides, seed: int, epsilon: float | None):
        info, env = agent.info, agent.info["env"]
        self.agent, game, protocol = agent, env["game"], env["protocol"]
        self.epsilon = worlds.evaluation_epsilon(game, protocol) if epsilon is None else epsilon
        options = env.get("options")
        # One process is enough, and leaves none behind.
        options = options | {"vectorization": "sync"} if options else options
        self.envs = worlds.make(
            game, 1, seed=seed, protocol=protocol, training=False, flicker=env.get("flicker"), size=agent.obs_shape[-1],
            options=options, render=worlds.is_gymnasium(game),
        )  # fmt: skip
        self.insides = insides
        self._rng, self.obs = np.random.default_rng(seed), self.envs.reset()
        self.first, self.last, self.reward, self.score = True, False, 0.0, 0.0
        self.episode, self.length, self.steps = 1, 0, 0
        self.taken: list[int] = []
        self.by: str | None = None
        self.camera, self.rate = camera(self.envs, seed), rate_of(self.envs)
        self.pictures = self.camera(None) if self.camera else []
        names = action_names(game, self.envs)
        self.facts = {
            "env": env, "protocol": self.envs.protocol, "seed": seed, "epsilon": self.epsilon,
            "stack": agent.obs_shape[0], "action_names": names,
        }  # fmt: skip
        self.about = {
            "game": game, "protocol": self.envs.protocol, "seed": seed, "epsilon": self.epsilon, "actions": names,
            "rate": self.rate, "kind": info["kind"], "frames": _finite(info["trained"]["frames"]),
            "distribution": self.insides.distribution, "stack": agent.obs_shape[0],
        }  # fmt: skip

    def close(self) -> None:
        """End the world."""
        inner: Any = getattr(self.envs, "envs", self.envs)
        if hasattr(inner, "close"):
            inner.close()

    def decide(self) -> None:
        """What the agent would do now: `choice`, and whether that is `random`."""
        peek = copy.deepcopy(self._rng)
        first, mask = np.array([self.first]), self.envs.mask
        self.choice = int(self.agent.act(self.obs, self.epsilon, self._rng, first, mask)[0])
        self.random = bool(peek.random(1)[0] < self.epsilon)  # which is what epsilon_greedy asks first
        allowed = np.ones(self.envs.num_actions, bool) if mask is None else mask[0]
        self.allowed, self.greedy = allowed, int(np.where(allowed, self.insides.q, -np.inf).argmax())

    def move(self, held: int | None) -> None:
        """One step, by the action that somebody holds, as far as it is allowed, or the agent's; after an episode's end,
        into the next one.
        """
        person = held is not None and held < len(self.allowed) and self.allowed[held]
        action: int = held if person else self.choice  # type: ignore[assignment]
        by = "person" if person else "random" if self.random else "greedy"
        if isinstance(self.camera, AtariFrames):
            self.camera.actions[:] = action
        obs, first, last, q = self.obs[0, -1], self.first, self.last, self.insides.q
        step = self.envs.step(np.array([action]))
        self.obs, self.first, self.last = step.obs, bool(step.first[0]), bool(step.last[0])
        self.reward = 0.0 if self.first else float(step.r_t[0])
        self.score = 0.0 if self.first else self.score + self.reward
        self.length, self.steps = int(step.length[0]), self.steps + 1
        self.episode += self.first
        self.pictures = self.camera(step) if self.camera else []
        self.taken.append(NOTHING if last else action)
        self.by = by
        self.row = (obs, first, last, action, self.reward, float(step.discount_t[0]), by, q)

    def told(self) -> dict[str, Any]:
        """What a page shows of this moment."""
        out: dict[str, Any] = {
            "episode": self.episode, "step": self.length, "return": self.score, "reward": self.reward,
            "last": self.last, "q": [round(float(value), 4) for value in self.insides.q], "greedy": self.greedy,
            "choice": self.choice, "random": self.random, "took": self.taken[-1] if self.taken else None, "by": self.by,
            "returns": self.insides.returns(), "count": len(self.pictures),
        }  # fmt: skip
        if not self.allowed.all():
            out["allowed"] = self.allowed.tolist()
        if self.pictures:
            out["pictures"] = png(np.concatenate(self.pictures, 0))
        seen = tiles(self.obs[0])
        return out | ({"obs": self.obs[0].round(4).tolist()} if seen is None else {"seen": png(seen)})

    def salient(self) -> dict[str, Any]:
        """What the value of the agent's choice depends on: a picture to be laid over, or a number for each feature."""
        weights = self.insides.saliency(self.choice)
        return {"saliency": png(overlay(weights)) if weights.ndim == 2 else weights.round(4).tolist()}


def _whole(message: dict[str, Any], name: str, most: int) -> int:
    value = message.get(name, 0)
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f'"{name}" is a whole number from 0 to {most}')
    return value


def _speed(message: dict[str, Any]) -> float:
    value = message.get("speed", 1)
    if type(value) not in (int, float) or not (value == 0 or 0.05 <= value <= FASTEST):
        raise ValueError(f'"speed" is a number from 0.05 to {FASTEST}, or 0')
    return float(value)
