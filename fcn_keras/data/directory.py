"""The user's own data: a folder in VOC's layout.

| file                                  | content                                          |
|---------------------------------------|--------------------------------------------------|
| JPEGImages/ID.jpg (or .jpeg, .png)    | a photograph                                     |
| SegmentationClass/ID.png              | its mask: palette indices, grey ids, or colours  |
| ImageSets/Segmentation/SPLIT.txt      | one ID per line                                  |
| classes.txt                           | one name per line, the first for id 0; the       |
|                                       | colour "R G B" may follow after a tab; or another|
|                                       | form that `class_lists` knows                    |
"""

from __future__ import annotations

import collections
import functools
import os
import stat
from pathlib import Path

import numpy as np

from fcn_keras.data.class_lists import (
    REMEDY,
    parse_class_list,
    parse_numbered_list,
    split_lines,
)
from fcn_keras.data.decoding import decode_image, decode_mask
from fcn_keras.data.layout import (
    CLASSES_FILE,
    IMAGE_FOLDER,
    IMAGE_SUFFIXES,
    LIST_FOLDER,
    MASK_FOLDER,
    MASK_SUFFIXES,
    instead_of_classes,
    instead_of_file,
    instead_of_folder,
    instead_of_list,
)
from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError

MAX_CLASSES_BYTES = 1 << 20
MAX_BYTES = 2 << 30  # of a list; an image with as many pixels as Pillow allows is smaller


def directory_split(root, split: str, labels: LabelSet | None = None) -> Split:
    """One split of a folder in VOC's layout.

    Args:
        root: The folder.
        split: The name of a list in `ImageSets/Segmentation`, without `.txt`.
        labels: The classes. Default: those in `classes.txt`.

    Returns:
        A `Split` whose ids are those of the list.

    Raises:
        UserError: If the folder, list or `classes.txt` is missing, empty or
            malformed, an image is listed twice, or an image or mask named in the
            list does not exist.
    """
    root = Path(root)
    labels = labels or read_labels(root)
    ids = tuple(read_ids(root, split))
    _require_unique(ids, root / LIST_FOLDER / f"{split}.txt")
    _require_files(ids, root)

    def read(index: int):  # looks files up each time, as all paths would take too much memory
        image_path, mask_path = find_image(root, ids[index]), find_mask(root, ids[index])
        image, mask = read_image(image_path), read_mask(mask_path, labels)
        require_same_size(image, mask, mask_path)
        return image, mask

    def mask(index: int) -> np.ndarray:
        return read_mask(find_mask(root, ids[index]), labels)

    return Split(split, labels, ids, read, mask)


def read_labels(root) -> LabelSet:
    """Reads `classes.txt`: one name per line, optionally with its colour after a tab.

    Raises:
        UserError: If the file is missing, or a line is malformed.
    """
    path = Path(root) / CLASSES_FILE
    hint = "" if os.path.lexists(path) else instead_of_classes(path.parent)
    if hint:
        raise UserError(f"{path}: no such file. {hint}")
    return read_class_list(path)


def read_class_list(path: Path) -> LabelSet:
    """Reads a class list of any form (see `class_lists`); raises `UserError` like `read_labels`."""
    return parse_class_list(read_text(path, REMEDY, MAX_CLASSES_BYTES), path)


def read_numbered_list(path: Path) -> tuple[LabelSet, tuple[int, ...]]:
    """Like `read_class_list`, of ids that may have gaps: the classes and their ids."""
    return parse_numbered_list(read_text(path, REMEDY, MAX_CLASSES_BYTES), path)


def read_ids(root, split: str) -> list[str]:
    """Reads the ids of a list in `ImageSets/Segmentation`.

    Raises:
        UserError: If there is no such list, it is empty, or an id points outside the folder.
    """
    path = Path(root) / LIST_FOLDER / f"{split}.txt"
    remedy = instead_of_list(Path(root), split, split_names(root))
    lines = split_lines(read_text(path, remedy, MAX_BYTES))
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty. Write one image id per line.")
    for name in ids:
        if "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise UserError(
                f"{path}: {name!r} is not the id of an image in this folder. An id is a file name "
                "without its extension, preceded by its subfolder if it has one, as in a/b."
            )
    return ids


