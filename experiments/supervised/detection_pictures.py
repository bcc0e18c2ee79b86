"""What was found on pictures, drawn: outlines with names and scores, found beside true, precision over recall."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from experiments.supervised.detection_scores import Scores, need_extra
from experiments.supervised.image_pictures import INK, PAPER, Picture
from rlkit.instances import Detections, Instances

LEAST_SCORE = 0.3
"""of what is drawn"""
COLOURS = np.array(
    [(255, 214, 0), (0, 200, 255), (255, 96, 208), (96, 255, 96), (255, 128, 0), (170, 130, 255)], np.uint8
)
"""bright, since roads are grey; of the first class, the second, ..., and again from the first"""


def draw_things(
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    masks: NDArray[np.bool_],
    texts: Sequence[str],
    times: int = 1,
) -> Picture:
    """image [3, H, W] -> [times H, times W, 3] with each thing's mask in the colour of its label, its outline, box, and
    text above the box (below it at the upper border). The first thing lies on top.
    """
    image, masks = image.repeat(times, 1).repeat(times, 2), masks.repeat(times, 1).repeat(times, 2)
    shown, colours = image.transpose(1, 2, 0).copy(), COLOURS[(labels - 1) % len(COLOURS)]
    for mask, colour in list(zip(masks, colours, strict=True))[::-1]:
        shown[mask] = 0.65 * shown[mask] + 0.35 * colour
        shown[mask & ~_inner(mask)] = colour
    canvas = Image.fromarray(shown)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(11)
    for box, colour, text in list(zip(boxes * times, colours.tolist(), texts, strict=True))[::-1]:
        left, top, right, bottom = (round(x) for x in box.tolist())
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=tuple(colour))
        width = round(draw.textlength(text, font)) + 4
        x, y = max(0, min(left, canvas.width - width)), top - 14 if top >= 14 else bottom
        draw.rectangle((x, y, x + width, y + 13), tuple(colour))
        draw.text((x + 2, y), text, INK, font)
    return np.asarray(canvas)


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels all of whose four neighbours are in the mask, too."""
    wide = np.pad(mask, 1)
    return wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]


def draw_found(
    image: NDArray[np.uint8], found: Detections, classes: Sequence[str], times: int = 1, least: float = LEAST_SCORE
) -> Picture:
    """A picture [3, H, W] with what was found on it with a score of at least `least`: [times H, times W, 3]."""
    kept = found.scores >= least
    found = Detections._make(part[kept] for part in found)
    named = zip(found.labels, found.scores, strict=True)
    texts = [f"{classes[label - 1]} {score:.0%}" for label, score in named]
    return draw_things(image, found.boxes, found.labels, found.masks, texts, times)


def draw_predictions(
    truth: Sequence[Instances],
    found: Sequence[Detections],
    classes: Sequence[str],
    least: float = LEAST_SCORE,
    times: int = 2,
) -> Picture:
    """A row for each picture, `times` as large: the true things, and those found with a score of at least `least`."""
    rows = []
    for picture, detections in zip(truth, found, strict=True):
        crowds = zip(picture.labels, picture.crowd, strict=True)
        names = [classes[label - 1] + (" (crowd)" if crowd else "") for label, crowd in crowds]
        true = draw_things(picture.image, picture.boxes, picture.labels, picture.masks, names, times)
        rows.append((true, draw_found(picture.image, detections, classes, times, least)))
    width, heights = max((row[0].shape[1] for row in rows), default=100), [row[0].shape[0] for row in rows]
    canvas = Image.new("RGB", (2 * width + 18, 22 + sum(heights) + 6 * len(rows)), PAPER)
    draw, font, y = ImageDraw.Draw(canvas), ImageFont.load_default(12), 22
    for i, name in enumerate(("true", f"found, scores from {least:.0%}")):
        draw.text((6 + i * (width + 6), 4), name, INK, font)
    for row, height in zip(rows, heights, strict=True):
        for i, shown in enumerate(row):
            canvas.paste(Image.fromarray(shown), (6 + i * (width + 6), y))
        y += height + 6
    return np.asarray(canvas)


def draw_precision_recall(methods: dict[str, Scores], classes: Sequence[str]) -> Picture:
    """Precision over recall of the masks at IoU .5, a field for each class, a line for each method with its AP50."""
    need_extra()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((3.2 * len(classes), 3.4), dpi=110, layout="constrained")
    for axis, name in zip(figure.subplots(1, len(classes), sharey=True, squeeze=False)[0], classes, strict=True):
        for i, (method, one) in enumerate(methods.items()):
            curve = one.curves.get(f"mask/{name}")
            if curve:
                label = f"{method} {one.values[f'mask/AP50/{name}']:.3f}"
                axis.plot(np.linspace(0, 1, len(curve)), curve, f"C{i}", label=label)
        axis.set(title=name, xlabel="recall", xlim=(0, 1), ylim=(0, 1.03))
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(frameon=False, fontsize="small")
    figure.axes[0].set_ylabel("precision (masks, IoU .5)")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
