"""Roads in perspective, drawn from a seed, with what has to be found on them: endless pictures with exact masks.

Of same things some touch, so that their pixels alone do not tell how many they are. Lane marks, smooth patches of tar
and shadows look a little like things and are none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from experiments.supervised.drawn_scenes import (
    Floats,
    View,
    blend,
    cast_shadows,
    colour,
    cracks,
    look_up,
    photograph,
    ramp,
    scene,
    window,
)
from rlkit.instances import Instances

CLASSES = ("speed bump", "deterioration", "pothole", "litter")  # labels 1 .. 4
BUMP, DETERIORATION, POTHOLE, LITTER = 1, 2, 3, 4
SMALLEST = 8  # pixels: height and width of a thing's box at least
LEAST_VISIBLE = 0.5  # of a thing's pixels, and 12 pixels
MOST_ALIKE = 0.35  # IoU of the boxes of two things of one class: a detector drops one of two boxes above .5
Drawn = tuple[Floats, Floats]


class Thing(NamedTuple):
    """Something on the road: an ellipse that holds it, in pixels."""

    label: int
    x: float
    y: float
    a: float  # half of the width
    b: float  # half of the height


# Things. Each takes pixels [h, w] right of and below its middle, halves a and b of its width and height, and the ground
# [3, h, w]; and returns how far [h, w] inside its outline a pixel lies, and what it looks like [3, h, w].


def outline(rng: Generator, dx: Floats, dy: Floats, a: float, b: float, rough: float) -> Floats:
    """How many pixels inside of an ellipse whose radius swings by `rough` a pixel lies."""
    u, v = dx / np.float32(a), dy / np.float32(b)
    radius, angle = np.sqrt(u * u + v * v), np.arctan2(v, u)
    edge = np.ones_like(radius)
    for k in range(2, 7):
        edge += np.float32(rough * rng.uniform(0.3, 1) / k**0.7) * np.cos(k * angle + np.float32(rng.uniform(0, 6.28)))
    return (edge - radius) * np.float32(min(a, b))


def pothole(rng: Generator, dx: Floats, dy: Floats, a: float, b: float, ground: Floats, sun: int) -> Drawn:
    """A hole with a broken, bright rim; its far wall is dark; or it holds water."""
    inside = outline(rng, dx, dy, a, b, 0.12)
    rim = max(1.2, min(a, b) * 0.14)
    tone = ground.mean()
    gravel = window(rng, *dx.shape)
    depth = np.clip((dy / b + 0.5 * sun * dx / a + 1) / 2, 0, 1)
    if rng.random() < 0.25 and min(a, b) > 6:
        wet = tone * (0.75 + 0.5 * depth + 0.2 * (gravel - 0.5)) * colour(0.85, 1.0, 1.2)
        body = np.where(inside < 2 * rim, tone * 0.35 * colour(1, 0.95, 0.9), wet)
    else:
        body = tone * (0.22 + 0.4 * depth**1.5 + 0.6 * (gravel - 0.5)) * colour(1, 0.94, 0.86)
    lip = (0.5 * ground + 0.5 * tone) * (1.05 + 0.8 * gravel) * colour(1, 0.98, 0.94)
    return inside, body + ramp(rim * (0.5 + gravel) - inside) * (lip - body)


def deterioration(rng: Generator, dx: Floats, dy: Floats, a: float, b: float, ground: Floats, sun: int) -> Drawn:
    """A field of cracks, or a patch that breaks up: paler or browner than the road, in pieces."""
    inside = outline(rng, dx, dy, a, b, 0.08)
    if rng.random() < 0.5:  # a patch with corners
        p = np.float32(4)
        inside = (1.02 - (abs(dx / a) ** p + abs(dy / b) ** p) ** (1 / p)) * min(a, b) + 0.3 * (inside - 0.5)
    pieces = np.clip(a / 3.5, 4, 9)  # from left to right
    size = np.float32(256 / 12 * pieces / (2 * a))
    net = look_up(cracks(), dy * size * np.float32(0.7 * a / b) + rng.integers(256), dx * size + rng.integers(256))
    tint = (colour(1.32, 1.3, 1.24), colour(1.2, 1.08, 0.9), colour(0.82, 0.8, 0.8))[rng.integers(3)]
    mottled = ground.mean() * tint * (0.85 + 0.3 * window(rng, *dx.shape))
    deep = rng.uniform(0.45, 0.8) * (0.6 + 0.8 * window(rng, *dx.shape))
    body = (0.4 * ground + 0.6 * mottled) * (1 - deep * (1 - net))
    return inside, body * (1 - 0.55 * ramp(1.0 - inside))


def speed_bump(rng: Generator, dx: Floats, dy: Floats, a: float, b: float, ground: Floats, sun: int) -> Drawn:
    """A band across the road, bright where it rises and dark behind: with stripes of paint, or without."""
    v = dy / np.float32(b)
    u = dx / (np.float32(a) * (1 + np.float32(0.08) * v))
    inside = np.minimum((1 - abs(u)) * a, (1 - abs(v)) * b)
    rise = np.where(v < -0.15, 1.25 + 0.35 * v, 0.95 - 0.45 * v)
    tone, kind = ground.mean(), rng.random()
    if kind < 0.3:
        crest = np.clip(1 - abs(v + 0.35) * 3, 0, 1)
        body = (0.5 * ground + 0.5 * tone) * (rise + 0.45 * crest) * (0.85 + 0.3 * window(rng, *dx.shape))
    else:
        bright = (colour(0.92, 0.74, 0.12), colour(0.92, 0.92, 0.9), colour(0.9, 0.9, 0.88))[int(kind * 10) % 3]
        dark = colour(0.7, 0.16, 0.12) if kind > 0.85 else colour(0.12, 0.12, 0.13)
        lean = rng.choice([0, 0, 1, -1]) * 0.5 * v * b / a
        stripes = (u + lean) * np.float32(np.clip(a / rng.uniform(6, 14), 2, 9)) % 2 < 1
        body = np.where(stripes, bright, dark) * rise * (0.9 + 0.2 * window(rng, *dx.shape))
    return inside, body * (1 - 0.5 * ramp(1.0 - inside))


def litter(rng: Generator, dx: Floats, dy: Floats, a: float, b: float, ground: Floats, sun: int) -> Drawn:
    """A bag, a box, a bottle, a plank or a fallen tree."""
    kind = rng.choice(["bag", "box", "bottle", "plank", "tree"], p=[0.3, 0.25, 0.2, 0.1, 0.15])
    folds = window(rng, *dx.shape)
    u, v = dx / np.float32(a), dy / np.float32(b)
    light = 1 - 0.3 * v - 0.2 * sun * u
    if kind == "bag":
        inside = outline(rng, dx, dy, a, b, 0.1)
        shiny = np.clip((folds - 0.5) * 4, -0.5, 0.6)
        return inside, BAGS[rng.integers(len(BAGS))] * (light + shiny)
    if kind == "box":  # a front, and a top that is brighter
        inside = np.minimum((1 - abs(u)) * a, (1 - abs(v)) * b)
        inside = np.minimum(inside, (1.75 - abs(u) - np.maximum(-v, 0)) * a * 0.7)
        body = BOXES[rng.integers(len(BOXES))] * (0.9 + 0.2 * folds) * np.where(v < -0.3, 1.25, 0.85 - 0.15 * sun * u)
        tape = (abs(u) < 0.12) | (abs(v + 0.3) < 0.06)
        return inside, body * (1 - 0.3 * tape)
    if kind == "tree":  # a crown, and a trunk to one side
        side = rng.choice([-1, 1])
        crown = outline(rng, dx - side * 0.3 * a, dy, 0.72 * a, b, 0.12)
        trunk = np.minimum(0.3 * b - abs(dy), (1 - abs(u)) * a)
        leaves = colour(0.2, 0.36, 0.1) * (0.35 + 1.5 * folds) * light
        bark = colour(0.42, 0.28, 0.17) * light * (0.8 + 0.4 * folds)
        return np.maximum(crown, trunk), np.where(crown > 0, leaves, bark)
    # a bottle or a plank lies at an angle, along the diagonal of its box
    angle = np.float32(np.arctan2(b, a) * rng.choice([-1, 1]))
    p, q = np.cos(angle) * dx + np.sin(angle) * dy, np.cos(angle) * dy - np.sin(angle) * dx
    length = np.float32(np.hypot(a, b) * 0.95)
    if kind == "plank":
        thick = np.float32(max(length * 0.22, 2.6))
        inside = np.minimum(length - abs(p), thick - abs(q))
        body = colour(0.72, 0.52, 0.32) * (0.75 + 0.5 * folds) * (1 - 0.35 * (q > 0.4 * thick))
        return inside, body
    thick = np.float32(max(length * 0.34, 3.0))
    neck = np.where(p > 0.45 * length, thick * 0.6, thick)
    inside = np.minimum(length - abs(p), neck - abs(q))
    body = BOTTLES[rng.integers(len(BOTTLES))] * (0.85 + 0.6 * np.clip(1 - abs(q / thick + 0.4) * 3, 0, 1))
    return inside, np.where((abs(p / length + 0.15) < 0.25), colour(0.9, 0.88, 0.85) * (0.8 + 0.2 * folds), body)


BAGS = [colour(*c) for c in ((0.88, 0.88, 0.9), (0.9, 0.5, 0.15), (0.2, 0.4, 0.75), (0.85, 0.8, 0.3), (0.75, 0.2, 0.2))]
BOXES = [colour(*c) for c in ((0.66, 0.48, 0.3), (0.75, 0.58, 0.38), (0.8, 0.8, 0.78), (0.25, 0.5, 0.35))]
BOTTLES = [colour(*c) for c in ((0.15, 0.45, 0.2), (0.3, 0.6, 0.85), (0.8, 0.15, 0.12), (0.45, 0.25, 0.1))]
DRAW = {BUMP: speed_bump, DETERIORATION: deterioration, POTHOLE: pothole, LITTER: litter}


# Where things lie


def put_first(rng: Generator, label: int, view: View, half: float, together: bool) -> Thing:
    """Anywhere on the road, larger where it is near; speed bumps beside each other are parts of the width."""
    height, width = view.row.shape
    y = int(height * (0.98 - 0.8 * rng.random() ** 0.8))
    xs = np.flatnonzero((abs(view.across[y]) < half * 0.9) & (view.row[y] > 0.06 * height))
    if len(xs) == 0:
        y, xs = height - 1 - height // 8, np.arange(width // 4, width - width // 4)
    x = int(rng.choice(xs))
    scale, flat = view.scale[y, x], np.clip(view.row[y, x] / (0.55 * width), 0.42, 0.75)
    if label == BUMP:
        parts = rng.integers(2, 4) if together else 1
        a = half * scale / parts
        b = max(rng.uniform(0.2, 0.36) * scale, a / 10)
        x = x - view.across[y, x] * scale + (0 if parts == 1 else (rng.integers(parts) + 0.5 - parts / 2) * 2 * a)
    elif label == DETERIORATION:
        a = rng.uniform(0.4, 1.1) * scale
        b = a * flat * rng.uniform(0.8, 1.3)
    elif label == POTHOLE:
        a = rng.uniform(0.22, 0.7) * scale
        b = a * flat * rng.uniform(0.85, 1.3)
    else:
        a = rng.uniform(0.22, 0.6) * scale
        b = a * rng.uniform(0.6, 1.1)
    return resized(Thing(label, x, y, a, b), height, width)


def resized(thing: Thing, height: int, width: int) -> Thing:
    """Neither too small to be seen nor, speed bumps excepted, wider than half of the picture."""
    least = SMALLEST / 2 + (3 if thing.label == DETERIORATION else 1.2)
    most = width if thing.label == BUMP else 0.22 * width
    return thing._replace(a=float(np.clip(thing.a, least, most)), b=float(np.clip(thing.b, least, 0.22 * height)))


def put_beside(rng: Generator, other: Thing, label: int, view: View) -> Thing:
    """Where its outline meets that of another thing, rather before it than behind."""
    height, width = view.row.shape
    if label == BUMP == other.label:
        if rng.random() < 0.6:  # beside each other
            return other._replace(x=other.x + rng.choice([-1, 1]) * 2 * other.a)
        return other._replace(y=other.y + 2 * other.b + 0.5)
    grow = rng.uniform(0.75, 1.35)
    size = (other.a, other.b) if label == other.label else (max(0.6 * other.b, 5), max(0.5 * other.b, 5))
    thing = resized(Thing(label, 0, 0, size[0] * grow, size[1] * grow * rng.uniform(0.85, 1.15)), height, width)
    angle, near = rng.uniform(-0.4, np.pi + 0.4), rng.uniform(0.78, 0.95)
    x = other.x + np.cos(angle) * (other.a + thing.a) * near
    return thing._replace(x=x, y=other.y + np.sin(angle) * (other.b + thing.b) * near)


def plan(rng: Generator) -> list[list[int]]:
    """Groups of things of one class that touch, in the order of drawing: what lies flat comes first."""
    left, groups = int(rng.integers(1, 7)), []
    while left:
        size = min(left, int(rng.choice([1, 2, 3], p=[0.44, 0.31, 0.25])))
        groups.append([int(rng.integers(1, 5))] * size)
        left -= size
    return sorted(groups, key=lambda group: (DETERIORATION, POTHOLE, BUMP, LITTER).index(group[0]))


def overlap(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """IoU of two boxes: top, left, bottom, right."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = np.prod(np.maximum(sides, 0))
    return float(shared / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - shared))


