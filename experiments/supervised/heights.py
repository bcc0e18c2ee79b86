"""Heights of parents and children: the line that regression has its name from.

python -m experiments heights                                          # Galton's 928 children, in seconds
python -m experiments heights --data GaltonFamilies.csv --target childHeight --predictors father mother gender
python -m experiments heights --data PearsonLee.csv --weight frequency --where par=Father chl=Son
python -m experiments heights --predict runs/heights/<run> --values 72

Least squares twice: in closed form, and by gradient descent, which ends at the same coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch

from experiments.pictures import show
from experiments.supervised.descent_pictures import camel, descend_camel, draw_camel, draw_line
from experiments.supervised.galton import galton_table
from experiments.supervised.regression import (
    Line,
    formula,
    goodness_of_fit,
    least_squares,
    load_line,
    squared_error,
)
from experiments.supervised.tables import read_table
from rlkit.checkpoint import save_agent
from rlkit.config import AtLeast, Fixed, RunConfig, check_bounds
from rlkit.data import Batches
from rlkit.data_files import DataFiles, located, named
from rlkit.logger import say
from rlkit.run import Run
from rlkit.trainer import TrainConfig, Trainer

# With momentum .9 any rate from .0026 to 3.8 over the curvature converges equally fast. The curvatures of standardised
# columns add up to 2 for each, so this rate suits them unless they are much alike.
BASE = TrainConfig(steps=1000, optimizer="sgd", lr=0.05, momentum=0.9, clip=0, log_every=20, save_every=500)


@dataclass
class Config(RunConfig):
    """Regress heights on heights, by least squares."""

    preset: Annotated[Literal["galton"], Fixed] = "galton"
    data: str | None = None
    """CSV file with a header line, which may have moved when a run goes on; default: Galton's table, in inches"""
    target: Annotated[str, Fixed] = "child"
    """column to predict"""
    predictors: Annotated[tuple[str, ...], Fixed] = ("parent",)
    """columns to predict the target from; a column of two words becomes 0 and 1"""
    weight: Annotated[str | None, Fixed] = None
    """column with the weight of each row; default: every row counts once"""
    where: Annotated[tuple[str, ...], Fixed] = ()
    """COLUMN=VALUE: use only rows with this value in this column"""
    predict: str | None = None
    """run or agent folder: predict with its line, and train none"""
    values: tuple[float, ...] = ()
    """of the line's predictors, to predict from with --predict"""
    seed: Annotated[int, AtLeast(0)] = 0
    """only part of the folder's name: the descent begins at zero and uses all rows in every step"""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    threads: Annotated[int, AtLeast(0)] = 1
    """CPU threads, for the same numbers again from the same seed; 0: as many as there are idle cores"""
    trainer: TrainConfig = field(default_factory=lambda: replace(BASE))


PRESETS = {"galton": Config()}


def predict(folder: str, values: Sequence[float]) -> float:
    """What the line of a run or agent folder predicts from these values of its predictors; prints it.

    Raises FileNotFoundError, ValueError, DamagedFile.
    """
    line, target, names = load_line(folder)
    if len(values) != len(names):
        raise ValueError(f"--values wants {len(names)}, of {', '.join(names)}, not {len(values)}")
    y = line(torch.tensor([values], dtype=torch.float64)).item()
    say(f"{formula(target, names, line.coefficients())}: {y:.4f} at {', '.join(f'{value:g}' for value in values)}")
    return y


def check(cfg: Config) -> None:
    """Raise ValueError for settings that make no sense."""
    check_bounds(cfg)
    if not np.isfinite(cfg.values).all():
        raise ValueError("--values must be finite numbers")
    if cfg.values and not cfg.predict:
        raise ValueError("--values are those of a line: name its run by --predict")
    if cfg.trainer.ema:
        raise ValueError("--trainer.ema has no use here: the descent itself is what is shown")
    columns, galton = (("target", "predictors", "weight", "where"), PRESETS["galton"])
    if not cfg.predict and not cfg.data and any(getattr(cfg, name) != getattr(galton, name) for name in columns):
        raise ValueError("Galton's table has the columns child and parent alone: name a CSV file by --data")


def main(cfg: Config) -> Path:
    """Fit a line; returns the run's folder."""
    check(cfg)
    if cfg.predict:
        predict(cfg.predict, cfg.values)
        return Path(cfg.predict)
    cfg = located(cfg, "data")
    run = Run(cfg, "heights")
    table = read_table(cfg.data, cfg.target, cfg.predictors, cfg.weight, cfg.where) if cfg.data else galton_table()
    exact = least_squares(table.x, table.y, table.weight)

    # Gradient descent.
    folder = run.open(Path(cfg.data).stem if cfg.data else "galton", DataFiles(cfg, named(cfg, "data")))
    line, batch = Line.standardising(table.x, table.weight).to(run.device), table.batch()
    batches = Batches(lambda _: batch)
    trainer = Trainer(
        line, squared_error, cfg.trainer, folder, state={"batches": batches}, timer=run.timer, deadline=run.deadline
    )
    run.resume(trainer)
    path = [line.coefficients()]  # in a resumed run from there on
    for _ in trainer.run(batches):
        path.append(line.coefficients())

    # What it has learned, against the closed form.
    learned = path[-1]
    score = {"difference": float(np.abs(learned - exact).max()), **goodness_of_fit(table, exact)}
    trainer.log({f"eval/{name}": value for name, value in score.items()})
    info = {
        "kind": "line",
        "config": {"target": table.target, "predictors": list(table.predictors)},
        "trained": {"data": cfg.data or "Galton 1886", "where": list(cfg.where), "steps": trainer.step},
        "score": score | {"rows": len(table.y), "weight": float(table.weight.sum())},
    }
    save_agent(folder / "agent", info, line.state_dict())
    error, r2 = score["root_mean_square"], score["r2"]
    say(f"{len(table.y):,} rows, weight {table.weight.sum():g}: error {error:.4f}, R^2 {r2:.4f}")
    say(f"in closed form:      {formula(table.target, table.predictors, exact)}")
    say(f"by gradient descent: {formula(table.target, table.predictors, learned)}")
    say(f"after {trainer.step:,} steps no coefficient differs by more than {score['difference']:.2g}")
    if not score["difference"] <= 1e-6:
        say("which is not the same yet: give it more --trainer.steps, or leave out a predictor much like the others")
    if len(table.predictors) == 1:
        back = least_squares(table.y[:, None], table.x[:, 0], table.weight)
        say(f"the other way round: {formula(table.predictors[0], [table.target], back)}")

    # What descent does where there is more than one minimum, and pictures of both.
    ways = {"plain": descend_camel(0.0), "momentum 0.9": descend_camel(0.9)}
    for name, way in ways.items():
        say(f"down the camel, {name}: to {np.round(way[-1], 4) + 0.0}, value {camel(*way[-1]):.4f}")
    if not run.stopped:
        try:
            show({"line": draw_line(table, exact, np.stack(path)), "minima": draw_camel(ways)}, trainer, folder)
            say(f"drawn: {folder}/line.png, {folder}/minima.png")
        except ImportError:
            say("no pictures: they need the extra `plot`, pip install -e '.[plot]'")
    values = [f"{value:g}" for value in np.round(line.mean.cpu().numpy(), 1)]
    run.close(predict=("heights", "--predict", folder, "--values", *values))
    return folder
