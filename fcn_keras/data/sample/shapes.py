"""The things in the sample data set, as outlines of their parts.

Each thing is a short function of a random generator, so that no two cars are
alike. It works in unit coordinates: x to the right and y down, both in -1..1.
`scenes` places, paints and lights the parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

MAIN, ACCENT, LIGHT, DARK = range(4)  # the colours of every thing, chosen by the same rule


@dataclasses.dataclass(frozen=True)
class Part:
    """A filled polygon; later parts of a thing cover earlier ones.

    Args:
        outline: float `(N, 2)` of `(x, y)`, in unit coordinates until it is placed.
        color: Which of the thing's colours fills it: MAIN, ACCENT, LIGHT or DARK.
    """

    outline: np.ndarray
    color: int


def polygon(*corners: tuple[float, float]) -> np.ndarray:
    """Straight edges between `corners`, each edge cut up so that warps bend it evenly."""
    points = np.array(corners, float)
    steps = np.linspace(0, 1, 6, endpoint=False)[:, None]
    return np.concatenate(
        [a + steps * (b - a) for a, b in zip(points, np.roll(points, -1, axis=0), strict=True)]
    )


def box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """An upright rectangle."""
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def ellipse(x: float, y: float, across: float, down: float | None = None, turn: float = 0.0):
    """An ellipse at `(x, y)` with half-axes `across` and `down`, rotated by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    points = np.stack([across * np.cos(angle), (down or across) * np.sin(angle)], axis=1)
    return points @ rotation(turn).T + (x, y)


def curve(*knots: tuple[float, float]) -> np.ndarray:
    """A closed smooth line through `knots` (a Catmull-Rom spline)."""
    p1 = np.array(knots, float)
    p0, p2, p3 = (np.roll(p1, shift, axis=0) for shift in (1, -1, -2))
    t = np.linspace(0, 1, 8, endpoint=False)[:, None, None]
    points = 0.5 * (
        2 * p1
        + (p2 - p0) * t
        + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
        + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )
    return points.swapaxes(0, 1).reshape(-1, 2)


def stroke(start: Sequence[float], end: Sequence[float], width: float) -> np.ndarray:
    """A straight line of the given width."""
    a, b = np.array(start, float), np.array(end, float)
    side = np.array([a[1] - b[1], b[0] - a[0]]) / np.linalg.norm(b - a) * width / 2
    return polygon(tuple(a + side), tuple(b + side), tuple(b - side), tuple(a - side))


def rotation(radians: float) -> np.ndarray:
    """The `(2, 2)` matrix that turns column vectors by `radians`."""
    cos, sin = np.cos(radians), np.sin(radians)
    return np.array([[cos, -sin], [sin, cos]])


def boat(rng: np.random.Generator) -> list[Part]:
    """A sailing boat: a hull under two sails."""
    top, mast = rng.uniform(-0.95, -0.8), rng.uniform(-0.1, 0.1)
    deck = rng.uniform(0.4, 0.5)
    hull = curve(
        (-0.95, deck),
        (-0.5, deck + 0.03),
        (0.5, deck + 0.03),
        (0.97, deck - 0.06),
        (0.78, 0.74),
        (0.5, 0.88),
        (-0.5, 0.88),
        (-0.78, 0.76),
    )
    parts = [
        Part(box(mast - 0.04, top, mast + 0.04, deck + 0.1), DARK),
        Part(polygon((mast, top), (mast - 0.34, top + 0.1), (mast, top + 0.2)), ACCENT),
        Part(
            curve(
                (mast + 0.06, top + 0.06),
                (mast + 0.5, -0.3),
                (0.85, deck - 0.14),
                (mast + 0.4, deck - 0.1),
                (mast + 0.06, deck - 0.1),
            ),
            MAIN,
        ),
        Part(
            curve(
                (mast - 0.08, top + 0.34),
                (mast - 0.4, -0.02),
                (-0.78, deck - 0.12),
                (mast - 0.3, deck - 0.1),
                (mast - 0.08, deck - 0.1),
            ),
            LIGHT,
        ),
        Part(hull, MAIN),
        Part(
            polygon(
                (-0.86, deck + 0.12), (0.88, deck + 0.1), (0.84, deck + 0.2), (-0.82, deck + 0.21)
            ),
            ACCENT,
        ),
    ]
    return parts + [Part(ellipse(x, 0.73, 0.06), LIGHT) for x in (-0.4, 0.0, 0.4)]


