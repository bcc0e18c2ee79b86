"""AlphaGo's first learner: a policy network that predicts the moves of experts.

python -m experiments alphago_sl --games games.sgf                     # 48 planes, 64 channels: for two cores
python -m experiments alphago_sl --games games.sgf --preset paper      # 192 channels, 12 layers, SGD: for a GPU
python -m experiments alphago_sl --games games.sgf --planes 4          # the paper's ablation: 4, 12, 20, 48
python -m experiments alphago_sl --resume runs/alphago_sl/<run>

Positions are drawn from all games but those held out, each under one of the board's eight symmetries; their planes are
computed as they are drawn. Source: Silver et al. 2016, Methods, "Policy network: classification".
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.alphago.network import PolicyNetwork, policy_loss
from agents.alphago.parts import Parts
from experiments.alphago import positions, stages
from rlkit import runtime
from rlkit.config import AtLeast, Between, Divided, Fixed, RunConfig
from rlkit.data import Batches
from rlkit.data_files import DataFiles, located
from rlkit.logger import say
from rlkit.run import Run
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config(RunConfig):
    """Learn the moves of recorded games."""

    preset: Annotated[Literal["small", "paper"], Fixed] = "small"
    """defaults: small (a quarter of an hour on two cores), paper (Silver et al. 2016: for a GPU)"""
    games: str | None = None
    """SGF collection, or a folder of them, which may have moved when a run goes on; `make_games` makes one"""
    size: Annotated[int, AtLeast(0), Fixed] = 0
    """lines of the board; 0: those of the first game that can be used"""
    least_rating: Annotated[int, AtLeast(0), Fixed] = 0
    """games of players below this rating are left out; 0: none"""
    least_moves: Annotated[int, AtLeast(1), Fixed] = 10
    """shorter games are left out"""
    held_out: Annotated[float, Between(0, 1), Fixed] = 0.1
    """share of the games that is measured on and not learned from"""
    planes: Annotated[Literal[4, 12, 20, 48], Fixed] = 48
    """that the network sees: 4 (colour and ones), 12 (and turns since), 20 (and liberties), 48 (all)"""
    channels: Annotated[int, AtLeast(1), Fixed] = 64
    """of the network's tower"""
    layers: Annotated[int, AtLeast(1), Fixed] = 8
    """convolutions of the network's tower"""
    batch_size: Annotated[int, AtLeast(1), Fixed, Divided] = 256
    """positions in an update"""
    eval_every: Annotated[int, AtLeast(1)] = 500
    """updates between evaluations; the agent's folder is saved then"""
    eval_positions: Annotated[int, AtLeast(0)] = 5_000
    """positions held out that an evaluation on the way measures, 0: all; the last one measures all"""
    seed: Annotated[int, AtLeast(0), Fixed] = 1
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=4000, optimizer="adamw", lr=2e-3, weight_decay=0.01, lr_warmup=100, lr_decay="cosine",
            precision="auto", log_every=50, save_every=1000,
        )
    )  # fmt: skip


PRESETS = {
    "small": Config(),
    "paper": Config(
        preset="paper",
        channels=192,
        layers=12,
        batch_size=16,
        eval_every=50_000,
        eval_positions=0,
        device="cuda",
        trainer=TrainConfig(steps=5_000_000, optimizer="sgd", lr=0.003, momentum=0.0, save_every=50_000),
    ),
}


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    cfg = located(cfg, "games")
    run = Run(cfg, "alphago_sl")
    games = positions.read(cfg.games, cfg.size, cfg.least_moves, cfg.least_rating)
    learned, held_out = positions.split(games, cfg.held_out)
    size = games.game.height
    model = PolicyNetwork(size, cfg.planes, cfg.channels, cfg.layers).to(run.device)
    batches = Batches.for_device(
        positions.position_batches(games, learned, run.cfg.batch_size, runtime.derive_seed(cfg.seed, 1)), run.device
    )
    run_dir = run.open(f"{size}x{size}_{cfg.planes}", DataFiles(cfg, {"games": positions.files(cfg.games)}))
    trainer = Trainer(
        model, policy_loss, run.cfg.trainer, run_dir, state={"batches": batches}, timer=run.timer, deadline=run.deadline
    )
    run.resume(trainer)
    player: Any = trainer.averaged
    parameters = sum(p.numel() for p in model.parameters())
    say(f"{len(learned):,} positions to learn from and {len(held_out):,} held out; {parameters:,} parameters")
    some = held_out
    if 0 < cfg.eval_positions < len(some):
        some = np.random.default_rng(0).choice(some, cfg.eval_positions, replace=False)

    def logits_of(index: NDArray[np.int64]) -> Tensor:
        return player(torch.from_numpy(positions.planes(games.states(index))).to(run.device)).cpu()

    def evaluation(index: NDArray[np.int64]) -> positions.MovePredictions:
        with run.timer("evaluate"), runtime.evaluating(player):
            found = positions.predict_moves(logits_of, games, index, run.deadline.in_time)
        score = found.score()
        trainer.log({f"eval/{name}": value for name, value in score.items()})
        say(f"step {trainer.step:,}: top-1 {score['top1']:.4f}, top-5 {score['top5']:.4f}, {score['nats']:.4f} nats")
        trained = {"stage": "sl", "steps": trainer.step, "games": cfg.games, "seed": cfg.seed}
        score["positions"] = len(found.nats)
        stages.save(run_dir / "agent", Parts(policy=player), games.game, trained, score)
        return found

    for _ in trainer.run(batches):
        if run.evaluation_due(cfg.eval_every):
            evaluation(some)
    if run.stopped:
        evaluation(some[:500])
    else:
        say(evaluation(held_out).table())
    run.close()
    return run_dir
