"""Pictures of gradient descent: towards a regression line, and on a surface with three minima. They need matplotlib."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.supervised.regression import Line, squared_error
from experiments.supervised.tables import Table
from rlkit.trainer import Batch, LossFn, TrainConfig, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]


def descend(
    model: nn.Module, loss_fn: LossFn, batch: Batch, read: Callable[[], NDArray], lr: float, momentum: float, steps: int
) -> NDArray[np.float64]:
    """What `read` returns before and after each step of a descent: [steps + 1, ...]."""
    cfg = TrainConfig(steps=steps, optimizer="sgd", lr=lr, momentum=momentum, clip=0)
    trainer, path = Trainer(model, loss_fn, cfg), [read()]
    for _ in range(steps):
        trainer.update(batch)
        path.append(read())
    return np.stack(path)


# -- a regression line -------------------------------------------------------------------------------------------------


def draw_line(table: Table, exact: NDArray, path: NDArray) -> Picture:
    """Points and line; the descent in the plane of intercept and slope; its distance from the closed form.

    Several predictors have no such plane: y is drawn over its prediction instead. exact: coefficients [1 + P];
    path: those before and after each step [steps + 1, 1 + P].
    """
    from matplotlib.figure import Figure

    single = len(table.predictors) == 1
    figure = Figure((15 if single else 10, 4.6), layout="constrained")
    axes = figure.subplots(1, 3 if single else 2)
    names, target = ([name.replace("$", r"\$") for name in names] for names in (table.predictors, [table.target]))

    # The points, larger where several lie on each other, and the line through them.
    fitted = exact[0] + table.x @ exact[1:]
    across = table.x[:, 0] if single else fitted
    places, which = np.unique(np.column_stack([across, table.y]), axis=0, return_inverse=True)
    axes[0].scatter(*places.T, s=4 * np.bincount(which.ravel(), table.weight), alpha=0.5, linewidths=0)
    ends = [across.argmin(), across.argmax()]
    axes[0].plot(across[ends], fitted[ends], "C3")
    axes[0].set(xlabel=names[0] if single else "predicted", ylabel=target[0])

    axes[-1].semilogy(np.maximum(np.abs(path - exact), 1e-17), label=["intercept", *names])
    axes[-1].set(xlabel="steps", ylabel="distance from the closed form")
    if single:
        _draw_both_descents(axes[1], table, exact, path)
    for axis in axes[1:]:
        axis.legend(frameon=False)
    return pixels(figure)


def _draw_both_descents(axis: Any, table: Table, exact: NDArray, path: NDArray) -> None:
    """The descent on standardised columns, and one on the columns as they are, over contours of the loss."""
    columns = np.column_stack([np.ones(len(table.y)), table.x])
    curvature = (columns * table.weight[:, None]).T @ columns / table.weight.sum()
    unscaled = Line(np.zeros(1), np.ones(1))
    lr = 0.25 / np.trace(curvature)  # half a step to the bottom where it is steepest
    steps = min(300, len(path) - 1)
    plain = descend(unscaled, squared_error, table.batch(), unscaled.coefficients, lr, 0.9, steps)
    both = np.concatenate([path, plain])
    margin = 0.1 * np.ptp(both, axis=0)
    a, b = np.meshgrid(*np.linspace(both.min(0) - margin, both.max(0) + margin, 150).T)
    off = np.stack([a, b], -1) - exact  # in which the loss, above its least, is a quadratic form
    excess = np.einsum("abi,ij,abj->ab", off, curvature, off)
    axis.contour(a, b, np.log10(np.maximum(excess, 1e-3)), 14, linewidths=0.7, cmap="Greys")
    for name, way, colour in (("columns as they are", plain, "C1"), ("standardised columns", path, "C0")):
        label = f"{name}, {len(way) - 1} steps"
        axis.plot(*way.T, ".-", color=colour, markersize=3, linewidth=0.8, label=label)
    axis.plot(*exact, "*", color="C3", markersize=12, label="closed form")
    axis.set(xlabel="intercept", ylabel="slope")


# -- a surface with more than one minimum ------------------------------------------------------------------------------


def camel(x: Any, y: Any) -> Any:
    """The three-hump camel: 0 at (0, 0), its least, and minima of 0.2986 at (1.7476, -0.8738) and the opposite."""
    return 2 * x**2 - 1.05 * x**4 + x**6 / 6 + x * y + y**2


def descend_camel(momentum: float, steps: int = 300) -> NDArray[np.float64]:
    """The way [steps + 1, 2] down the camel from (-2, 0)."""
    model = nn.Module()
    model.point = point = nn.Parameter(torch.tensor([-2.0, 0.0], dtype=torch.float64))

    def height(model: nn.Module, _: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return camel(*point), {}

    return descend(model, height, {}, lambda: point.detach().numpy().copy(), 0.05, momentum, steps)


def draw_camel(paths: dict[str, NDArray]) -> Picture:
    """Several ways down the camel, each by its name."""
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
    return pixels(figure)


def pixels(figure: "Figure") -> Picture:
    """[H, W, 3] of a figure of matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
