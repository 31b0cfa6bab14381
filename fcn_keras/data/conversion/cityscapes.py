"""Cityscapes: 19 classes that are trained, out of 34 numbers.

| file                                      | content                                   |
|-------------------------------------------|-------------------------------------------|
| leftImg8bit/SPLIT/CITY/N_leftImg8bit.png  | a photograph                              |
| gtFine/SPLIT/CITY/N_gtFine_labelIds.png   | its mask, of the numbers in `CLASSES`     |
| gtFine/SPLIT/CITY/N_gtFine_instanceIds.png | the same, or 1000 times a number plus n  |
| gtFine/SPLIT/CITY/N_gtFine_labelTrainIds.png | the ids of the 19 classes, and 255     |

`gtCoarse` is read if there is no `gtFine`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fcn_keras.data.conversion.files import drawing, named_files, paired, read_numbers
from fcn_keras.data.conversion.source import Example, Findings, Options, Source, split_in
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError

OPTIONS: set[str] = set()
IMAGES = "leftImg8bit"
# Number, name and colour in the order of the train ids (cityscapesscripts.helpers.labels).
CLASSES = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
NUMBERS = 34  # 0 to 33; those in no row above are unlabelled
REMEDY = "Use Cityscapes's own files, whose numbers are 0 to 33."


def recognizes(place: Path) -> bool:
    return any(os.path.isdir(place / name) for name in ("gtFine", "gtCoarse"))


def read(place: Path, options: Options, findings: Findings) -> Source:
    if os.path.exists(place / "label_colors.txt"):
        raise UserError(
            f"{place}: has label_colors.txt, so its classes are not Cityscapes's. Export it from "
            "CVAT as 'Segmentation mask 1.1'."
        )
    truth = "gtFine" if os.path.isdir(place / "gtFine") else "gtCoarse"
    images = named_files(place / IMAGES, findings, f"_{IMAGES}")
    masks = named_files(place / truth, findings, f"_{truth}_labelIds")
    instances = named_files(place / truth, findings, f"_{truth}_instanceIds")
    trained = named_files(place / truth, findings, f"_{truth}_labelTrainIds")
    if not masks and not instances and not trained:
        raise UserError(
            f"{place / truth}: no file ends in _{truth}_labelIds.png or _{truth}_instanceIds.png. "
            f"{REMEDY} For others: --format folders."
        )
    labels, objects = np.full(NUMBERS, IGNORE_ID), np.full(1000 * NUMBERS, -1)
    labels[[number for number, _, _ in CLASSES]] = range(len(CLASSES))
    objects[:NUMBERS], objects[1000:] = labels, np.repeat(labels[1:], 1000)
    train_ids = np.array([*range(len(CLASSES)), *[-1] * (IGNORE_ID - len(CLASSES)), IGNORE_ID])
    examples = []
    for name, image, mask in paired(images, {**trained, **instances, **masks}, findings):
        table = labels if name in masks else objects if name in instances else train_ids
        draw = drawing(read_numbers, mask, table, REMEDY)
        *folders, stem = name.split("/")  # the stem begins with the city
        examples.append(Example(stem, image, mask, draw, split_in(folders)))
    _, names, colors = zip(*CLASSES)
    return Source(LabelSet(names, colors), examples)