def box_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Top, left, bottom, right: the first pixels inside, and the first behind."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], np.int64)


class Canvas:
    """A picture that is being drawn, and which thing is seen at each pixel."""

    def __init__(self, rng: Generator, height: int, width: int):
        self.image, self.view, self.half = scene(rng, height, width)
        self.ground = self.image.copy()
        self.sun = int(rng.choice([-1, 1]))
        self.tilt = float(self.view.row[0, 1] - self.view.row[0, 0])
        self.seen = np.full((height, width), -1, np.int16)
        self.things: list[Thing] = []
        self.whole: list[int] = []  # pixels of each thing
        self.boxes: list[NDArray[np.int64]] = []

    def add(self, rng: Generator, thing: Thing) -> bool:
        """Draw it, unless it or something before it would then be hidden, tiny, or hard to tell from its like."""
        height, width = self.seen.shape
        if not (0 <= thing.x < width and 0 <= thing.y < height):
            return False
        if abs(self.view.across[int(thing.y), int(thing.x)]) > self.half:
            return False
        reach = 1.3 * thing.b + 3 + (abs(self.tilt) * thing.a if thing.label == BUMP else 0)
        top, bottom = max(int(thing.y - reach), 0), min(int(thing.y + reach), height)
        left, right = max(int(thing.x - 1.3 * thing.a) - 3, 0), min(int(thing.x + 1.3 * thing.a) + 3, width)
        if right - left < SMALLEST or bottom - top < SMALLEST:
            return False
        part = (slice(top, bottom), slice(left, right))
        around = self.ground[:, top:bottom, left:right]
        dx = np.broadcast_to(np.arange(left, right, dtype=np.float32) - np.float32(thing.x), self.seen[part].shape)
        dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(thing.y)
        dy = dy + np.float32(self.tilt if thing.label == BUMP else 0) * dx
        inside, paint = DRAW[thing.label](rng, dx, dy, thing.a, thing.b, around, self.sun)
        mask = inside > 0
        if not mask.any():
            return False
        seen = np.where(mask, len(self.things), self.seen[part])
        boxes = [*self.boxes, box_of(mask) + np.array([top, left, top, left])]
        if (boxes[-1][2:] - boxes[-1][:2]).min() < SMALLEST:
            return False
        for other in np.unique(self.seen[part][mask]):
            if other >= 0:
                still = self.seen == other
                still[part] = seen == other
                if still.sum() < max(12, LEAST_VISIBLE * self.whole[other]):
                    return False
                boxes[other] = box_of(still)
                if (boxes[other][2:] - boxes[other][:2]).min() < SMALLEST:
                    return False
        same = [box for box, other in zip(boxes, self.things, strict=False) if other.label == thing.label]
        if any(overlap(box, boxes[-1]) > MOST_ALIKE for box in same):
            return False

        image = self.image[:, top:bottom, left:right]
        if thing.label == LITTER:  # stands on the ground, and darkens it
            image *= 1 - 0.5 * np.clip(1 + inside / np.float32(max(0.35 * thing.b, 2)), 0, 1)
        blend(image, ramp(inside), paint)
        self.seen[part] = seen
        self.things.append(thing)
        self.whole.append(int(mask.sum()))
        self.boxes = boxes
        return True


