"""A folder of the user's own in VOC's layout.

| file                                  | content                                          |
|---------------------------------------|--------------------------------------------------|
| JPEGImages/ID.jpg (or .jpeg, .png)    | a photograph                                     |
| SegmentationClass/ID.png              | its mask: palette indices, grey ids, or colours  |
| ImageSets/Segmentation/SPLIT.txt      | one ID a line                                    |
| classes.txt                           | one name a line, the first is id 0; after a tab  |
|                                       | its colour "R G B" may follow                    |
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from fcn_keras.datasets.base import LabelSet, Split, voc_palette
from fcn_keras.datasets.decoding import decode_image, decode_mask
from fcn_keras.errors import UserError

CLASSES_FILE = "classes.txt"
IMAGE_FOLDER = "JPEGImages"
MASK_FOLDER = "SegmentationClass"
LIST_FOLDER = Path("ImageSets", "Segmentation")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
MASK_SUFFIXES = (".png", ".PNG")


def directory_split(root, split: str, labels: LabelSet | None = None) -> Split:
    """One split of a folder in VOC's layout.

    Args:
        root: The folder.
        split: The name of a list in `ImageSets/Segmentation`, without `.txt`.
        labels: The classes; left out, they are read from `classes.txt`.

    Returns:
        A `Split` whose ids are those of the list.

    Raises:
        UserError: If the folder, list or `classes.txt` is missing, empty or
            malformed, or an image or mask named in the list does not exist.
    """
    root = Path(root)
    labels = labels or read_labels(root)
    ids = read_ids(root, split)
    pairs = [(find_image(root, name), find_mask(root, name)) for name in ids]

    def read(index: int):
        image_path, mask_path = pairs[index]
        image, mask = read_image(image_path), read_mask(mask_path, labels)
        require_same_size(image, mask, mask_path)
        return image, mask

    return Split(split, labels, tuple(ids), read)


def read_labels(root) -> LabelSet:
    """Reads `classes.txt`: a name a line, optionally with its colour after a tab.

    Raises:
        UserError: If the file is missing, or a line is malformed.
    """
    return read_class_list(Path(root) / CLASSES_FILE)


def read_class_list(path: Path) -> LabelSet:
    """Reads a list of classes of any name; raises `UserError` like `read_labels`."""
    lines = _read_text(path, "Write one class name a line, the first for id 0.").splitlines()
    names, palette = [], []
    default = voc_palette()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, tab, color = line.partition("\t")
        if not tab and re.search(r"\s\d+\s+\d+\s+\d+\s*$", line):
            raise UserError(
                f"{path}:{number}: put a tab between name and colour. Received: {line!r}."
            )
        names.append(name.strip())
        palette.append(_parse_color(color, f"{path}:{number}") or default[len(palette) % 255])
    try:
        return LabelSet(tuple(names), tuple(palette))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_ids(root, split: str) -> list[str]:
    """Reads the ids of a list in `ImageSets/Segmentation`.

    Raises:
        UserError: If there is no such list, or it is empty.
    """
    folder = Path(root) / LIST_FOLDER
    path = folder / f"{split}.txt"
    others = sorted(other.stem for other in folder.glob("*.txt"))
    remedy = f"Write one image id a line. The lists here: {', '.join(others) or 'none'}."
    ids = [line.strip() for line in _read_text(path, remedy).splitlines() if line.strip()]
    if not ids:
        raise UserError(f"{path}: the list is empty. Write one image id a line.")
    return ids


def read_image(path: Path) -> np.ndarray:
    """Reads an image file as uint8 `(H, W, 3)`; raises `UserError` if that fails."""
    return decode_image(_read_bytes(path), str(path))


def read_mask(path: Path, labels: LabelSet) -> np.ndarray:
    """Reads a mask file as uint8 `(H, W)`; raises `UserError` if that fails."""
    return decode_mask(_read_bytes(path), labels, str(path))


def require_same_size(image: np.ndarray, mask: np.ndarray, mask_path: Path) -> None:
    """Raises `UserError` unless image and mask have the same height and width."""
    if image.shape[:2] != mask.shape:
        raise UserError(
            f"{mask_path}: the mask is {_size(mask)}, but its image is {_size(image)} "
            "(height×width). Draw the mask at the image's size."
        )


def find_image(root: Path, name: str) -> Path:
    """The image file of an id; raises `UserError` if there is none."""
    return _find(root / IMAGE_FOLDER, name, IMAGE_SUFFIXES, "image")


def find_mask(root: Path, name: str) -> Path:
    """The mask file of an id; raises `UserError` if there is none."""
    folder = root / MASK_FOLDER
    for suffix in (".jpg", ".jpeg"):
        if (folder / (name + suffix)).is_file() and not (folder / f"{name}.png").is_file():
            return folder / (name + suffix)  # decode_mask refuses it with the reason
    return _find(folder, name, MASK_SUFFIXES, "mask")


def _find(folder: Path, name: str, suffixes: tuple[str, ...], kind: str) -> Path:
    for suffix in suffixes:
        path = folder / (name + suffix)
        if path.is_file():
            return path
    raise UserError(
        f"{folder / name}{suffixes[0]}: the {kind} is missing. Add it, or take {name} out of "
        f"the lists in {LIST_FOLDER}."
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error


def _read_text(path: Path, remedy: str) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file. {remedy}")
    try:
        return _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error}). Save it as UTF-8.") from error


def _parse_color(text: str, place: str) -> tuple[int, int, int] | None:
    if not text.strip():
        return None
    parts = text.split()
    if len(parts) == 3 and all(part.isdecimal() and int(part) <= 255 for part in parts):
        red, green, blue = map(int, parts)
        return red, green, blue
    raise UserError(f"{place}: a colour is three numbers 0 to 255, 'R G B'. Received: {text!r}.")


def _size(array: np.ndarray) -> str:
    return f"{array.shape[0]}×{array.shape[1]}"
