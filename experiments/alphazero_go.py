"""AlphaZero on small boards.

python -m experiments.alphazero_go --size 5 --komi 24.5 --minutes 15
python -m experiments.alphazero_go --resume runs/alphazero_go/<run>
"""

import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor, nn

from agents.alphazero.network import BoardNetwork
from agents.alphazero.player import AlphaZero
from agents.alphazero.selfplay import SelfPlay, SelfPlayConfig
from agents.uct.player import UCTPlayer
from envs import compiled
from envs.go import features
from envs.go.game import Go
from envs.go.position import Position
from experiments.match import play_match, summary
from rlkit import losses, run, runtime
from rlkit.checkpoint import save_agent
from rlkit.logger import say
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config:
    """Train a policy and value network on its own games."""

    preset: Literal["small"] = "small"
    resume: str | None = None
    """folder of a run to go on with"""
    size: int = 5
    """lines of the board"""
    komi: float = 24.5
    seed: int = 1
    minutes: float = 15
    """stop after so many minutes of this process; 0: no limit"""
    channels: int = 32
    blocks: int = 3
    eval_minutes: float = 3
    """between matches against mcts"""
    eval_games: int = 20
    eval_simulations: int = 1000
    """of mcts"""
    threads: int = 0
    """CPU threads; 0: one a core"""
    device: str = "auto"
    selfplay: SelfPlayConfig = field(default_factory=SelfPlayConfig)
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=1_000_000, lr=2e-3, weight_decay=1e-4, optimizer="adamw", clip=4.0, ema=0.99, save_every=5000
        )
    )


def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Policy, value and ownership."""
    out = model(batch["planes"])
    policy, value = losses.policy_value(out["policy"], out["value"], batch["policy"], batch["value"])
    ownership = (out["ownership"] - batch["ownership"]).square().mean((1, 2))
    policy, value, ownership = policy.mean(), value.mean(), ownership.mean()
    return policy + value + 0.5 * ownership, {"policy": policy, "value": value, "ownership": ownership}


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    began = time.monotonic()
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    compiled.set_threads(1)
    run_dir = run.start(cfg, "alphazero_go", f"{cfg.size}x{cfg.size}", ("size", "channels", "blocks"))
    game = Go(cfg.size, komi=cfg.komi)
    network = BoardNetwork(game.planes, cfg.channels, cfg.blocks).to(device)
    trainer = Trainer(network, loss_fn, cfg.trainer, run_dir)
    plays = trainer.ema.module if trainer.ema else network
    assert isinstance(plays, BoardNetwork)
    experience = SelfPlay(game, plays, cfg.selfplay, features.symmetries(cfg.size), cfg.seed)
    if cfg.resume:
        trainer.load()

    def save() -> None:
        player = AlphaZero(plays)
        info = player.describe() | {"env": {"size": cfg.size, "komi": cfg.komi}, "git": run.git_hash()}
        save_agent(run_dir / "agent", info, plays.state_dict())

    def evaluation() -> None:
        save()
        empty = Position.empty(cfg.size, cfg.komi, max_moves=3 * cfg.size**2)
        ours, theirs = (lambda: AlphaZero(plays, 100)), (lambda: UCTPlayer(cfg.eval_simulations))
        games = list(play_match(ours, theirs, [empty], cfg.eval_games, cfg.seed))
        as_black = summary(games)["as_black"]["score"]
        trainer.log({"eval/score": summary(games)["score"], "eval/as_black": as_black})
        first = AlphaZero(plays, 100).search(empty)
        say(
            f"{(time.monotonic() - began) / 60:.1f} min: {experience.finished} games, {trainer.step} updates, against"
            f" mcts:{cfg.eval_simulations} {summary(games)['score']:.2f}, as Black {as_black:.2f}, value"
            f" {first.value[0, 0]:.2f}, first {first.line()[:4]}"
        )

    next_eval = cfg.eval_minutes
    for step, _, _ in trainer.run(experience):
        if step % cfg.trainer.log_every == 0:
            trainer.log(
                {
                    "selfplay/games": experience.finished,
                    "selfplay/length": float(np.mean(experience.lengths[-200:])),
                    "selfplay/first_player": float(np.mean(experience.wins[-200:])),
                }
            )
        minutes = (time.monotonic() - began) / 60
        if minutes > next_eval:
            next_eval += cfg.eval_minutes
            evaluation()
        if cfg.minutes and minutes > cfg.minutes:
            trainer.save()
            break
    evaluation()
    trainer.close()
    say(f"play: {sys.executable} -m experiments.match {run_dir} mcts:10000 --size {cfg.size} --komi {cfg.komi}")
    return run_dir


if __name__ == "__main__":
    run.cli(main, lambda: run.parse({"small": Config()}))
