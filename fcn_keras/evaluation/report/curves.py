"""Curves -> inline SVG, whose colours follow the page's style sheet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 400, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26  # margins
MOST_DOTS = 40
CHARTS = {
    "loss": "Loss",
    "mean_iou": "Mean IoU",
    "pixel_accuracy": "Pixel accuracy",
    "learning_rate": "Learning rate",
}
# Prefix of the columns, class in the style sheet, name.
PARTS = (("", "train", "training"), ("val_", "val", "validation"))
Curve = tuple[str, str, list[tuple[int, float]]]  # class in the style sheet, name, points


@dataclasses.dataclass(frozen=True)
class Line:
    """A curve in the chart's coordinates.

    Args:
        kind: Its class in the style sheet: `train` or `val`, or `run-0`, `run-1` ...
        name: What it is called.
        points: `(x, y, text)` each.
    """

    kind: str
    name: str
    points: list[tuple[float, float, str]]

    @property
    def dots(self) -> bool:
        """Whether each point is marked, with its text as tooltip."""
        return len(self.points) <= MOST_DOTS

    @property
    def path(self) -> str:
        """The points as an SVG `polyline` takes them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in self.points)


@dataclasses.dataclass(frozen=True)
class Chart:
    """A small chart by epoch: title, summary for those who cannot see it, ticks and lines."""

    title: str
    summary: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[Line]


def charts(history: list[dict], loss_title: str = "loss") -> list[Chart]:
    """The charts of a history: one for each of `CHARTS` that it has values for.

    Args:
        history: Rows as in `history.csv`; an epoch without validation has NaN there.
        loss_title: Title of the chart of the loss.
    """
    titles = {**CHARTS, "loss": loss_title}
    return _charts(
        (title, [(kind, name, _points(history, prefix + column)) for prefix, kind, name in PARTS])
        for column, title in titles.items()
    )


def compared_charts(histories: dict[str, list[dict]]) -> list[Chart]:
    """The charts of several histories, with a line for each.

    Args:
        histories: By the run's name; the style sheet has a class `run-0`, `run-1` ... for each.
    """
    return _charts(
        (
            title if column == "learning_rate" else f"{title}, {part}",
            [
                (f"run-{number}", name, _points(history, prefix + column))
                for number, (name, history) in enumerate(histories.items())
            ],
        )
        for column, title in CHARTS.items()
        for prefix, _, part in PARTS
    )


def _charts(titled: Iterable[tuple[str, list[Curve]]]) -> list[Chart]:
    found = ((title, [curve for curve in curves if curve[2]]) for title, curves in titled)
    return [_chart(title, curves) for title, curves in found if curves]


def _points(history: list[dict], column: str) -> list[tuple[int, float]]:
    pairs = [(row["epoch"], row.get(column, math.nan)) for row in history]
    return [(epoch, value) for epoch, value in pairs if math.isfinite(value)]


def _chart(title: str, curves: list[Curve]) -> Chart:
    points = [point for _, _, curve in curves for point in curve]
    epochs, values = zip(*points)
    x_ticks = _ticks(min(epochs), max(epochs), integer=True)
    y_ticks = _ticks(min(values), max(values))
    # A tick and a value on the frame's edge both stay inside.
    x_low, x_high = min(epochs), max(max(epochs), min(epochs) + 1)
    y_low, y_high = min(*y_ticks, *values), max(*y_ticks, *values)

    def x(epoch):
        return LEFT + (epoch - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM)

    lines = [
        Line(kind, name, [(x(e), y(v), f"epoch {e}: {v:.4g}") for e, v in curve])
        for kind, name, curve in curves
    ]
    ends = [
        f"{name} {curve[0][1]:.3g} in epoch {curve[0][0]}, {curve[-1][1]:.3g} in epoch "
        f"{curve[-1][0]}"
        for _, name, curve in curves
    ]
    return Chart(
        title,
        f"{title} by epoch: {'; '.join(ends)}.",
        [(x(tick), f"{tick:g}") for tick in x_ticks if x_low <= tick <= x_high],
        [(y(tick), f"{tick:.3g}") for tick in y_ticks],
        lines,
    )


def _ticks(low: float, high: float, integer: bool = False) -> list[float]:
    # Five ticks of three digits differ if the range is a twentieth of the values.
    if high - low <= (0 if integer else max(abs(low), abs(high)) / 20):
        # A flat curve is centred.
        margin = 1 if integer else abs(low) / 2 or 1
        low, high = low - margin, high + margin
    return list(MaxNLocator(5, integer=integer).tick_values(low, high))
