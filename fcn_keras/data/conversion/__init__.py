"""Labels as other programs write them -> a data set in VOC's layout.

Each format has a module that reads it (see `source`). What all formats share is here: which
format it is, the orientation of photographs, classes that are renamed, splits, the new folder.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fcn_keras.data.class_counts import count_pixels, notes_of_counts, problems_of_counts
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
from fcn_keras.data.conversion.files import is_data_set
from fcn_keras.data.conversion.growing import (
    drop_equal,
    extend_lists,
    link_rest,
    match,
    read_existing,
    sizes_with,
)
from fcn_keras.data.conversion.pairs import NoPairsError
from fcn_keras.data.conversion.relatives import named_relative
from fcn_keras.data.conversion.source import Example, Findings, Options, Source
from fcn_keras.data.conversion.splits import all_splits, further_splits, require_drawing
from fcn_keras.data.conversion.writing import require_listable, write_lists, written
from fcn_keras.data.layout import CLASSES_FILE
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError, few
from fcn_keras.files.writing import atomic_folder, new_version

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
    "folders": folders,  # what a folder is if it is nothing else
}
MAX_SUBFOLDERS = 50  # that are looked into
LABELS_ARE_NAMES = {"labelme", "label-studio"}
ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar"}


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Args:
        format: The source's format, a key of `FORMATS`.
        labels: The classes of the data set.
        sizes: Images per split of the data set; empty if there were problems.
        pixels: Pixels of each class, and of unlabelled ones as the last, int64 `(classes + 1,)`.
        findings: Problems, what was left out, and notes.
        changes: For an existing data set, how many images were `"added"`, `"replaced"` (by
            another photograph or mask) and `"unchanged"`.
    """

    format: str
    labels: LabelSet
    sizes: dict[str, int]
    pixels: np.ndarray
    findings: Findings
    changes: dict[str, int] = dataclasses.field(default_factory=dict)


class _Dropped(Exception):
    """Drops the folder that is being written."""


def convert(
    source,
    output,
    format: str = "auto",
    options: Options | None = None,
    *,
    into: bool = False,
    mapping: Sequence[str] = (),
    val: float = 0.2,
    group_by: str | None = None,
    seed: int = 0,
    progress: Callable = lambda items: items,
) -> Conversion:
    """Writes labelled photographs as a data set in VOC's layout, or into an existing one.

    Everything is read first. The folder is written only if there is no problem, and gets its
    name when it is complete; an existing one is exchanged then, see `files.writing.new_version`.
    Masks become palette PNGs of class ids; photographs that are neither JPEG nor PNG become
    PNGs.

    Args:
        source: A file or folder of the format; `None` for two folders that `options` name.
        output: The new folder, or the existing one.
        format: A key of `FORMATS`, or `"auto"`.
        options: What the source does not say itself.
        into: Whether to add the photographs to the data set `output`, which must have the same
            classes. Those whose names it has are replaced. Its classes keep their ids, its
            photographs their split, and whatever else is in the folder stays.
        mapping: Changes of classes, one after another: `"car,truck=vehicle"` merges and
            renames, `"pole="` makes unlabelled.
        val: The fraction of images used for validation, at least one, if the source has no
            such split; they are chosen at random. With `into`, a fraction of the new ones.
        group_by: A regular expression that is searched in each image's name. Images for which
            it finds the same text stay in the same split.
        seed: Seed of that choice.
        progress: Wraps the sequence of examples, to show progress.

    Raises:
        UserError: If the source is not of the format or not readable, an argument is out of
            range, `output` exists or cannot be written, or there are fewer than two images;
            with `into`, if `output` is not a data set of the same classes.
    """
    output, options, findings = Path(output), options or Options(), Findings()
    if output.exists() and not into:
        raise UserError(
            f"{output}: already exists and is never overwritten. Choose another name, or add to it "
            "by --into."
        )
    require_drawing(val, group_by, seed)
    classes = output / CLASSES_FILE if into else None
    name, found = _read(source, format, options, findings, classes)
    labels, new_ids = _mapped(found.labels, mapping)
    require_listable(labels, source or options.masks)
    examples = _well_named(_kept_apart(found.examples, findings), findings)
    sizes: dict[str, int] = {}
    splits: dict[str, list[str]] = {}
    pixels: dict[str, np.ndarray] = {}
    changes: collections.Counter[str] = collections.Counter()
    drawing = val, group_by, seed, findings
    try:
        with (new_version if into else atomic_folder)(output) as partial:
            existing = read_existing(output, examples) if into else None
            if existing:
                new_ids = match(labels, source or options.masks, existing)[new_ids]
                labels = existing.labels
            if not findings.problems:
                splits = (
                    further_splits(examples, existing.lists, *drawing)
                    if existing
                    else all_splits(examples, *drawing)
                )
            # What is new in an existing data set says nothing about its splits.
            parts = {} if existing else {name: part for part in splits for name in splits[part]}
            done = written(partial, progress(examples), labels, new_ids, options.exif, findings)
            for title, mask in done:
                part = parts.get(title, "new images")
                pixels[part] = pixels.get(part, 0) + count_pixels(mask, labels)
                if existing:
                    changes[drop_equal(partial, title, mask, existing)] += 1
            found.finish()
            if not findings.problems:
                findings.problems += problems_of_counts(labels, pixels)
                findings.notes += notes_of_counts(labels, pixels)
            if findings.problems:
                raise _Dropped
            if existing:
                sizes = sizes_with(splits, existing)
                if not changes["added"] + changes["replaced"]:
                    raise _Dropped
                extend_lists(partial, splits, existing)
                link_rest(partial, existing)
            else:
                sizes = {part: len(names) for part, names in splits.items()}
                write_lists(partial, labels, splits)
    except _Dropped:
        pass
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}).") from error
    counts = np.sum([np.zeros(len(labels) + 1, np.int64), *pixels.values()], axis=0)
    return Conversion(name, labels, sizes, counts, findings, dict(changes))


