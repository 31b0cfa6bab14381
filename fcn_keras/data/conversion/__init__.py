"""Labels as other programs write them -> a data set in VOC's layout.

Each format has a module that reads it (see `source`). What all formats share is here: which
format it is, the orientation of photographs, classes that are renamed, splits, the new folder.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.class_counts import notes_of_counts, problems_of_counts
from fcn_keras.data.conversion import (
    ade20k,
    cityscapes,
    coco,
    cvat,
    folders,
    label_studio,
    labelme,
    roboflow,
    voc,
    yolo,
)
from fcn_keras.data.conversion.source import Example, Findings, Options, Source
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
from fcn_keras.errors import UserError, few
from fcn_keras.files.images import (
    LYING,
    bad_files_named,
    open_header,
    orientation,
    palette_image,
)
from fcn_keras.files.writing import atomic_folder

# In the order in which a source is compared with them: some contain what others look for.
FORMATS = {
    "cvat": cvat,
    "roboflow": roboflow,
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "voc": voc,
    "coco": coco,
    "yolo": yolo,
    "labelme": labelme,
    "label-studio": label_studio,
    "folders": folders,
}
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
ASSUMED = (
    "EXIF turns photographs, and sizes do not tell whether their masks fit them as they are shown, "
    "which is assumed. --exif ignore is for masks of the stored pixels, --exif apply ends this note"
)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Args:
        format: The source's format, a key of `FORMATS`.
        labels: The classes of the new data set.
        sizes: Images written per split; empty if there were problems.
        pixels: Pixels of each class, and of unlabelled ones as the last, int64 `(classes + 1,)`.
        findings: Problems, what was left out, and notes.
    """

    format: str
    labels: LabelSet
    sizes: dict[str, int]
    pixels: np.ndarray
    findings: Findings


class _Rejected(Exception):
    """Drops the folder that is being written."""


def convert(
    source,
    output,
    format: str = "auto",
    options: Options | None = None,
    *,
    mapping: Sequence[str] = (),
    val: float = 0.2,
    group_by: str | None = None,
    seed: int = 0,
    progress: Callable = lambda items: items,
) -> Conversion:
    """Writes labelled photographs as a new data set in VOC's layout.

    Everything is read first. The folder is written only if there is no problem, and gets its
    name when it is complete. Masks become palette PNGs of class ids; photographs that are
    neither JPEG nor PNG become PNGs.

    Args:
        source: A file or folder of the format; `None` for two folders that `options` name.
        output: The new folder.
        format: A key of `FORMATS`, or `"auto"`.
        options: What the source does not say itself.
        mapping: Changes of classes, in this order: `"car,truck=vehicle"` merges and renames,
            `"pole="` makes unlabelled.
        val: The fraction of images used for validation, at least one, if the source has no
            such split; they are chosen at random.
        group_by: A regular expression that is searched in each image's name. Images for which
            it finds the same text stay in the same split.
        seed: Seed of that choice.
        progress: Wraps the sequence of examples, to show progress.

    Raises:
        UserError: If the source is not of the format or not readable, an argument is out of
            range, `output` exists or cannot be written, or there are fewer than two images.
    """
    output, options, findings = Path(output), options or Options(), Findings()
    if output.exists():
        raise UserError(f"{output}: already exists and is never overwritten. Choose another name.")
    if not 0 < val < 1:
        raise UserError(f"--val must be between 0 and 1. Received: {val}.")
    if seed < 0:
        raise UserError(f"--seed must not be negative. Received: {seed}.")
    name, found = _read(source, format, options, findings)
    labels, new_ids = _mapped(found.labels, mapping)
    _note_names(found.examples, findings)
    pixels = np.zeros(256, np.int64)
    turned: dict[str, list[Path]] = {}
    splits: dict[str, list[str]] = {}
    try:
        with atomic_folder(output) as partial:
            for folder in (IMAGE_FOLDER, MASK_FOLDER, LIST_FOLDER):
                (partial / folder).mkdir(parents=True)
            for example in progress(found.examples):
                try:
                    mask = _write_example(partial, example, labels, new_ids, turned)
                    pixels += np.bincount(mask.ravel(), minlength=256)
                except UserError as error:
                    findings.problems.append(str(error))
            found.finish()
            for note, at in turned.items():
                findings.notes.append(f"{note} ({len(at)} images, such as {at[0]}).")
            counts = np.append(pixels[: len(labels)], pixels[labels.ignore_id])
            if not findings.problems:
                if "binary" not in FORMATS[name].OPTIONS:  # else the format itself tells
                    findings.problems += problems_of_counts(labels, [counts])
                findings.notes += notes_of_counts(labels, {"all images": counts})
            if findings.problems:
                raise _Rejected
            splits = _splits(found.examples, val, group_by, seed, findings)
            _write_lists(partial, labels, splits)
    except _Rejected:
        pass
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}).") from error
    sizes = {name: len(ids) for name, ids in splits.items()}
    return Conversion(name, labels, sizes, counts, findings)


