"""Logits -> logits at another size, in strips of rows: all of a large image's take gigabytes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fcn_keras.inference.tiling import Piece

MOST_ROWS, MOST_PIXELS = 64, 2**18  # in a strip


def resized_strips(logits: np.ndarray, height: int, width: int) -> Iterator[Piece]:
    """Resizes logits bilinearly, without antialiasing.

    Pixels have their centres at halves, and edges are repeated, as in TensorFlow's `resize` and
    PyTorch's `interpolate(align_corners=False)`.

    Args:
        logits: float32 `(h, w, C)`.
        height: Of the result.
        width: Of the result.

    Yields:
        Pieces `(top, 0, logits)` of a few rows each, from top to bottom.
    """
    above, below, down = _neighbours(logits.shape[0], height)
    left, right, across = _neighbours(logits.shape[1], width)
    step = max(1, min(MOST_ROWS, MOST_PIXELS // width))
    for top in range(0, height, step):
        strip = slice(top, top + step)
        first, last = above[strip][0], below[strip][-1] + 1
        rows = logits[first:last]
        if logits.shape[1] != width:
            rows = rows[:, left] * (1 - across[:, None]) + rows[:, right] * across[:, None]
        count = len(above[strip])
        weights = np.zeros((count, last - first), np.float32)
        places = np.arange(count)
        weights[places, above[strip] - first] = 1 - down[strip]
        weights[places, below[strip] - first] += down[strip]
        yield top, 0, (weights @ rows.reshape(len(rows), -1)).reshape(count, width, -1)


def _neighbours(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each element of a resized axis, the two that it is between, and the second's weight."""
    places = ((np.arange(target) + 0.5) * (size / target) - 0.5).clip(0, size - 1)
    first = places.astype(int)
    return first, np.minimum(first + 1, size - 1), (places - first).astype(np.float32)
