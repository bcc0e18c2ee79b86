"""Least squares twice: the line in closed form, and as a module for gradient descent."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.supervised.tables import Table
from rlkit.saved_agents import load_agent_files, rebuild, rebuilding
from rlkit.trainer import Batch


def least_squares(x: NDArray, y: NDArray, weight: NDArray) -> NDArray[np.float64]:
    """Intercept and slopes [1 + P] that minimise sum_i weight_i (y_i - intercept - x_i . slopes)^2.

    Raises ValueError where more than one line does.
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

    @classmethod
    def standardising(cls, x: NDArray, weight: NDArray) -> "Line":
        """An untrained line with the weighted mean and standard deviation of each column of x [N, P]."""
        mean = np.average(x, axis=0, weights=weight)
        return cls(mean, np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight)))

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


def goodness_of_fit(table: Table, coefficients: NDArray) -> dict[str, float]:
    """The root of the mean squared error, and R^2: the share of the variance of y that the line explains."""

    def mean_square(errors: NDArray) -> float:
        return float(np.average(errors**2, weights=table.weight))

    error = mean_square(table.y - coefficients[0] - table.x @ coefficients[1:])
    variance = mean_square(table.y - np.average(table.y, weights=table.weight))
    return {"root_mean_square": error**0.5, "r2": 1 - error / variance if variance else 1.0}


def formula(target: str, predictors: Sequence[str], coefficients: NDArray) -> str:
    """child = 23.9415 + 0.6463 parent"""
    terms = [f"{'-' if c < 0 else '+'} {abs(c):.4f} {p}" for c, p in zip(coefficients[1:], predictors, strict=True)]
    return " ".join([f"{target} = {coefficients[0]:.4f}", *terms])


def load_line(folder: str | Path) -> tuple[Line, str, list[str]]:
    """(line, name of y, names of its predictors) of a run or agent folder.

    Raises FileNotFoundError, ValueError, DamagedFile.
    """
    info, weights = load_agent_files(Path(folder), "line", "no line")
    with rebuilding(folder, "these weights"):
        target, names = info["config"]["target"], info["config"]["predictors"]
        line = rebuild(lambda: Line(np.zeros(len(names)), np.ones(len(names))), weights)
    return line, target, names
