"""The pixels of each class in all masks of a data set, and what is wrong with it by them."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fcn_keras.data.layout import LIST_FOLDER, MASK_FOLDER, convert_command
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import few


def count_pixels(mask: np.ndarray, labels: LabelSet) -> np.ndarray:
    """The pixels of each class, and as the last those without one, int64 `(classes + 1,)`."""
    histogram = np.bincount(mask.ravel(), minlength=256)
    return np.append(histogram[: len(labels)], histogram[IGNORE_ID])


def balanced_weights(pixels: np.ndarray) -> tuple[float, ...]:
    """Class weights that are larger the rarer a class is: `1 / ln(1.02 + share)`, 1.42 to 50.5.

    The share is that of the labelled pixels. A class without any has the weight 1: in training it
    has no effect, and a large one would only inflate the validation loss.

    Source: Paszke et al. 2016, "ENet: A Deep Neural Network Architecture for Real-Time Semantic
    Segmentation", section 5.

    Args:
        pixels: Sums of what `count_pixels` returns.

    Returns:
        One weight per class, of three significant digits.
    """
    shares = pixels[:-1] / max(1, pixels[:-1].sum())
    weights = [1 / math.log(1.02 + share) if share else 1.0 for share in shares]
    return tuple(float(f"{weight:.3g}") for weight in weights)


def problems_of_counts(
    labels: LabelSet, pixels: Mapping[str, np.ndarray], root: Path | None = None
) -> list[str]:
    """What the pixels of all masks together show: that they have no values but 0 and 255.

    Or that those to train on are not labelled. Others need not be.

    Args:
        labels: The classes.
        pixels: What `count_pixels` says of each split; all masks must be in.
        root: The data set's folder, if there is one.
    """
    problems = []
    if "train" in pixels and _unlabelled(pixels["train"]):
        place = root / LIST_FOLDER / "train.txt" if root else "train"
        problems.append(f"{place}: no mask in this list has a labelled pixel.")
    none = np.zeros(len(labels) + 1, np.int64)
    first, *others, unlabelled = np.sum([none, *pixels.values()], axis=0)
    if not (first and others and unlabelled) or any(others):
        return problems
    place = f"{root / MASK_FOLDER}: " if root else ""
    return [
        *problems,
        f"{place}no mask has any value but 0 and 255, which means unlabelled, so there is no "
        f"pixel of {few(labels.names[1:])}. {_if_binary(labels.names[1], root)}",
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
    if problems_of_counts(labels, pixels, root):
        return notes  # which say the same
    for split, counts in sorted(pixels.items()):
        if split == "val" and _unlabelled(counts):
            notes.append("val: no mask has a labelled pixel, so that training is not validated.")
        absent = [name for name, count in zip(labels.names, counts) if not count]
        if absent and counts.any() and split != "test":
            notes.append(
                f"{split}: no mask has a pixel of {few(absent)} ({len(absent)} of the "
                f"{len(labels)} classes)."
            )
    return notes


def _unlabelled(counts: np.ndarray) -> bool:
    return bool(counts[-1] and not counts[:-1].any())


def _if_binary(name: str, root: Path | None) -> str:
    """What to do about masks of 0 and 255."""
    if root is None:
        return f"If 255 is {name}, add: --format folders --binary {shlex.quote(name)}"
    return f"If 255 is {name}, run: {convert_command(root, '--binary', name)}"