def _read(source, format: str, options: Options, findings: Findings) -> tuple[str, Source]:
    """The source's format, and what its reader makes of it."""
    if format not in (*FORMATS, "auto"):
        known = ", ".join(["auto", *FORMATS])
        raise UserError(f"--format must be one of {known}. Received: {format!r}.")
    place = None if source is None else Path(source)
    if place is not None and not place.exists():
        raise UserError(f"{place}: no such file or folder.")
    if place is None:
        name = "folders"
    elif format == "auto":
        name = next((name for name, reader in FORMATS.items() if reader.recognizes(place)), "")
        if not name:
            raise UserError(
                f"{place}: of no known format. Name one by --format: {', '.join(FORMATS)}."
            )
    else:
        name = format
    reader = FORMATS[name]
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in reader.OPTIONS:
            flag = field.name.replace("_", "-")
            raise UserError(f"--{flag} does not apply to the format {name}. Received: {value}.")
    return name, reader.read(place, options, findings)


def _mapped(labels: LabelSet, mapping: Sequence[str]) -> tuple[LabelSet, np.ndarray]:
    """The new classes, and the new id of each old one, uint8 `(256,)`."""
    targets = {name: name for name in labels.names}
    for change in mapping:
        olds, sign, new = change.partition("=")
        names = [name.strip() for name in olds.split(",")]
        unknown = [name for name in names if name not in targets]
        if not sign or unknown:
            raise UserError(
                f"--map must be OLD,OLD=NEW, with classes of the source ({few(labels.names)}). "
                f"Received: {change!r}" + (f", with {unknown[0]!r}." if sign else ".")
            )
        targets.update(dict.fromkeys(names, new.strip()))
    news = [new for new in dict.fromkeys(targets.values()) if new]
    colors = {targets[name]: color for name, color in zip(labels.names, labels.palette)}
    for name, color in zip(labels.names, labels.palette):
        if name in news:
            colors[name] = color
    new_labels = LabelSet(tuple(news), tuple(colors[new] for new in news))
    new_ids = np.full(256, labels.ignore_id, np.uint8)
    for old, name in enumerate(labels.names):
        if targets[name]:
            new_ids[old] = news.index(targets[name])
    return new_labels, new_ids


def _note_names(examples: Sequence[Example], findings: Findings) -> None:
    """Adds a problem for each name that cannot be in a list, or that two photographs have."""
    seen: dict[str, Path] = {}
    for example in examples:
        name, place = example.name, _title(example)
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            findings.problems.append(f"{place}: its name is not UTF-8. Rename it and its mask.")
            continue
        if name != name.strip() or re.search(r"[\r\n\0]", name):
            findings.problems.append(
                f"{place}: a list cannot hold its name, which has a line break or a space "
                "at either end. Rename it and its mask."
            )
        elif not {"", ".", ".."}.isdisjoint(name.split("/")):
            findings.problems.append(f"{place}: its name {name!r} points outside the data set.")
        elif name in seen:
            findings.problems.append(f"{place}: {seen[name]} has the same name. Rename one.")
        seen.setdefault(name, place)


def _title(example: Example) -> Path:
    return example.image if isinstance(example.image, Path) else example.place


