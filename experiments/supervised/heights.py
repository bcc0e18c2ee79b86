"""Heights of parents and children: the line that regression has its name from.

python -m experiments heights                                          # Galton's 928 children, in seconds
python -m experiments heights --data GaltonFamilies.csv --target childHeight --predictors father mother gender
python -m experiments heights --data PearsonLee.csv --weight frequency --where par=Father chl=Son
python -m experiments heights --predict runs/heights/<run> --values 72

Least squares twice: in closed form, and by gradient descent, which ends at the same coefficients.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.supervised.tables import Table, read_table
from rlkit.checkpoint import described, load_agent_files, rebuild, save_agent
from rlkit.config import AtLeast, Fixed, RunConfig, check_bounds
from rlkit.data import Batches
from rlkit.data_files import DataFiles, located, named
from rlkit.logger import say
from rlkit.run import Run
from rlkit.trainer import Batch, LossFn, TrainConfig, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# With momentum .9 any rate from .0026 to 3.8 over the curvature converges equally fast. The curvatures of standardised
# columns add up to 2 for each, so this rate suits them unless they are much alike.
BASE = TrainConfig(steps=1000, optimizer="sgd", lr=0.05, momentum=0.9, clip=0, log_every=20, save_every=500)


@dataclass
class Config(RunConfig):
    """Regress heights on heights, by least squares."""

    preset: Annotated[Literal["galton"], Fixed] = "galton"
    data: str | None = None
    """a CSV file with a header, which may have moved when a run goes on; default: Galton's table, in inches"""
    target: Annotated[str, Fixed] = "child"
    """column to be explained"""
    predictors: Annotated[tuple[str, ...], Fixed] = ("parent",)
    """columns that explain it; one of two words becomes 0 and 1"""
    weight: Annotated[str | None, Fixed] = None
    """column that says how often a row counts"""
    where: Annotated[tuple[str, ...], Fixed] = ()
    """COLUMN=VALUE: only rows that have it"""
    predict: str | None = None
    """run or agent folder whose line is to be used; nothing is learned then"""
    values: tuple[float, ...] = ()
    """of its predictors, for --predict"""
    seed: Annotated[int, AtLeast(0)] = 0
    """in the folder's name alone: the descent begins at zero and sees all rows at every step"""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ..."""
    threads: Annotated[int, AtLeast(0)] = 1
    """CPU threads, for the same numbers again from the same seed; 0: as many as there are idle cores"""
    trainer: TrainConfig = field(default_factory=lambda: replace(BASE))


PRESETS = {"galton": Config()}
COLUMNS = ("target", "predictors", "weight", "where")

GALTON_CHILDREN = (61.7, 62.2, 63.2, 64.2, 65.2, 66.2, 67.2, 68.2, 69.2, 70.2, 71.2, 72.2, 73.2, 73.7)
GALTON_TABLE = {
    64.0: (1, 0, 2, 4, 1, 2, 2, 1, 1, 0, 0, 0, 0, 0),
    64.5: (1, 1, 4, 4, 1, 5, 5, 0, 2, 0, 0, 0, 0, 0),
    65.5: (1, 0, 9, 5, 7, 11, 11, 7, 7, 5, 2, 1, 0, 0),
    66.5: (0, 3, 3, 5, 2, 17, 17, 14, 13, 4, 0, 0, 0, 0),
    67.5: (0, 3, 5, 14, 15, 36, 38, 28, 38, 19, 11, 4, 0, 0),
    68.5: (1, 0, 7, 11, 16, 25, 31, 34, 48, 21, 18, 4, 3, 0),
    69.5: (0, 0, 1, 16, 4, 17, 27, 20, 33, 25, 20, 11, 4, 5),
    70.5: (1, 0, 1, 0, 1, 1, 3, 12, 18, 14, 7, 4, 3, 3),
    71.5: (0, 0, 0, 0, 1, 3, 4, 3, 5, 10, 4, 9, 2, 2),
    72.5: (0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 2, 7, 2, 4),
    73.0: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 0),
}
"""Children of each height above, by the mean of their father's and 1.08 of their mother's, in inches; the outermost
classes are "below" and "above". Source: Galton 1886, "Regression towards mediocrity in hereditary stature", table I.
"""


def galton() -> Table:
    """Galton's 928 adult children, one a row."""
    cells = [(p, c, n) for p, row in GALTON_TABLE.items() for c, n in zip(GALTON_CHILDREN, row, strict=True)]
    parent, child, count = np.array(cells).T
    parent, child = (np.repeat(column, count.astype(int)) for column in (parent, child))
    return Table(parent[:, None], child, np.ones(len(child)), "child", ("parent",))


