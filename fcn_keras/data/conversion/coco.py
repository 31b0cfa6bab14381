"""COCO's annotations: objects as polygons and run lengths, or segments as a panoptic PNG.

One JSON file describes the objects of many images; several files are the splits of a data set.
COCO defines no stacking order: here larger objects are below smaller ones. What belongs to no
object is background. Crowd regions are drawn like objects. The polygons of an object are united,
so they make no holes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import mmap
import os
import re
import reprlib
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fcn_keras.data.conversion import coco_shapes
from fcn_keras.data.conversion.files import head, json_files, json_heads, turn_of
from fcn_keras.data.conversion.shapes import require_size
from fcn_keras.data.conversion.source import (
    SPLIT_NAMES,
    Example,
    Findings,
    Options,
    Source,
    split_in,
    with_background,
)
from fcn_keras.data.decoding import decode_image
from fcn_keras.data.directory import MAX_BYTES, read_file
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError, few, require_packages
from fcn_keras.files.finding import IMAGE_SUFFIXES
from fcn_keras.files.images import LYING
from fcn_keras.files.reading import as_object, damage_as_user_errors

OPTIONS = {"images"}
CORRECT = "Correct or remove it."
KINDS = ("instances", "stuff", "panoptic")  # COCO's own files: the first of these is read
NO_IMAGE, NO_SEGMENTATION = "as its image is not in the file", "as it has no segmentation"
NO_MASKS = ("captions", "image_info", "person_keypoints")
LIST_OF_COCO = re.compile(rb'"(images|annotations)"\s*:\s*\[')
LISTS = (b"images", b"categories", b"annotations")
# A string or a bracket: all that is needed to find an object's end.
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[][{}]', re.S)  # a string may be cut off


@dataclasses.dataclass(frozen=True)
class _File:
    """A JSON file: names of categories, and the record of each image with its objects.

    An object is (start and end in the file, category): it is parsed again when it is drawn, since
    all of them may need more memory than there is. A panoptic file has at most one per image,
    (name of the PNG, the category of each segment).
    """

    path: Path
    split: str | None
    names: dict[Any, str]
    images: list[tuple[dict, list[tuple]]]
    panoptic: bool


def recognizes(place: Path) -> bool:
    return any(map(_is_coco, json_heads(place)))


def read(place: Path, options: Options, findings: Findings) -> Source:
    require_packages("The format coco", "coco", "pycocotools")
    paths = _annotation_files(place, findings)
    files = [_read_json(path, _split(place, path, len(paths)), findings) for path in paths]
    files = [file for file in files if file.images]
    _require_segmentations(place, files, findings)
    labels = _labels(files, findings)
    ids = {
        file.path: {number: labels.names.index(name) for number, name in file.names.items()}
        for file in files
    }
    examples = []
    for file, image, name, (record, objects) in _find_images(files, options.images, findings):
        draw = _draw_panoptic if file.panoptic else _draw
        draw = functools.partial(draw, file.path, image, record, objects, ids[file.path], findings)
        examples.append(Example(name, image, file.path, draw, file.split))
    return Source(labels, examples)


def _is_coco(start: bytes) -> bool:
    """Whether a file starts like COCO's JSON, and not like a task of Label Studio."""
    coco = start.startswith(b"{") and LIST_OF_COCO.search(start)
    # Others have such lists, too.
    keys = (b'"file_name"', b'"coco_url"') if b'"images"' in start else (b'"image_id"',)
    return bool(coco) and any(key in start for key in keys) and b'"from_name"' not in start


def _annotation_files(place: Path, findings: Findings) -> list[Path]:
    if not place.is_dir():
        return [place]
    paths = [path for path in json_files(place) if _is_coco(head(path))]
    used = next((kind for kind in KINDS if any(path.name.startswith(kind) for path in paths)), "")
    others = tuple(kind for kind in (*KINDS, "labels") if used and kind != used)
    chosen = []
    for path in paths:
        if path.name.startswith(NO_MASKS):
            findings.leave_out("as it describes no masks", path)
        elif path.name.startswith(others):
            findings.leave_out(f"as {used} are read (give this file alone to read it)", path)
        else:
            chosen.append(path)
    if not chosen:
        raise UserError(f"{place}: no COCO JSON of masks in it or in a folder of it.")
    return chosen


def _split(place: Path, path: Path, count: int) -> str | None:
    """The split that a file is named after, or its folder; one file alone is all there is.

    Other files are parts of their own, as they may have images of the same names.
    """
    words = re.split("[^a-z]+", path.stem.lower())
    if path.parent != place:
        words.append(path.parent.name.lower())
    return (split_in(words) or path.stem) if count > 1 else None


