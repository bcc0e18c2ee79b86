"""Roads in perspective without things on them: sky, verge, asphalt and paint, shadows, and a camera's faults.

A pixel that lies `row` under the horizon shows the ground `focal length / scale` metres away, where a metre is `scale =
row / camera height` pixels wide. A road is painted in these coordinates.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Floats = NDArray[np.float32]
NOISE = 512  # pixels: side of the textures, which repeat


class View(NamedTuple):
    """Where the ground is seen, [H, W] each."""

    row: Floats  # pixels under the horizon, which may be tilted
    scale: Floats  # pixels a metre
    across: Floats  # metres right of the middle of the road
    along: Floats  # metres from the camera


@cache
def smooth_noise() -> Floats:
    """[512, 512] in 0 .. 1: sums of waves down to 4 pixels, which repeat without a seam."""
    rng = np.random.default_rng(1)
    frequency = np.hypot(np.fft.fftfreq(NOISE)[:, None], np.fft.rfftfreq(NOISE)[None]) * NOISE
    spectrum = np.fft.rfft2(rng.standard_normal((NOISE, NOISE))) / np.maximum(frequency, 4) ** 1.5
    noise = np.fft.irfft2(spectrum * (frequency > 0) * (frequency < NOISE / 4))
    return np.clip(0.5 + noise / noise.std() * 0.2, 0, 1).astype(np.float32)


@cache
def grain() -> Floats:
    """[2**20] normal: asphalt's stones, and the noise of a camera."""
    return np.random.default_rng(2).standard_normal(2**20).astype(np.float32)


@cache
def cracks() -> Floats:
    """[256, 256] in 0 .. 1: 0 on the borders of about 12 x 12 cells, which repeat without a seam."""
    rng = np.random.default_rng(3)
    centres = ((np.stack(np.meshgrid(np.arange(12), np.arange(12)), -1).reshape(-1, 2) + rng.random((144, 2))) / 12) % 1
    grid = (np.arange(256, dtype=np.float32) / 256)[:, None]
    dy, dx = (np.abs((grid - centre + 0.5) % 1 - 0.5).astype(np.float32) for centre in centres.T)
    distances = np.sqrt(dy[:, None] ** 2 + dx[None] ** 2)  # [256, 256, 144]
    distances.partition(1, axis=-1)
    return np.clip((distances[..., 1] - distances[..., 0]) * 12 / 0.35, 0, 1)


def speckle(rng: Generator, *shape: int) -> Floats:
    """A random part of the grain in any shape, again from its start where it ends; not to be written to."""
    first, count = rng.integers(2**19), int(np.prod(shape))
    part = grain()[first : first + count]
    return (part if len(part) == count else np.resize(part, count)).reshape(shape)


def colour(*rgb: float) -> Floats:
    """[3, 1, 1] to be multiplied with [H, W]."""
    return np.array(rgb, np.float32)[:, None, None]


def ramp(distance: Floats) -> Floats:
    """How much of a pixel is covered by what ends `distance` pixels further out."""
    return np.clip(distance + 0.5, 0, 1)


def look_up(texture: Floats, y: Floats, x: Floats) -> Floats:
    """A repeating texture, its side a power of two, at the pixels y, x (any size, rounded down)."""
    side = len(texture) - 1
    return texture[y.astype(np.int32) & side, x.astype(np.int32) & side]


@cache
def tiled_noise() -> Floats:
    """[1024, 1024]: the smooth noise four times, so that each part of its size is a slice."""
    return np.tile(smooth_noise(), (2, 2))


def window(rng: Generator, height: int, width: int) -> Floats:
    """A random part [height, width] of the smooth noise, not to be written to."""
    top, left = rng.integers(NOISE, size=2)
    if max(height, width) <= NOISE:
        return tiled_noise()[top : top + height, left : left + width]
    side = NOISE - 1
    return smooth_noise()[(top + np.arange(height))[:, None] & side, (left + np.arange(width)) & side]


def blend(image: Floats, cover: Floats, paint: Floats) -> None:
    """Paint [3, H, W] or [3, 1, 1] over an image [3, H, W] in place where it covers [H, W]."""
    image += cover * (paint - image)


