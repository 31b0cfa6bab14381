"""ADE20K's scene parsing benchmark (ADEChallengeData2016): 150 classes, 0 is unlabelled.

| file                        | content                                             |
|-----------------------------|-----------------------------------------------------|
| objectInfo150.txt           | a table; a class is named by the first of its names |
| images/training/NAME.jpg    | a photograph; `validation` likewise                 |
| annotations/training/NAME.png | its mask: the number in that table, or 0          |
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fcn_keras.data.conversion.files import drawing, named_files, paired, read_numbers
from fcn_keras.data.conversion.source import Example, Findings, Options, Source, split_in
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.reading import damage_as_user_errors, read_text

OPTIONS: set[str] = set()
TABLE = "objectInfo150.txt"
FULL = ("index_ade20k.pkl", "index_ade20k.mat", "images/ADE")  # files of the whole of ADE20K
REMEDY = "Download ADEChallengeData2016.zip, whose masks are grey and have the numbers 0 to 150."


def recognizes(place: Path) -> bool:
    return any(os.path.exists(place / name) for name in (TABLE, *FULL))


def read(place: Path, options: Options, findings: Findings) -> Source:
    if any(os.path.exists(place / name) for name in FULL):
        raise UserError(f"{place}: this is full ADE20K, of thousands of classes. {REMEDY}")
    labels = _read_classes(place / TABLE)
    table = np.array([IGNORE_ID, *range(len(labels))])
    images, masks = (named_files(place / part, findings) for part in ("images", "annotations"))
    examples = []
    for name, image, mask in paired(images, masks, findings):
        draw = drawing(read_numbers, mask, table, REMEDY)
        rest = name.split("/", 1)[-1]
        examples.append(Example(rest, image, mask, draw, split_in(name.split("/")[:-1])))
    return Source(labels, examples)


def _read_classes(path: Path) -> LabelSet:
    with damage_as_user_errors(f"{path}: not ADE20K's table of classes", REMEDY):
        header, *lines = read_text(path).strip().splitlines()
        rows = [line.split("\t") for line in lines]
        if header.split() != ["Idx", "Ratio", "Train", "Val", "Name"]:
            raise ValueError(f"its first line is {header[:60]!r}")
        if [int(row[0]) for row in rows] != [*range(1, len(rows) + 1)]:
            raise ValueError("its numbers are not 1, 2, 3, ...")
        return LabelSet(tuple(row[4].split(",")[0].strip() for row in rows))
