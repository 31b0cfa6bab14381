"""The pixels that a shape covers, by the rules of COCO's API and of OpenCV.

Each function takes the height and width of a mask, and returns a window of it: left, top and
bool `(h, w)`. It raises `ValueError`, with a clause as its message, if the shape is outside of the
mask or is not sound.
"""

from __future__ import annotations

import math

import numpy as np

from fcn_keras.data.conversion.shapes import require_inside

Size = tuple[int, ...]
Window = tuple[int, int, np.ndarray]
MAX_OUTLINE = 5_000_000  # steps of a fifth of a pixel, each of some 100 bytes


def fill_polygon(size: Size, points: np.ndarray) -> Window:
    """The pixels in a polygon by the even-odd rule; `points` are float64 `(N, 2)` of x and y.

    Equals `rleFrPoly` of COCO's API: outlines run on a grid of fifths of pixels, and where they
    pass the middle of a column, the pixels below begin or end.
    """
    left, top, right, bottom = _window(size, points)
    start = np.trunc(5 * points + 0.5).astype(int)
    end = np.roll(start, -1, axis=0)
    steep = np.ptp([start, end], axis=0) @ [1, -1] < 0
    start[steep], end[steep] = start[steep, ::-1], end[steep, ::-1]  # the longer way is first
    backward = start[:, 0] > end[:, 0]
    low, high = (np.where(backward[:, None], *ends) for ends in ((end, start), (start, end)))
    length, rise = (high - low).T
    if (length + 1).sum() > MAX_OUTLINE:
        raise ValueError(f"its outline is longer than {MAX_OUTLINE // 5:,} pixels")
    edge = np.repeat(np.arange(len(points)), length + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(backward[edge], length[edge] - step, step)
    across = np.trunc(low[edge, 1] + (rise / np.maximum(length, 1))[edge] * step + 0.5).astype(int)
    along = low[edge, 0] + step
    x, y = np.where(steep[edge], (across, along), (along, across))
    lower_x, lower_y = np.minimum(x[1:], x[:-1]), np.minimum(y[1:], y[:-1])
    passed = (x[1:] != x[:-1]) & (lower_x % 5 == 2)
    column, row = lower_x[passed] // 5, (lower_y[passed] + 2) // 5
    seen = (left <= column) & (column < right)
    crossings = np.zeros((bottom - top + 1, right - left), bool)
    places = np.clip(row[seen], top, bottom) - top, column[seen] - left
    np.logical_xor.at(crossings, places, True)
    return left, top, np.logical_xor.accumulate(crossings)[:-1]


def fill_ellipse(size: Size, center, radii, rotation: float) -> Window:
    """The pixels in an ellipse; `rotation` is in degrees, clockwise on the screen.

    Centre and radii are rounded to whole pixels and the outline belongs to it, as CVAT does with
    OpenCV; 0.4% of the pixels of random ellipses differ.
    """
    if min(radii) < 0:
        raise ValueError("it has a negative radius")
    (x, y), (a, b) = map(round, center), (round(radius) + 0.5 for radius in radii)
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    reach = np.array([math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)])
    left, top, right, bottom = _window(size, np.array([(x, y) - reach, (x, y) + reach + 1]))
    rows, columns = np.ogrid[top - y : bottom - y, left - x : right - x]
    along, across = columns * cos + rows * sin, rows * cos - columns * sin
    return left, top, (along / a) ** 2 + (across / b) ** 2 <= 1


def fill_runs(size: Size, box: tuple[int, int, int, int], runs: np.ndarray) -> Window:
    """The pixels in a mask that is encoded by rows: int64 `(N,)`, the first run of zeros.

    Args:
        size: The height and width of the mask.
        box: Left, top, width and height of the part that is encoded.
        runs: The lengths.
    """
    left, top, width, height = box
    fits = min(left, top) >= 0 and left + width <= size[1] and top + height <= size[0]
    if min(width, height) < 1 or not fits:
        raise ValueError(f"its box, {width}×{height} at {left}, {top}, is outside or empty")
    if not 0 <= runs.min() <= runs.max() <= width * height or runs.sum() != width * height:
        raise ValueError(f"its runs do not fill its box of {width}×{height}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return left, top, inside.reshape(height, width)


def _window(size: Size, points: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what is around points and in the mask."""
    require_inside(points, *size)
    left, top = np.floor(points.min(axis=0)).astype(int)
    right, bottom = np.ceil(points.max(axis=0)).astype(int)
    return max(left, 0), max(top, 0), min(right, size[1]), min(bottom, size[0])