def car(rng: np.random.Generator) -> list[Part]:
    """A car from the side: wheels, windows and lamps."""
    roof, back, front = rng.uniform(-0.6, -0.45), rng.uniform(-0.75, -0.5), rng.uniform(0.3, 0.5)
    wheel = rng.uniform(0.2, 0.25)
    cabin = polygon(
        (back - 0.15, 0.0), (back + 0.08, roof), (front - 0.15, roof), (front + 0.2, 0.0)
    )
    glass = roof + 0.1
    rear = polygon((back + 0.02, -0.05), (back + 0.15, glass), (-0.12, glass), (-0.12, -0.05))
    ahead = polygon((-0.03, -0.05), (-0.03, glass), (front - 0.19, glass), (front + 0.08, -0.05))
    body = curve(
        (-0.97, 0.36),
        (-0.98, 0.05),
        (-0.8, -0.06),
        (0.4, -0.07),
        (0.85, 0.03),
        (0.99, 0.16),
        (0.98, 0.36),
        (0.7, 0.42),
        (-0.7, 0.42),
    )
    parts = [
        Part(cabin, MAIN),
        Part(body, MAIN),
        Part(rear, LIGHT),
        Part(ahead, LIGHT),
        Part(box(-0.94, 0.27, 0.96, 0.34), ACCENT),
        Part(stroke((-0.075, -0.02), (-0.075, 0.27), 0.03), DARK),
        Part(box(0.02, 0.06, 0.15, 0.1), DARK),
        Part(ellipse(0.88, 0.14, 0.07, 0.09), LIGHT),
        Part(ellipse(-0.91, 0.12, 0.05, 0.09), ACCENT),
    ]
    for x in (-0.55, 0.55):
        parts += [
            Part(ellipse(x, 0.4, wheel), DARK),
            Part(ellipse(x, 0.4, wheel * 0.5), LIGHT),
            Part(ellipse(x, 0.4, wheel * 0.2), DARK),
        ]
    return parts


def cat(rng: np.random.Generator) -> list[Part]:
    """The face of a cat: pointed ears, slit eyes and whiskers."""
    tip, eye = rng.uniform(0.6, 0.8), rng.uniform(0.13, 0.18)
    head = curve(
        (-0.9, 0.15),
        (-0.72, -0.35),
        (-0.3, -0.55),
        (0.3, -0.55),
        (0.72, -0.35),
        (0.9, 0.15),
        (0.6, 0.7),
        (0.0, 0.88),
        (-0.6, 0.7),
    )
    parts = []
    for side in (-1, 1):
        parts += [
            Part(polygon((side * 0.86, 0.0), (side * tip, -0.98), (side * 0.18, -0.5)), MAIN),
            Part(
                polygon((side * 0.74, -0.25), (side * (tip - 0.04), -0.8), (side * 0.36, -0.5)),
                ACCENT,
            ),
        ]
    parts += [Part(head, MAIN)]
    parts += [Part(stroke((x, -0.5), (x * 0.7, -0.25), 0.09), ACCENT) for x in (-0.2, 0.0, 0.2)]
    for side in (-1, 1):
        parts += [
            Part(ellipse(side * 0.38, -0.02, eye * 1.25, eye, side * 0.25), LIGHT),
            Part(ellipse(side * 0.38, -0.02, eye * 0.38, eye * 0.95), DARK),
            Part(ellipse(side * 0.17, 0.46, 0.22, 0.17), LIGHT),
        ]
        for y in (0.36, 0.48, 0.6):
            parts.append(
                Part(stroke((side * 0.3, 0.44 + (y - 0.44) * 0.4), (side * 0.7, y), 0.03), DARK)
            )
    parts.append(Part(ellipse(0.0, 0.63, 0.1, 0.07), DARK))
    return parts + [Part(polygon((-0.13, 0.25), (0.13, 0.25), (0.0, 0.42)), DARK)]


def fish(rng: np.random.Generator) -> list[Part]:
    """A fish from the side: a forked tail, fins and bands."""
    high = rng.uniform(0.42, 0.58)
    tail = polygon((-0.4, 0.0), (-0.97, -0.55), (-0.8, 0.0), (-0.97, 0.55))
    above = curve((-0.35, -0.2), (-0.2, -high - 0.28), (0.25, -high - 0.22), (0.45, -0.3))
    below = curve((-0.2, 0.2), (-0.3, high + 0.22), (0.05, high + 0.05), (0.2, 0.25))
    body = curve(
        (-0.6, 0.0),
        (-0.25, -high * 0.72),
        (0.25, -high),
        (0.75, -high * 0.6),
        (0.98, 0.0),
        (0.75, high * 0.6),
        (0.25, high),
        (-0.25, high * 0.72),
    )
    parts = [Part(tail, ACCENT), Part(above, ACCENT), Part(below, ACCENT), Part(body, MAIN)]
    for x in (-0.24, 0.04):
        reach = high * (0.6 if x < 0 else 0.85)
        parts.append(
            Part(
                curve(
                    (x - 0.06, -reach),
                    (x + 0.06, -reach),
                    (x + 0.14, 0.0),
                    (x + 0.06, reach),
                    (x - 0.06, reach),
                    (x + 0.02, 0.0),
                ),
                LIGHT,
            )
        )
    return parts + [
        Part(curve((0.36, 0.06), (0.1, -0.02), (0.02, 0.16), (0.12, 0.3)), ACCENT),
        Part(ellipse(0.64, -high * 0.25, 0.14), LIGHT),
        Part(ellipse(0.67, -high * 0.25, 0.07), DARK),
        Part(stroke((0.72, 0.16), (0.93, 0.12), 0.05), DARK),
    ]


