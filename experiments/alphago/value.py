"""AlphaGo's fourth learner: a value network that predicts who wins.

python -m experiments alphago_value --policy runs/alphago_sl/<run> --rl runs/alphago_rl/<run>   # makes its games
python -m experiments alphago_value --data runs/alphago_value/<run>                  # the games of an earlier run
python -m experiments alphago_value --data runs/alphago_value/<run> --whole-games    # all their positions: overfits
python -m experiments alphago_value --games games.sgf                                # recorded games
python -m experiments alphago_value --resume runs/alphago_value/<run>

One position a game: the one after a random move, which the supervised policy led to and after which the policy that
learned by playing ends the game (of a recorded game: one drawn). Whole games: as many positions, all that come after
the random move, from fewer games. Source: Silver et al. 2016, Methods, "Value network: regression".
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from agents.alphago.network import ValueNetwork, value_loss
from agents.alphago.parts import Parts
from experiments.alphago import outcomes, positions, stages, value_games
from rlkit import runtime
from rlkit.checkpoint import checkpoints
from rlkit.config import AtLeast, Between, Divided, Fixed, RunConfig, check_bounds
from rlkit.data import Batches
from rlkit.data_files import DataFiles, agent_files, located
from rlkit.logger import say
from rlkit.run import Run
from rlkit.trainer import TrainConfig, Trainer


@dataclass
class Config(RunConfig):
    """Learn the outcomes of games, from one of three: --policy and --rl, --data, --games."""

    preset: Annotated[Literal["small", "paper"], Fixed] = "small"
    """defaults: small (two cores), paper (Silver et al. 2016: for a GPU, and a long time)"""
    policy: str | None = None
    """run or agent folder of the supervised policy; `alphago_sl` makes one"""
    rl: str | None = None
    """run or agent folder of the policy that learned by playing; `alphago_rl` makes one"""
    data: str | None = None
    """folder of an earlier run of this command, whose games are taken. All folders that are named may have moved when
    a run goes on"""
    games: str | None = None
    """SGF collection, or a folder of them; outcomes are their result fields', and games without one are left out"""
    komi: Annotated[float | None, Between(-361, 361), Fixed] = None
    """points for White in the games that are made; default: that of --rl"""
    positions: Annotated[int, AtLeast(0), Fixed] = 40_000
    """games to make, with one position each; of the games of --data and --games at most so many, 0: all"""
    tower_from: str | None = None
    """run or agent folder of a policy whose tower the network begins with: with less than millions of games it learns
    much more than from nothing, as the paper's did"""
    most_moves: Annotated[int, AtLeast(0), Fixed] = 0
    """the random move of a game that is made comes after 0 to so many - 1 others; 0: as in the paper, 450 on 19x19"""
    at_once: Annotated[int, AtLeast(1), Fixed] = 512
    """games that are made in lock-step"""
    whole_games: Annotated[bool, Fixed] = False
    """learn from all positions of fewer games, not from one of each"""
    held_out: Annotated[float, Between(0, 1), Fixed] = 0.1
    """share of the games that is measured on and not learned from"""
    channels: Annotated[int, AtLeast(1), Fixed] = 64
    """of the network's tower"""
    layers: Annotated[int, AtLeast(1), Fixed] = 8
    """convolutions of the network's tower"""
    batch_size: Annotated[int, AtLeast(1), Fixed, Divided] = 256
    """positions in an update"""
    epochs: Annotated[float, AtLeast(0)] = 8
    """times that each position is seen on average, each time under one of the eight symmetries"""
    evaluate_every: Annotated[int, AtLeast(1)] = 500
    """updates between evaluations; the agent's folder is saved then"""
    seed: Annotated[int, AtLeast(0), Fixed] = 1
    # steps 0: as many as --epochs says
    trainer: TrainConfig = field(
        default_factory=lambda: TrainConfig(
            steps=0, optimizer="adamw", lr=1e-3, weight_decay=0.05, lr_warmup=100, lr_decay="cosine",
            precision="auto", log_every=50, save_every=500,
        )
    )  # fmt: skip


PRESETS = {
    "small": Config(),
    "paper": Config(
        preset="paper",
        positions=30_000_000,
        at_once=4096,
        channels=192,
        layers=12,
        batch_size=32,
        evaluate_every=50_000,
        device="cuda",
        trainer=TrainConfig(steps=50_000_000, optimizer="sgd", lr=0.003, momentum=0.0, save_every=50_000),
    ),
}
AGENTS = ("policy", "rl", "tower_from")


