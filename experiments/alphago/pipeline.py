"""AlphaGo (Silver et al. 2016), whole: one stage after the other, up to the paper's table of variants.

python -m experiments alphago --size 9 --games games.sgf    # from recorded games
python -m experiments alphago --size 5                      # the quick form: it makes its own games
python -m experiments alphago --resume runs/alphago/<run>   # goes on in the stage where it was stopped

    games ---> sl ------> rl ------> value ---> agent ---> table
        `----> rollout -------------------------^

Each stage is the experiment of its name, run by itself in this run's folder, where its own run lies: its progress bar,
TensorBoard curves and checkpoints are there. What a stage left is in `stages.json`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from agents.alphago.parts import Parts
from envs.go.game import Go
from experiments.alphago import positions, stages
from experiments.alphago import table as alphago_match
from rlkit import processes
from rlkit.config import AtLeast, Between, Fixed, RunConfig, check_bounds
from rlkit.data_files import DataFiles, located
from rlkit.files import read_json, write_atomically
from rlkit.logger import say
from rlkit.run import command, open_run


@dataclass
class Config(RunConfig):
    """All stages of AlphaGo, with sizes that suit two cores."""

    preset: Annotated[Literal["small"], Fixed] = "small"
    size: Annotated[int, Between(2, 19), Fixed] = 9
    """lines of the board: 9, or 5, the quick form"""
    games: str | None = None
    """SGF collection, or a folder of them, which may have moved when a run goes on; without one, --teacher
    makes games against itself"""
    teacher: Annotated[str, Fixed] = "mcts:1000"
    """a player as in `match`, who makes the games where none are given"""
    scale: Annotated[float, AtLeast(0.0001), Fixed] = 1.0
    """factor to the updates and games of all stages"""
    match_games: Annotated[int, AtLeast(0)] = 20
    """games of each pair of variants in the table; 0: no table"""
    match_simulations: Annotated[int, AtLeast(1)] = 100
    """simulations of a move in the table's games"""
    seed: Annotated[int, AtLeast(0), Fixed] = 1


PRESETS = {"small": Config()}
# games made; updates of the stages, games and epochs of the value network's; channels, layers
QUICK = {
    "games": 1500, "sl": 600, "rollout": 500, "rl": 100, "value": 8_000, "epochs": 8, "channels": 32, "layers": 5,
}  # fmt: skip
WHOLE = {
    "games": 3000, "sl": 4000, "rollout": 3000, "rl": 300, "value": 300_000, "epochs": 14, "channels": 64, "layers": 8,
}  # fmt: skip


def plan(cfg: Config, done: dict[str, str]) -> list[tuple[str, list[str]]]:
    """(stage, the arguments of its experiment) in order, as far as the stages before are done."""
    base = QUICK if cfg.size < 9 else WHOLE
    count = {name: max(2, round(cfg.scale * base[name])) for name in ("games", "sl", "rollout", "rl", "value")}
    common = [f"--seed={cfg.seed}", f"--device={cfg.device}", f"--threads={cfg.threads}"]
    network = [f"--channels={base['channels']}", f"--layers={base['layers']}"]
    games = str(Path(cfg.games).absolute()) if cfg.games else "games.sgf"
    made = ["games.sgf", f"--a={cfg.teacher}", f"--games={count['games']}", f"--size={cfg.size}", f"--seed={cfg.seed}"]
    learned = [f"--games={games}", f"--size={cfg.size}", *common]
    sl, rl = (done.get(stage, "") for stage in ("sl", "rl"))
    steps = {stage: f"--trainer.steps={count[stage]}" for stage in ("sl", "rollout", "rl")}
    value = [f"--positions={count['value']}", f"--epochs={base['epochs']}"]
    out = [] if cfg.games else [("make_games", made)]
    return [
        *out,
        ("alphago_sl", [*learned, *network, steps["sl"]]),
        ("alphago_rollout", [*learned, steps["rollout"]]),
        ("alphago_rl", [f"--start-from={sl}", *common, steps["rl"]]),
        ("alphago_value", [f"--policy={sl}", f"--rl={rl}", f"--tower-from={rl}", *value, *network, *common]),
    ]


PLACES = ("--games=", "--start-from=", "--policy=", "--rl=", "--tower-from=")
"""flags of what a stage learns from: said again when it goes on, since this run's folder may have moved"""


def latest(run_dir: Path, experiment: str) -> str:
    """The folder, relative to this run's, of the last run of an experiment in it; empty where there is none."""
    runs = sorted((run_dir / "runs" / experiment).glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    return str(runs[-1].parent.relative_to(run_dir)) if runs else ""


def run_stage(run_dir: Path, experiment: str, arguments: list[str]) -> str:
    """Run an experiment in this run's folder, or go on with the one that lies there; returns its run's folder, relative
    to this one. Raises ValueError where it fails, KeyboardInterrupt where it is stopped.
    """
    if begun := latest(run_dir, experiment):
        arguments = [f"--resume={begun}", *(word for word in arguments if word.startswith(PLACES))]
    code = processes.run_command("experiments", [experiment, *arguments], run_dir)
    if code:
        raise ValueError(f"{experiment} ended with status {code}; its own message stands above")
    return latest(run_dir, experiment)


def main(cfg: Config) -> Path:
    """Run what is missing; returns the run's folder."""
    check_bounds(cfg)
    if cfg.minutes:
        raise ValueError("--minutes bounds single stages, not all of them: make them shorter by --scale")
    cfg = located(cfg, "games")
    if cfg.games and not Path(cfg.games).exists():
        raise FileNotFoundError(f"--games: there is no {cfg.games}")
    data = DataFiles(cfg, {"games": positions.files(cfg.games) if cfg.games else []})
    run_dir = open_run(cfg, "alphago", f"{cfg.size}x{cfg.size}", data)
    again = command("alphago", "--resume", run_dir)
    ledger = run_dir / "stages.json"
    done: dict[str, str] = read_json(ledger) if ledger.exists() else {}
    count = len(plan(cfg, done))
    try:
        for number in range(count):
            experiment, arguments = plan(cfg, done)[number]
            stage = experiment.removeprefix("alphago_")
            if stage in done:
                continue
            say(f"=== stage {number + 1} of {count + 1}: {experiment}")
            done[stage] = run_stage(run_dir, experiment, arguments)
            write_atomically(ledger, json.dumps(done, indent=1).encode())
    except KeyboardInterrupt:
        say(f"stopped; go on: {again}")
        return run_dir
    loaded = {name: stages.load(str(run_dir / done[stage]), name, stage) for stage, name in STAGES.items()}
    whole = Parts(**{name: getattr(parts, name) for name, (parts, _) in loaded.items()})
    env = loaded["policy"][1]["env"]
    game = Go(env["size"], komi=env["komi"])
    stages.save(run_dir / "agent", whole, game, {"stage": "all", "stages": done, "seed": cfg.seed}, {})
    say(f"=== stage {count + 1} of {count + 1}: the table")
    if cfg.match_games:
        table = alphago_match.Config(
            run_dir, games=cfg.match_games, simulations=cfg.match_simulations, seed=cfg.seed, out=run_dir / "table.json"
        )
        alphago_match.main(table)
    say(f"play: {command('gtp', '--agent', run_dir)}")
    say(f"match: {command('match', f'{run_dir}:400', 'gnugo:10', '--games', 100)}")
    return run_dir


STAGES = {"sl": "policy", "rollout": "rollout", "value": "value"}
"""whose part the agent takes: the supervised policy is the better prior (Silver et al. 2016, Extended Data Table 7)"""
