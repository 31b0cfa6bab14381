"""Which images paths, folders and patterns refer to, and what their results are called."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fcn_keras.errors import UserError
from fcn_keras.files import storage

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
NO_IMAGES = "no images found (those in --output do not count)."


class FoundImage(NamedTuple):
    """An image's path or address, its result's path without extension, and its time of change."""

    path: str
    name: str
    changed: float


def named_images(paths: Iterable[str], output, reserved=()) -> Iterator[FoundImage]:
    """What `found_images` finds on this machine; raises `UserError` for addresses."""
    paths = list(paths)
    for address in filter(storage.is_address, paths):
        raise UserError(f"{address}: only `predict` reads addresses. Copy the images here.")
    yield from found_images(paths, output, reserved)


def found_images(paths: Iterable[str], output, reserved=()) -> Iterator[FoundImage]:
    """The images that files, folders and patterns refer to, each with a unique name.

    A file's result has its name; a folder's images keep their subfolders. If several
    would share a name, the later ones get `_2`, `_3` and so on. Only one folder's
    listing is held at a time, as there may be more names than fit into memory.

    Args:
        paths: Files, folders (searched recursively) and glob patterns; also addresses
            of files and folders, see `storage`.
        output: The output folder, which is not searched.
        reserved: Folders in the output folder that hold something else; a
            folder of images with such a name gets `_2`.

    Yields:
        The images, missing files included; opening these fails.

    Raises:
        UserError: If a folder cannot be read.
    """
    yield from _found_below("", list(_expand(paths)), _absolute(output), reserved)


def _found_below(folder: str, sources, output: str, reserved) -> Iterator[FoundImage]:
    """The images whose results go to one folder, after those of its subfolders.

    Only names within a result's folder can clash, so no others need to be known.
    """
    files: list[tuple[str, float]] = []
    below: dict[str, list[tuple[str, bool]]] = {}
    for path, is_folder in sources:
        if not is_folder:
            files.append((path, storage.changed(path)))
        elif not f"{_absolute(path)}/".startswith(f"{output}/"):
            for entry in storage.list_folder(path):
                inner, name = storage.join(path, entry.name), entry.name
                if entry.is_folder:
                    name += "_2" if name in reserved else ""
                    below.setdefault(name, []).append((inner, True))
                elif Path(name).suffix.lower() in IMAGE_SUFFIXES and name[0] != ".":
                    files.append((inner, entry.changed))
    for name in sorted(below):
        yield from _found_below(f"{folder}{name}/", below.pop(name), output, ())
    taken: set[str] = set()
    for path, changed in files:
        unique = stem = Path(path).stem
        for number in itertools.count(2):
            if unique not in taken:
                break
            unique = f"{stem}_{number}"
        taken.add(unique)
        yield FoundImage(path, folder + unique, changed)


def _expand(paths: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Paths and addresses, each with whether it is a folder."""
    for given in map(str, paths):
        path = given if storage.is_address(given) else str(Path(given))
        if storage.is_folder(path):
            yield path, True
        elif storage.is_address(path) or os.path.exists(path) or not glob.has_magic(given):
            yield path, False
        else:
            # If nothing matches, the pattern is reported as missing.
            matches = sorted(glob.glob(given, recursive=True)) or [path]
            yield from ((match, False) for match in matches)


def _absolute(path) -> str:
    return str(path if storage.is_address(path) else os.path.abspath(path)).rstrip("/")
