"""A data set that grows: photographs are added to a folder in VOC's layout, or replaced there.

The new version is put together beside the folder, from new files and from hard links to those
that stay, and then takes its place (`files.writing.new_version`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import filecmp
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from fcn_keras.data.conversion.source import Example
from fcn_keras.data.directory import (
    CLASSES_FILE,
    IMAGE_FOLDER,
    IMAGE_SUFFIXES,
    LIST_FOLDER,
    MASK_FOLDER,
    find_image,
    find_mask,
    read_file,
    read_ids,
    read_labels,
    read_mask,
    split_names,
)
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError, few


@dataclasses.dataclass(frozen=True)
class Existing:
    """A data set before it grows: its folder, its classes, and the ids in each of its lists."""

    root: Path
    labels: LabelSet
    lists: Mapping[str, frozenset[str]]


def read_existing(root: Path, examples: Iterable[Example]) -> Existing:
    """Reads the data set that is to gain photographs.

    Raises:
        UserError: If it is damaged, or a folder that gains files is a link to another one.
    """
    if not root.is_dir():
        raise UserError(f"--into {root}: no such folder. Make a new data set by --output.")
    labels, lists = read_labels(root), {"train", "val", *split_names(root)}
    real = Path(os.path.realpath(root))
    subfolders = {os.path.dirname(example.name) for example in examples} | {""}
    for folder in (LIST_FOLDER, *(Path(IMAGE_FOLDER, each) for each in subfolders)):
        for path in (folder, Path(MASK_FOLDER, *folder.parts[1:])):
            if os.path.realpath(real / path) != str(real / path):
                raise UserError(
                    f"{root / path}: through a link, so that it cannot change together with the "
                    "rest. Replace the link by the folder, or convert to a new folder by --output."
                )
    return Existing(root, labels, {name: frozenset(read_ids(root, name)) for name in sorted(lists)})


def match(labels: LabelSet, source, existing: Existing) -> np.ndarray:
    """The id in a data set of each class of a source, uint8 `(256,)`.

    Raises:
        UserError: Unless both have the same classes, in any order.
    """
    names, here = labels.names, existing.labels.names
    if other := [name for name in names if name not in here]:
        raise UserError(
            f"{source}: {existing.root} has no class {few(other)}; it has {few(here)}. Rename it "
            f"by --map '{other[0]}=NAME', drop it by --map '{other[0]}=', or convert to a new "
            "folder by --output."
        )
    if missing := [name for name in here if name not in names]:
        raise UserError(
            f"{source}: its classes lack {few(missing)} of {existing.root}, so that such pixels "
            "would count as another class. Add the name to the source's own list, or pass "
            f"--classes {existing.root / CLASSES_FILE}."
        )
    ids = np.full(256, IGNORE_ID, np.uint8)
    ids[: len(names)] = [here.index(name) for name in names]
    return ids


def drop_equal(partial: Path, name: str, mask: np.ndarray, existing: Existing) -> str:
    """Removes a photograph and its mask from `partial` if the data set has an equal one.

    Returns:
        `"added"`, `"replaced"` or `"unchanged"`. A mask is unchanged if its ids are.
    """
    root, kept = existing.root, 0
    for find, is_equal in (
        (find_image, lambda old, new: filecmp.cmp(old, new, shallow=False)),
        (find_mask, lambda old, _: np.array_equal(read_mask(old, existing.labels), mask)),
    ):
        new = find(partial, name)
        with contextlib.suppress(UserError, OSError):  # there is none, or it is damaged
            if is_equal(find(root, name), new):
                new.unlink()
                kept += 1
    if not any(name in names for names in existing.lists.values()):
        return "added"
    return "unchanged" if kept == 2 else "replaced"


def sizes_with(gained: Mapping[str, Collection[str]], existing: Existing) -> dict[str, int]:
    """How many images each list will have."""
    return {
        part: len(existing.lists.get(part, ())) + len(gained.get(part, ()))
        for part in dict.fromkeys(["train", "val", *existing.lists, *gained])
    }


def extend_lists(partial: Path, gained: Mapping[str, Collection[str]], existing: Existing) -> None:
    """Writes the lists that gain names, with these behind the earlier ones."""
    for part, names in gained.items():
        file = LIST_FOLDER / f"{part}.txt"
        earlier = read_file(existing.root / file) if part in existing.lists else b""
        if earlier and not earlier.endswith((b"\n", b"\r")):
            earlier += b"\n"
        (partial / file).write_bytes(earlier + "".join(f"{name}\n" for name in names).encode())


def link_rest(partial: Path, existing: Existing) -> None:
    """Links everything into `partial` that no file in it takes the place of.

    Raises:
        UserError: If a file is on another file system, or cannot be linked or copied.
    """
    root = Path(os.path.realpath(existing.root))

    def replaced(folder: str, names: Iterable[str]) -> set[str]:
        new = partial / Path(folder).relative_to(root)
        files = [entry.name for entry in os.scandir(new) if entry.is_file()] if new.is_dir() else []
        # An id has one photograph and one mask, whatever their extensions.
        stems = {name.rpartition(".")[0] for name in files if name.endswith(IMAGE_SUFFIXES)}
        others = {stem + suffix for stem in stems for suffix in IMAGE_SUFFIXES} & {*names}
        return {*files, *(name for name in others if not Path(folder, name).is_dir())}

    try:
        shutil.copytree(
            root, partial, symlinks=True, ignore=replaced, copy_function=_link, dirs_exist_ok=True
        )
    except shutil.Error as error:
        place, _, reason = error.args[0][0]
        raise UserError(f"{place}: cannot be taken over ({reason}).") from error


def _link(path: str, target: str) -> None:
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise UserError(
                f"{path}: on another file system than its data set's folder, so that both cannot "
                "change together. Convert to a new folder by --output."
            ) from error
        shutil.copy2(path, target, follow_symlinks=False)