def scene(rng: Generator, height: int, width: int) -> tuple[Floats, View, float]:
    """A road without things, [3, H, W] in about 0 .. 1; where its ground is seen; half of its width in metres."""
    x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    camera, focal = rng.uniform(1.4, 3.2), rng.uniform(0.5, 0.75) * width
    horizon, vanishing = rng.uniform(0.08, 0.34) * height, rng.uniform(0.3, 0.7) * width
    tilt, curvature = rng.normal(0, 0.03), rng.normal(0, 0.002)
    row = (y - horizon + np.float32(tilt) * (x - width / 2)).astype(np.float32)
    scale = np.maximum(row, 1.5) / np.float32(camera)
    along = np.float32(focal) / scale
    half = rng.uniform(2.4, 4.2)
    middle = rng.uniform(-0.5, 0.5) * half
    across = (x - np.float32(vanishing)) / scale - np.float32(middle) - np.float32(curvature) * along**2
    view = View(row, scale, across, along)

    image = np.empty((3, height, width), np.float32)
    reach = abs(tilt) * width / 2 + 2
    above = min(int(np.ceil(horizon + reach)), height)  # no sky from this row on
    below = int(max(horizon - reach, 0))  # no ground before this row
    image[:, :above] = surroundings(rng, row[:above], x, vanishing, height)
    seen = View(*(values[below:] for values in view))
    coarse = look_up(smooth_noise(), seen.along * 20 + rng.integers(NOISE), seen.across * 20 + rng.integers(NOISE))
    verge = colour(*VERGES[rng.integers(len(VERGES))]) * np.float32(rng.uniform(0.8, 1.2))
    ground = verge * (0.7 + coarse * (0.36 + 0.48 * window(rng, *coarse.shape)))
    edge = np.float32(half) + 0.25 * (coarse - 0.5)
    blend(ground, ramp((edge - np.abs(seen.across)) * seen.scale), asphalt(rng, seen, coarse, half))
    blend(image[:, below:above], ramp(row[below:above]), ground[:, : above - below])
    image[:, above:] = ground[:, above - below :]
    return image, view, half


VERGES = ((0.27, 0.36, 0.16), (0.36, 0.38, 0.2), (0.5, 0.43, 0.32), (0.55, 0.53, 0.48), (0.33, 0.28, 0.2))


def surroundings(rng: Generator, row: Floats, x: Floats, vanishing: float, height: int) -> Floats:
    """[3, rows, W] of a picture of some height: a sky with clouds, and trees and houses before it."""
    rows, width = row.shape
    clouds = window(rng, rows, width)
    sky = colour(0.5, 0.66, 0.9) if rng.random() < 0.6 else colour(0.72, 0.75, 0.8)
    image = sky + (colour(0.92, 0.92, 0.93) - sky) * clouds
    leaves = window(rng, rows, width)
    above = -row
    away = np.abs(x - vanishing) / width
    line = smooth_noise()[rng.integers(NOISE)][(x * rng.uniform(1, 3)).astype(int) % NOISE]
    far = ramp(height * (0.03 + 0.12 * line) * (0.3 + away) * 1.5 - above)
    blend(image, far, colour(0.3, 0.4, 0.3) * (0.6 + 0.5 * leaves))
    for _ in range(rng.integers(4)):  # houses
        left, size = rng.uniform(0, width), rng.uniform(0.08, 0.2) * width
        tall = size * rng.uniform(0.5, 1.0) * (0.4 + abs(left - vanishing) / width)
        wall = rng.uniform(0.45, 0.85) * colour(1, rng.uniform(0.85, 1), rng.uniform(0.7, 0.95))
        u = x - np.float32(left)
        blend(image, ramp(size / 2 - np.abs(u)) * ramp(tall - above), wall)
        panes = ((u / size * 5) % 1 > 0.5) & ((above / tall * 3) % 1 > 0.5)
        blend(image, 0.6 * panes * ramp(size / 2 - np.abs(u)) * ramp(tall * 0.95 - above), colour(0.2, 0.22, 0.28))
        blend(image, ramp(tall * 0.4 - np.abs(u) * 0.6 - np.abs(above - tall)), colour(0.4, 0.22, 0.18))
    if rng.random() < 0.7:  # trees near by
        near = np.clip(1.6 * smooth_noise()[rng.integers(NOISE)][(x * 2).astype(int) % NOISE] - 0.4, 0, 1)
        cover = ramp(height * near * (away - 0.1) * 0.9 - above + 8 * (leaves - 0.5))
        blend(image, cover, colour(0.17, 0.27, 0.12) * (0.4 + 1.1 * leaves**2 + 0.4 * clouds))
    return image


