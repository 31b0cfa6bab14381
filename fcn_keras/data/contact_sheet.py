"""A picture of a data set: masks over photographs, those of rare classes first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fcn_keras.data.directory import (
    find_image,
    find_mask,
    read_image,
    read_mask,
    require_same_size,
)
from fcn_keras.data.overlay import at_most, draw_legend
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError, printable
from fcn_keras.files.painting import paint, painted_ids

COLUMNS, MOST = 4, 24  # pictures
SIDE, GAP, TITLE, DPI = 320, 10, 22, 100  # in pixels
LETTERS = 42  # of a title, each of up to 7.5 pixels


def draw_contact_sheet(
    root, labels: LabelSet | None, counts: Mapping[str, np.ndarray]
) -> Figure | None:
    """Draws examples with their classes painted over them, unlabelled pixels hatched.

    Args:
        root: The folder.
        labels: Its classes.
        counts: Pixels of each class per example, as `check_directory` finds them.

    Returns:
        A Matplotlib figure, or `None` if no example can be read.
    """
    if labels is None:
        return None
    shown = [*painted_ids(labels.names), IGNORE_ID]
    colors = labels.colors().tolist()
    pictures, titles, seen = [], [], set()
    for name, class_id in choose(counts, MOST):
        try:
            image = read_image(find_image(Path(root), name))
            mask = read_mask(find_mask(Path(root), name), labels)
            require_same_size(image, mask, Path(name))
        except UserError:  # `check_directory` tells of it
            continue
        image, mask = at_most(image, SIDE, Image.Resampling.LANCZOS), at_most(mask, SIDE)
        picture = paint(Image.fromarray(image), Image.fromarray(mask), colors, shown)
        pictures.append(np.asarray(picture))
        title = labels.names[class_id] if class_id < len(labels) else "unlabelled"
        titles.append(printable(f"{title}: {name}"))
        seen |= {*np.intersect1d(mask, shown).tolist()}
    return _arrange(pictures, titles, sorted(seen), labels) if pictures else None


def choose(counts: Mapping[str, np.ndarray], most: int) -> list[tuple[str, int]]:
    """Examples to show, each with the class that it shows.

    In turn, each class from the rarest to the commonest gets the example with most of its pixels
    that is left; unlabelled pixels come last.
    """
    names = [name for name, pixels in counts.items() if pixels.any()]
    if not names:
        return []
    table = np.stack([counts[name] for name in names])
    totals = table.sum(axis=0)
    *classes, unlabelled = np.flatnonzero(totals + (np.arange(len(totals)) == len(totals) - 1))
    order = [*sorted(map(int, classes), key=lambda i: totals[i]), int(unlabelled)]
    ranked = {i: iter(np.argsort(-table[:, i], kind="stable")) for i in order}
    chosen: dict[int, int] = {}
    while len(chosen) < min(most, len(names)):
        for i in order:
            row = next((row for row in ranked[i] if row not in chosen and table[row, i]), None)
            if row is not None and len(chosen) < most:
                chosen[int(row)] = i
    return [(names[row], i) for row, i in chosen.items()]


def _arrange(pictures: list[np.ndarray], titles: list[str], ids: list[int], labels) -> Figure:
    columns = min(COLUMNS, len(pictures))
    rows = [range(i, len(pictures))[:columns] for i in range(0, len(pictures), columns)]
    heights = [max(len(pictures[i]) for i in row) + TITLE for row in rows]
    width, height = columns * (SIDE + GAP) + GAP, sum(heights) + GAP
    figure = Figure((width / DPI, height / DPI), DPI)
    legend = draw_legend(figure, ids, labels, hatched=True, loc="lower center") if ids else None
    below = int(legend.get_window_extent().height) + GAP if legend else 0
    figure.set_figheight((height + below) / DPI)
    top = height + below
    for row, row_height in zip(rows, heights):
        for column, i in enumerate(row):
            left, (high, wide) = GAP + column * (SIDE + GAP), pictures[i].shape[:2]
            box = left, top - TITLE - high, wide, high
            axes = figure.add_axes(
                tuple(np.divide(box, (width, height + below, width, height + below)))
            )
            axes.imshow(pictures[i], interpolation="nearest", aspect="auto")
            axes.set_axis_off()
            x, y = left / width, (top - TITLE + 4) / (height + below)
            figure.text(x, y, titles[i][:LETTERS], size="small", parse_math=False)
        top -= row_height
    return figure
