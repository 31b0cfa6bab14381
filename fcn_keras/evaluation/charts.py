"""Metrics, examples and histories -> Matplotlib figures."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from fcn_keras.data.overlay import color_mask, draw_legend
from fcn_keras.data.split import LabelSet
from fcn_keras.evaluation.scores import Scores


def draw_confusion(scores: Scores) -> Figure:
    """Draws a confusion matrix, each true class's row as shares of its pixels."""
    labels = scores.labels
    shares = scores.confusion_shares
    side = 2.2 + 0.42 * len(labels)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    positions = range(len(labels))
    axes.set_xticks(positions, labels.names, rotation=90, parse_math=False)
    axes.set_yticks(positions, labels.names, parse_math=False)
    axes.set(xlabel="prediction", ylabel="truth", title="share of the true class's pixels, %")
    for row in positions:
        for column in positions:
            if shares[row, column] >= 0.005:
                color = "white" if shares[row, column] > 0.5 else "black"
                text = f"{100 * shares[row, column]:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    return figure


def draw_grid(
    images: list[np.ndarray],
    predictions: list[np.ndarray],
    truths: list[np.ndarray],
    labels: LabelSet,
) -> Figure:
    """Draws images, predictions and truth in three rows, with a legend of their classes.

    Args:
        images: uint8 `(H, W, 3)` each.
        predictions: Class ids `(H, W)` each.
        truths: Class ids `(H, W)` each, 255 where unlabelled.
        labels: Names and colours.

    Returns:
        A Matplotlib figure with one column per example.
    """
    rows = [
        ("image", images),
        ("prediction", [color_mask(mask, labels) for mask in predictions]),
        ("truth", [color_mask(mask, labels) for mask in truths]),
    ]
    height = max(image.shape[0] / image.shape[1] for image in images)
    figure = Figure(figsize=(2.4 * len(images) + 0.4, 3 * 2.4 * height + 0.3), layout="constrained")
    grid = figure.subplots(3, len(images), squeeze=False)
    for axes_row, (title, pictures) in zip(grid, rows):
        axes_row[0].set_ylabel(title)
        for axes, picture in zip(axes_row, pictures):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
    shown = np.unique(np.concatenate([mask.ravel() for mask in [*predictions, *truths]]))
    legend = draw_legend(figure, shown, labels, loc="outside lower center")
    figure.set_figheight(figure.get_figheight() + legend.get_window_extent().height / figure.dpi)
    return figure


def draw_curves(history: list[dict], loss_title: str = "loss") -> Figure:
    """Draws loss, accuracy and mean IoU of training and validation per epoch.

    Args:
        history: One dictionary per epoch, with the columns of `history.csv`.
        loss_title: Title of the first chart.
    """
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    titles = {"loss": loss_title, "pixel_accuracy": "pixel accuracy", "mean_iou": "mean IoU"}
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items()):
        for column, label in ((name, "train"), (f"val_{name}", "validation")):
            points = [(row["epoch"], row[column]) for row in history if row[column] == row[column]]
            axes.plot(*zip(*points), marker=".", label=label)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend()
    return figure