def asphalt(rng: Generator, view: View, coarse: Floats, half: float) -> Floats:
    """[3, H, W]: asphalt with its stains, tar and paint; the latter are no things to be found."""
    height, width = view.row.shape
    stones = speckle(rng, height, width)
    tone = rng.uniform(0.3, 0.52)
    tracks = np.cos(view.across * np.float32(2 * np.pi / 1.7)) * 0.02
    fine = stones * np.clip(0.02 + view.row * np.float32(0.04 / height), 0, 0.05)
    grey = tone * (0.88 + 0.24 * coarse) + fine * rng.uniform(0.4, 1.1) + tracks * rng.uniform(-1, 1)
    tar = np.float32(tone * rng.uniform(0.6, 0.8)) * (0.95 + 0.1 * coarse) + 0.3 * fine
    for _ in range(rng.integers(3)):  # smooth patches with straight edges
        x, z = rng.uniform(-half, half), rng.uniform(2, 14)
        inside = np.minimum(rng.uniform(0.4, 1.5) - abs(view.across - x), rng.uniform(0.5, 2.5) - abs(view.along - z))
        grey += ramp(inside * view.scale) * (tar - grey)
    if rng.random() < 0.3:  # a sealed joint
        middle = rng.uniform(-half, half) + 0.15 * np.sin(view.along * np.float32(rng.uniform(0.3, 2)))
        grey += 0.8 * ramp((0.04 - abs(view.across - middle)) * view.scale) * (tar - grey)
    image = grey * colour(1, rng.uniform(0.96, 1.01), rng.uniform(0.9, 1.04))

    paint = colour(0.86, 0.86, 0.82) if rng.random() < 0.75 else colour(0.85, 0.66, 0.2)
    worn = np.clip(rng.uniform(0.8, 1.6) - coarse, 0.1, 0.95)
    period, style = rng.uniform(3, 7), rng.random()
    if style < 0.8:  # the middle, broken or not
        stripe = ramp((0.07 - abs(view.across)) * view.scale)
        if style < 0.6:
            stripe = stripe * (view.along % np.float32(period) < period * 0.5)
        blend(image, stripe * worn, paint)
    if rng.random() < 0.6:  # the edges
        blend(image, ramp((0.06 - abs(abs(view.across) - half + 0.3)) * view.scale) * worn, colour(0.86, 0.86, 0.82))
    if rng.random() < 0.15:  # a line to stop at
        inside = np.minimum(0.2 - abs(view.along - rng.uniform(3, 9)), half - abs(view.across))
        blend(image, ramp(inside * view.scale) * worn, colour(0.86, 0.86, 0.82))
    return image


def cast_shadows(rng: Generator, image: Floats, view: View) -> None:
    """Shadows of trees and of something that stands beside the road fall over ground and things."""
    if rng.random() < 0.45:
        return
    depth = rng.uniform(0.3, 0.55)
    if rng.random() < 0.6:  # leaves, more of them on one side
        spots = look_up(smooth_noise(), view.along * 28 + rng.integers(NOISE), view.across * 28 + rng.integers(NOISE))
        side = rng.choice([-1, 1]) * view.across * rng.uniform(0.04, 0.12) + rng.uniform(-0.15, 0.05)
        shade = np.clip((spots - 0.5 + side) * 8 + 0.5, 0, 1)
    else:  # a pole, a wall or a car: a band at some angle
        x, z, turn = rng.uniform(-2, 2), rng.uniform(3, 9), rng.uniform(-1, 1)
        inside = rng.uniform(0.3, 1.2) - abs(view.along - z + turn * (view.across - x))
        shade = np.clip(inside * view.scale / 2 + 0.5, 0, 1)
    shade = shade * ramp(view.row) * np.float32(depth)
    image *= 1 - shade * colour(1, 0.97, 0.88)


def photograph(rng: Generator, image: Floats) -> NDArray[np.uint8]:
    """[3, H, W] as a camera sees it: light and its colour, blur, coarse colours, noise. Overwrites the image."""
    _, height, width = image.shape
    warm = rng.uniform(-0.1, 0.1)
    gain, contrast = rng.uniform(0.75, 1.2), rng.uniform(0.85, 1.15)
    image *= gain * contrast * colour(1 + warm, 1, 1 - warm)
    image += np.float32(0.45 * (1 - contrast))
    grey = image.mean(0)
    image -= grey
    image[:, :-1] += image[:, 1:]
    image[:, -1] *= 2
    image[..., :-1] += image[..., 1:]
    image[..., -1] *= 2
    side = np.float32(rng.uniform(0, 0.2))
    for lines in (grey, grey.T):
        lines[1:-1] = (1 - 2 * side) * lines[1:-1] + side * (lines[:-2] + lines[2:])
    image *= 0.25
    image += grey
    image += speckle(rng, 3, height, width) * rng.uniform(0.006, 0.03)
    return (np.clip(image, 0, 1, out=image) * 255 + 0.5).astype(np.uint8)
