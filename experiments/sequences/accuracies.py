"""Accuracies with intervals, as a table and as bars."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

STUDENT = (math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t of 95 % for 1, 2, ... values"""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """(mean, half of its 95 % interval), by Student's t."""
    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return float(np.mean(values)), STUDENT[min(len(values), len(STUDENT)) - 1] * spread


Result = dict[str, tuple[float, float]]
"""(mean, half of the interval) of accuracies: tuned, scratch, gain"""


def table(losses: dict[str, float], results: dict[str, Result]) -> str:
    """One line for each objective."""
    lines = [f"{'objective':14}{'nats':>6}{'fine-tuned':>18}{'from scratch':>18}{'gain':>18}   accuracy in %"]
    for name, result in results.items():
        cells = "".join(f"{100 * mean:>11.1f} +-{100 * half:4.1f}" for mean, half in result.values())
        lines.append(f"{name:14}{losses[name]:6.3f}{cells}")
    return "\n".join(lines)


def draw_bars(results: dict[str, Result], chance: float) -> NDArray[np.uint8]:
    """The accuracy of each objective fine-tuned and from scratch, with intervals; a red line at `chance`."""
    height, bar, left, top = 300, 44, 50, 40
    image = Image.new("RGB", (max(450, left + 150 * len(results) + 20), height + top + 40), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for percent in range(0, 101, 20):
        y = top + height * (1 - percent / 100)
        draw.line((left, y, image.width - 10, y), (225, 225, 225))
        draw.text((left - 8, y), f"{percent} %", "black", font, "rm")
    for i, (name, result) in enumerate(results.items()):
        for j, (kind, colour) in enumerate({"tuned": (18, 52, 140), "scratch": (170, 170, 170)}.items()):
            mean, half = result[kind]
            x, y = left + 25 + 150 * i + j * (bar + 8), top + height * (1 - mean)
            draw.rectangle((x, y, x + bar, top + height), colour)
            draw.line((x + bar / 2, y - height * half, x + bar / 2, y + height * half), "black", 2)
            draw.text((x + bar / 2, y - height * half - 4), f"{100 * mean:.1f}", "black", font, "md")
        draw.text((left + 70 + 150 * i, top + height + 8), name, "black", font, "mt")
    y = top + height * (1 - chance)
    draw.line((left, y, image.width - 10, y), (200, 60, 40))
    draw.text((left, 8), "accuracy: blue fine-tuned, grey from scratch, red line guessing", "black", font)
    return np.asarray(image)
