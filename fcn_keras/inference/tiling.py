"""Large images in tiles: grids that cover an image, and two ways to combine logits.

`read` and `logits_of` come from the caller: `read(top, left, height, width)`
returns a window of the image `(height, width, channels)`, `logits_of(window)`
its logits `(height, width, classes)`. Both ways yield `(top, left, logits)`:
pieces that cover the image, each pixel once, so that the logits of the whole
image never have to be in memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

TILE = 1408  # the largest side that is processed in one piece, which bounds the memory used
OVERLAP = 256  # of averaged tiles

Piece = tuple[int, int, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Span:
    """Part of an axis: what a window covers, and which part of it is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def exact_spans(length: int, tile: int, halo: int, stride: int) -> list[Span]:
    """Windows of at most `tile`, of which the halos are not kept, except at the image's edges.

    Args:
        length: The image's extent.
        tile: The largest window.
        halo: At least the network's reach, a multiple of `stride`.
        stride: Windows start at its multiples, to match the network's grid.

    Raises:
        ValueError: If a window has no room between its halos.
    """
    if length <= tile:
        return [Span(0, length, 0, length)]
    core = (tile - 2 * halo) // stride * stride
    if core < 1:
        raise ValueError(f"tile must be at least {2 * halo + stride}. Received: {tile}")
    return [
        Span(
            max(0, start - halo), min(length, start + core + halo), start, min(length, start + core)
        )
        for start in range(0, length, core)
    ]


def average_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Starts of windows of size `tile`, the last one flush with the end.

    Raises:
        ValueError: If windows would not advance.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap must be 0 to {tile - 1}. Received: {overlap}")
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def exact_pieces(
    size: tuple[int, int], tile: int, halo: int, stride: int, read: Callable, logits_of: Callable
) -> Iterator[Piece]:
    """Pieces that equal those of one pass over the whole image.

    Each window is read with a halo that the network cannot see beyond; only its
    centre is kept.

    Args:
        size: Height and width of the image.
        tile: Largest height and width of a window.
        halo: At least the network's reach, a multiple of `stride`.
        stride: The network's coarsest stride.
        read: See the module's docstring.
        logits_of: See the module's docstring.
    """
    rows, columns = (exact_spans(length, tile, halo, stride) for length in size)
    for row in rows:
        for column in columns:
            window = read(row.start, column.start, row.stop - row.start, column.stop - column.start)
            logits = logits_of(window)
            kept_rows = slice(row.keep_start - row.start, row.keep_stop - row.start)
            kept_columns = slice(column.keep_start - column.start, column.keep_stop - column.start)
            yield row.keep_start, column.keep_start, logits[kept_rows, kept_columns]


def average_pieces(
    size: tuple[int, int],
    tile: int,
    overlap: int,
    read: Callable,
    logits_of: Callable,
    smooth: bool = False,
) -> Iterator[Piece]:
    """Pieces in which overlapping logits are averaged, as d2l describes.

    Args:
        size: Height and width of the image.
        tile: Height and width of the windows, smaller where the image is.
        overlap: Rows and columns that neighbours share at the least.
        read: See the module's docstring.
        logits_of: See the module's docstring.
        smooth: Whether weights fall off from a window's centre to its edges
            instead of being equal.
    """
    height, width = size
    tops, lefts = (average_starts(length, tile, overlap) for length in size)
    rows, columns = min(tile, height), min(tile, width)
    weight = np.outer(_window(rows), _window(columns)) if smooth else np.ones((rows, columns))
    weight = weight[..., None].astype(np.float32)
    # Sums over the rows from `top` on that windows cover; the first logits set the channels.
    total: Any = None
    norm = np.zeros((rows, width, 1), np.float32)
    for top, next_top in zip(tops, [*tops[1:], height]):
        for left in lefts:
            logits = logits_of(read(top, left, rows, columns))
            if total is None:
                total = np.zeros((rows, width, logits.shape[-1]), np.float32)
            total[:, left : left + columns] += weight * logits
            norm[:, left : left + columns] += weight
        done = next_top - top
        yield top, 0, total[:done] / norm[:done]
        for sums in (total, norm):
            sums[: rows - done] = sums[done:].copy()
            sums[rows - done :] = 0


def _window(length: int) -> np.ndarray:
    """A triangle that is 1 in the middle and above 0 at the ends."""
    return 1 - np.abs(np.arange(length) - (length - 1) / 2) / ((length + 1) / 2)