def check(cfg: Config) -> None:
    """Raise ValueError where it does not say what to learn from, or more than once."""
    check_bounds(cfg)
    ways = {"--policy and --rl": cfg.policy or cfg.rl, "--data": cfg.data, "--games": cfg.games}
    given = [flag for flag, value in ways.items() if value]
    if len(given) != 1:
        said = f"not {' and '.join(given)} at once" if given else "and none is given"
        raise ValueError(
            f"there is one source of games, --policy with --rl, --data or --games, {said}; "
            "python -m experiments alphago_sl and then `alphago_rl` make the two policies"
        )
    if cfg.policy and not cfg.rl:
        raise ValueError("--rl is missing, the policy that ends the games: python -m experiments alphago_rl makes one")
    if cfg.rl and not 0 < round(cfg.held_out * cfg.positions) < cfg.positions:
        raise ValueError(
            f"--positions says how many games to make, and --held-out which share of them is measured on: "
            f"{cfg.positions:,} and {cfg.held_out:g} leave nothing to learn from or to measure on; take 40000 and 0.1"
        )
    if not (cfg.trainer.steps or cfg.epochs):
        raise ValueError("--epochs 0 learns nothing, unless --trainer.steps says how long")


def main(cfg: Config) -> Path:
    """Make games if there are none, and train; returns the run's folder."""
    check(cfg)
    cfg = located(cfg, *AGENTS, "data", "games")
    run = Run(cfg, "alphago_value")
    found, maker = value_games.given(cfg), None
    if found:
        game = found.games.game
        found.split(cfg.held_out, cfg.whole_games)  # or an error, before anything is written
    elif run.ranks:
        raise ValueError(
            "ranks share games that are there: make them in one process first, then name its run by --data"
        )
    else:
        maker = value_games.game_maker(cfg, run.device)
        game = maker.game
    size = game.height
    model = ValueNetwork(size, channels=cfg.channels, layers=cfg.layers)
    if cfg.tower_from:
        policy = stages.load(cfg.tower_from, "policy", "--tower-from")[0].policy
        assert policy is not None
        model.take_tower(policy)
    files = {name: agent_files(getattr(cfg, name)) for name in AGENTS}
    files["data"] = checkpoints(Path(cfg.data) / "games")[:1] if cfg.data else []
    files["games"] = positions.files(cfg.games) if cfg.games else []
    run_dir = run.open(f"{size}x{size}{'_whole' if cfg.whole_games else ''}", DataFiles(cfg, files))
    if maker:
        found = value_games.make_games(cfg, maker, run_dir, run.deadline)
    if not found:
        return run_dir  # the time is over

    games = found.games
    learned, held_out = found.split(cfg.held_out, cfg.whole_games)
    model.to(run.device)
    make = positions.position_batches(games, learned, run.cfg.batch_size, runtime.derive_seed(cfg.seed, 1))
    batches = Batches.for_device(make, run.device)
    epoch = len(learned) / cfg.batch_size / cfg.trainer.accumulate
    steps = cfg.trainer.steps or max(1, round(cfg.epochs * epoch))
    limits, state = replace(run.cfg.trainer, steps=steps), {"batches": batches}
    trainer = Trainer(model, value_loss, limits, run_dir, state=state, timer=run.timer, deadline=run.deadline)
    run.resume(trainer)
    player: Any = trainer.averaged
    again = np.random.default_rng(0).permutation(learned)[: len(held_out)]  # as many to measure what was learned
    say(
        f"{len(learned):,} positions of {len(np.unique(games.of[learned])):,} games to learn from,"
        f" one each of {len(held_out):,} games held out; {steps:,} updates"
    )

    def evaluation() -> tuple[outcomes.OutcomePredictions, Any]:
        with run.timer("evaluate"):
            test, train = (
                outcomes.predict_outcomes(player, games, index, run.deadline.in_time) for index in (held_out, again)
            )
        constant, by_colour = outcomes.constants(games, learned, test)
        score = outcomes.score(test, train, constant, by_colour)
        tens = outcomes.by_ten(test)
        trainer.log({f"eval/{name}": value for name, value in (score | tens).items()})
        say(
            f"step {trainer.step:,}: MSE {score['test_mse']:.4f} on games held out, {score['train_mse']:.4f} on those"
            f" learned from; a constant {score['constant_mse']:.4f}, by colour {score['colour_mse']:.4f}"
        )
        trained = {
            "stage": "value", "steps": trainer.step, "positions": len(learned), "whole_games": cfg.whole_games,
            "policy": cfg.policy, "rl": cfg.rl, "data": cfg.data, "games": cfg.games, "seed": cfg.seed,
        }  # fmt: skip
        stages.save(run_dir / "agent", Parts(value=player), game, trained, score | {"positions": len(test.z)})
        return test, by_colour

    for _ in trainer.run(batches):
        if run.evaluation_due(cfg.evaluate_every):
            evaluation()
    last = evaluation() if run.leads else None
    if last and not run.stopped:
        say(outcomes.table(*last))
    run.close()
    return run_dir
