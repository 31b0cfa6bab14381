"""One scene of the sample data set: things on a patterned background, in one light."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fcn_keras.data.sample.shapes import MAIN, THINGS, Part, rotation
from fcn_keras.data.split import IGNORE_ID, LabelSet

SAMPLE_LABELS = LabelSet(("background", *THINGS))
IMAGE_SIZE = (160, 240)  # height, width in pixels

_OVERSAMPLING = 3  # outlines are drawn this much larger and shrunk, which smooths their edges


def draw_scene(
    rng: np.random.Generator, size: tuple[int, int] = IMAGE_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """One to three things on a patterned background, in one light.

    Args:
        rng: Random generator; the same state gives the same scene.
        size: Height and width in pixels.

    Returns:
        The image, uint8 `(H, W, 3)` in RGB, and its mask, uint8 `(H, W)` of
        the ids of `SAMPLE_LABELS`, with 255 along every outline.
    """
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([np.cos(angle), np.sin(angle)])  # (x, y) towards the lamp
    canvas = _ground(rng, size)
    backdrop = canvas.mean(axis=(0, 1))
    owner = np.zeros(size, np.uint8)  # which thing a pixel shows; 0 is the background
    class_of = [0]
    for x, y, radius in _places(rng, size):
        class_id = int(rng.integers(1, len(SAMPLE_LABELS)))
        parts = THINGS[SAMPLE_LABELS.names[class_id]](rng)
        parts = _pose(rng, parts, x, y, radius)
        paint, cover, painted = _rasterise(parts, _colors(rng, backdrop), size)
        paint = _shade(rng, paint, cover, painted, light, radius)
        canvas = canvas * (1 - 0.5 * _shadow(cover, light, radius))[..., None]
        canvas += (paint - canvas) * cover[..., None]
        owner[cover > 0.5] = len(class_of)
        class_of.append(class_id)
    mask = np.array(class_of, np.uint8)[owner]
    mask[_borders(owner)] = IGNORE_ID
    return _expose(rng, canvas, light), mask


def _places(rng, size):
    """Centres and radii of one to three things, none mostly hidden by a later one."""
    count = rng.choice([1, 2, 3], p=[0.35, 0.45, 0.2])
    largest = {1: 0.5, 2: 0.42, 3: 0.34}[int(count)]
    places = []
    for _ in range(20):  # a crowded scene may end up with fewer
        radius = min(size) * rng.uniform(largest * 0.65, largest)
        y, x = (rng.uniform(0.65 * radius, side - 0.65 * radius) for side in size)
        if all(np.hypot(x - a, y - b) > 0.75 * (radius + r) for a, b, r in places):
            places.append((x, y, radius))
        if len(places) == count:
            break
    return places


def _pose(rng, parts: list[Part], x: float, y: float, radius: float) -> list[Part]:
    """Flips, tilts, stretches and slants the parts, then moves them to their place."""
    stretch = np.exp(rng.uniform(-0.15, 0.15))
    matrix = rotation(rng.normal(0, 0.22)) @ np.diag([stretch * rng.choice([-1, 1]), 1 / stretch])
    vanishing = rng.uniform(-0.18, 0.18, 2)  # perspective: one side is nearer than the other
    posed = []
    for part in parts:
        outline = part.outline / (1 + part.outline @ vanishing)[:, None] @ matrix.T
        posed.append(Part(outline * radius + (x, y), part.color))
    return posed


def _rasterise(parts: list[Part], colors: np.ndarray, size: tuple[int, int]):
    """Flat colours `(H, W, 3)`, cover `(H, W)` in 0..1, and where the main colour is, in 0..1."""
    height, width = (side * _OVERSAMPLING for side in size)
    # Uncovered pixels have the main colour too, so that edges are blended with no other.
    paint = Image.new("RGB", (width, height), tuple(colors[MAIN].astype(int)))
    cover, painted = Image.new("L", (width, height)), Image.new("L", (width, height))
    for part in parts:
        points = (part.outline * _OVERSAMPLING).ravel().tolist()
        ImageDraw.Draw(paint).polygon(points, fill=tuple(colors[part.color].astype(int)))
        ImageDraw.Draw(cover).polygon(points, fill=255)
        ImageDraw.Draw(painted).polygon(points, fill=255 * (part.color == MAIN))
    colors, *shares = (
        np.asarray(layer.reduce(_OVERSAMPLING), np.float32) for layer in (paint, cover, painted)
    )
    return colors, *(share / 255 for share in shares)


def _shade(rng, paint, cover, painted, light, radius):
    """Gives a thing a pattern on its main colour, a rounded rim and a lit side."""
    pattern = _pattern(rng, cover.shape, scale=0.35 * radius) - 0.5
    gain = 1 + rng.uniform(0.1, 0.5) * pattern * painted
    height = _blur(cover, 0.06 * radius)
    slope_y, slope_x = np.gradient(height)
    gain -= 0.055 * radius * (slope_x * light[0] + slope_y * light[1])
    gain *= 0.45 + 0.55 * np.clip(2.2 * height - 1.1, 0, 1) ** 0.5  # a dark rim sets it off
    return np.clip(paint * gain[..., None], 0, 255)


def _shadow(cover, light, radius):
    """A thing's soft shadow, on the side away from the light; `(H, W)` in 0..1."""
    down, right = (round(-0.14 * radius * part) for part in light[::-1])
    margin = max(abs(down), abs(right), 1)  # what rolls over an edge is cut off with it
    shifted = np.roll(np.pad(cover, margin), (down, right), (0, 1))
    return _blur(shifted[margin:-margin, margin:-margin], 0.07 * radius)