# -- least squares, twice ----------------------------------------------------------------------------------------------


def least_squares(x: NDArray, y: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Intercept and slopes [1 + P] that minimise sum_i weight_i (y_i - intercept - x_i . slopes)^2.

    Raises ValueError where many do.
    """
    root = np.sqrt(weight)
    columns = np.column_stack([np.ones(len(y)), x])
    coefficients, _, rank, _ = np.linalg.lstsq(columns * root[:, None], y * root)
    if rank < columns.shape[1]:
        raise ValueError(
            f"{np.count_nonzero(weight)} rows do not determine an intercept and {x.shape[1]} slopes: they are too few, "
            "or a predictor is constant or made of the others; leave it out"
        )
    return coefficients


class Line(nn.Module):
    """y = b + w . (x - mean) / spread: x [N, P] -> [N], in float64.

    Standardised columns give the loss about the same curvature everywhere. On heights as they are it is a million
    times as steep in one direction as in another, and no rate suits both.
    """

    def __init__(self, mean: NDArray, spread: NDArray):
        super().__init__()
        self.mean, self.spread = nn.Buffer(torch.from_numpy(mean)), nn.Buffer(torch.from_numpy(spread))
        self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))
        self.w = nn.Parameter(torch.zeros(len(mean), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.b + ((x - self.mean) / self.spread) @ self.w

    def coefficients(self) -> NDArray[np.float64]:
        """Intercept and slopes [1 + P] of x as it is."""
        slopes = (self.w / self.spread).detach()
        return torch.cat([self.b.detach() - slopes @ self.mean, slopes]).cpu().numpy()


def squared_error(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted mean of squared errors."""
    loss = (batch["weight"] * (batch["y"] - model(batch["x"])) ** 2).sum() / batch["weight"].sum()
    return loss, {"root_mean_square": loss.detach().sqrt()}


def descend(
    model: nn.Module, loss_fn: LossFn, batch: Batch, at: Callable[[], NDArray], lr: float, momentum: float, steps: int
) -> NDArray[np.float64]:
    """What `at` says before and after each step of a descent that only a picture is made of: [steps + 1, ...]."""
    cfg = TrainConfig(steps=steps, optimizer="sgd", lr=lr, momentum=momentum, clip=0)
    trainer, path = Trainer(model, loss_fn, cfg), [at()]
    for _ in range(steps):
        trainer.update(batch)
        path.append(at())
    return np.stack(path)


# -- a surface with more than one minimum ------------------------------------------------------------------------------


def camel(x: Any, y: Any) -> Any:
    """The three-hump camel: 0 at (0, 0), its least, and minima of 0.2986 at (1.7476, -0.8738) and the opposite."""
    return 2 * x**2 - 1.05 * x**4 + x**6 / 6 + x * y + y**2


def roll(momentum: float, steps: int = 300) -> NDArray[np.float64]:
    """The way [steps + 1, 2] down the camel from (-2, 0)."""
    model = nn.Module()
    model.at = at = nn.Parameter(torch.tensor([-2.0, 0.0], dtype=torch.float64))

    def height(model: nn.Module, _: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return camel(*at), {}

    return descend(model, height, {}, lambda: at.detach().numpy().copy(), 0.05, momentum, steps)


# -- pictures ----------------------------------------------------------------------------------------------------------


def draw_line(table: Table, exact: NDArray, path: NDArray) -> "Figure":
    """Points and line; the descent in the plane of intercept and slope; its distance from the closed form.

    Several predictors have no such plane: what they predict is drawn instead of the line.
    """
    from matplotlib.figure import Figure

    single, fitted = len(table.predictors) == 1, exact[0] + table.x @ exact[1:]
    figure = Figure((15 if single else 10, 4.6), layout="constrained")
    names, target = ([name.replace("$", r"\$") for name in names] for names in (table.predictors, [table.target]))
    axes = figure.subplots(1, 3 if single else 2)
    across = table.x[:, 0] if single else fitted
    places, which = np.unique(np.column_stack([across, table.y]), axis=0, return_inverse=True)
    axes[0].scatter(*places.T, s=4 * np.bincount(which.ravel(), table.weight), alpha=0.5, linewidths=0)
    ends = [across.argmin(), across.argmax()]
    axes[0].plot(across[ends], fitted[ends], "C3")
    axes[0].set(xlabel=names[0] if single else "predicted", ylabel=target[0])
    axes[-1].semilogy(np.maximum(np.abs(path - exact), 1e-17), label=["intercept", *names])
    axes[-1].set(xlabel="steps", ylabel="distance from the closed form")
    if single:
        columns = np.column_stack([np.ones(len(table.y)), table.x])
        curvature = (columns * table.weight[:, None]).T @ columns / table.weight.sum()
        raw = Line(np.zeros(1), np.ones(1))
        lr = 0.25 / np.trace(curvature)  # half a step to the bottom where it is steepest
        plain = descend(raw, squared_error, table.batch(), raw.coefficients, lr, 0.9, min(300, len(path) - 1))
        both = np.concatenate([path, plain])
        margin = 0.1 * np.ptp(both, axis=0)
        a, b = np.meshgrid(*np.linspace(both.min(0) - margin, both.max(0) + margin, 150).T)
        off = np.stack([a, b], -1) - exact  # in which the loss, above its least, is a quadratic form
        excess = np.einsum("abi,ij,abj->ab", off, curvature, off)
        axes[1].contour(a, b, np.log10(np.maximum(excess, 1e-3)), 14, linewidths=0.7, cmap="Greys")
        axes[1].plot(
            *plain.T,
            ".-",
            color="C1",
            markersize=3,
            linewidth=0.8,
            label=f"columns as they are, {len(plain) - 1} steps",
        )
        axes[1].plot(
            *path.T, ".-", color="C0", markersize=3, linewidth=0.8, label=f"standardised columns, {len(path) - 1} steps"
        )
        axes[1].plot(*exact, "*", color="C3", markersize=12, label="closed form")
        axes[1].set(xlabel="intercept", ylabel="slope")
    for axis in axes[1:]:
        axis.legend(frameon=False)
    return figure


def draw_surface(paths: dict[str, NDArray]) -> "Figure":
    """Ways down the camel."""
    from matplotlib.figure import Figure

    figure = Figure((7, 5), layout="constrained")
    axes = figure.subplots()
    x, y = np.meshgrid(np.linspace(-2.3, 2.3, 150), np.linspace(-2, 2, 150))
    axes.contour(x, y, np.log(camel(x, y) + 0.05), 25, linewidths=0.7, cmap="Greys")
    for name, path in paths.items():
        axes.plot(*path.T, ".-", markersize=4, linewidth=0.9, label=f"{name}: ends at {camel(*path[-1]):.3f}")
        axes.plot(*path[0], "k^")
    axes.set(xlabel="x", ylabel="y", title="a surface with three minima")
    axes.legend(frameon=False)
    return figure


def show(trainer: Trainer, figures: dict[str, "Figure"], folder: Path) -> None:
    """Into TensorBoard and, as PNG, into the run's folder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    for name, figure in figures.items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        picture = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
        trainer.show({f"eval/{name}": picture})
        Image.fromarray(picture).save(folder / f"{name}.png")


# -- the run -----------------------------------------------------------------------------------------------------------


def formula(target: str, predictors: Sequence[str], coefficients: NDArray) -> str:
    """child = 23.9415 + 0.6463 parent"""
    terms = [f"{'-' if c < 0 else '+'} {abs(c):.4f} {p}" for c, p in zip(coefficients[1:], predictors, strict=True)]
    return " ".join([f"{target} = {coefficients[0]:.4f}", *terms])


def predict(folder: str, values: Sequence[float]) -> float:
    """What the line of a run or agent folder says about these values of its predictors; prints it.

    Raises FileNotFoundError, ValueError, DamagedFile.
    """
    info, weights = load_agent_files(Path(folder), "line", "no line")
    with described(folder, "these weights"):
        target, names = info["config"]["target"], info["config"]["predictors"]
        line = rebuild(lambda: Line(np.zeros(len(names)), np.ones(len(names))), weights)
    if len(values) != len(names):
        raise ValueError(f"--values wants {len(names)}, of {', '.join(names)}, not {len(values)}")
    y = line(torch.tensor([values], dtype=torch.float64)).item()
    say(f"{formula(target, names, line.coefficients())}: {y:.4f} at {', '.join(f'{value:g}' for value in values)}")
    return y


def main(cfg: Config) -> Path:
    """Regress; returns the run's folder."""
    check_bounds(cfg)
    if not np.isfinite(cfg.values).all():
        raise ValueError("--values must be finite numbers")
    if cfg.values and not cfg.predict:
        raise ValueError("--values are those of a line: name its run by --predict")
    if cfg.trainer.ema:
        raise ValueError("--trainer.ema has no use here: the descent itself is what is shown")
    if cfg.predict:
        predict(cfg.predict, cfg.values)
        return Path(cfg.predict)
    if not cfg.data and any(getattr(cfg, name) != getattr(PRESETS["galton"], name) for name in COLUMNS):
        raise ValueError("Galton's table has the columns child and parent alone: name a CSV file by --data")
    cfg = located(cfg, "data")
    run = Run(cfg, "heights")
    table = read_table(cfg.data, cfg.target, cfg.predictors, cfg.weight, cfg.where) if cfg.data else galton()
    target, predictors, weight = table.target, table.predictors, table.weight
    exact = least_squares(table.x, table.y, weight)
    mean = np.average(table.x, axis=0, weights=weight)
    spread = np.sqrt(np.average((table.x - mean) ** 2, axis=0, weights=weight))

    name = Path(cfg.data).stem if cfg.data else "galton"
    run_dir = run.open(name, DataFiles(cfg, named(cfg, "data")))
    line, batch = Line(mean, spread).to(run.device), table.batch()
    batches = Batches(lambda _: batch)
    trainer = Trainer(
        line, squared_error, cfg.trainer, run_dir, state={"batches": batches}, timer=run.timer, deadline=run.deadline
    )
    run.resume(trainer)
    path = [line.coefficients()]  # in a resumed run from there on
    for _ in trainer.run(batches):
        path.append(line.coefficients())

    learned = path[-1]
    square = float(np.average((table.y - exact[0] - table.x @ exact[1:]) ** 2, weights=weight))
    variance = float(np.average((table.y - np.average(table.y, weights=weight)) ** 2, weights=weight))
    score = {
        "difference": float(np.abs(learned - exact).max()),
        "root_mean_square": square**0.5,
        "r2": 1 - square / variance if variance else 1.0,
    }
    trainer.log({f"eval/{name}": value for name, value in score.items()})
    info = {
        "kind": "line",
        "config": {"target": target, "predictors": list(predictors)},
        "trained": {"data": cfg.data or "Galton 1886", "where": list(cfg.where), "steps": trainer.step},
        "score": score | {"rows": len(table.y), "weight": float(weight.sum())},
    }
    save_agent(run_dir / "agent", info, line.state_dict())

    say(f"{len(table.y):,} rows, weight {weight.sum():g}: error {square**0.5:.4f}, R^2 {score['r2']:.4f}")
    say(f"in closed form:      {formula(target, predictors, exact)}")
    say(f"by gradient descent: {formula(target, predictors, learned)}")
    say(f"after {trainer.step:,} steps no coefficient differs by more than {score['difference']:.2g}")
    if not score["difference"] <= 1e-6:
        say("which is not the same yet: give it more --trainer.steps, or leave out a predictor much like the others")
    if len(predictors) == 1:
        back = least_squares(table.y[:, None], table.x[:, 0], weight)
        say(f"the other way round: {formula(predictors[0], [target], back)}")
    paths = {"plain": roll(0.0), "momentum 0.9": roll(0.9)}
    for name, way in paths.items():
        say(f"down the camel, {name}: to {np.round(way[-1], 4) + 0.0}, value {camel(*way[-1]):.4f}")
    if not run.stopped:
        try:
            figures = {"line": draw_line(table, exact, np.stack(path)), "minima": draw_surface(paths)}
            show(trainer, figures, run_dir)
            say(f"drawn: {run_dir}/line.png, {run_dir}/minima.png")
        except ImportError:
            say("no pictures: they need the extra `plot`, pip install -e '.[plot]'")
    values = [f"{value:g}" for value in np.round(mean, 1)]
    run.close(predict=("heights", "--predict", run_dir, "--values", *values))
    return run_dir
