"""VOC's layout, and what is there in its place: the second half of messages about missing files."""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
from pathlib import Path

CLASSES_FILE = "classes.txt"
IMAGE_FOLDER = "JPEGImages"
MASK_FOLDER = "SegmentationClass"
LIST_FOLDER = Path("ImageSets", "Segmentation")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
MASK_SUFFIXES = (".png", ".PNG")
# What photographs, masks and lists of classes are called elsewhere.
_ENDINGS = (".jpg", ".jpeg", ".png", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".npy")
OTHER_SUFFIXES = tuple(form for end in _ENDINGS for form in (end, end.upper(), end.title()))
OTHER_CLASSES = (
    *("class_names.txt", "labelmap.txt", "class_dict.csv", "_classes.csv", "label_colors.txt"),
    *("labels.txt", "data.yaml", "dataset.yaml", "classes.json"),
)


def convert_command(root, *flags) -> str:
    """The command that makes a new data set of a folder's images and masks, for a shell."""
    root = Path(root)
    words = ["--images", root / IMAGE_FOLDER, "--masks", root / MASK_FOLDER]
    if "--binary" not in flags:
        words += ["--classes", root / CLASSES_FILE]
    return folder_command(*words, *flags)


def folder_command(root, *flags) -> str:
    """The command that makes a new data set of a folder, for a shell."""
    words = ["fcn-keras", "data", "convert", root, *flags, "--output", "NEW"]
    return shlex.join(map(str, words))


def instead_of_classes(root: Path) -> str:
    """What to do about a folder without `classes.txt`, if one can tell what it is; or ""."""
    here = Path(os.path.abspath(root))
    for base in (here, here.parent, here.parent.parent):
        voc = base / "VOCdevkit" / "VOC2012"
        if here in (base, voc.parent, voc) and os.path.isdir(voc / IMAGE_FOLDER):
            return f"This is Pascal VOC 2012: use --dataset voc2012 --data-dir {base}."
    if here.name in (IMAGE_FOLDER, MASK_FOLDER):
        return f"Choose the folder that contains {here.name}: {here.parent}."
    names = _names(root)
    for name in sorted(names):
        if os.path.isdir(root / name / IMAGE_FOLDER):
            return f"The data set seems to be in {root / name}: choose that folder."
    if names and IMAGE_FOLDER not in names:
        return (
            f"A data set has {IMAGE_FOLDER}, {MASK_FOLDER} and lists. If these are photographs and "
            f"masks, or a labelling tool's export, run: {folder_command(root)}"
        )
    for name in OTHER_CLASSES:
        if name in names:
            return (
                f"{name} is there: write its class names to {CLASSES_FILE}, one per line, or run: "
                f"{folder_command(root)}"
            )
    if IMAGE_FOLDER in names:
        how = "Write one class name per line, the first for id 0."
        return f"{how} Pascal VOC's own folders are read by: {folder_command(root)}"
    return ""


def instead_of_list(root: Path, split: str, others: list[str]) -> str:
    """How a list is made that is missing; `others` are those that exist."""
    how = "Write one image id per line."
    if split == "val" and "train" in others:
        how = "Move about a fifth of the lines of train.txt into it."
    found = f"{how} Lists found: {', '.join(others) or 'none'}."
    if split not in ("train", "val"):
        return found
    return f"{found} Or let the images be drawn at random: {convert_command(root)}"


def instead_of_folder(folder: Path, name: str, suffixes: tuple[str, ...]) -> str:
    """Which other folder has the file of an id: what to do about a folder that is missing."""
    fitting = _folders_with(folder, name, suffixes)
    if not fitting:
        return "Restore it or choose another data set."
    return f"{fitting[0]} is there: rename it to {folder.name}."


def instead_of_file(folder: Path, name: str, suffixes: tuple[str, ...]) -> str:
    """Where else the file of an id is, or under which ending, and what to do; or ""."""
    for suffix in OTHER_SUFFIXES:
        if suffix not in suffixes and os.path.isfile(folder / (name + suffix)):
            if suffix.lower() in suffixes:
                return f"{name}{suffix} is there: rename it to {name}{suffix.lower()}."
            kinds = "a JPEG or PNG" if ".jpg" in suffixes else "a PNG of class ids"
            way = f", or run: {convert_command(folder.parent)}" if suffix.lower() != ".npy" else "."
            return f"{name}{suffix} is there: save it as {kinds}{way}"
    if fitting := _folders_with(folder, name, suffixes):
        return f"{fitting[0]} has it: rename that folder to {folder.name}."
    with contextlib.suppress(OSError):
        for path in sorted(folder.glob(f"{glob.escape(name)}[-_.]*[a-zA-Z]*")):
            command = folder_command(folder.parent, "--format", "folders")
            return f"{path.name} is there: rename it, or run: {command}"
    return ""


def _folders_with(folder: Path, name: str, suffixes: tuple[str, ...]) -> list[str]:
    """The folders beside `folder` with a file of an id; masks of single objects do not count."""
    return [
        other
        for other in sorted(_names(folder.parent) - {IMAGE_FOLDER, MASK_FOLDER})
        if "object" not in other.lower()
        and any(os.path.isfile(folder.parent / other / (name + suffix)) for suffix in suffixes)
    ]


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:  # reported by whatever reads it next
        return set()