def draw(seed: Sequence[int] | int, height: int = 200, width: int = 320) -> Instances:
    """A road with 1 to 6 things on it: one seed, one picture. Height and width are at least 64 pixels.

    Seeds of one length give different pictures; numpy takes (1,) and (1, 0) for the same.
    """
    if min(height, width) < 64:
        raise ValueError(f"{height} x {width}: a drawn road is at least 64 pixels high and wide")
    rng = np.random.default_rng(seed)
    canvas = Canvas(rng, height, width)
    for group in plan(rng):
        first = None
        for label in group:
            for _ in range(8):
                if first is not None:
                    thing = put_beside(rng, first, label, canvas.view)
                elif label == LITTER and canvas.things and rng.random() < 0.35:
                    thing = put_beside(rng, canvas.things[rng.integers(len(canvas.things))], label, canvas.view)
                else:
                    thing = put_first(rng, label, canvas.view, canvas.half, len(group) > 1)
                if canvas.add(rng, thing):
                    first = thing
                    break
    while not canvas.things:
        canvas.add(rng, put_first(rng, LITTER, canvas.view, canvas.half, False))
    cast_shadows(rng, canvas.image, canvas.view)
    labels = np.array([thing.label for thing in canvas.things], np.int64)
    masks = canvas.seen == np.arange(len(labels))[:, None, None]
    return Instances(photograph(rng, canvas.image), labels, masks, np.zeros(len(labels), np.bool_))
