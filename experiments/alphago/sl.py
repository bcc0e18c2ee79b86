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
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.alphago.network import PolicyNetwork, policy_loss
from agents.alphago.parts import Parts
from experiments.alphago import positions, stages
from rlkit import run, runtime
from rlkit.data import Batches
from rlkit.data_files import DataFiles, located
from rlkit.logger import say
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config:
    """Learn the moves of recorded games."""

    preset: Literal["small", "paper"] = "small"
    """defaults: small (a quarter of an hour on two cores), paper (Silver et al. 2016: for a GPU)"""
    resume: str | None = None
    """folder of a run to go on with"""
    games: str | None = None
    """SGF collection, or a folder of them, which may have moved when a run goes on; `make_games` makes one"""
    size: int = 0
    """lines of the board; 0: those of the first game that can be used"""
    least_rating: int = 0
    """of both players; 0: whatever they have"""
    least_moves: int = 10
    """of a game"""
    held_out: float = 0.1
    """share of the games that is measured on and not learned from"""
    planes: Literal[4, 12, 20, 48] = 48
    """colour and ones; and turns since; and liberties; and all the others"""
    channels: int = 64
    layers: int = 8
    batch_size: int = 256
    eval_every: int = 500
    """updates between evaluations; the agent's folder is saved then"""
    eval_positions: int = 5_000
    """that an evaluation on the way looks at; the last one looks at all that are held out"""
    seed: int = 1
    minutes: float = 0
    """that this process may take, its last evaluation and save included; 0: no limit"""
    device: str = "auto"
    """cpu, cuda, cuda:1, ..."""
    threads: int = 0
    """CPU threads, for the same numbers again from the same seed; 0: as many as there are idle cores"""
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
FIXED = (
    "preset", "size", "least_rating", "least_moves", "held_out", "planes", "channels", "layers", "batch_size",
    "seed", "trainer.optimizer", "trainer.accumulate",
)  # fmt: skip
BOUNDS: dict[str, run.Bound] = {
    "size": 0, "least_rating": 0, "least_moves": 1, "held_out": (0, 1), "channels": 1, "layers": 1, "batch_size": 1,
    "eval_every": 1, "eval_positions": 0, "seed": 0, "minutes": 0, "threads": 0, "trainer.steps": 1,
}  # fmt: skip


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    deadline = run.Deadline(cfg.minutes)
    run.within(cfg, BOUNDS)
    device = runtime.setup(cfg.seed, cfg.device, cfg.threads)
    cfg = located(cfg, "games")
    games = positions.read(cfg.games, cfg.size, cfg.least_moves, cfg.least_rating)
    learned, held_out = positions.split(games, cfg.held_out)
    size = games.game.height
    model = PolicyNetwork(size, cfg.planes, cfg.channels, cfg.layers).to(device)
    batches = Batches.for_device(
        positions.drawn(games, learned, cfg.batch_size, runtime.derive_seed(cfg.seed, 1)), device
    )
    run_dir = run.start(
        cfg,
        "alphago_sl",
        f"{size}x{size}_{cfg.planes}",
        FIXED,
        data=DataFiles(cfg, {"games": positions.files(cfg.games)}),
    )
    trainer = Trainer(model, policy_loss, cfg.trainer, run_dir, state={"batches": batches}, deadline=deadline)
    if cfg.resume and not trainer.load():
        say(f"{run_dir} holds no checkpoint: starting at the beginning")
    player: Any = trainer.averaged
    parameters = sum(p.numel() for p in model.parameters())
    say(f"{len(learned):,} positions to learn from and {len(held_out):,} held out; {parameters:,} parameters")
    some = held_out
    if 0 < cfg.eval_positions < len(some):
        some = np.random.default_rng(0).choice(some, cfg.eval_positions, replace=False)

    def logits_of(index: NDArray[np.int64]) -> Tensor:
        return player(torch.from_numpy(positions.planes(games.states(index))).to(device)).cpu()

    def evaluation(index: NDArray[np.int64]) -> positions.Foretold:
        with trainer.timer("evaluate"), runtime.evaluating(player):
            found = positions.foretell(logits_of, games, index, deadline.in_time)
        score = found.score()
        trainer.log({f"eval/{name}": value for name, value in score.items()})
        say(f"step {trainer.step:,}: top-1 {score['top1']:.4f}, top-5 {score['top5']:.4f}, {score['nats']:.4f} nats")
        trained = {"stage": "sl", "steps": trainer.step, "games": cfg.games, "seed": cfg.seed}
        score["positions"] = len(found.nats)
        stages.save(run_dir / "agent", Parts(policy=player), games.game, trained, score)
        return found

    for step, _, _ in trainer.run(batches):
        if step % cfg.eval_every == 0 and trainer.goes_on(evaluations=2):  # the last one follows the loop
            evaluation(some)
    if trainer.stopped:  # whoever stops a run does not want to wait
        evaluation(some[:500])
    else:
        say(evaluation(held_out).table())
    trainer.close()
    say(trainer.timer.table())
    say(f"go on: {run.command('alphago_sl', '--resume', run_dir)}")
    return run_dir
