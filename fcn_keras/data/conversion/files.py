"""What readers of folders share: files by name, masks of numbers, names that splits share."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fcn_keras.data.conversion.source import Example, Findings, split_name
from fcn_keras.data.decoding import GREY_STEPS
from fcn_keras.data.directory import read_file
from fcn_keras.errors import UserError, few
from fcn_keras.files.finding import IMAGE_SUFFIXES
from fcn_keras.files.images import bad_files_named, open_header


def named_files(
    folder: Path, findings: Findings, ending: str = "", suffixes=IMAGE_SUFFIXES
) -> dict[str, Path]:
    """The images in a folder and below it, sorted, by their names.

    Args:
        folder: The folder to search.
        findings: Gets a problem for each file whose name another one has.
        ending: What stems must end with. Names lack it, as they lack the suffix.
        suffixes: The suffixes of images, in lower case.

    Raises:
        UserError: If there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    files: dict[str, Path] = {}
    for path in sorted(_walk(folder)):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if not path.stem.endswith(ending) or path.stem == ending:
            continue
        stem = path.stem.removesuffix(ending)
        name = path.relative_to(folder).with_name(stem).as_posix()
        if name in files:
            findings.problems.append(
                f"{path}: {files[name].name} has the same name. Remove or rename one."
            )
        files.setdefault(name, path)
    return files


def _walk(root: Path) -> Iterator[Path]:
    """All files in a folder and below it; of links to the same folder, the first is followed."""

    def fail(error: OSError):
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}).") from error

    seen: set[str] = set()
    for folder, subfolders, names in os.walk(root, onerror=fail, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            subfolders.clear()
        else:
            seen.add(real)
            subfolders.sort()
            yield from (Path(folder, name) for name in names)


def paired(
    images: dict[str, Path], masks: dict[str, Path], findings: Findings
) -> list[tuple[str, Path, Path]]:
    """Name, image and mask, by name; what has no partner is left out."""
    for name, path in {**images, **masks}.items():
        if name not in masks:
            findings.leave_out("as it has no mask", path)
        elif name not in images:
            findings.leave_out("as it has no photograph", path)
    return [(name, images[name], masks[name]) for name in sorted({*images} & {*masks})]


def split_and_name(name: str) -> tuple[str | None, str]:
    """The split that a name's first folder is, if it has one, and the rest."""
    folder, slash, rest = name.partition("/")
    return (split_name(folder), rest) if slash else (None, name)


def keep_apart(examples: Sequence[Example], findings: Findings) -> list[Example]:
    """Prefixes all names by their splits if two splits share one, as a data set is one folder."""
    splits: dict[str, set[str | None]] = {}
    for example in examples:
        splits.setdefault(example.name, set()).add(example.split)
    shared = [name for name, its in splits.items() if len(its) > 1]
    if not shared:
        return list(examples)
    findings.notes.append(
        f"{len(shared)} names are in several splits, such as {shared[0]}: each name gets its split "
        "as its folder. If they are the same photographs, remove them from one split."
    )
    return [
        dataclasses.replace(example, name=f"{example.split or 'default'}/{example.name}")
        for example in examples
    ]


def read_numbers(path: Path, table: np.ndarray, remedy: str = "") -> np.ndarray:
    """Reads a mask of numbers that are not class ids.

    Args:
        path: A PNG of one channel, of up to 16 bits.
        table: The id of each number, below 0 for those that mean nothing.
        remedy: What to do about other numbers, or a mask in colours.

    Returns:
        uint8 `(H, W)` of class ids.

    Raises:
        UserError: If it is no such PNG, or has a number without an id.
    """
    with bad_files_named(str(path)):
        image = open_header(read_file(path), str(path))
        if image.format != "PNG" or image.mode not in ("1", "L", "P", "I", "I;16"):
            raise UserError(
                f"{path}: a mask must be a PNG of numbers, not {image.format} of mode "
                f"{image.mode}. {remedy}"
            )
        step = GREY_STEPS.get(image.tile[0].args, 1) if image.tile else 1
        numbers = np.asarray(image).astype(np.int64) // step
    counts = np.bincount(numbers.ravel())
    unknown = [str(n) for n in np.flatnonzero(counts) if n >= len(table) or table[n] < 0]
    if unknown:
        raise UserError(f"{path}: the mask has {few(unknown)}, which is no class's. {remedy}")
    return table[numbers].astype(np.uint8)