def split_names(root) -> list[str]:
    """The names of the lists in `ImageSets/Segmentation`; `UserError` if it cannot be read."""
    path = Path(root) / LIST_FOLDER
    try:
        return sorted(name[:-4] for name in os.listdir(path) if name.endswith(".txt"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Make it readable.") from error


def read_image(path: Path) -> np.ndarray:
    """Reads an image file as uint8 `(H, W, 3)`; raises `UserError` if that fails."""
    return decode_image(read_file(path), str(path))


def read_mask(path: Path, labels: LabelSet, predicted: bool = False) -> np.ndarray:
    """Reads a mask file as uint8 `(H, W)`; raises `UserError` if that fails."""
    data = read_file(path, "Write a mask for each image.")
    return decode_mask(data, labels, str(path), predicted)


def read_file(path: Path, remedy: str = "") -> bytes:
    """The bytes of an image's or mask's file; raises `UserError` if that fails."""
    return _read_bytes(path, MAX_BYTES, remedy)


def read_text(path: Path, remedy: str = "", limit: int = MAX_BYTES) -> str:
    """The text of a list; raises `UserError` if that fails."""
    data = _read_bytes(path, limit, remedy)
    try:  # Windows writes UTF-16 where it says Unicode
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error


def require_same_size(image: np.ndarray, mask: np.ndarray, mask_path: Path) -> None:
    """Raises `UserError` unless image and mask have the same height and width."""
    if image.shape[:2] != mask.shape:
        remedy = "Draw the mask at the image's size."
        if image.shape[1::-1] == mask.shape:
            remedy = "Transpose it. If EXIF turns the image, data convert --exif ignore does so."
        raise UserError(
            f"{mask_path}: the mask is {_size(mask)}, but its image is {_size(image)} "
            f"(height×width). {remedy}"
        )


def find_image(root: Path, name: str) -> Path:
    """The image file of an id; raises `UserError` if there is none."""
    return _find(root / IMAGE_FOLDER, name, IMAGE_SUFFIXES, "image")


def find_mask(root: Path, name: str) -> Path:
    """The mask file of an id; raises `UserError` if there is none."""
    folder = root / MASK_FOLDER
    for suffix in (".jpg", ".jpeg"):
        if _is_file(folder / (name + suffix)) and not _is_file(folder / f"{name}.png"):
            return folder / (name + suffix)  # decode_mask refuses it with the reason
    return _find(folder, name, MASK_SUFFIXES, "mask")


def _find(folder: Path, name: str, suffixes: tuple[str, ...], kind: str) -> Path:
    for suffix in suffixes:
        path = folder / (name + suffix)
        if _is_file(path):
            return path
        if os.path.lexists(path):
            raise UserError(
                f"{path}: not a regular file, nor a link to one. Replace it, or remove it "
                f"from the lists in {LIST_FOLDER}."
            )
    if not folder.is_dir():
        hint = instead_of_folder(folder, name, suffixes)
        raise UserError(f"{folder}: no such folder. {hint}")
    without, extension = os.path.splitext(name)
    if extension in IMAGE_SUFFIXES and any(_is_file(folder / f"{without}{s}") for s in suffixes):
        raise UserError(f"{LIST_FOLDER}: {name} is listed with its extension. List {without}.")
    hint = instead_of_file(folder, name, suffixes)
    hint = hint or f"Add it, or remove it from the lists in {LIST_FOLDER}."
    raise UserError(f"{folder / name}{suffixes[0]}: the {kind} is missing. {hint}")


def _require_unique(ids: tuple[str, ...], path: Path) -> None:
    if len(set(ids)) < len(ids):
        [(name, count)] = collections.Counter(ids).most_common(1)
        raise UserError(f"{path}: {name} is listed {count} times. Keep only one of them.")


def _require_files(ids: tuple[str, ...], root: Path) -> None:
    """Raises `UserError` for the first id without an image or mask; lists each folder once."""

    @functools.cache
    def listed(folder: str, subfolder: str) -> frozenset[str]:
        return _file_names(root / folder / subfolder)

    kinds = (
        (IMAGE_FOLDER, IMAGE_SUFFIXES, find_image),
        (MASK_FOLDER, MASK_SUFFIXES, find_mask),
    )
    for name in ids:
        subfolder, _, stem = name.rpartition("/")
        for folder, suffixes, find in kinds:
            files = listed(folder, subfolder)
            if not any(stem + suffix in files for suffix in suffixes):
                find(root, name)  # which raises with the reason


def _file_names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except OSError:  # no such folder, or a link to itself: `find` reports it
        return frozenset()


def _is_file(path: Path) -> bool:
    """Whether there is a regular file, or a link to one."""
    try:
        return path.is_file()
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Make it readable.") from error
    except OSError:  # a name of more than 255 bytes
        return False


def _read_bytes(path: Path, limit: int, remedy: str = "") -> bytes:
    """A file's content; raises `UserError` unless it is a regular one: a pipe never ends."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path}: not a regular file. Replace it.")
        if status.st_size > limit:
            raise UserError(f"{path}: larger than {limit >> 20} MiB. Replace it.")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file. {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Make it readable.") from error


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]}×{array.shape[1]}"
