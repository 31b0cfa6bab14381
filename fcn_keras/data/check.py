"""What a user's data folder contains, and everything that is wrong with it."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import numpy as np

from fcn_keras.data.directory import (
    LIST_FOLDER,
    find_image,
    find_mask,
    read_ids,
    read_image,
    read_labels,
    read_mask,
    require_same_size,
    split_names,
)
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError


@dataclasses.dataclass
class DirectoryReport:
    """What `check_directory` found in one folder.

    `images` and `pixels` have, per split, the number of images that contain each class
    and of its pixels, int64 `(classes + 1,)`; the last entry is for unlabelled pixels.
    """

    labels: LabelSet | None = None
    split_sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    images: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pixels: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


def check_directory(root, progress=lambda items: items) -> DirectoryReport:
    """Reads every image and mask of a folder and collects everything that is wrong.

    Args:
        root: The folder.
        progress: Wraps the sequence of examples, to show progress.

    Returns:
        A `DirectoryReport`; `problems` has a line for each fault, none of which
        stops the check.
    """
    root = Path(root)
    report = DirectoryReport()
    if not root.is_dir():
        report.problems.append(f"{root}: no such folder.")
        return report
    try:
        labels = report.labels = read_labels(root)
    except UserError as error:
        report.problems.append(str(error))
        return report
    splits = split_names(root)
    report.problems += [
        f"{root / LIST_FOLDER / split}.txt: no such file. Training needs train.txt and val.txt."
        for split in ("train", "val")
        if split not in splits
    ]
    examples = []
    for split in splits:
        report.images[split] = np.zeros(len(labels) + 1, np.int64)
        report.pixels[split] = np.zeros(len(labels) + 1, np.int64)
        try:
            ids = read_ids(root, split)
        except UserError as error:
            report.problems.append(str(error))
            ids = []
        report.split_sizes[split] = len(ids)
        report.problems += [
            f"{root / LIST_FOLDER / split}.txt: {name} is listed {count} times."
            for name, count in collections.Counter(ids).items()
            if count > 1
        ]
        examples += [(split, name) for name in ids]

    names = {part: {name for split, name in examples if split == part} for part in splits}
    shared = sorted(names.get("train", set()) & names.get("val", set()))
    if shared:
        report.problems.append(
            f"{root / LIST_FOLDER}: train.txt and val.txt share {len(shared)} images, such as "
            f"{shared[0]}. Validation must not see training images."
        )

    counted = {}  # id -> counts, as a trainval list repeats train and val
    for split, name in progress(examples):
        if name not in counted:
            counted[name] = _count_classes(root, name, labels, report.problems)
        report.pixels[split] += counted[name]
        report.images[split] += counted[name] > 0
    report.problems += [
        f"{root / LIST_FOLDER / split}.txt: no mask in this list has a labelled pixel."
        for split, pixels in report.pixels.items()
        if pixels[-1] and not pixels[:-1].any()
    ]
    return report


def _count_classes(root: Path, name: str, labels: LabelSet, problems: list[str]) -> np.ndarray:
    counts = np.zeros(len(labels) + 1, np.int64)
    arrays = []
    for read in (
        lambda: read_image(find_image(root, name)),
        lambda: read_mask(find_mask(root, name), labels),
    ):
        try:
            arrays.append(read())
        except UserError as error:
            problems.append(str(error))
    if len(arrays) < 2:
        return counts
    image, mask = arrays
    try:
        require_same_size(image, mask, find_mask(root, name))
    except UserError as error:
        problems.append(str(error))
    histogram = np.bincount(mask.ravel(), minlength=256)
    counts[:-1] = histogram[: len(labels)]
    counts[-1] = histogram[IGNORE_ID]
    return counts