def _read_json(path: Path, split: str | None, findings: Findings) -> _File:
    with damage_as_user_errors(f"{path}: not readable as COCO's JSON", "Export it again."):
        if not path.is_file() or path.stat().st_size > MAX_BYTES:
            raise ValueError(f"not a regular file of at most {MAX_BYTES >> 30} GiB")
        places: dict[bytes, list] = {key: [] for key in LISTS}
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for key, start, end in _entries(data):
                places[key].append((start, end))
        image_places, category_places, annotations = places.values()
        categories = list(_parsed(path, category_places))
        names, images = _category_names(categories), _records(_parsed(path, image_places))
        if annotations and not names:
            raise ValueError("it has no categories")
        panoptic = any("segments_info" in entry for entry in _parsed(path, annotations[:1]))
        group = _group_panoptic if panoptic else _group
        group(path, annotations, names, images, findings)
    if not annotations:
        findings.leave_out("as it has no annotations", path)
        images = {}
    elif not panoptic:
        used = {category for _, objects in images.values() for *_, category in objects}
        _leave_out_placeholder(path, categories, used, names, findings)
    return _File(path, split, names, list(images.values()), panoptic)


def _entries(data) -> Iterator[tuple[bytes, int, int]]:
    """Yields the key of each of `LISTS` in a JSON object, and the start and end of an entry.

    Raises:
        ValueError: If the object ends early, or a list holds something else than objects.
    """
    depth = start = end = 0
    key = between = b""
    for token in TOKEN.finditer(data):
        text = token[0]
        if text in (b"[", b"{"):
            if depth == 1:
                end, between = token.end(), b""
            elif depth == 2:
                start = token.start()
            if depth in (1, 2) and key in LISTS:
                rest = data[end:start].strip() if depth == 2 else b""
                if text != (b"[", b"{")[depth - 1] or rest != between:
                    raise ValueError(f"{key.decode()} is not a list of objects")
            depth += 1
        elif text in (b"]", b"}"):
            depth -= 1
            if depth == 2 and key in LISTS:
                end, between = token.end(), b","
                yield key, start, end
            elif depth == 1 and key in LISTS and data[end : token.start()].strip():
                raise ValueError(f"{key.decode()} is not a list of objects")
        elif depth == 1:
            key = text[1:-1]
    if depth or not key:
        raise ValueError("not a complete JSON object")


def _parsed(path: Path, places: Iterable[Sequence]) -> Iterator[dict]:
    """Yields the objects at these starts and ends in a file."""
    with path.open("rb") as file:
        for start, end, *_ in places:
            file.seek(start)
            yield as_object(json.loads(file.read(end - start)), "an entry")


def _category_names(categories: list[dict]) -> dict[Any, str]:
    """The name of each category, in the order of their ids."""
    names: dict[Any, str] = {}
    for index, category in enumerate(categories):
        number, name = _plain(category.get("id")), category.get("name")
        if not _is_id(number) or not isinstance(name, str):
            raise ValueError(f"categories[{index}] needs an id and a name")
        if number in names:
            raise ValueError(f"two categories have the id {reprlib.repr(number)}")
        names[number] = name.strip()
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _records(records: Iterable[dict]) -> dict[Any, tuple[dict, list]]:
    """What is needed of each image's record, and a list for its objects, by its id."""
    images: dict[Any, tuple[dict, list]] = {}
    for index, record in enumerate(records):
        number, name = _plain(record.get("id")), record.get("file_name")
        if not _is_id(number) or not isinstance(name, str):
            raise ValueError(f"images[{index}] needs an id and a file_name")
        if number in images:
            raise ValueError(f"two images have the id {reprlib.repr(number)}")
        sizes = {key: _plain(record.get(key)) for key in ("width", "height")}
        images[number] = {"file_name": name, **sizes}, []
    return images


def _plain(value):
    """A whole number also if it is text or has a fraction of 0, as programs write the same id."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _is_id(value) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _leave_out_placeholder(path: Path, categories, used: set, names, findings: Findings) -> None:
    """Drops the first category of Roboflow's files, which names all the others together."""
    if len(categories) > 1 and categories[0].get("supercategory") == "none":
        first, *others = categories
        grouped = all(other.get("supercategory") == first["name"] for other in others)
        if grouped and first["id"] not in used:
            del names[first["id"]]
            findings.leave_out("as Roboflow's name for all classes", f"{path}: {first['name']}")


