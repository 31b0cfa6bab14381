"""The pixels of each class in all masks of a data set, and what is wrong with it by them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fcn_keras.data.layout import MASK_FOLDER, convert_command
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import few


def count_pixels(mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    """The pixels of each class, and as the last those without one, int64 `(classes + 1,)`."""
    histogram = np.bincount(mask.ravel(), minlength=256)
    return np.append(histogram[: len(labels)], histogram[IGNORE_ID])


def problems_of_counts(
    labels: LabelSet, pixels: Iterable[np.ndarray], root: Path | None = None
) -> list[str]:
    """What the pixels of all masks together show: that they have no values but 0 and 255.

    Args:
        labels: The classes.
        pixels: What `count_pixels` says of each mask or split; all masks must be in.
        root: The folder of the masks, if they are in one.
    """
    first, *others, unlabelled = np.sum([np.zeros(len(labels) + 1, np.int64), *pixels], axis=0)
    if not (first and others and unlabelled) or any(others):
        return []
    place = f"{root / MASK_FOLDER}: " if root else ""
    return [
        f"{place}no mask has any value but 0 and 255, which means unlabelled, so there is no "
        f"pixel of {few(labels.names[1:])}. {_if_binary(labels.names[1], root)}"
    ]


def notes_of_counts(
    labels: LabelSet, pixels: Mapping[str, np.ndarray], root: Path | None = None
) -> list[str]:
    """What else they show: classes that no mask of a split has, by the split's name."""
    notes = []
    if len(labels) == 1:
        hint = "List another one, such as background."
        if any(counts[-1] for counts in pixels.values()):
            hint += f" {_if_binary(labels.names[0], root)}"
        notes.append(f"there is one class, {labels.names[0]}: each pixel will be of it. {hint}")
    if problems_of_counts(labels, pixels.values(), root):
        return notes  # which say the same
    for split, counts in pixels.items():
        absent = [name for name, count in zip(labels.names, counts) if not count]
        if absent and counts.any():
            notes.append(
                f"{split}: no mask has a pixel of {few(absent)} ({len(absent)} of the "
                f"{len(labels)} classes)."
            )
    return notes


def _if_binary(name: str, root: Path | None) -> str:
    """What to do about masks of 0 and 255."""
    if root is None:
        return f"If 255 is {name}, add: --format folders --binary {shlex.quote(name)}"
    return f"If 255 is {name}, run: {convert_command(root, '--binary', name)}"
