"""Photographs and masks as image files, in two folders or in one that contains both.

labelme's VOC export (`labelme2voc.py`) has `class_names.txt` instead of `classes.txt`, and
no lists of training and validation images; other programs use other colours in masks.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fcn_keras.data.class_lists import split_lines
from fcn_keras.data.conversion.files import drawing, listed_name, names_by_path
from fcn_keras.data.conversion.masks import BINARY_COLORS, MaskReader
from fcn_keras.data.conversion.names import IGNORED
from fcn_keras.data.conversion.pairs import Pair, find_pairs
from fcn_keras.data.conversion.source import (
    SPLIT_NAMES,
    Example,
    Findings,
    Options,
    Source,
    split_name,
)
from fcn_keras.data.directory import (
    CLASSES_FILE,
    LIST_FOLDER,
    read_file,
    read_numbered_list,
    read_text,
)
from fcn_keras.data.layout import OTHER_CLASSES
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError

OPTIONS = {
    *("images", "masks", "classes", "mask_suffix", "binary", "mask_values", "ids_from"),
    *("unlabelled", "unlabelled_color", "nearest"),
}
CVAT_LIST = "labelmap.txt"
SPLIT_LIST = re.compile(rf"({'|'.join(SPLIT_NAMES)})([-_]?(list|files|ids|images|set))?\.(txt|csv)")
UNLABELLED_NAMES = {"unlabelled", "unlabeled", "unknown", "void", "ignore", IGNORED}


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
    labels, path, ids = _labels(place, options, findings)
    splits = _listed_splits(place, pairs, findings)
    reader = MaskReader(labels, options, path or "the class list", ids)
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
) -> tuple[LabelSet | None, Path | None, tuple[int, ...]]:
    """The classes in the order of their ids in masks, their list, and the ids that it names."""
    if options.binary is not None:
        return LabelSet(("background", options.binary), BINARY_COLORS), None, ()
    path = options.classes
    if path is None:
        paths = [
            folder / name
            for folder in (place, place / "train")
            for name in (CLASSES_FILE, *OTHER_CLASSES)
        ]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None, None, ()
        findings.notes.append(f"{path}: its classes are used (--classes names another list).")
    labels, ids = read_numbered_list(path)
    if labels.names[0] == IGNORED and len(labels) > 1:  # labelme's, which is no id in masks
        labels, ids = LabelSet(labels.names[1:]), ids[:-1]
    for name in labels.names:
        if name.lower() in UNLABELLED_NAMES:
            findings.notes.append(
                f"{name} is a class like others. To leave its pixels unlabelled: --map '{name}='."
            )
    return labels, path, ids


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
    names = names_by_path(pair.name for pair in pairs)
    splits: dict[str, str] = {}
    for path in _lists(place):
        split = split_name(SPLIT_LIST.fullmatch(path.name.lower())[1])  # type: ignore[index]
        lines = [line for line in split_lines(read_text(path)) if line.strip()]
        found = [name for line in lines if (name := listed_name(line, names))]
        missing = len(lines) - len(found)
        findings.notes.append(
            f"{path}: {split}, {len(found)} images"
            + (f"; {missing} of its lines name none here." if missing else ".")
        )
        for name in found:
            if splits.setdefault(name, split) != split:
                findings.problems.append(f"{path}: {name} is in another list, too.")
    return splits


def _lists(place: Path) -> Iterator[Path]:
    """Files such as `train.txt`, in a folder, in one inside it, or where VOC has them."""
    with contextlib.suppress(OSError):
        for pattern in ("*", "*/*", f"{LIST_FOLDER}/*"):
            for path in sorted(place.glob(pattern)):
                if SPLIT_LIST.fullmatch(path.name.lower()) and path.is_file():
                    yield path
