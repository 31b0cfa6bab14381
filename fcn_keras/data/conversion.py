"""A folder of images and a folder of masks -> a data set in VOC's layout.

labelme's VOC export (`labelme2voc.py`) has `class_names.txt` instead of `classes.txt`, and
no lists of training and validation images; other programs use other colours in masks.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.directory import (
    CLASSES_FILE,
    IMAGE_FOLDER,
    IMAGE_SUFFIXES,
    LIST_FOLDER,
    MASK_FOLDER,
    MASK_SUFFIXES,
    read_class_list,
    read_image,
    read_mask,
    require_same_size,
)
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.images import palette_image
from fcn_keras.files.writing import atomic_folder

LABELME_IGNORE = "__ignore__"  # the first line of labelme's labels.txt, not a class


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `convert_masks` did or found.

    Args:
        sizes: Images written per split; empty if there were problems.
        unpaired: Images without a mask and masks without an image, left out.
        problems: One line per fault; if there are any, nothing was written.
    """

    sizes: dict[str, int]
    unpaired: list[Path]
    problems: list[str]


def convert_masks(
    images, masks, classes, output, val: float = 0.2, seed: int = 0, progress=lambda items: items
) -> Conversion:
    """Writes images and masks with matching names as a new data set in VOC's layout.

    Every pair is read first. The folder is written only if all are valid, and gets its
    name when it is complete. Masks become palette PNGs of class ids.

    Args:
        images: The folder of images, JPEG or PNG.
        masks: The folder of masks, PNG: class ids, or the colours of `classes`.
        classes: A file of class names as `read_labels` describes, such as labelme's
            `class_names.txt`.
        output: The new folder.
        val: The fraction of images used for validation, at least one; they are chosen at
            random.
        seed: Seed of that choice.
        progress: Wraps the sequence of pairs, to show progress.

    Raises:
        UserError: If a folder or `classes` is missing or malformed, `output` exists or
            cannot be written, or there are fewer than two pairs.
    """
    output, labels = Path(output), _read_classes(Path(classes))
    if output.exists():
        raise UserError(f"{output}: already exists and is never overwritten. Choose another name.")
    if not 0 < val < 1:
        raise UserError(f"--val must be between 0 and 1. Received: {val}.")
    if seed < 0:
        raise UserError(f"--seed must not be negative. Received: {seed}.")
    pairs, unpaired = _pairs(Path(images), Path(masks))
    problems = []
    for image_path, mask_path in progress(pairs):
        try:
            _require_listable(image_path)
            require_same_size(read_image(image_path), read_mask(mask_path, labels), mask_path)
        except UserError as error:
            problems.append(str(error))
    if problems:
        return Conversion({}, unpaired, problems)
    splits = _random_splits([image.stem for image, _ in pairs], val, seed)
    try:
        with atomic_folder(output) as partial:
            _write(partial, pairs, labels, splits)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}).") from error
    return Conversion({name: len(ids) for name, ids in splits.items()}, unpaired, [])


def _read_classes(path: Path) -> LabelSet:
    labels = read_class_list(path)
    if labels.names[0] == LABELME_IGNORE and len(labels) > 1:
        return LabelSet(labels.names[1:])
    return labels


def _pairs(images: Path, masks: Path) -> tuple[list[tuple[Path, Path]], list[Path]]:
    """Pairs of image and mask, sorted by name, and the files without a partner."""
    image_files, mask_files = _files(images, IMAGE_SUFFIXES), _files(masks, MASK_SUFFIXES)
    shared = image_files.keys() & mask_files.keys()
    names = sorted(shared)
    if len(names) < 2:
        raise UserError(
            f"{images} and {masks}: {len(names)} pairs of image and mask, among "
            f"{len(image_files)} images (JPEG or PNG) and {len(mask_files)} masks (PNG). At least "
            "two are needed; an image and its mask have the same name but for the extension."
        )
    pairs = [(image_files[name], mask_files[name]) for name in names]
    alone = [
        path
        for files in (image_files, mask_files)
        for name, path in files.items()
        if name not in shared
    ]
    return pairs, sorted(alone)


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in suffixes and not path.name.startswith("."):
            if path.stem in files:
                raise UserError(f"{path}: {files[path.stem].name} has the same name. Rename one.")
            files[path.stem] = path
    return files


def _require_listable(image: Path) -> None:
    """Raises `UserError` for a name that `read_ids` would not read back unchanged."""
    name = image.stem
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{image}: its name is not UTF-8. Rename it and its mask.") from error
    if name != name.strip() or re.search(r"[\r\n]", name):
        raise UserError(
            f"{image}: a list cannot hold its name, which has a line break or a space "
            "at either end. Rename it and its mask."
        )


def _random_splits(names: list[str], val: float, seed: int) -> dict[str, list[str]]:
    count = min(max(1, round(val * len(names))), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    return {
        "train": sorted(names[index] for index in order[count:]),
        "val": sorted(names[index] for index in order[:count]),
    }


def _write(root: Path, pairs, labels: LabelSet, splits: dict[str, list[str]]) -> None:
    for folder in (IMAGE_FOLDER, MASK_FOLDER, LIST_FOLDER):
        (root / folder).mkdir(parents=True)
    for image_path, mask_path in pairs:
        suffix = image_path.suffix.lower()
        shutil.copyfile(image_path, root / IMAGE_FOLDER / f"{image_path.stem}{suffix}")
        mask = palette_image(Image.fromarray(read_mask(mask_path, labels)), labels.palette)
        mask.save(root / MASK_FOLDER / f"{image_path.stem}.png")
    for name, ids in splits.items():
        (root / LIST_FOLDER / f"{name}.txt").write_text(
            "".join(f"{id}\n" for id in ids), encoding="utf-8"
        )
    lines = (
        f"{name}\t{' '.join(map(str, color))}\n"
        for name, color in zip(labels.names, labels.palette)
    )
    (root / CLASSES_FILE).write_text("".join(lines), encoding="utf-8")