def _read(
    source, format: str, options: Options, findings: Findings, classes: Path | None
) -> tuple[str, Source]:
    """The source's format, and what its reader makes of it.

    `classes` is the list of the data set to add to, for formats whose labels are names.
    """
    if format not in (*FORMATS, "auto"):
        known = ", ".join(["auto", *FORMATS])
        raise UserError(f"--format must be one of {known}. Received: {format!r}.")
    place = None if source is None else Path(source)
    if place is not None and not place.exists():
        raise UserError(f"{place}: no such file or folder.")
    if place is not None and not (place.is_file() or place.is_dir()):  # a pipe would be waited for
        raise UserError(f"{place}: neither a regular file nor a folder.")
    if place is not None and place.suffix.lower() in ARCHIVES and place.is_file():
        raise UserError(f"{place}: it is an archive. Unpack it first, and pass its folder.")
    name = format if format != "auto" else "folders" if place is None else _recognized(place)
    reader = FORMATS[name]
    guessed = name == "folders" and format == "auto" and not (options.images or options.masks)
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if value != field.default and field.name not in {*reader.OPTIONS, "exif"}:
            flag = field.name.replace("_", "-")
            remedy = " Add --format folders." if field.name in folders.OPTIONS else ""
            raise UserError(
                f"--{flag} does not apply to the format {name}. Received: {value}.{remedy}"
            )
    if name in LABELS_ARE_NAMES and not options.classes and classes and classes.is_file():
        options = dataclasses.replace(options, classes=classes)
    if place and guessed:
        return name, _read_folder(place, options, findings)
    return name, reader.read(place, options, findings)


def _read_folder(place: Path, options: Options, findings: Findings) -> Source:
    """A folder that no format recognizes: images and masks, or else labels of another program."""
    if other := named_relative(place, masks=True):
        raise UserError(f"{other} To read its images as masks: --format folders.")
    try:
        return folders.read(place, options, findings)
    except NoPairsError as error:
        other = _formats_inside(place) or yolo.without_yaml(place) or named_relative(place)
        raise (UserError(other) if other else error) from None


def _formats_inside(place: Path) -> str:
    """The message about subfolders that a format recognizes, or an empty one."""
    below = (path for path in sorted(place.glob("[!.]*")) if path.is_dir())
    found = [
        f"{path} ({name})"
        for path in itertools.islice(below, MAX_SUBFOLDERS)
        for name, reader in FORMATS.items()
        if name != "folders" and not is_data_set(path) and reader.recognizes(path)
    ]
    more = " Others can be added by --into." if len(found) > 1 else ""
    return f"{place}: pass a folder of it: {few(found)}.{more}" if found else ""


def _recognized(place: Path) -> str:
    """The one format that a source looks like."""
    found = [name for name, reader in FORMATS.items() if reader.recognizes(place)]
    names = [name for name in found if name != "folders"] or found
    if not names:
        raise UserError(
            named_relative(place)
            or f"{place}: of an unknown format. Name one by --format: {', '.join(FORMATS)}."
        )
    if len(names) > 1:
        raise UserError(
            f"{place}: looks like {' and '.join(names)}. Choose by --format, or pass the file or "
            "folder of one of them."
        )
    return names[0]


def _mapped(labels: LabelSet, mapping: Sequence[str]) -> tuple[LabelSet, np.ndarray]:
    """The new classes, and the new id of each old one, uint8 `(256,)`."""
    targets, news = {name: name for name in labels.names}, [*labels.names]
    for change in mapping:
        olds, sign, new = (part.strip() for part in change.partition("="))
        names = [olds] if olds in news else [name.strip() for name in olds.split(",")]
        unknown = [name for name in names if name not in news]
        if not sign or unknown:
            raise UserError(
                f"--map must be OLD,OLD=NEW, with classes of the source ({few(news)}). "
                f"Received: {change!r}" + (f", with {unknown[0]!r}." if sign else ".")
            )
        targets = {old: new if now in names else now for old, now in targets.items()}
        news = [name for name in dict.fromkeys(targets.values()) if name]
    if not news:
        raise UserError("--map leaves no class.")
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


def _kept_apart(examples: Sequence[Example], findings: Findings) -> list[Example]:
    """Puts each name that several splits share into a folder of its split."""
    splits: dict[str, set[str | None]] = {}
    for example in examples:
        splits.setdefault(example.name, set()).add(example.split)
    shared = [name for name, its in splits.items() if len(its) > 1]
    if shared:
        findings.notes.append(
            f"{len(shared)} names are in several splits, such as {shared[0]}: each gets its split "
            "as its folder. If they are the same photographs, remove them from one split."
        )
    return [
        dataclasses.replace(example, name=f"{example.split or 'default'}/{example.name}")
        if len(splits[example.name]) > 1
        else example
        for example in examples
    ]


def _well_named(examples: Sequence[Example], findings: Findings) -> list[Example]:
    """Those whose name can be in a list and is no earlier one's; the others are problems."""
    seen: dict[str, Path] = {}
    good = []
    for example in examples:
        name, place = example.name, example.title
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
        else:
            seen[name] = place
            good.append(example)
    return good
