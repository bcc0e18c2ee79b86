"""AlphaGo's second learner: the rollout policy, a linear softmax over local patterns, fast enough for play-outs.

python -m experiments alphago_rollout --games games.sgf
python -m experiments alphago_rollout --resume runs/alphago_rollout/<run>

Source: Silver et al. 2016, Methods, "Rollout policy". Its features are `envs/go/patterns.py`.
"""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.alphago.parts import Parts
from agents.alphago.rollout import RolloutPolicy, rollout_loss
from envs.go import patterns
from envs.go.pattern_playouts import playouts, policy_of
from experiments.alphago import positions, stages
from rlkit import runtime
from rlkit.config import AtLeast, Between, Divided, Fixed, RunConfig
from rlkit.data import Batches
from rlkit.data_files import DataFiles, located
from rlkit.logger import say
from rlkit.run import Run
from rlkit.trainer import TrainConfig, Trainer

# A weight that few positions have is held near 0 by its decay, and changes by about the rate in each that has it.
BASE = TrainConfig(
    steps=3000, optimizer="adamw", lr=0.02, weight_decay=0.02, lr_warmup=50, lr_decay="cosine", clip=0,
    log_every=100, save_every=1000,
)  # fmt: skip


@dataclass
class Config(RunConfig):
    """Learn the weights of local patterns from recorded games."""

    preset: Annotated[Literal["small"], Fixed] = "small"
    """defaults: small (minutes on two cores)"""
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
    batch_size: Annotated[int, AtLeast(1), Fixed, Divided] = 512
    """positions in an update"""
    seed: Annotated[int, AtLeast(0), Fixed] = 1
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    trainer: TrainConfig = field(default_factory=lambda: replace(BASE))


PRESETS = {"small": Config()}


def speed(games: positions.Games, weights: NDArray[np.float32]) -> float:
    """Microseconds a move of play-outs from the empty board, on all threads."""
    states, policy = games.game.reset(256), policy_of(weights)
    playouts(states, policy, 0)  # compiles
    began = time.perf_counter()
    _, moves = playouts(states, policy, 1, count=4)
    return 1e6 * (time.perf_counter() - began) / int(moves.sum())


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    cfg = located(cfg, "games")
    run = Run(cfg, "alphago_rollout")
    games = positions.read(cfg.games, cfg.size, cfg.least_moves, cfg.least_rating)
    learned, held_out = positions.split(games, cfg.held_out)
    size = games.game.height
    model = RolloutPolicy(patterns.NUM_FEATURES).to(run.device)
    batches = Batches.for_device(
        positions.pattern_batches(games, learned, run.cfg.batch_size, runtime.derive_seed(cfg.seed, 1)), run.device
    )
    run_dir = run.open(f"{size}x{size}", DataFiles(cfg, {"games": positions.files(cfg.games)}))
    trainer = Trainer(
        model,
        rollout_loss,
        run.cfg.trainer,
        run_dir,
        state={"batches": batches},
        timer=run.timer,
        deadline=run.deadline,
    )
    run.resume(trainer)
    for _ in trainer.run(batches):
        pass

    player: Any = trainer.averaged

    def logits_of(index: NDArray[np.int64]) -> Tensor:
        features, candidates = patterns.features(games.states(index))
        return player(torch.from_numpy(features).to(run.device), torch.from_numpy(candidates).to(run.device)).cpu()

    with run.timer("evaluate"):
        some = held_out[:500] if run.stopped else held_out
        found = positions.predict_moves(logits_of, games, some, run.deadline.in_time)
    score = found.score() | {"microseconds_a_move": speed(games, player.weights())}
    trainer.log({f"eval/{name}": value for name, value in score.items()})
    trained = {"stage": "rollout", "steps": trainer.step, "games": cfg.games, "seed": cfg.seed}
    parts = Parts(rollout=player.weights())
    stages.save(run_dir / "agent", parts, games.game, trained, score | {"positions": len(found.number)})
    say(found.table())
    say(
        f"top-1 {score['top1']:.4f}, top-5 {score['top5']:.4f} of {len(found.number):,} moves held out; "
        f"{score['microseconds_a_move']:.2f} us a move in play-outs"
    )
    run.close()
    return run_dir
