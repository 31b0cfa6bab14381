"""Examples -> the photographs, masks and lists of a data set in VOC's layout."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.class_lists import parse_class_list
from fcn_keras.data.conversion.files import turn_of
from fcn_keras.data.conversion.source import Example, Findings
from fcn_keras.data.decoding import decode_image
from fcn_keras.data.directory import (
    CLASSES_FILE,
    IMAGE_FOLDER,
    IMAGE_SUFFIXES,
    LIST_FOLDER,
    MASK_FOLDER,
    MASK_SUFFIXES,
    read_file,
    require_same_size,
)
from fcn_keras.data.inspection import shows_photograph
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.images import (
    LYING,
    bad_files_named,
    encode_image,
    open_header,
    palette_image,
)
from fcn_keras.files.reading import damage_as_user_errors

STARTS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png"}  # of files
# EXIF's orientations, as the operations that turn the stored pixels upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
OTHER_SUFFIXES = {".jfif": ".jpg"}
TURNED = "masks that fit the stored pixels of photographs, which EXIF turns, were turned with them"
SEEN = (
    "photographs have the pixels of earlier ones, perhaps in another split. If they are copies, "
    "remove them"
)
ASSUMED = (
    "EXIF turns photographs, and sizes do not tell whether their masks fit them as they are shown, "
    "which is assumed. --exif ignore is for masks of the stored pixels, --exif apply ends this note"
)


def written(
    root: Path,
    examples: Iterable[Example],
    labels: LabelSet,
    new_ids: np.ndarray,
    exif: str | None,
    findings: Findings,
) -> Iterator[tuple[str, np.ndarray]]:
    """Writes photographs and masks; yields the name and mask of each that has no problem.

    Args:
        root: The new folder.
        examples: What to write, in turn.
        labels: The classes of the new folder.
        new_ids: The new id of each id in the examples' masks, uint8 `(256,)`.
        exif: `"apply"` or `"ignore"` for masks that fit photographs as EXIF turns them or as
            they are stored; by default the source or the sizes tell.
        findings: Gets problems and notes.
    """
    for folder in (IMAGE_FOLDER, MASK_FOLDER, LIST_FOLDER):
        (root / folder).mkdir(parents=True)
    notes: dict[str, list[Path]] = {}
    seen: set[bytes] = set()
    for example in examples:
        try:
            suffix, photograph, mask = _read_example(example, exif, notes, seen)
        except UserError as error:
            findings.problems.append(str(error))
            continue
        mask = new_ids[mask]
        image_path = root / IMAGE_FOLDER / f"{example.name}{suffix}"
        mask_path = root / MASK_FOLDER / f"{example.name}.png"
        for path in (image_path, mask_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        image_path.write_bytes(photograph)
        palette_image(Image.fromarray(mask), labels.palette).save(mask_path)
        yield example.name, mask
    for note, places in notes.items():
        findings.notes.append(f"{note} ({len(places)} images, such as {places[0]}).")


def _read_example(
    example: Example, exif: str | None, notes: dict[str, list[Path]], seen: set[bytes]
) -> tuple[str, bytes, np.ndarray]:
    """The suffix and content of a photograph's new file, and its mask.

    Notes what EXIF turns, and photographs that were `seen` before, by digests of their pixels.
    """
    if isinstance(example.image, Path):
        data, suffix = read_file(example.image), example.image.suffix.lower()
    else:
        data = example.image()
        suffix = next((end for start, end in STARTS.items() if data.startswith(start)), ".other")
    title = example.title
    image, turn = decode_image(data, str(title)), turn_of(data, str(title))
    digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
    if digest in seen:
        notes.setdefault(SEEN, []).append(title)
    seen.add(digest)
    _require_no_photograph(example.place, image)
    shown = image.shape[:2]
    stored = shown[::-1] if turn in LYING else shown
    fits_shown = example.upright if exif is None else exif == "apply"
    mask = example.draw(*(stored if fits_shown is False else shown))
    if turn in TURNS:
        if fits_shown is None:
            fits_shown = mask.shape != stored or shown == stored
            if not fits_shown or shown == stored:
                notes.setdefault(ASSUMED if fits_shown else TURNED, []).append(title)
        if not fits_shown:
            mask = np.asarray(Image.fromarray(mask).transpose(TURNS[turn]))
    require_same_size(image, mask, example.place)
    suffix = OTHER_SUFFIXES.get(suffix, suffix)
    if suffix not in IMAGE_SUFFIXES:
        return ".png", encode_image(Image.fromarray(image)), mask
    if turn in TURNS:  # other programs may not turn it
        kind, options = ("PNG", {}) if suffix == ".png" else ("JPEG", {"quality": 95})
        data = encode_image(Image.fromarray(image), kind, **options)
    return suffix, data, mask


def _require_no_photograph(place: Path, image: np.ndarray) -> None:
    """Raises `UserError` if the file of a mask shows the photograph."""
    if place.suffix.lower() in MASK_SUFFIXES:
        with bad_files_named(str(place)):
            picture = open_header(read_file(place), str(place))
            if shows_photograph(picture, image):
                raise UserError(f"{place}: the mask and the photograph are the same picture.")


def write_lists(root: Path, labels: LabelSet, splits: dict[str, list[str]]) -> None:
    for name, ids in splits.items():
        (root / LIST_FOLDER / f"{name}.txt").write_text(
            "".join(f"{id}\n" for id in ids), encoding="utf-8"
        )
    (root / CLASSES_FILE).write_text(_class_list(labels), encoding="utf-8")


def _class_list(labels: LabelSet) -> str:
    colors = (" ".join(map(str, color)) for color in labels.palette)
    return "".join(f"{name}\t{color}\n" for name, color in zip(labels.names, colors))


def require_listable(labels: LabelSet, place) -> None:
    """Raises `UserError` unless the list that is written of the classes is read as the same."""
    remedy = "Rename the class by --map 'OLD=NEW'."
    with damage_as_user_errors(f"{place}: class names that a list cannot hold", remedy):
        found = parse_class_list(_class_list(labels), CLASSES_FILE).names
        if found != labels.names:
            odd = next((name for name in labels.names if name not in found), labels.names[0])
            raise ValueError(f"{odd!r} would be read as something else")
