"""VOC's layout as it is: PASCAL VOC itself, labelme's VOC export, or a folder in our own layout.

Masks are of ids, or in the classes' colours; `SegmentationObject` is not read. The classes are in
`classes.txt` or labelme's `class_names.txt`. PASCAL VOC has neither, and its images are known by
their names. Without lists, all images that have a mask are read.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fcn_keras.data.conversion.files import drawing, listed_name, named_files, names_by_path
from fcn_keras.data.conversion.masks import require_palette_agrees
from fcn_keras.data.conversion.source import Example, Findings, Options, Source, split_name
from fcn_keras.data.decoding import class_ids, mask_values
from fcn_keras.data.directory import (
    CLASSES_FILE,
    IMAGE_FOLDER,
    LIST_FOLDER,
    MASK_FOLDER,
    read_class_list,
    read_file,
    read_ids,
    split_names,
)
from fcn_keras.data.layout import OTHER_CLASSES
from fcn_keras.data.mask_survey import MaskSurvey
from fcn_keras.data.split import LabelSet
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.errors import UserError

OPTIONS = {"images", "classes"}
LABELME_FOLDER = "SegmentationClassPNG"  # beside arrays in a SegmentationClass, in older labelme
VOC_NAMES = re.compile(r"(20\d\d_)?\d{6}")  # of VOC 2012, and of VOC 2007


def recognizes(place: Path) -> bool:
    return bool(_roots(place)) and not os.path.isfile(place / "labelmap.txt")  # CVAT's


def read(place: Path, options: Options, findings: Findings) -> Source:
    roots = _roots(place)
    if len(roots) != 1:
        found = ", ".join(root.name for root in roots) or "none"
        raise UserError(
            f"{place}: a folder with {MASK_FOLDER} is needed. Name one of those in it: {found}."
        )
    root = roots[0]
    lists = [root / name for name in (CLASSES_FILE, *OTHER_CLASSES)]
    classes = options.classes or next((path for path in lists if path.exists()), None)
    survey = MaskSurvey()
    labels = read_class_list(classes) if classes else VOC_LABELS
    images = options.images or root / IMAGE_FOLDER
    read_mask = functools.partial(_read_mask, survey=survey)
    examples = listed_examples(root, images, read_mask, labels, findings)
    if not classes:
        strange = [example.name for example in examples if not VOC_NAMES.fullmatch(example.name)]
        if strange:
            raise UserError(
                f"{root}: no {CLASSES_FILE}, and {strange[0]} is no image of PASCAL VOC. Write one "
                "class name per line, the first for id 0, or name the list by --classes."
            )
        findings.notes.append(f"there is no {CLASSES_FILE}: the classes are PASCAL VOC's.")
    elif classes.name != CLASSES_FILE and not options.classes:
        findings.notes.append(f"{classes}: its classes are used (--classes names another list).")

    def finish() -> None:
        findings.problems += survey.problems("--format folders --mask-values colors")
        findings.notes += survey.notes()

    return Source(labels, examples, finish)


def _read_mask(path: Path, labels: LabelSet, survey: MaskSurvey) -> np.ndarray:
    name = str(path)
    values = mask_values(read_file(path), name)
    require_palette_agrees(values, labels, name)
    survey.look(values, name)
    return class_ids(values, labels, name)


def listed_examples(
    root: Path, images: Path, read_mask: Callable, labels: LabelSet, findings: Findings
) -> list[Example]:
    """The examples in a folder in VOC's layout, with the lists as splits.

    Args:
        root: The folder.
        images: Its folder of photographs.
        read_mask: Takes a mask's path and the classes; returns the mask.
        labels: The classes.
        findings: Gets what is missing, listed twice or in no list.

    Raises:
        UserError: If a folder or list cannot be read, or there is no example.
    """
    if not os.path.isdir(images):
        raise UserError(f"{images}: no such folder. Pass that of the photographs by --images.")
    photographs = named_files(images, findings)
    masks = named_files(_mask_folder(root), findings)
    known = names_by_path(masks)
    splits = {
        listed_name(name, known) or name: split for name, split in _splits(root, findings).items()
    } or dict.fromkeys(masks)
    examples = []
    for name, split in splits.items():
        if name not in masks:
            findings.leave_out("as it has no mask", name)
        elif name not in photographs:
            findings.problems.append(
                f"{images / name}.*: the photograph of {masks[name]} is missing. Add it, or remove "
                "the mask."
            )
        else:
            draw = drawing(read_mask, masks[name], labels)
            examples.append(Example(name, photographs[name], masks[name], draw, split))
    for name in sorted(masks.keys() - splits.keys()):
        findings.leave_out("as no list names it", masks[name])
    if not examples and not findings.problems:
        raise UserError(
            f"{root}: {len(splits)} names in its lists, {len(masks)} masks in "
            f"{_mask_folder(root).name}, and none in common. If names differ by a suffix, or the "
            "lists are of something else: --format folders."
        )
    return examples


def _splits(root: Path, findings: Findings) -> dict[str, str | None]:
    """The split of each listed name."""
    lists = {}
    for name in split_names(root):
        path = root / LIST_FOLDER / f"{name}.txt"
        if os.path.isfile(path) and not os.path.getsize(path):
            findings.notes.append(f"{path}: the list is empty.")
        else:
            lists[name] = read_ids(root, name)
    _drop_unions(lists, findings)
    seen: dict[str, str] = {}
    for part, names in lists.items():
        for name in names:
            if name in seen:
                where = "twice" if seen[name] == part else f"in {seen[name]}.txt as well"
                findings.problems.append(
                    f"{root / LIST_FOLDER / part}.txt: {name} is listed {where}. Keep one."
                )
            seen.setdefault(name, part)
    return {name: None if part == "default" else split_name(part) for name, part in seen.items()}


def _drop_unions(lists: dict[str, list[str]], findings: Findings) -> None:
    """Drops lists that contain another, such as VOC's `trainval`, or a `test` equal to `val`."""
    sets = {part: {*names} for part, names in lists.items()}
    for part in sorted({*lists} - {"train", "val"}, key=lambda part: -len(sets[part])):
        inside = [other for other in lists if other != part and sets[other] <= sets[part]]
        if inside:
            del lists[part]
            findings.notes.append(f"{part}.txt is not used, as it contains all of {inside[0]}.txt.")


def _roots(place: Path) -> list[Path]:
    """The folders in VOC's layout: a place itself, or those of the years in a VOCdevkit."""
    years = [*place.glob("VOC20??"), *place.glob("VOCdevkit/VOC20??")]
    return next(([root] for root in (place,) if _is_root(root)), sorted(filter(_is_root, years)))


def _is_root(place: Path) -> bool:
    return any(os.path.isdir(place / name) for name in (MASK_FOLDER, LABELME_FOLDER))


def _mask_folder(root: Path) -> Path:
    older = root / LABELME_FOLDER
    return older if os.path.isdir(older) else root / MASK_FOLDER
