"""How a run in a world of one player is measured now and then, and the agent that it leaves."""

import copy
from typing import Any

import ale_py
import numpy as np

from envs.vector import VectorEnv
from experiments.control import worlds
from rlkit import evaluate
from rlkit.checkpoint import save_agent
from rlkit.logger import say
from rlkit.run import Run


class Evaluation:
    """Measures and saves the agent of a run, with averaged weights where the trainer keeps them.

    Args:
        experience: whose steps tell how long an evaluation will take. envs: as many as episodes.
    """

    def __init__(self, run: Run, agent: Any, experience: Any, envs: VectorEnv):
        assert run.trainer
        self.run, self.trainer, self.experience, self.envs = run, run.trainer, experience, envs
        self.player = copy.copy(agent)
        self.player.network = self.trainer.averaged
        self._begun = experience.steps

    def __call__(self) -> None:
        """Play, log the scores, and save the agent with them."""
        cfg, network = self.run.cfg, self.player.network
        network.eval()  # noise is for training
        # First without a score: the games take a while, and the weights should outlive a kill.
        self.save()
        rng, epsilon = np.random.default_rng(cfg.seed), worlds.evaluation_epsilon(cfg.env, cfg.protocol)
        with self.run.timer("evaluate"):
            scores = evaluate.episodes(
                lambda obs, first: self.player.act(obs, epsilon, rng, first, self.envs.mask),
                self.envs,
                cfg.eval_episodes,
                self.run.deadline.end,
            )
        network.train()
        if scores.left_out:
            say(f"evaluation: {len(scores.scores)} of {cfg.eval_episodes} episodes ended in time")
        if len(scores.scores):
            self.trainer.log(scores.scalars())
            self.save(scores)

    def estimate(self) -> None:
        """Set aside time for the last evaluation, by how long episodes and steps have been so far."""
        seconds = self.run.timer.seconds["act"] + self.run.timer.seconds["env"]
        steps = self.experience.episodes.mean_length() * self.run.cfg.eval_episodes  # 0 while no episode has ended
        guess = 1.5 * steps * seconds / max(1, self.experience.steps - self._begun)
        self.run.deadline.evaluation = max(self.run.deadline.evaluation, guess)

    def save(self, scores: evaluate.Scores | None = None) -> None:
        """Write the agent's folder: how it was trained, and what it scored under which protocol."""
        cfg, score = self.run.cfg, None
        if scores:
            low, high = scores.interval()
            episodes = len(scores.scores)
            protocol = self.envs.protocol
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
