"""DQN on vectors against Stable-Baselines3's with RL Zoo's tuned settings: final scores, and how soon they are reached.

python -m experiments bench control --json --rounds 5        # five seeds of each, in turns; hours on one core
python -m experiments bench control --env CartPole-v1 --rounds 1
python -m experiments bench control --env MinAtar/Breakout-v1 --rounds 2     # with the settings of MinAtar's authors

Both have RL Zoo's number of steps, one thread, and the same evaluation: EPISODES greedy episodes every `every` steps,
whose seconds are not counted. "Soon" is the seconds from the first step to the first of two evaluations in a row at the
mark. The score is that of 100 greedy episodes with other seeds, of the agent as it is at the end; ours is loaded from
its folder.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from envs.gymnasium import Gymnasium
from envs.gymnasium_names import maker
from experiments.any_agent import load_agent
from experiments.bench.control_tasks import TASKS, Task
from experiments.bench.turns import Config, report
from experiments.control import dqn
from experiments.control.dqn_presets import PRESETS, after
from rlkit import runtime
from rlkit.evaluate import bootstrap_interval, episodes
from rlkit.run import Run

EPISODES, SCORED = 10, 100
EVALUATED, SCORED_WITH = 1_000_000, 2_000_000
"""seeds of evaluations, and of the final score, less the run's own"""


class Clock:
    """Seconds and steps of one learner, evaluations taken out; `soon`, once two in a row have reached the mark."""

    def __init__(self, env: str, task: Task, seed: int, greedy: Callable[[NDArray], NDArray]):
        self.task, self.greedy, self.due = task, greedy, task.every
        self.envs = Gymnasium(env, EPISODES, seed=EVALUATED + seed)
        self.began, self.out, self.reached, self.soon, self.total = time.perf_counter(), 0.0, 0.0, 0.0, 0.0
        self.scores: list[float] = []

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began - self.out

    def look(self, steps: int) -> None:
        """Evaluate where it is due."""
        if steps < self.due:
            return
        now = self.seconds
        self.due += self.task.every
        self.scores.append(episodes(lambda obs, first: self.greedy(obs), self.envs, EPISODES).mean)
        self.out += self.seconds - now
        self.total = self.seconds
        if self.scores[-1] < self.task.mark:
            self.reached = 0.0
        elif not self.reached:
            self.reached = now
        elif not self.soon:
            self.soon = self.reached


def final(env: str, seed: int, greedy: Callable[[NDArray], NDArray]) -> float:
    envs = Gymnasium(env, 20, seed=SCORED_WITH + seed)
    return episodes(lambda obs, first: greedy(obs), envs, SCORED).mean


def ours(env: str, task: Task, seed: int) -> tuple[Clock, float]:
    """(its clock at the end, the score of the agent that the run saved)."""
    never: dict[str, Any] = {"eval_every": 10**9, "eval_episodes": 1}
    settings: dict[str, Any] = {"env": env, "seed": seed, "frames": task.steps, "threads": 1, "device": "cpu"}
    trainer = task.trainer | {"progress": False}
    cfg = after(PRESETS[task.preset], task.preset, task.agent, trainer, **task.more, **settings, **never)
    run = Run(cfg, "dqn")

    @torch.inference_mode()
    def greedy(obs: NDArray) -> NDArray:
        assert run.trainer
        return run.trainer.averaged(torch.from_numpy(obs)).argmax(1).numpy()

    clock = Clock(env, task, seed, greedy)
    for _ in dqn.learn(cfg, run):
        assert run.trainer
        clock.look(int(run.trainer.clock[1]()))
    clock.look(task.steps)
    assert run.folder
    agent = load_agent(run.folder)
    return clock, final(env, seed, agent.act)


def planes_for_sb3() -> type:
    """The network of MinAtar's authors for Stable-Baselines3: a 3 x 3 convolution of 16 channels, and 128 units."""
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

    class Planes(BaseFeaturesExtractor):
        def __init__(self, space: Any):
            super().__init__(space, 128)
            rows, columns, planes = space.shape
            self.layers = torch.nn.Sequential(
                torch.nn.Conv2d(planes, 16, 3),
                torch.nn.ReLU(),
                torch.nn.Flatten(),
                torch.nn.Linear(16 * (rows - 2) * (columns - 2), 128),
                torch.nn.ReLU(),
            )

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            return self.layers(obs.permute(0, 3, 1, 2))

    return Planes


def theirs(env: str, task: Task, seed: int) -> tuple[Clock, float]:
    from stable_baselines3 import DQN
    from stable_baselines3.common.callbacks import BaseCallback

    policy: dict[str, Any] = {"net_arch": [256, 256]}
    if task.preset == "minatar":
        optimiser = {"alpha": 0.95, "eps": 0.01, "centered": True}
        policy = {"net_arch": [], "features_extractor_class": planes_for_sb3(), "optimizer_class": torch.optim.RMSprop}
        policy["optimizer_kwargs"] = optimiser
    model = DQN("MlpPolicy", maker(env)(), seed=seed, device="cpu", policy_kwargs=policy, **task.zoo)

    def greedy(obs: NDArray) -> NDArray:
        newest = obs[:, 0]  # vectors, or planes, which Stable-Baselines3 has last
        return model.predict(np.moveaxis(newest, 1, -1) if newest.ndim == 4 else newest, deterministic=True)[0]

    clock = Clock(env, task, seed, greedy)

    class Looks(BaseCallback):
        def _on_step(self) -> bool:
            clock.look(self.num_timesteps)
            return True

    model.learn(task.steps, callback=Looks())
    return clock, final(env, seed, greedy)


def main(cfg: Config) -> None:
    """Each seed of each environment, ours and theirs in turns; rows of scores, of seconds and of steps a second."""
    tasks = {cfg.env: TASKS[cfg.env]} if cfg.env in TASKS else TASKS
    runtime.setup(1, "cpu", 1)
    for env, task in tasks.items():
        rows: dict[str, list[tuple[float, float, float]]] = {"ours": [], "SB3": []}
        for seed in range(1, cfg.rounds + 1):
            for name, learner in (("ours", ours), ("SB3", theirs)):
                runtime.seed_everything(seed)
                with tempfile.TemporaryDirectory() as folder, working_in(Path(folder)):
                    clock, score = learner(env, task, seed)
                rows[name].append((score, clock.soon or np.inf, task.steps / clock.total))
                report(cfg, f"{env} {name} seed {seed}: score", score, "")
                report(cfg, f"{env} {name} seed {seed}: soon", clock.soon or float("nan"), f"s of {clock.total:.1f}")
        mine, peer = (np.array(rows[name]) for name in ("ours", "SB3"))
        for name, values in (("ours", mine), ("SB3", peer)):
            low, high = bootstrap_interval(values[:, 0]) if cfg.rounds > 1 else (np.nan, np.nan)
            report(cfg, f"{env} {name}: score, {low:.1f} to {high:.1f}", values[:, 0].mean(), "")
        for column, what in ((1, "seconds to the mark"), (2, "env steps/s")):
            a, b = np.median(mine[:, column]), np.median(peer[:, column])
            report(cfg, f"{env}: {what}", float(a), "", "SB3", float(b))


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """The current folder, until the end of the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