def flower(rng: np.random.Generator) -> list[Part]:
    """A flower: a ring of petals on a stem with two leaves."""
    count, phase = int(rng.integers(5, 9)), rng.uniform(0, 2 * np.pi)
    across = 2.0 / count + 0.02
    middle = np.array([0.0, -0.36])
    parts = [
        Part(
            curve(
                (-0.05, -0.3), (0.05, -0.3), (0.09, 0.4), (0.05, 0.93), (-0.06, 0.93), (-0.02, 0.4)
            ),
            ACCENT,
        ),
        Part(curve((0.02, 0.8), (0.3, 0.42), (0.72, 0.3), (0.5, 0.68)), ACCENT),
        Part(curve((0.0, 0.86), (-0.3, 0.5), (-0.7, 0.42), (-0.48, 0.76)), ACCENT),
    ]
    for angle in phase + np.arange(count) * 2 * np.pi / count:
        x, y = middle + 0.36 * np.array([np.cos(angle), np.sin(angle)])
        parts.append(Part(ellipse(x, y, 0.26, min(across, 0.3) * 0.62, angle), MAIN))
    for angle in phase + np.arange(count) * 2 * np.pi / count:
        ray = np.array([np.cos(angle), np.sin(angle)])
        parts.append(Part(stroke(middle.tolist(), (middle + 0.38 * ray).tolist(), 0.035), DARK))
    parts.append(Part(ellipse(middle[0], middle[1], 0.2), LIGHT))
    return parts + [
        Part(ellipse(middle[0] + 0.1 * np.cos(a), middle[1] + 0.1 * np.sin(a), 0.03), DARK)
        for a in np.arange(5) * 2 * np.pi / 5
    ]


def house(rng: np.random.Generator) -> list[Part]:
    """A house front: a gable roof, a chimney, a door and windows."""
    side, eaves = rng.uniform(0.66, 0.78), rng.uniform(-0.2, 0.0)
    door = rng.choice([-0.42, 0.0, 0.42])
    windows = {-0.42: (0.0, 0.42), 0.0: (-0.42, 0.42), 0.42: (-0.42, 0.0)}[float(door)]
    chimney = rng.choice([-1, 1]) * rng.uniform(0.35, 0.5)
    parts = [
        Part(box(chimney - 0.11, -0.95, chimney + 0.11, -0.3), DARK),
        Part(box(-side, eaves - 0.05, side, 0.92), MAIN),
        Part(polygon((-side - 0.2, eaves), (0.0, -0.95), (side + 0.2, eaves)), ACCENT),
        Part(ellipse(0.0, eaves - 0.28, 0.13), LIGHT),
        Part(box(door - 0.16, 0.32, door + 0.16, 0.92), DARK),
        Part(ellipse(door + 0.09, 0.64, 0.035), LIGHT),
    ]
    for x in windows:
        parts += [
            Part(box(x - 0.15, 0.16, x + 0.15, 0.54), LIGHT),
            Part(stroke((x, 0.16), (x, 0.54), 0.045), DARK),
            Part(stroke((x - 0.15, 0.35), (x + 0.15, 0.35), 0.045), DARK),
        ]
    return parts


def tree(rng: np.random.Generator) -> list[Part]:
    """A tree: a trunk under a round crown with fruit, or under the tiers of a fir."""
    trunk = polygon(
        (-0.11, 0.2), (0.11, 0.2), (0.14, 0.8), (0.24, 0.97), (-0.24, 0.97), (-0.14, 0.8)
    )
    parts = [Part(trunk, DARK)]
    if rng.random() < 0.5:
        for y, half in ((0.62, 0.8), (0.2, 0.64), (-0.2, 0.46)):
            shade = curve(
                (-half, y),
                (0.0, y - 0.1),
                (half, y),
                (half * 0.4, y + 0.08),
                (-half * 0.4, y + 0.08),
            )
            parts += [
                Part(polygon((-half, y), (0.0, y - 0.76), (half, y)), MAIN),
                Part(shade, ACCENT),
            ]
        return parts
    parts.append(Part(stroke((0.0, 0.5), (0.42, 0.15), 0.09), DARK))
    for angle in np.arange(7) * 2 * np.pi / 7 + rng.uniform(0, 1):
        parts.append(
            Part(
                ellipse(
                    0.48 * np.cos(angle), -0.32 + 0.34 * np.sin(angle), rng.uniform(0.28, 0.36)
                ),
                MAIN,
            )
        )
    parts.append(Part(ellipse(0.0, -0.32, 0.45), MAIN))
    for x, y in (
        (-0.4, -0.4),
        (0.05, -0.65),
        (0.45, -0.35),
        (-0.1, -0.2),
        (0.25, 0.0),
        (-0.5, 0.0),
    ):
        x, y = (x, y) + rng.uniform(-0.07, 0.07, 2)
        parts.append(Part(ellipse(x, y, 0.08), ACCENT))
    return parts


THINGS: dict[str, Callable[[np.random.Generator], list[Part]]] = {
    thing.__name__: thing for thing in (boat, car, cat, fish, flower, house, tree)
}
