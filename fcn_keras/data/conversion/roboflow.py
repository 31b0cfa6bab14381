"""Roboflow's "Semantic Segmentation Masks": `NAME.jpg` beside `NAME_mask.png` and `_classes.csv`.

The folders `train`, `valid` and `test` have such files each.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from fcn_keras.data.conversion.files import drawing, named_files, paired, read_numbers
from fcn_keras.data.conversion.pairs import find_pairs
from fcn_keras.data.conversion.source import Example, Findings, Options, Source, split_name
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.reading import damage_as_user_errors, read_text

OPTIONS: set[str] = set()
LIST = "_classes.csv"
HEADER = ["pixel value", "class"]
EXPORT = "Export it from Roboflow as 'Semantic Segmentation Masks'."


def recognizes(place: Path) -> bool:
    return any(
        os.path.isfile(place / part / LIST) for part in ("", "train", "valid", "val", "test")
    )


def read(place: Path, options: Options, findings: Findings) -> Source:
    folders = [place] if os.path.isfile(place / LIST) else _subfolders(place)
    if not folders:
        raise UserError(f"{place}: no {LIST} in it or its folders. {EXPORT}")
    classes = _read_classes(folders[0] / LIST)
    with damage_as_user_errors(f"{folders[0] / LIST}: not a list of classes", EXPORT):
        labels = LabelSet(tuple(classes.values()))
    table = np.full(IGNORE_ID + 1, -1)
    table[list(classes)] = range(len(classes))
    examples = []
    for folder in folders:
        if _read_classes(folder / LIST) != classes:
            raise UserError(f"{folder / LIST}: not the classes of {folders[0] / LIST}. {EXPORT}")
        same = Findings()
        masks = named_files(folder, same, "_mask", {".png"})
        taken = {*masks.values()}
        images = named_files(folder, same)
        images = {name: path for name, path in images.items() if path not in taken}
        if images.keys() & masks.keys():
            findings.problems += same.problems
            pairs = paired(images, masks, findings)
        else:  # folders of images and masks, or masks of the same names
            found = find_pairs(folder, folder, None, findings)
            pairs = [(pair.name, pair.image, pair.mask) for pair in found]
        for name, image, mask in pairs:
            draw = drawing(read_numbers, mask, table, EXPORT)
            split = None if folder == place else split_name(folder.name)
            examples.append(Example(name, image, mask, draw, split))
    return Source(labels, examples)


def _subfolders(place: Path) -> list[Path]:
    return sorted(path.parent for path in place.glob(f"*/{LIST}"))


def _read_classes(path: Path) -> dict[int, str]:
    """The name of each pixel value, by value."""
    with damage_as_user_errors(f"{path}: not a list of classes", EXPORT):
        lines = read_text(path).lstrip("\ufeff").splitlines()
        cells = csv.reader(lines, skipinitialspace=True)
        header, *rows = ([cell.strip() for cell in row] for row in cells if row)
        if [cell.lower() for cell in header] != HEADER:
            raise ValueError(f"its columns are {header[:3]}, not {HEADER}")
        classes = {int(row[0]): ", ".join(row[1:]) for row in rows}
        if len(classes) < len(rows):
            raise ValueError("a pixel value occurs twice")
        if not classes or not 0 <= min(classes) <= max(classes) < IGNORE_ID:
            raise ValueError(f"pixel values must be 0 to {IGNORE_ID - 1}")
    return dict(sorted(classes.items()))
