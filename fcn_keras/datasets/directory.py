"""A folder of the user's own in VOC's layout.

    ROOT/JPEGImages/<id>.jpg (or .jpeg, .png)
    ROOT/SegmentationClass/<id>.png
    ROOT/ImageSets/Segmentation/<split>.txt     one id a line
    ROOT/classes.txt                            one name a line, the first is id 0;
                                                optional 'R G B' after a tab
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from fcn_keras.datasets.base import IGNORE_ID, LabelSet, Split, voc_palette
from fcn_keras.datasets.decoding import decode_image, decode_mask
from fcn_keras.errors import UserError

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
    pairs = [(_find_image(root, name), _find_mask(root, name)) for name in ids]

    def read(index: int):
        return read_pair(*pairs[index], labels)

    return Split(split, labels, tuple(ids), read)


def read_labels(root) -> LabelSet:
    """Reads `classes.txt`: a name a line, optionally with its colour after a tab.

    Raises:
        UserError: If the file is missing, or a line is malformed.
    """
    path = Path(root) / "classes.txt"
    lines = _read_text(path, "Write one class name a line, the first for id 0.").splitlines()
    names, palette = [], []
    default = voc_palette()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, color = line.partition("\t")
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
    remedy = f"There are {', '.join(others)}." if others else "Write one image id a line."
    ids = _read_text(path, remedy).split()
    if not ids:
        raise UserError(f"{path}: the list is empty. Write one image id a line.")
    return ids


def read_pair(image_path: Path, mask_path: Path, labels: LabelSet):
    """Reads one image and its mask.

    Returns:
        uint8 `(H, W, 3)` and uint8 `(H, W)`.

    Raises:
        UserError: If one of them cannot be read, or their sizes differ.
    """
    image = decode_image(_read_bytes(image_path), str(image_path))
    mask = decode_mask(_read_bytes(mask_path), labels, str(mask_path))
    if image.shape[:2] != mask.shape:
        raise UserError(
            f"{mask_path}: the mask is {_size(mask)}, but its image {image_path.name} is "
            f"{_size(image)} (height×width). Draw the mask at the image's size."
        )
    return image, mask


@dataclasses.dataclass
class DirectoryReport:
    """What `check_directory` found in one folder.

    `images` and `pixels` count, by split, the images that hold each class and
    the pixels of each class, int64 `(classes + 1,)`, the last for unlabelled.
    """

    labels: LabelSet | None = None
    split_sizes: dict[str, int] = dataclasses.field(default_factory=dict)
    images: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    pixels: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)


def check_directory(root, progress=lambda items: items) -> DirectoryReport:
    """Reads every image and mask of a folder, and collects all that is wrong.

    Args:
        root: The folder.
        progress: Wraps the sequence of examples, to show how far it is.

    Returns:
        A `DirectoryReport`; `problems` has a line for each fault, none of which
        stops the check.
    """
    root = Path(root)
    report = DirectoryReport()
    try:
        labels = report.labels = read_labels(root)
    except UserError as error:
        report.problems.append(str(error))
        return report
    splits = sorted(path.stem for path in (root / LIST_FOLDER).glob("*.txt"))
    if not splits:
        report.problems.append(f"{root / LIST_FOLDER}: no lists. Write train.txt and val.txt.")
    examples = []
    for split in splits:
        report.images[split] = np.zeros(len(labels) + 1, np.int64)
        report.pixels[split] = np.zeros(len(labels) + 1, np.int64)
        try:
            ids = read_ids(root, split)
        except UserError as error:
            report.problems.append(str(error))
            ids = []
        report.split_sizes[split] = len(ids)
        repeated = sorted({name for name in ids if ids.count(name) > 1}) if len(ids) < 10_000 else []
        report.problems += [
            f"{root / LIST_FOLDER / split}.txt: {name} is listed more than once."
            for name in repeated
        ]
        examples += [(split, name) for name in ids]

    counted = {}  # id -> counts, as trainval lists repeat what train and val hold
    for split, name in progress(examples):
        if name not in counted:
            counted[name] = _count_classes(root, name, labels, report.problems)
        report.pixels[split] += counted[name]
        report.images[split] += counted[name] > 0
    return report


def _count_classes(root: Path, name: str, labels: LabelSet, problems: list[str]) -> np.ndarray:
    paths = []
    for find in (_find_image, _find_mask):
        try:
            paths.append(find(root, name))
        except UserError as error:
            problems.append(str(error))
    counts = np.zeros(len(labels) + 1, np.int64)
    if len(paths) < 2:
        return counts
    try:
        _, mask = read_pair(*paths, labels)
    except UserError as error:
        problems.append(str(error))
        return counts
    histogram = np.bincount(mask.ravel(), minlength=256)
    counts[:-1] = histogram[: len(labels)]
    counts[-1] = histogram[IGNORE_ID]
    return counts


def _find_image(root: Path, name: str) -> Path:
    return _find(root / IMAGE_FOLDER, name, IMAGE_SUFFIXES, "image")


def _find_mask(root: Path, name: str) -> Path:
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