def _borders(owner: np.ndarray) -> np.ndarray:
    """Where one of the 8 neighbours belongs to another thing: bands 2 pixels wide."""
    height, width = owner.shape
    around = np.pad(owner, 1, mode="edge")
    return np.any(
        [around[y : y + height, x : x + width] != owner for y in range(3) for x in range(3)], axis=0
    )


def _ground(rng, size):
    """A background of two colours, mixed by a pattern and a slow gradient."""
    first, second = _color(rng), _color(rng)
    mix = 0.15 + 0.4 * rng.uniform(0.5, 1.0) * _pattern(rng, size, scale=0.14 * min(size))
    mix += 0.3 * _slope(rng.uniform(0, 2 * np.pi), size)
    return first + (second - first) * mix[..., None].astype(np.float32)


def _pattern(rng, size, scale: float):
    """Stripes, tiles, dots, waves, clouds or grain, `(H, W)` in 0..1."""
    kind = rng.integers(6)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    x, y = np.tensordot(rotation(rng.uniform(0, np.pi)), [x, y], 1) / (
        scale * rng.uniform(0.7, 1.4)
    ) + rng.uniform(0, 10, (2, 1, 1))
    wave_x, wave_y = np.sin(np.pi * x), np.sin(np.pi * y)
    if kind == 0:
        pattern = wave_x
    elif kind == 1:
        pattern = wave_x * wave_y * 2
    elif kind == 2:
        pattern = (np.abs(wave_x) + np.abs(wave_y) - 1.5) * 2
    elif kind == 3:
        pattern = np.sin(np.pi * (y + 0.4 * wave_x))
    else:
        octaves = (4.0, 2.0, 1.0) if kind == 4 else (1.0, 0.4, 0.15)
        return _noise(rng, size, [scale * octave for octave in octaves])
    return np.clip(0.5 + pattern * rng.uniform(0.7, 3), 0, 1)  # soft or crisp edges


def _noise(rng, size, grains):
    """Random fields with grains of several sizes in pixels, added up; in 0..1."""
    field = np.zeros(size, np.float32)
    for weight, grain in zip((1, 0.5, 0.3), grains, strict=True):
        coarse = [max(2, int(side / grain) + 1) for side in size]
        knots = Image.fromarray(rng.random(coarse, np.float32))
        field += weight * np.asarray(knots.resize(size[::-1], Image.Resampling.BICUBIC))
    return np.clip((field / 1.8 - 0.5) * 1.6 + 0.5, 0, 1)


def _slope(angle, size):
    """A ramp over the image that rises towards an angle, `(H, W)` in 0..1."""
    y, x = np.ogrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    return 0.5 + (x * np.cos(angle) + y * np.sin(angle)) / 2.83


def _color(rng):
    """The one rule for colours: any hue, neither grey nor black; `(3,)` in 0..255."""
    hue, saturation, value = rng.random(), rng.uniform(0.3, 0.85), rng.uniform(0.5, 0.95)
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value), np.float32) * 255


def _colors(rng, backdrop):
    """A thing's MAIN, ACCENT, LIGHT and DARK, `(4, 3)`; MAIN contrasts with the background."""
    choices = [_color(rng) for _ in range(3)]
    choices.sort(key=lambda color: -np.abs(color - backdrop).sum())
    main, accent = choices[:2]
    return np.stack([main, accent, 0.3 * _color(rng) + 0.7 * 250, 0.3 * _color(rng)])


def _blur(field, radius):
    image = Image.fromarray((field * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), np.float32) / 255


def _expose(rng, canvas, light):
    """The light's tint, strength and fall-off, then the camera's noise; uint8."""
    ramp = 1 + rng.uniform(0, 0.35) * (
        _slope(np.arctan2(light[1], light[0]), canvas.shape[:2]) - 0.5
    )
    tint = rng.uniform(0.8, 1.15) * rng.uniform(0.92, 1.08, 3)
    grain = rng.normal(0, rng.uniform(1, 4), canvas.shape)
    return np.clip(canvas * ramp[..., None] * tint + grain, 0, 255).astype(np.uint8)
