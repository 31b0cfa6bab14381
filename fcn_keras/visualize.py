"""Masks and histories -> pictures."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from fcn_keras.datasets.base import LabelSet


def color_mask(mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Paints class ids `(H, W)` in the label set's colours: uint8 `(H, W, 3)`."""
    return labels.colors()[mask]


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    labels: LabelSet,
    opacity: float = 0.5,
    shown: Iterable[int] | None = None,
) -> np.ndarray:
    """Blends the colours of class ids `(H, W)` into an image: uint8 `(H, W, 3)`.

    Args:
        image: uint8 `(H, W, 3)`.
        mask: Class ids `(H, W)`.
        labels: Gives the colours.
        opacity: 0 leaves the image as it is, 1 hides it.
        shown: The ids to paint; the pixels of others stay as they are. Left out: all.
    """
    blended = image * (1 - opacity) + color_mask(mask, labels) * opacity
    blended = np.round(blended).astype(np.uint8)
    if shown is None:
        return blended
    return np.where(np.isin(mask, list(shown))[..., None], blended, image)


def draw_overlay(image: np.ndarray, mask: np.ndarray, labels: LabelSet) -> Figure:
    """Draws an overlay at its own size, with a legend of its classes below."""
    height, width = mask.shape
    shown, columns, dpi = np.unique(mask), max(1, max(width, 320) // 130), 100
    legend = 20 * -(-len(shown) // columns) + 20
    total = height + legend
    figure = Figure(figsize=(max(width, 320) / dpi, total / dpi), dpi=dpi)
    axes = figure.add_axes((0, legend / total, 1, height / total))
    axes.imshow(overlay(image, mask, labels))
    axes.axis("off")
    figure.legend(
        handles=_legend(shown, labels),
        loc="lower center",
        ncols=columns,
        fontsize="small",
        frameon=False,
    )
    return figure


def draw_confusion(report) -> Figure:
    """Draws a `Report`'s confusion matrix, each row of the truth as shares of its pixels."""
    labels = report.labels
    totals = report.confusion.sum(axis=1, keepdims=True)
    shares = report.confusion / np.maximum(totals, 1)
    side = 2.2 + 0.42 * len(labels)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    positions = range(len(labels))
    axes.set_xticks(positions, labels.names, rotation=90)
    axes.set_yticks(positions, labels.names)
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
        A Matplotlib figure, with one column an example.
    """
    rows = [
        ("image", images),
        ("prediction", [color_mask(mask, labels) for mask in predictions]),
        ("truth", [color_mask(mask, labels) for mask in truths]),
    ]
    height = max(image.shape[0] / image.shape[1] for image in images)
    figure = Figure(figsize=(2.4 * len(images) + 0.4, 3 * 2.4 * height + 0.9), layout="constrained")
    grid = figure.subplots(3, len(images), squeeze=False)
    for axes_row, (title, pictures) in zip(grid, rows):
        axes_row[0].set_ylabel(title)
        for axes, picture in zip(axes_row, pictures):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
    shown = np.unique(np.concatenate([mask.ravel() for mask in [*predictions, *truths]]))
    figure.legend(
        handles=_legend(shown, labels),
        loc="outside lower center",
        ncols=max(1, int(figure.get_figwidth() // 1.5)),
        frameon=False,
    )
    return figure


def at_most(picture: np.ndarray, side: int, resampling=Image.Resampling.NEAREST) -> np.ndarray:
    """Shrinks a picture or mask until neither side exceeds `side`; smaller ones stay.

    Args:
        picture: uint8 `(H, W)` or `(H, W, 3)`.
        side: Pixels.
        resampling: Pillow's; nearest neighbour is the only one fit for masks and their colours.
    """
    height, width = picture.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return picture
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size, resampling))


def side_by_side(
    image: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    labels: LabelSet,
    side: int = 320,
    gap: int = 4,
) -> np.ndarray:
    """A photograph, its predicted and its true classes in one picture.

    Args:
        image: uint8 `(H, W, 3)`.
        prediction: Class ids `(H, W)`.
        truth: Class ids `(H, W)`, 255 where unlabelled.
        labels: Names and colours.
        side: Largest height and width of each of the three; larger ones are shrunk.
        gap: Columns of white between them.

    Returns:
        uint8 `(h, 3 * w + 2 * gap, 3)`.
    """
    photo = at_most(image, side, Image.Resampling.LANCZOS)
    masks = [color_mask(at_most(mask, side), labels) for mask in (prediction, truth)]
    white = np.full((len(photo), gap, 3), 255, np.uint8)
    return np.concatenate([photo, white, masks[0], white, masks[1]], axis=1)


def draw_curves(history: list[dict]) -> Figure:
    """Draws loss, accuracy and mean IoU of training and validation by epoch.

    Args:
        history: One dictionary an epoch, with the columns of `history.csv`.
    """
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    titles = {"loss": "loss", "pixel_accuracy": "pixel accuracy", "mean_iou": "mean IoU"}
    for axes, (name, title) in zip(figure.subplots(1, len(titles)), titles.items()):
        for column, label in ((name, "train"), (f"val_{name}", "validation")):
            points = [(row["epoch"], row[column]) for row in history if row[column] == row[column]]
            axes.plot(*zip(*points), marker=".", label=label)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _legend(ids: np.ndarray, labels: LabelSet) -> list[Patch]:
    colors = labels.colors() / 255
    names = [*labels.names, *["unlabelled"] * (256 - len(labels))]
    return [Patch(facecolor=colors[i], edgecolor="grey", label=names[i]) for i in ids]
