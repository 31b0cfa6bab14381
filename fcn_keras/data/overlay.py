"""Masks in their classes' colours, over a photograph or beside it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from fcn_keras.data.split import LabelSet


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
        handles=legend_patches(shown, labels),
        loc="lower center",
        ncols=columns,
        fontsize="small",
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


def legend_patches(ids: np.ndarray, labels: LabelSet) -> list[Patch]:
    """A legend's patches for class ids, among them ids that are no class's."""
    colors = labels.colors() / 255
    names = [*labels.names, *["unlabelled"] * (256 - len(labels))]
    return [Patch(facecolor=colors[i], edgecolor="grey", label=names[i]) for i in ids]
