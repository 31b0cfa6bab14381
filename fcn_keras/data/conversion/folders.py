"""Photographs and masks as image files, in two folders or in one that contains both.

labelme's VOC export (`labelme2voc.py`) has `class_names.txt` instead of `classes.txt`, and
no lists of training and validation images; other programs use other colours in masks.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fcn_keras.data.class_lists import split_lines
from fcn_keras.data.conversion.files import drawing
from fcn_keras.data.conversion.masks import BINARY_COLORS, MaskReader
from fcn_keras.data.conversion.names import IGNORED
from fcn_keras.data.conversion.pairs import IMAGE_ENDINGS, Pair, find_pairs
from fcn_keras.data.conversion.source import (
    SPLIT_NAMES,
    Example,
    Findings,
    Options,
    Source,
    split_name,
)
from fcn_keras.data.directory import LIST_FOLDER, read_class_list, read_file, read_text
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError

OPTIONS = {
    *("images", "masks", "classes", "mask_suffix", "binary", "mask_values", "ids_from"),
    *("unlabelled", "unlabelled_color", "nearest"),
}
CVAT_LIST = "labelmap.txt"
CLASS_LISTS = (
    *("classes.txt", "class_names.txt", CVAT_LIST, "class_dict.csv", "_classes.csv"),
    *("label_colors.txt", "labels.txt", "data.yaml", "dataset.yaml", "classes.json"),
)
UNLABELLED_NAMES = {"unlabelled", "unlabeled", "void", "ignore", IGNORED}


def recognizes(place: Path) -> bool:
    return place.is_dir()  # the last of the formats: it tells best what a folder lacks


def read(place: Path | None, options: Options, findings: Findings) -> Source:
    images, masks = options.images or place, options.masks or place
    if not images or not masks:
        raise UserError("Give a folder, or two by --images DIR and --masks DIR.")
    _check_options(options)
    if place is None:
        place = Path(os.path.commonpath([images.absolute(), masks.absolute()]))
    pairs = find_pairs(images, masks, options.mask_suffix, findings)
    labels, path = _labels(place, options, findings)
    splits = _listed_splits(place, pairs, findings)
    reader = MaskReader(labels, options, path or "the class list")
    new_labels, new_ids = _in_new_order(labels, path)
    examples = []
    for pair in pairs:
        draw = drawing(lambda path: new_ids[reader.read(read_file(path), str(path))], pair.mask)
        split = pair.split or splits.get(pair.name)
        examples.append(Example(pair.name, pair.image, pair.mask, draw, split))
    return Source(new_labels, examples, lambda: reader.finish(findings))


def _check_options(options: Options) -> None:
    """Raises `UserError` for values out of range, and for options that exclude each other."""
    others = ("classes", "ids_from", "unlabelled", "mask_values")
    given = [name for name in others if getattr(options, name) is not None]
    if options.binary is not None and given:
        raise UserError(f"--binary NAME excludes --{given[0].replace('_', '-')}.")
    if options.nearest and "ids" in (options.mask_values, options.ids_from and "ids"):
        raise UserError("--nearest is for colours, and excludes --mask-values ids and --ids-from.")
    for name, known in (("mask_values", ("ids", "colors")), ("exif", ("apply", "ignore"))):
        value = getattr(options, name)
        if value not in (None, *known):
            flag = name.replace("_", "-")
            raise UserError(f"--{flag} must be one of {', '.join(known)}. Received: {value!r}.")
    colors = [level for color in options.unlabelled_color or () for level in color]
    if not {*colors, options.ids_from or 0, *(options.unlabelled or ())} <= {*range(256)}:
        raise UserError("--ids-from, --unlabelled and --unlabelled-color must be 0 to 255.")


def _labels(
    place: Path, options: Options, findings: Findings
) -> tuple[LabelSet | None, Path | None]:
    """The classes in the order of their ids in masks, and their list, if there is one."""
    if options.binary is not None:
        return LabelSet(("background", options.binary), BINARY_COLORS), None
    path = options.classes
    if path is None:
        paths = [folder / name for folder in (place, place / "train") for name in CLASS_LISTS]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None, None
        findings.notes.append(f"{path}: its classes are used (--classes names another list).")
    labels = read_class_list(path)
    if labels.names[0] == IGNORED and len(labels) > 1:  # labelme's, which is no id in masks
        labels = LabelSet(labels.names[1:])
    for name in labels.names:
        if name.lower() in UNLABELLED_NAMES:
            findings.notes.append(
                f"{name} is a class like others. To leave its pixels unlabelled: --map '{name}='."
            )
    return labels, path


def _in_new_order(labels: LabelSet | None, path: Path | None) -> tuple[LabelSet, np.ndarray]:
    """The new data set's classes, and their new ids by those in masks, uint8 `(256,)`."""
    if labels is None:
        return LabelSet(("unknown",)), np.zeros(256, np.uint8)
    order = list(range(len(labels)))
    if path and path.name == CVAT_LIST:  # sorted by name
        order.sort(key=lambda id: labels.names[id] != "background")
    new_ids = np.full(256, labels.ignore_id, np.uint8)
    new_ids[order] = np.arange(len(labels))
    palette = () if path is None else tuple(labels.palette[id] for id in order)
    return LabelSet(tuple(labels.names[id] for id in order), palette), new_ids


def _listed_splits(place: Path, pairs: list[Pair], findings: Findings) -> dict[str, str]:
    """The split of each name that a list such as `train.txt` has, unless folders tell it."""
    if any(pair.split for pair in pairs):
        return {}
    names = {pair.name: pair.name for pair in pairs}
    names |= {f"/{Path(name).name}": name for name in names}
    splits: dict[str, str] = {}
    for folder in (place, place / LIST_FOLDER):
        for split in sorted(SPLIT_NAMES):
            path = folder / f"{split}.txt"
            if not path.is_file():
                continue
            lines = [line for line in split_lines(read_text(path)) if line.strip()]
            found = [name for line in lines if (name := _listed(line, names))]
            missing = len(lines) - len(found)
            findings.notes.append(
                f"{path}: {split_name(split)}, {len(found)} images"
                + (f"; {missing} of its lines name none here." if missing else ".")
            )
            for name in found:
                if splits.setdefault(name, split_name(split)) != split_name(split):
                    findings.problems.append(f"{path}: {name} is in another list, too.")
    return splits


def _listed(line: str, names: dict[str, str]) -> str | None:
    """The name that a line of a list means: itself, or the first of its paths."""
    line = line.replace("\\", "/")
    for text in (line.strip(), line.split()[0]):
        root, ending = os.path.splitext(text)
        text = root if ending.lower() in IMAGE_ENDINGS else text
        found = names.get(text) or names.get(f"/{text.rpartition('/')[2]}")
        if found:
            return found
    return None
