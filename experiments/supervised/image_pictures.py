"""What a classifier has learned, as pictures [H, W, 3] uint8."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from rlkit.nn.nature import Torso

Picture = NDArray[np.uint8]
PAPER, INK, RIGHT, WRONG = (255, 255, 255), (40, 40, 40), (121, 191, 121), (235, 105, 65)


def in_colour(images: Tensor) -> Picture:
    """[N, C, H, W] uint8 -> [N, H, W, 3]; of channels other than three the first one, in grey."""
    shown = images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)
    return shown.permute(0, 2, 3, 1).cpu().numpy()


def grid(images: Picture, side: int, columns: int, captions: list[str] | None = None) -> Picture:
    """Images [N, H, W, 3], enlarged by a whole number to about `side` pixels, in rows, each with lines below it."""
    times = max(1, round(side / images.shape[2]))
    images = images.repeat(times, 1).repeat(times, 2)
    height, width = images.shape[1:3]
    step_x, step_y = max(width, side) + 6, height + 6 + (26 if captions else 0)
    columns = max(1, min(columns, len(images)))
    canvas = Image.new("RGB", (columns * step_x + 6, -(-len(images) // columns) * step_y + 6), PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for i, image in enumerate(images):
        x, y = 6 + i % columns * step_x, 6 + i // columns * step_y
        canvas.paste(Image.fromarray(image), (x, y))
        if captions:
            draw.text((x, y + height + 1), captions[i], INK, font, spacing=1)
    return np.asarray(canvas)


def draw_filters(torso: nn.Module, in_shape: tuple[int, int, int], most: int = 64) -> Picture:
    """The weights of the first convolution, or of a feed-forward network's first layer: grey is 0, each scaled to its
    own largest. Three channels are shown as colours, the mean of others in grey.
    """
    first = torso.conv1.weight if isinstance(torso, Torso) else next(torso.parameters()).unflatten(1, in_shape)
    weight = first.detach()[:most].float().cpu()
    if weight.shape[1] != 3:
        weight = weight.mean(1, keepdim=True)
    weight = weight / weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)
    return grid(in_colour((weight * 127.5 + 127.5).byte()), side=48, columns=16)


def draw_mistakes(
    images: Tensor, labels: NDArray, confidences: NDArray, names: list[str], most: int = 24
) -> tuple[Picture, NDArray[np.int64]]:
    """The most confident mistakes, and their rows. images [N, C, H, W], labels [N], confidences [N, classes]."""
    predicted, confidence = confidences.argmax(1), confidences.max(1)
    wrong = np.flatnonzero(predicted != labels)
    rows = wrong[np.argsort(-confidence[wrong], kind="stable")][:most]
    if not len(rows):
        return np.full((40, 160, 3), 255, np.uint8), rows
    captions = [f"{names[predicted[i]][:12]} ({confidence[i]:.0%})\nis {names[labels[i]][:14]}" for i in rows]
    return grid(in_colour(images[rows]), side=96, columns=8, captions=captions), rows


def confusion(labels: NDArray, predicted: NDArray, classes: int) -> NDArray[np.int64]:
    """How many of each class (row) were taken for each (column): [classes, classes]."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def draw_confusion(counts: NDArray[np.int64], names: list[str]) -> Picture:
    """The matrix, darker by the share of its row."""
    cell, margin = max(8, min(44, 1200 // len(names))), 100
    canvas = Image.new("RGB", (margin + cell * len(names) + 8,) * 2, PAPER)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(min(12, cell))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            # By its root: a few mistakes are what one looks for, and they would stay white.
            colour = tuple(
                round(a + (b - a) * share**0.5) for a, b in zip(PAPER, RIGHT if i == j else WRONG, strict=True)
            )
            x, y = margin + j * cell, margin + i * cell
            draw.rectangle((x, y, x + cell - 2, y + cell - 2), colour)
            if counts[i, j] and cell >= 28:
                draw.text((x + cell / 2, y + cell / 2), str(counts[i, j]), INK, font, anchor="mm")
        draw.text((margin - 6, margin + (i + 0.5) * cell), names[i][:14], INK, font, anchor="rm")
    upright = canvas.rotate(-90)  # to write along the columns
    pen = ImageDraw.Draw(upright)
    for j, name in enumerate(names):
        pen.text((upright.width - margin + 6, margin + (j + 0.5) * cell), name[:14], INK, font, anchor="lm")
    return np.asarray(upright.rotate(90))


def table(counts: NDArray[np.int64], names: list[str]) -> str:
    """A line a class: images, recall, precision, and what it was most often taken for."""
    wide = max(5, *map(len, names))
    lines = [f"{'class':<{wide}} {'images':>7} {'recall':>7} {'precision':>10}  most often taken for"]
    right, total, predicted = counts.diagonal(), counts.sum(1), counts.sum(0)
    for i, name in enumerate(names):
        recall = f"{right[i] / total[i]:.3f}" if total[i] else "-"
        precision = f"{right[i] / predicted[i]:.3f}" if predicted[i] else "-"
        others = np.where(np.arange(len(names)) == i, -1, counts[i])
        j = int(others.argmax())
        taken = f"{names[j]} ({others[j]})" if others[j] > 0 else ""
        lines.append(f"{name:<{wide}} {total[i]:>7,} {recall:>7} {precision:>10}  {taken}".rstrip())
    return "\n".join(lines)