def _group(path: Path, places: list, names: dict, images: dict, findings: Findings) -> None:
    """Adds the place and category of each annotation to its image."""
    crowds = 0
    for index, (place, entry) in enumerate(zip(places, _parsed(path, places))):
        title = f"{path}: annotation {entry.get('id', f'[{index}]')}"
        image, category = (_plain(entry.get(key)) for key in ("image_id", "category_id"))
        if not _is_id(image):
            findings.problems.append(f"{title}: {reprlib.repr(image)} is no image_id. {CORRECT}")
        elif not _is_id(category) or category not in names:
            findings.problems.append(
                f"{title}: the category_id {reprlib.repr(category)} is unknown. {CORRECT}"
            )
        elif image not in images:
            findings.leave_out(NO_IMAGE, title)
        elif not entry.get("segmentation"):
            findings.leave_out(NO_SEGMENTATION, title)
        else:
            images[image][1].append((*place, category))
            crowds += entry.get("iscrowd") == 1
    if crowds:
        findings.notes.append(f"{path}: crowd regions are drawn as their class: {crowds}.")


def _group_panoptic(path: Path, places, names: dict, images: dict, findings: Findings) -> None:
    """Adds each PNG, with the category of its segments, to its image."""
    for index, entry in enumerate(_parsed(path, places)):
        title = f"{path}: annotations[{index}]"
        image, segments, png = (entry.get(k) for k in ("image_id", "segments_info", "file_name"))
        image = _plain(image)
        if not isinstance(png, str) or not isinstance(segments, list) or not _is_id(image):
            findings.problems.append(f"{title} needs image_id, file_name and segments_info.")
        elif image not in images:
            findings.leave_out(NO_IMAGE, title)
        elif images[image][1]:
            findings.problems.append(f"{title}: another annotation has the same image_id.")
        else:
            categories = {}
            for segment in segments:
                known = segment if isinstance(segment, dict) else {}
                number, category = _plain(known.get("id")), _plain(known.get("category_id"))
                if _is_id(number) and _is_id(category) and category in names:
                    categories[number] = category
                else:
                    findings.problems.append(
                        f"{title}: its segment {reprlib.repr(number)} has the category_id "
                        f"{reprlib.repr(category)}, which is unknown. Correct it."
                    )
            images[image][1].append((png, categories))


def _require_segmentations(place: Path, files: list[_File], findings: Findings) -> None:
    objects = [objects for file in files for _, objects in file.images]
    empty = objects.count([])
    if empty == len(objects) and not (files and findings.problems):
        boxes = "A file of boxes alone is for detection: export polygons or masks."
        strange = "No annotation has the image_id of one of its images. Export it again."
        left_out = findings.left_out
        remedy = boxes if NO_SEGMENTATION in left_out else strange if NO_IMAGE in left_out else ""
        raise UserError(f"{place}: no image has a segmentation. {remedy}".strip())
    if empty:
        what = "unlabelled" if files[0].panoptic else "background"
        findings.notes.append(f"images without a segmentation are {what} everywhere: {empty}.")


def _labels(files: list[_File], findings: Findings) -> LabelSet:
    """The classes: the categories, behind background where it is what no object covers."""
    names = tuple(dict.fromkeys(itertools.chain(*(file.names.values() for file in files))))
    for file in files:
        if len({*file.names.values()}) < len(file.names):
            raise UserError(f"{file.path}: two categories have the same name. Rename one.")
        if file.panoptic != files[0].panoptic:
            raise UserError(f"{file.path}: only some files are panoptic. Give one file.")
    if any((*file.names.values(),) != names for file in files):
        findings.notes.append("the files' categories differ; they were matched by their names.")
    if not files[0].panoptic:
        names = with_background(names)
    with damage_as_user_errors(f"{files[0].path}: its categories", "Rename or remove some."):
        return LabelSet(names)


def _find_images(files: list[_File], images: Path | None, findings: Findings) -> Iterator[tuple]:
    """Yields each image that is there: JSON file, its path, its name, its entry."""
    seen: dict[Path, str] = {}
    for file in files:
        places = _folders(file.path, images)
        folders, missing, moved = [place for place in places if place.is_dir()], [], 0
        listing = functools.cache(functools.partial(_listing, folders))
        for entry in file.images:
            name = entry[0]["file_name"]
            title = f"{file.path}: image {name!r}"
            parts = [part for part in re.split(r"[\\/]", name) if part not in ("", ".")]
            away = bool(re.match(r"[\\/]|[A-Za-z]:", name)) or ".." in parts
            # Paths that are absolute or lead out of the folder are of another computer.
            paths: list[Path] = [] if away else _existing(folders, parts)
            if not paths and parts[-1:] != [".."]:
                last = urllib.parse.unquote("".join(parts[-1:])).lower()
                paths = _existing(folders, parts[-1:]) or listing().get(last, [])
                parts = [path.name for path in paths[:1]]
                moved += bool(paths)
            if not paths:
                missing.append(f"{title} is missing. Add it, or name its folder by --images.")
            elif len(paths) > 1 and len({path.resolve() for path in paths}) > 1:
                findings.problems.append(
                    f"{title}: there are {paths[0]} and {paths[1]}. Name the folder by --images."
                )
            elif paths[0] in seen:
                findings.problems.append(f"{title} is the file of {seen[paths[0]]}. Keep one.")
            else:
                seen[paths[0]] = title
                yield file, paths[0], os.path.splitext("/".join(parts))[0], entry
        if missing and len(missing) == len(file.images):
            where = few([str(folder) for folder in folders])
            missing = [f"{file.path}: none of its images is in {where}. Name a folder by --images."]
        findings.problems += missing
        if moved:
            findings.notes.append(f"{file.path}: images found by their file names alone: {moved}.")


