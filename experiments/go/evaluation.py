"""How a run of AlphaZero is measured now and then, and the agent that it leaves."""

import functools
from typing import Any

from agents.alphazero.player import AlphaZero
from agents.alphazero.selfplay import SelfPlay
from experiments.go.board_games import BoardGame
from experiments.go.elo_ladder import EloLadder
from experiments.go.resumable import TrainingMinutes
from rlkit import runtime
from rlkit.checkpoint import save_agent
from rlkit.logger import say
from rlkit.run import Run


class Evaluation:
    """Measures the network of a run against a ladder of opponents and its past self, and saves it with its scores.

    Args:
        player: the network that is measured and saved. past: the same as it was measured last, or, with a gate, as it
            last passed; it takes over the player's weights here.
    """

    def __init__(
        self,
        run: Run,
        board: BoardGame,
        ladder: EloLadder,
        experience: SelfPlay,
        player: Any,
        past: Any,
        minutes: TrainingMinutes,
    ):
        self.run, self.board, self.ladder, self.experience = run, board, ladder, experience
        self.player, self.past, self.minutes = player, past, minutes

    def __call__(self, end: float) -> None:
        """Play the matches until `time.monotonic()` is `end`, log their scores and pictures, and save the agent."""
        run, cfg, ladder = self.run, self.run.cfg, self.ladder
        assert run.trainer
        self.save()  # first without scores: the games take a while, and the weights should outlive a kill
        name = f"game {self.experience.finished}"
        ours, before = (functools.partial(AlphaZero, net, cfg.eval_simulations) for net in (self.player, self.past))
        against = (ladder.past, before) if ladder.past else None
        with run.timer("evaluate"), runtime.torch_threads(1):  # the match has a thread a game
            scores = ladder.play(name, ours, against, stop=lambda: run.stopped, end=end)
        if run.stopped:
            return
        # Where there is a past self, but no time was left for its match, nothing says that the new one is better.
        if not cfg.gate or scores.get("eval/against_past", 0.0 if against and against[0] != name else 1.0) >= cfg.gate:
            self.past.load_state_dict(self.player.state_dict())
            ladder.past = name
        run.trainer.log(scores)
        run.trainer.show(self.board.pictures(ours(), self.experience.latest_moves))
        self.save(scores)
        results = {tag[5:]: round(value, 2) for tag, value in scores.items()}
        say(f"{self.minutes.all:.1f} min, {self.experience.finished:,} games, {run.trainer.step:,} updates: {results}")

    def save(self, scores: dict[str, float] | None = None) -> None:
        """Write the agent's folder: how it was trained, and what it scored in how many games."""
        run, cfg, experience = self.run, self.run.cfg, self.experience
        assert run.folder and run.trainer
        info = {
            "kind": "alphazero",
            "config": self.player.config,
            "env": {"game": cfg.env, "size": cfg.size, "komi": cfg.komi},
            "trained": {
                "games": experience.finished, "positions": experience.positions, "updates": run.trainer.step,
                "seed": cfg.seed, "minutes": round(self.minutes.all, 1),
            },
            "score": scores and scores | {"games": cfg.eval_games, "simulations": cfg.eval_simulations},
        }  # fmt: skip
        save_agent(run.folder / "agent", info, self.player.state_dict())
