"""How a run in a world of one player is measured now and then, and the agent that it leaves."""

import copy
import math
from typing import Any

import ale_py
import numpy as np

from experiments.control import worlds
from rlkit import evaluate
from rlkit.checkpoint import save_agent
from rlkit.logger import say
from rlkit.run import Run

SHARE = 0.1
"""of a run's time, that evaluations before the last one may take"""


class Evaluation:
    """Measures and saves the agent of a run, with averaged weights where the trainer keeps them.

    experience: whose steps tell how long an evaluation will take.
    """

    def __init__(self, run: Run, agent: Any, experience: Any):
        assert run.trainer
        self.run, self.trainer, self.experience = run, run.trainer, experience
        self.player = copy.copy(agent)
        self.player.network = self.trainer.averaged
        self._begun = experience.steps
        self._best = -math.inf
        self._expect = None
        if worlds.is_atari(run.cfg.env):
            from experiments.control.expectations import Expectation

            self._expect = Expectation(run.cfg)

    def __call__(self, last: bool = False) -> None:
        """Play, log and say the scores, and save the agent with them.

        In the loop as many episodes as SHARE of the run's time so far pays for, which may be none; all the last time.
        """
        cfg, player, network, timer = self.run.cfg, self.player, self.player.network, self.run.timer
        # First without a score: the games take a while, and the weights should outlive a kill.
        self.save()
        at = f"seed {cfg.seed}, " if len(self.run.beside) > 1 else ""
        at += f"{'last ' if last else ''}evaluation at {self.experience.frames:,} {self.trainer.clock[0]}"
        count = cfg.eval_episodes if last else self._affordable()
        if not count:
            say(f"{at} left out: an episode takes more than {SHARE:.0%} of the run's time so far")
            return
        fewer = f", not {cfg.eval_episodes}" if count < cfg.eval_episodes else ""
        say(f"evaluating {count} episode{'s' * (count > 1)}{fewer}")
        rng, epsilon = np.random.default_rng(cfg.seed), worlds.evaluation_epsilon(cfg.env, cfg.protocol)
        network.eval()  # noise is for training
        with timer("evaluate"):
            try:
                # As many worlds as episodes, and new ones each time: what is measured depends on the weights alone.
                envs = worlds.make_envs(cfg, count, stream=4, training=False)
                scores = evaluate.episodes(
                    lambda obs, new: player.act(obs, epsilon, rng, new, envs.mask), envs, count, self.run.deadline.end
                )
            except Exception as error:
                raise self.trainer.saved_after(error) from error
        network.train()
        timer.latest["evaluate"] *= cfg.eval_episodes / count  # as long as the last one will take
        missing = f", {scores.left_out} more did not end in time" if scores.left_out else ""
        if not len(scores.scores):
            say(f"{at}: no episode ended in time")
            return
        best = ""
        if self._best > -math.inf:
            best = ", best" if scores.mean >= self._best else f", best {self._best:.4g}"
            best += " since it went on" if cfg.resume else " so far"
        self._best = max(self._best, scores.mean)
        say(f"{at}: {scores}{missing}{best}")
        self.trainer.log(scores.scalars())
        self.save(scores, envs.protocol)

    def _affordable(self) -> int:
        """Episodes that SHARE of the run's time, less what evaluations have had of it, pays for."""
        timer, most = self.run.timer, self.run.cfg.eval_episodes
        each = timer.latest.get("evaluate", self._guess()) / most
        spare = SHARE * timer.total() - timer.seconds["evaluate"]
        return min(most, max(0, int(spare / each))) if each else 1  # 0 while no episode has ended

    def _guess(self) -> float:
        """Seconds of an evaluation, by how long episodes and steps have been so far; 0 while no episode has ended."""
        seconds = self.run.timer.seconds["act"] + self.run.timer.seconds["env"]
        steps = self.experience.episodes.mean_length() * self.run.cfg.eval_episodes
        return 1.5 * steps * seconds / max(1, self.experience.steps - self._begun)

    def estimate(self) -> None:
        """Set aside time for the last evaluation, and say when to expect something."""
        self.run.deadline.evaluation = max(self.run.deadline.evaluation, self._guess())
        if self._expect:
            self._expect(self.experience.frames)

    def save(self, scores: evaluate.Scores | None = None, protocol: str = "") -> None:
        """Write the agent's folder: how it was trained, and what it scored under which protocol."""
        cfg, score = self.run.cfg, None
        if scores:
            low, high = scores.interval()
            episodes = len(scores.scores)
            score = {"mean": scores.mean, "low": low, "high": high, "episodes": episodes, "protocol": protocol}
        info = self.player.describe() | {
            "env": {"game": cfg.env, "protocol": cfg.protocol, "flicker": getattr(cfg, "flicker", None)}
            | ({"options": worlds.options_of(cfg)} if worlds.is_gymnasium(cfg.env) else {}),
            "trained": {"frames": self.experience.frames, "seed": cfg.seed, "preset": cfg.preset},
            "score": score,
            "versions": {"ale_py": ale_py.__version__},
        }
        assert self.run.folder
        save_agent(self.run.folder / "agent", info, self.player.network.state_dict())
