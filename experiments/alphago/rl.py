"""AlphaGo's third learner: the policy network, from the supervised weights on, by games against its own past.

python -m experiments alphago_rl --start-from runs/alphago_sl/<run>                   # for two cores
python -m experiments alphago_rl --start-from runs/alphago_sl/<run> --preset paper    # 10,000 sets of 128 games
python -m experiments alphago_rl --start-from runs/alphago_sl/<run> --baseline runs/alphago_value/<run>
python -m experiments alphago_rl --resume runs/alphago_rl/<run>

Every update plays a set of games, half with each colour, against one of the snapshots taken so far. What is measured:
games against the supervised policy, both drawn at temperature 1 from random openings, each with both colours.
Source: Silver et al. 2016, Methods, "Policy network: reinforcement learning".
"""

import functools
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from agents.alphago import games
from agents.alphago.network import reinforce_loss
from agents.alphago.parts import Evaluator, Parts
from agents.alphago.reinforce import PoolPlay
from envs.go.features import alphago_slab
from envs.go.game import Go
from experiments.alphago import stages
from rlkit import runtime
from rlkit.config import AtLeast, Between, Fixed, RunConfig
from rlkit.data_files import DataFiles, agent_files, located
from rlkit.logger import say
from rlkit.ratings import wilson_interval
from rlkit.run import Run
from rlkit.trainer import TrainConfig, Trainer

# A gradient is a sum over the moves of a game: its norm is about 30 on 9x9, so that a step is mostly clip times lr.
BASE = TrainConfig(
    steps=400, optimizer="sgd", lr=0.003, momentum=0.0, lr_warmup=5, precision="auto", log_every=5, save_every=20,
)  # fmt: skip


@dataclass
class Config(RunConfig):
    """Improve a supervised policy by REINFORCE."""

    preset: Annotated[Literal["small", "paper"], Fixed] = "small"
    """defaults: small (two cores), paper (Silver et al. 2016: for a GPU)"""
    start_from: str | None = None
    """run or agent folder of the supervised policy; it may move, with the new place said when the run goes on, and
    must stay the same; `alphago_sl` makes one"""
    baseline: str | None = None
    """run or agent folder of a value network, whose values the outcomes are compared with; default: with 0"""
    komi: Annotated[float | None, Between(-361, 361), Fixed] = None
    """points for White; default: the supervised policy's"""
    games: Annotated[int, AtLeast(2), Fixed] = 64
    """games of a set, from which one update learns"""
    snapshot_every: Annotated[int, AtLeast(1), Fixed] = 20
    """updates between the snapshots that the opponents are drawn from"""
    opening_moves: Annotated[int, AtLeast(0), Fixed] = 0
    """random moves at the beginning of each game that is learned from"""
    evaluate_every: Annotated[int, AtLeast(1)] = 100
    """updates between evaluations; the agent's folder is saved then"""
    evaluate_games: Annotated[int, AtLeast(2)] = 400
    """games against the supervised policy in each evaluation"""
    evaluate_opening_moves: Annotated[int, AtLeast(0)] = 4
    """random moves at the beginning of each game of an evaluation"""
    seed: Annotated[int, AtLeast(0), Fixed] = 1
    trainer: TrainConfig = field(default_factory=lambda: replace(BASE))
    """accumulate: batches that the positions of a set are divided into, where they do not fit at once"""


PRESETS = {
    "small": Config(),
    "paper": Config(
        preset="paper",
        games=128,
        snapshot_every=500,
        evaluate_every=500,
        device="cuda",
        trainer=replace(BASE, steps=10_000, log_every=10, save_every=100),
    ),
}


def main(cfg: Config) -> Path:
    """Train; returns the run's folder."""
    began = time.monotonic()
    if cfg.trainer.mode == "cudagraph":
        raise ValueError("--trainer.mode cudagraph takes batches of one shape, and games differ in length: use eager")
    cfg = located(cfg, "start_from", "baseline")
    run = Run(cfg, "alphago_rl", began=began)
    parts, info = stages.load(cfg.start_from, "policy", "--start-from", run.device)
    network = parts.policy
    assert network is not None
    size = network.config["size"]
    game = Go(size, komi=info["env"]["komi"] if cfg.komi is None else cfg.komi)
    baseline = None
    if cfg.baseline:
        value = stages.load(cfg.baseline, "value", "--baseline", run.device)[0].value
        assert value is not None
        if value.config["size"] != size:
            raise ValueError(f"--baseline {cfg.baseline} is for {value.config['size']} lines, the policy for {size}")
        baseline = Evaluator(value, cfg.trainer.precision)
    encode = functools.partial(alphago_slab, height=size, width=size, colour_plane=baseline is not None)
    supervised = Evaluator(network, cfg.trainer.precision)  # on a copy
    experience = PoolPlay(
        game, encode, network, cfg.games, cfg.snapshot_every, cfg.trainer.accumulate, cfg.opening_moves, baseline,
        cfg.seed, cfg.trainer.precision, run.timer,
    )  # fmt: skip
    data = DataFiles(cfg, {name: agent_files(getattr(cfg, name)) for name in ("start_from", "baseline")})
    run_dir = run.open(f"{size}x{size}", data)
    state = {"games": experience}
    trainer = Trainer(
        network, reinforce_loss, cfg.trainer, run_dir, state=state, timer=run.timer, deadline=run.deadline
    )
    run.resume(trainer)
    player: Any = trainer.averaged
    learned = Evaluator(player, cfg.trainer.precision)

    def save(score: dict[str, float]) -> None:
        trained = {
            "stage": "rl", "steps": trainer.step, "games": experience.sets * cfg.games, "start_from": cfg.start_from,
            "baseline": cfg.baseline, "seed": cfg.seed, "minutes": round((time.monotonic() - began) / 60, 1),
        }  # fmt: skip
        stages.save(run_dir / "agent", Parts(policy=player), game, trained, score)

    def evaluation() -> None:
        rng, first = np.random.default_rng(runtime.derive_seed(cfg.seed, 1)), games.colours(cfg.evaluate_games)
        states = games.openings(game, cfg.evaluate_games, cfg.evaluate_opening_moves, rng)
        learned.refresh()
        with run.timer("evaluate"):
            played = games.play(game, encode, states, (learned, supervised), games.sides(first), rng)
        points = (games.worth(played.winner, first) + 1) / 2
        low, high = wilson_interval(float(points.sum()), len(points))
        score = {
            "score": float(points.mean()), "score_low": low, "score_high": high,
            "score_as_black": float(points[first == 1].mean()), "score_as_white": float(points[first == 2].mean()),
            "length": float(np.mean([len(moves) for moves in played.moves])),
        }  # fmt: skip
        trainer.log({f"eval/{name}": value for name, value in score.items()})
        say(
            f"step {trainer.step:,}: {score['score']:.1%} ({low:.1%} to {high:.1%}) of {len(points)} games against the"
            f" supervised policy; {score['score_as_black']:.1%} as Black, {score['score_as_white']:.1%} as White"
        )
        save(score | {"games": cfg.evaluate_games})

    say(f"{size}x{size}, komi {game.komi:g}: sets of {cfg.games} games, {cfg.trainer.steps:,} updates, one a set")
    for step, _, _ in trainer.run(experience):
        if step % cfg.trainer.log_every == 0:
            trainer.log(experience.stats())
        if run.evaluation_due(cfg.evaluate_every):
            evaluation()
    if run.stopped:
        save({})
    else:
        evaluation()
    run.close()
    return run_dir
