"""Shapes -> a mask: points are checked, outlines are filled by Pillow, later over earlier ones.

Faults are raised as `ValueError` with a clause, such as "it has 2 points, but needs 3". All formats
have the same rule for what is outside of the photograph, see `require_inside`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from fcn_keras.errors import UserError

Points = Sequence[tuple[float, float]]
MAX_COORDINATE = 1_000_000  # pixels, far beyond any photograph
REACH = 1  # how far a shape may go beyond the photograph, in its longer sides
MAX_POINTS = 100_000  # of a polygon: Pillow compares each with each row
MAX_RADIUS = 20_000  # the squares of larger ones overflow in Pillow
ELLIPSE_POINTS = 360
MAX_FAULTS = 100


def checked_points(value, least: int, most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """A list of `least` to `most` pairs of numbers; raises `ValueError` for anything else."""
    if not isinstance(value, list):
        raise ValueError("its points are not a list")
    if not least <= len(value) <= most:
        wanted = f"at least {least}" if len(value) < least else f"at most {most}"
        wanted = str(least) if least == most else wanted
        raise ValueError(f"it has {len(value)} points, but needs {wanted}")
    for point in value:
        if not isinstance(point, list) or len(point) != 2:
            raise ValueError(f"{reprlib.repr(point)} is not a point [x, y]")
        for number in point:
            checked_number(number)
    return [(float(x), float(y)) for x, y in value]


def checked_number(value, most: float = MAX_COORDINATE) -> float:
    """A finite number of an ordinary size; raises `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{reprlib.repr(value)} is not a number")
    if not -most <= value <= most:  # nor is NaN
        raise ValueError(f"{reprlib.repr(value)} is not between -{most:,} and {most:,}")
    return float(value)


def require_inside(points, height: int, width: int) -> None:
    """Raises `ValueError` for points of a shape that are no part of a photograph's drawing.

    Many tools let people draw over the edge, and such parts are cut off. But a shape must not be
    outside as a whole, nor reach so far that its coordinates are not this photograph's.
    """
    (left, top), (right, bottom) = np.min(points, axis=0), np.max(points, axis=0)
    reach, size = REACH * max(height, width), f"{height}×{width} (height×width)"
    if right < 0 or bottom < 0 or left >= width or top >= height:
        raise ValueError(f"it is outside of the photograph of {size}")
    if not (min(left, top) >= -reach and right <= width + reach and bottom <= height + reach):
        raise ValueError(f"it reaches far beyond the photograph of {size}")


def require_size(recorded, size, place) -> None:
    """Raises `UserError` if labels were drawn at another height and width."""
    if recorded != size:
        height, width = (f"{side!s:.40}" for side in recorded)  # a stranger's values
        raise UserError(
            f"{place}: labelled at {height}×{width} (height×width), but the photograph "
            f"is {size[0]}×{size[1]}. Use the photograph that was labelled."
        )


def most_faults(faults: list[str], place) -> list[str]:
    """The faults of one image's shapes: those beyond `MAX_FAULTS` become a count."""
    more = len(faults) - MAX_FAULTS
    return faults[:MAX_FAULTS] + [f"{place}: {more} more faulty shapes."] * (more > 0)


class Canvas:
    """A mask of class ids that shapes are drawn on.

    Outlines belong to the shape, so shapes are up to a pixel larger than their area.
    """

    def __init__(self, height: int, width: int, background: int):
        self._image = Image.new("L", (width, height), background)
        self._draw = ImageDraw.Draw(self._image)

    def mask(self) -> np.ndarray:
        """The mask as uint8 `(H, W)`."""
        return np.array(self._image)

    def polygon(self, points: Points, id: int) -> None:
        self._require_inside(points)
        self._draw.polygon(points, fill=id, outline=id)

    def rectangle(self, points: Points, id: int) -> None:
        """Fills between two opposite corners, which belong to it."""
        self._require_inside(points)
        (left, right), (top, bottom) = (sorted(axis) for axis in zip(*points))
        self._draw.rectangle((left, top, right, bottom), fill=id, outline=id)

    def disc(self, center: tuple[float, float], radius: float, id: int) -> None:
        if radius > MAX_RADIUS:
            raise ValueError(f"its radius is {radius:.0f}, but may be {MAX_RADIUS} at most")
        (x, y), r = center, radius
        self._require_inside([(x - r, y - r), (x + r, y + r)])
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=id, outline=id)

    def ellipse(self, center, radii, rotation: float, id: int) -> None:
        """Fills an ellipse; `rotation` is in degrees, clockwise on the screen."""
        (x, y), (a, b), turn = center, radii, math.radians(rotation)
        points = []
        for step in range(ELLIPSE_POINTS):
            u = a * math.cos(math.tau * step / ELLIPSE_POINTS)
            v = b * math.sin(math.tau * step / ELLIPSE_POINTS)
            points.append(
                (
                    x + u * math.cos(turn) - v * math.sin(turn),
                    y + u * math.sin(turn) + v * math.cos(turn),
                )
            )
        self.polygon(points, id)

    def line(self, points: Points, width: int, id: int) -> None:
        self._require_inside(points)
        self._draw.line(points, fill=id, width=width)

    def stamp(self, mask: np.ndarray, left: int, top: int, id: int) -> None:
        """Fills where a mask, bool `(h, w)`, is true."""
        self._require_inside([(left, top), (left + mask.shape[1] - 1, top + mask.shape[0] - 1)])
        self._image.paste(id, (left, top), Image.fromarray(mask))

    def _require_inside(self, points: Points) -> None:
        require_inside(points, self._image.height, self._image.width)
