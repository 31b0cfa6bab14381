"""What a user's data folder contains, and everything that is wrong with it."""

from __future__ import annotations

import collections
import dataclasses
import os
from pathlib import Path

import numpy as np

from fcn_keras.data.class_counts import notes_of_counts, problems_of_counts
from fcn_keras.data.directory import (
    IMAGE_FOLDER,
    LIST_FOLDER,
    MASK_FOLDER,
    find_image,
    find_mask,
    read_ids,
    read_labels,
    split_names,
)
from fcn_keras.data.inspection import Inspection
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError


@dataclasses.dataclass
class DirectoryReport:
    """What `check_directory` found in one folder.

    `images` and `pixels` have, per split, the number of images that contain each class
    and of its pixels, int64 `(classes + 1,)`; the last entry is for unlabelled pixels.
    `counts` has the pixels of each image, `sizes` their heights and widths. `notes` tell of
    what need not be a mistake.
    """

    labels: LabelSet | None = None
    split_sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    images: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pixels: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    counts: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    sizes: list[tuple[int, ...]] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


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
        report.problems.append(f"{root}: {'not a' if root.exists() else 'no such'} folder.")
        return report
    try:
        labels = report.labels = read_labels(root)
    except UserError as error:
        report.problems.append(str(error))
        return report
    examples = _listed(root, report)
    missing = _missing_folders(root, examples[0][1] if examples else "")
    if missing:
        report.problems += missing
        return report

    inspection = Inspection(root, labels)
    for split, name in progress(examples):
        if name not in report.counts:  # a trainval list repeats train and val
            report.counts[name] = inspection.look(name)
        report.pixels[split] += report.counts[name]
        report.images[split] += report.counts[name] > 0
    problems, notes = inspection.told()
    report.sizes = inspection.sizes
    report.problems += problems
    report.problems += problems_of_counts(labels, report.pixels, root)
    parts = {split: counts for split, counts in report.pixels.items() if split in ("train", "val")}
    report.notes += [*notes, *notes_of_counts(labels, parts, root)]
    return report


def _listed(root: Path, report: DirectoryReport) -> list[tuple[str, str]]:
    """The split and id of each example; what is wrong with the lists becomes a problem."""
    splits, classes = split_names(root), len(report.labels or ())
    lists = {}
    for split in dict.fromkeys([*splits, "train", "val"]):
        try:
            lists[split] = read_ids(root, split)
        except UserError as error:
            report.problems.append(str(error))
            lists[split] = []
        if split in splits:
            report.images[split] = np.zeros(classes + 1, np.int64)
            report.pixels[split] = np.zeros(classes + 1, np.int64)
            report.split_sizes[split] = len(lists[split])
        twice = [item for item in collections.Counter(lists[split]).items() if item[1] > 1]
        if twice:
            name, count = twice[0]
            more = f", and {len(twice) - 1} others more than once" if len(twice) > 1 else ""
            report.problems.append(
                f"{root / LIST_FOLDER / split}.txt: {name} is listed {count} times{more}."
            )
    shared = sorted({*lists["train"]} & {*lists["val"]})
    if shared:
        report.problems.append(
            f"{root / LIST_FOLDER}: train.txt and val.txt share {len(shared)} images, such as "
            f"{shared[0]}. Validation must not see training images."
        )
    return [(split, name) for split in splits for name in lists[split]]


def _missing_folders(root: Path, name: str) -> list[str]:
    """A line for each folder that is missing, instead of one for each image."""
    problems = []
    for folder, find in ((IMAGE_FOLDER, find_image), (MASK_FOLDER, find_mask)):
        if not os.path.isdir(root / folder):
            try:
                find(root, name)
            except UserError as error:
                problems.append(str(error))
    return problems
