"""Columns of numbers from a CSV file, with the line of whatever is wrong in it."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rlkit.text_files import read_text

Row = tuple[int, dict[str, str]]
"""its line, and its cells by their columns"""


@dataclass(frozen=True)
class Table:
    """x [N, P], y [N] and weight [N] in float64, with the names of y and of the P columns of x."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    weight: NDArray[np.float64]
    target: str
    predictors: tuple[str, ...]

    def batch(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(getattr(self, name)) for name in ("x", "y", "weight")}


def read_table(
    path: str | Path, target: str, predictors: Sequence[str], weight: str | None = None, where: Sequence[str] = ()
) -> Table:
    """y, the columns of x, and how often each row counts (once), from a CSV file with a header.

    A predictor of two words becomes 0 and 1, in their order. where: COLUMN=VALUE; rows without it are left out.
    Raises FileNotFoundError, and ValueError with the line of what is wrong.
    """
    if bad := [condition for condition in where if "=" not in condition]:
        raise ValueError(f"--where takes COLUMN=VALUE, not {bad[0]!r}")
    if not predictors:
        raise ValueError(f"{target} wants at least one predictor")
    wanted = [condition.split("=", 1) for condition in where]
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    rows: list[Row] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        for name in (target, *predictors, *([weight] if weight else []), *(column for column, _ in wanted)):
            if header.count(name) != 1:
                what = "two columns" if name in header else "no column"
                raise ValueError(f"{path} has {what} {name!r}; its first line says {', '.join(header) or 'nothing'}")
        for cells in filter(None, reader):
            if len(cells) != len(header):
                raise ValueError(f"{path}, line {reader.line_num}: {len(cells)} values for {len(header)} columns")
            row = dict(zip(header, map(str.strip, cells), strict=True))
            if all(row[column] == value for column, value in wanted):
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
    if not rows:
        raise ValueError(f"{path} has no rows{' where ' if where else ''}{' and '.join(where)}")
    y, count = numbers(path, target, rows), numbers(path, weight, rows) if weight else np.ones(len(rows))
    if (count < 0).any():
        raise ValueError(f"{path}, line {rows[int((count < 0).argmax())][0]}: {weight} is a weight, and below 0")
    columns, names = [], []
    for name in predictors:
        words = sorted({row[name] for _, row in rows})
        if len(words) == 2 and all(words) and all(number(word) is None for word in words):
            columns.append(np.array([float(row[name] == words[1]) for _, row in rows]))
            names.append(f"[{name}={words[1]}]")
        else:
            columns.append(numbers(path, name, rows))
            names.append(name)
    return Table(np.stack(columns, 1), y, count, target, tuple(names))


def numbers(path: str | Path, name: str, rows: list[Row]) -> NDArray[np.float64]:
    """A column [N]. Raises ValueError with the line of what is no number."""
    for line, row in rows:
        if number(row[name]) is None:
            raise ValueError(f"{path}, line {line}: {name} is {row[name]!r}, where a number was expected")
    return np.array([number(row[name]) for _, row in rows], np.float64)


def number(text: str) -> float | None:
    """None for what is none, or not finite."""
    try:
        return value if math.isfinite(value := float(text)) else None
    except ValueError:
        return None