def _write_example(
    root: Path, example: Example, labels: LabelSet, new_ids, turned: dict[str, list[Path]]
) -> np.ndarray:
    """Writes a photograph and its mask; returns the mask. Notes in `turned` what EXIF turns."""
    title = _title(example)
    if isinstance(example.image, Path):
        data, suffix = read_file(example.image), example.image.suffix.lower()
    else:
        data = example.image()
        suffix = next((end for start, end in STARTS.items() if data.startswith(start)), ".other")
    image, turn = decode_image(data, str(title)), orientation(data, str(title))
    shown = image.shape[:2]
    stored = shown[::-1] if turn in LYING else shown
    upright = example.upright is not False or turn not in TURNS
    if example.place.suffix in MASK_SUFFIXES:
        with bad_files_named(str(example.place)):
            picture = open_header(read_file(example.place), str(example.place))
            if shows_photograph(picture, image):
                raise UserError(
                    f"{example.place}: the mask and the photograph are the same picture."
                )
    mask = example.draw(*(shown if upright else stored))
    if example.upright is None and turn in TURNS:
        upright = mask.shape != stored or shown == stored
        if not upright or shown == stored:
            turned.setdefault(TURNED if not upright else ASSUMED, []).append(title)
    if not upright:
        mask = np.asarray(Image.fromarray(mask).transpose(TURNS[turn]))
    require_same_size(image, mask, example.place)
    mask = new_ids[mask]
    photograph = root / IMAGE_FOLDER / f"{example.name}{OTHER_SUFFIXES.get(suffix, suffix)}"
    ids = root / MASK_FOLDER / f"{example.name}.png"
    for file in (photograph, ids):
        file.parent.mkdir(parents=True, exist_ok=True)
    if photograph.suffix in IMAGE_SUFFIXES:
        photograph.write_bytes(data)
    else:
        Image.fromarray(image).save(photograph.with_suffix(".png"))
    palette_image(Image.fromarray(mask), labels.palette).save(ids)
    return mask


def _splits(
    examples: Sequence[Example], val: float, group_by: str | None, seed: int, findings: Findings
) -> dict[str, list[str]]:
    """The names of each split: the source's own, or a random choice."""
    parts: dict[str, list[str]] = {}
    for example in examples:
        parts.setdefault(example.split or "", []).append(example.name)
    named = {*parts} & {"train", "val"}
    if len(named) == 2:
        rest = [name for part in {*parts} - {"train", "val", "test"} for name in parts[part]]
        if rest:
            findings.notes.append(f"{len(rest)} images, such as {rest[0]}, have no split: train.")
            parts["train"] += rest
    else:
        pool = [name for part in parts if part != "test" for name in parts[part]]
        parts |= _random_splits(pool, val, group_by, seed)
        if {*parts} - {"", "train", "val"} or named:
            findings.notes.append(
                "the source does not name both training and validation images: "
                f"{len(parts['val'])} of {len(pool)} were drawn for validation."
            )
    return {part: sorted(parts[part]) for part in ("train", "val", "test") if part in parts}


def _random_splits(
    names: list[str], val: float, group_by: str | None, seed: int
) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_group(name, group_by), []).append(name)
    if len(groups) < 2:
        raise UserError(
            f"--group-by {group_by} finds {len(groups)} groups in {len(names)} names. At least "
            "two are needed, one for validation."
            if group_by
            else f"{len(names)} images. At least two are needed, one for validation."
        )
    wanted = min(max(1, round(val * len(names))), len(names) - 1)
    chosen: set[str] = set()
    keys = list(groups)
    for index in np.random.default_rng(seed).permutation(len(keys))[:-1]:
        if len(chosen) >= wanted:
            break
        chosen.update(groups[keys[index]])
    return {
        "train": [name for name in names if name not in chosen],
        "val": [name for name in names if name in chosen],
    }


def _group(name: str, pattern: str | None) -> str:
    if pattern is None:
        return name
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise UserError(f"--group-by {pattern}: not a regular expression ({error}).") from error
    if not found:
        raise UserError(f"--group-by {pattern}: not found in {name!r}. Every name needs it.")
    return found[1] if found.re.groups else found[0]


def _write_lists(root: Path, labels: LabelSet, splits: dict[str, list[str]]) -> None:
    for name, ids in splits.items():
        (root / LIST_FOLDER / f"{name}.txt").write_text(
            "".join(f"{id}\n" for id in ids), encoding="utf-8"
        )
    lines = (
        f"{name}\t{' '.join(map(str, color))}\n"
        for name, color in zip(labels.names, labels.palette)
    )
    (root / CLASSES_FILE).write_text("".join(lines), encoding="utf-8")
