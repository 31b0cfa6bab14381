"""Augmentation by a function from Python, before all others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from fcn_keras.data.split import IGNORE_ID, Split
from fcn_keras.errors import UserError, printable


def augmented(split: Split, augment: Callable) -> Split:
    """The split with each example passed through a function whenever it is read.

    Args:
        split: Of training.
        augment: Takes uint8 `(H, W, 3)` in RGB and uint8 `(H, W)` of class ids, which are
            copies; returns both, perhaps of another size. A float image in 0..255 is rounded.

    Raises:
        UserError: When an example is read, if the function returns anything else.
    """

    def read(index: int):
        # The cache may keep what it returns, and an augmentation may write into its arguments.
        image, mask = (array.copy() for array in split.read(index))
        result = augment(image, mask)
        fault = _fault(result, len(split.labels))
        if fault:
            raise UserError(
                "augment must return an image, uint8 or float in 0..255 of shape (H, W, 3), and "
                f"its mask, integers of shape (H, W). {printable(split.ids[index])}: {fault}"
            )
        return np.rint(result[0]).astype(np.uint8), np.asarray(result[1], np.uint8)

    return dataclasses.replace(split, read=read)


def _fault(result, classes: int) -> str:
    """What is wrong with an augmentation's result, as a sentence; empty if nothing is."""
    if not isinstance(result, tuple | list) or len(result) != 2:
        return f"Received: {type(result).__name__}."
    image, mask = map(np.asarray, result)
    received = f"Received: {image.dtype} {image.shape} and {mask.dtype} {mask.shape}."
    if image.ndim != 3 or image.shape[-1] != 3 or image.shape[:2] != mask.shape or not mask.size:
        return received
    if not np.issubdtype(mask.dtype, np.integer) or image.dtype.kind not in "uif":
        return received
    low, high = image.min(), image.max()
    if not (0 <= low and high <= 255):  # or not a number
        return f"Received: an image with values from {low:g} to {high:g}."
    if image.dtype.kind == "f" and 0 < high <= 1:
        return f"Received: an image in 0..{high:g}. Multiply it by 255."
    unknown = np.setdiff1d(mask, [*range(classes), IGNORE_ID])
    if unknown.size:
        return (
            f"Received: a mask with {unknown[0]}, which is neither one of the {classes} classes "
            f"nor {IGNORE_ID}."
        )
    return ""