def _existing(folders: list[Path], parts: list[str]) -> list[Path]:
    found = []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):  # too long, or with a null character
            if parts and folder.joinpath(*parts).is_file():
                found.append(folder.joinpath(*parts))
    return found


def _listing(folders: list[Path]) -> dict[str, list[Path]]:
    """The images in folders by their names, with and without suffix, in lower case."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                    for name in (path.name.lower(), path.stem.lower()):
                        found.setdefault(name, []).append(path)
    return found


def _folders(path: Path, images: Path | None) -> list[Path]:
    """Where the images of a JSON file may be."""
    roots = [images or path.parent]
    if not images and path.parent.name.lower().startswith(("annotation", "label")):
        roots.append(path.parent.parent)
    subset = path.stem.partition("_")[2]
    words = [word for word in re.split("[^a-z]+", path.stem.lower()) if word in SPLIT_NAMES]
    inside = ["", "images", "data", "img", "JPEGImages"]
    for name in filter(None, dict.fromkeys([path.stem, subset, *words])):
        inside += [name, f"images/{name}", f"{name}/images"]
    return [root / name for root in roots for name in inside]


def _draw(
    path: Path, image: Path, record, objects, ids, findings: Findings, height: int, width: int
) -> np.ndarray:
    height, width = _recorded_size(path, image, record, height, width)
    with damage_as_user_errors(f"{path}: changed since it was read", "Convert it again."):
        entries = list(_parsed(path, objects))
    shapes = []
    for entry, (*_, category) in zip(entries, objects):
        title = f"{path}: annotation {entry.get('id')} of {record['file_name']!r}"
        try:
            runs = coco_shapes.run_lengths(entry.get("segmentation"), height, width)
        except ValueError as error:
            findings.problems.append(f"{title}: {error}. Correct or remove it.")
            continue
        if runs[1::2].any():
            shapes.append((runs, ids[category]))
        else:
            findings.leave_out("as it covers the centre of no pixel", title)
    columns = np.zeros(height * width, np.uint8)
    for runs, class_id in sorted(shapes, key=lambda shape: -shape[0][1::2].sum()):
        coco_shapes.draw(runs, class_id, columns)
    return np.ascontiguousarray(columns.reshape(width, height).T)


def _recorded_size(path: Path, image: Path, record: dict, height: int, width: int):
    """The height and width to draw: those of the photograph, perhaps as it is stored."""
    recorded = record["height"], record["width"]
    if recorded == (width, height) and turn_of(image, str(image)) in LYING:
        return recorded
    if None not in recorded:
        require_size(recorded, (height, width), f"{path}: image {record['file_name']!r}")
    return height, width


def _draw_panoptic(
    path: Path, image: Path, record, objects, ids, findings: Findings, height: int, width: int
) -> np.ndarray:
    if not objects:
        return np.full((height, width), IGNORE_ID, np.uint8)
    [(file_name, categories)] = objects
    places = [path.with_suffix(""), path.parent]
    found = _existing(places, re.split(r"[\\/]", file_name)[-1:])
    if not found:
        raise UserError(f"{path}: the PNG {file_name!r} is missing. Add it in {places[0]}.")
    # A segment's id is R + 256 G + 65536 B, and 0 is no segment.
    colors = decode_image(read_file(found[0]), str(found[0])).astype(np.int32)
    numbers, inverse = np.unique(colors @ [1, 256, 65536], return_inverse=True)
    table = [ids[categories[n]] if n in categories else IGNORE_ID for n in numbers.tolist()]
    unknown = [str(n) for n in numbers.tolist() if n and n not in categories]
    if unknown:
        findings.leave_out("as segments_info lacks its id", f"{found[0]}: {few(unknown)}")
    for segment in sorted(categories.keys() - {*numbers.tolist()}, key=str):
        findings.leave_out("as the PNG lacks it", f"{path}: segment {segment} of {file_name!r}")
    return np.array(table, np.uint8)[inverse.reshape(colors.shape[:2])]
