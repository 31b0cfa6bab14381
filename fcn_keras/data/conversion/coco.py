"""COCO's annotations: objects as polygons and run lengths, or segments as a panoptic PNG.

One JSON file describes the objects of many images; several files are the splits of a data set.
COCO defines no stacking order: here larger objects are below smaller ones. What belongs to no
object is background. Crowd regions are drawn like objects. The polygons of an object are united,
so they make no holes.
"""

from __future__ import annotations

import array
import contextlib
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fcn_keras.data.conversion import coco_shapes
from fcn_keras.data.conversion.source import (
    Example,
    Findings,
    Options,
    Source,
    distinct_names,
    split_name,
    with_background,
)
from fcn_keras.data.decoding import decode_image
from fcn_keras.data.directory import read_file
from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError, few, require_packages
from fcn_keras.files.reading import as_object, damage_as_user_errors

OPTIONS = {"images"}
KINDS = ("instances", "stuff", "panoptic")  # COCO's own files: the first of these is read
NO_MASKS = ("captions", "image_info", "person_keypoints")
PEEKED_FILES, PEEKED_BYTES = 20, 1 << 16
LIST_OF_COCO = re.compile(rb'"(images|annotations|categories|licenses)"\s*:\s*\[')
SPLIT_WORDS = {"train", "training", "val", "valid", "validation", "test", "testing"}


@dataclasses.dataclass(frozen=True)
class _File:
    """A JSON file: its classes, and the record of each image with its objects.

    An object is (annotation id, class name, segmentation); a panoptic file has at most one per
    image, (annotation id, PNG's name, class names of its segments).
    """

    path: Path
    split: str | None
    names: list[str]
    images: list[tuple[dict, list[tuple]]]
    panoptic: bool


def recognizes(place: Path) -> bool:
    return any(map(_is_coco, itertools.islice(_json_files(place), PEEKED_FILES)))


def read(place: Path, options: Options, findings: Findings) -> Source:
    require_packages("The format coco", "coco", "pycocotools")
    files = [_read_json(path, findings) for path in _annotation_files(place, findings)]
    files = [file for file in files if file.images]
    _require_segmentations(place, files, findings)
    labels = _labels(files, findings)
    ids = {name: index for index, name in enumerate(labels.names)}
    found = list(_find_images(files, options.images, findings))
    names = distinct_names([(file.split or file.path.stem, path) for file, _, path, _ in found])
    examples = []
    for name, (file, image, _, (record, objects)) in zip(names, found):
        draw = _draw_panoptic if file.panoptic else _draw
        draw = functools.partial(draw, file.path, record, objects, ids, findings)
        examples.append(Example(name, image, file.path, draw, file.split))
    return Source(labels, examples)


def _json_files(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from sorted(place.glob("*.json"))
        yield from sorted(place.glob("*/*.json"))
    elif place.suffix.lower() == ".json":
        yield place


def _is_coco(path: Path) -> bool:
    """Whether a file begins like COCO's JSON."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(PEEKED_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError:
        return False
    return head.startswith(b"{") and bool(LIST_OF_COCO.search(head))


def _annotation_files(place: Path, findings: Findings) -> list[Path]:
    if not place.is_dir():
        return [place]
    paths = [path for path in _json_files(place) if _is_coco(path)]
    used = next((kind for kind in KINDS if any(path.name.startswith(kind) for path in paths)), "")
    others = tuple(kind for kind in KINDS if used and kind != used)
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


def _read_json(path: Path, findings: Findings) -> _File:
    data = read_file(path)
    with damage_as_user_errors(f"{path}: not readable as COCO's JSON", "Export it again."):
        content = as_object(json.loads(data, object_hook=_compacted), "the content")
        del data
        for key in ("images", "annotations", "categories"):
            if not isinstance(content.get(key), list):
                raise ValueError(f"{key!r} is not a list")
            for index, entry in enumerate(content[key]):
                as_object(entry, f"{key}[{index}]")
        names, images = _category_names(content), _records(content)
    annotations = content["annotations"]
    if not annotations:
        findings.leave_out("as it has no annotations", path)
        images = {}
    _leave_out_placeholder(path, content, names, findings)
    panoptic = any("segments_info" in entry for entry in annotations)
    (_group_panoptic if panoptic else _group)(path, annotations, names, images, findings)
    words = [*re.split("[^a-z]+", path.stem.lower()), path.parent.name.lower()]
    split = next((split_name(word) for word in words if word in SPLIT_WORDS), None)
    return _File(path, split, list(names.values()), list(images.values()), panoptic)


def _compacted(entry: dict) -> dict:
    """Packs an annotation's numbers, which take four times the memory as objects."""
    with contextlib.suppress(TypeError, OverflowError):  # what is no number is reported later
        if isinstance(entry.get("segmentation"), list):
            entry["segmentation"] = [array.array("d", part) for part in entry["segmentation"]]
        if isinstance(entry.get("counts"), list):
            entry["counts"] = array.array("L", entry["counts"])
    return entry


def _category_names(content: dict) -> dict[Any, str]:
    """The name of each category, in the order of their ids."""
    names: dict[Any, str] = {}
    for index, category in enumerate(content["categories"]):
        number, name = category.get("id"), category.get("name")
        if not _is_id(number) or not isinstance(name, str):
            raise ValueError(f"categories[{index}] needs an id and a name")
        if number in names:
            raise ValueError(f"two categories have the id {number}")
        names[number] = name.strip()
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _records(content: dict) -> dict[Any, tuple[dict, list]]:
    """Each image's record, and a list for its objects, by its id."""
    images: dict[Any, tuple[dict, list]] = {}
    for index, record in enumerate(content["images"]):
        if not _is_id(record.get("id")) or not isinstance(record.get("file_name"), str):
            raise ValueError(f"images[{index}] needs an id and a file_name")
        if record["id"] in images:
            raise ValueError(f"two images have the id {record['id']}")
        images[record["id"]] = record, []
    return images


def _is_id(value) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _leave_out_placeholder(path: Path, content: dict, names: dict, findings: Findings) -> None:
    """Drops the first category of Roboflow's files, which names all the others together."""
    if len(names) < 2:
        return
    first, *others = content["categories"]
    used = any(entry.get("category_id") == first["id"] for entry in content["annotations"])
    if first.get("supercategory") == "none" and not used:
        if all(other.get("supercategory") == first["name"] for other in others):
            del names[first["id"]]
            findings.leave_out("as Roboflow's name for all classes", f"{path}: {first['name']}")


def _group(path: Path, annotations, names: dict, images: dict, findings: Findings) -> None:
    """Adds each annotation to its image."""
    crowds = 0
    for index, entry in enumerate(annotations):
        number, segmentation = entry.get("id", f"[{index}]"), entry.get("segmentation")
        image, category = entry.get("image_id"), entry.get("category_id")
        if not _is_id(image) or not _is_id(category) or category not in names:
            findings.problems.append(
                f"{path}: annotation {number} has the image_id {image!r} and the category_id "
                f"{category!r}, which are unknown. Correct or remove it."
            )
        elif image not in images:
            findings.leave_out("as its image is not in the file", f"{path}: annotation {number}")
        elif not segmentation:
            findings.leave_out("as it has no segmentation", f"{path}: annotation {number}")
        else:
            images[image][1].append((number, names[category], segmentation))
            crowds += entry.get("iscrowd") == 1
    if crowds:
        findings.notes.append(f"{path}: crowd regions are drawn as their class: {crowds}.")


def _group_panoptic(path: Path, annotations, names, images: dict, findings: Findings) -> None:
    """Adds each PNG, with the class name of its segments, to its image."""
    for index, entry in enumerate(annotations):
        title = f"{path}: annotations[{index}]"
        image, segments, png = (entry.get(k) for k in ("image_id", "segments_info", "file_name"))
        if not isinstance(png, str) or not isinstance(segments, list) or not _is_id(image):
            findings.problems.append(f"{title} needs image_id, file_name and segments_info.")
        elif image not in images:
            findings.leave_out("as its image is not in the file", title)
        elif images[image][1]:
            findings.problems.append(f"{title}: another annotation has the same image_id.")
        else:
            classes = {}
            for segment in segments:
                known = segment if isinstance(segment, dict) else {}
                number, category = known.get("id"), known.get("category_id")
                if _is_id(number) and _is_id(category) and category in names:
                    classes[number] = names[category]
                else:
                    findings.problems.append(
                        f"{title}: its segment {number!r} has the category_id {category!r}, which "
                        "is unknown. Correct it."
                    )
            images[image][1].append((f"[{index}]", png, classes))


def _require_segmentations(place: Path, files: list[_File], findings: Findings) -> None:
    objects = [objects for file in files for _, objects in file.images]
    empty = objects.count([])
    if empty == len(objects) and not (files and findings.problems):
        raise UserError(
            f"{place}: no image has a segmentation. A file of boxes alone is for detection: export "
            "polygons or masks."
        )
    if empty:
        what = "unlabelled" if files[0].panoptic else "background"
        findings.notes.append(f"images without a segmentation are {what} everywhere: {empty}.")


def _labels(files: list[_File], findings: Findings) -> LabelSet:
    """The classes: the categories, behind background where it is what no object covers."""
    names = list(dict.fromkeys(itertools.chain(*(file.names for file in files))))
    for file in files:
        if len(set(file.names)) < len(file.names):
            raise UserError(f"{file.path}: two categories have the same name. Rename one.")
        if file.panoptic != files[0].panoptic:
            raise UserError(f"{file.path}: only some files are panoptic. Give one file.")
    if any(file.names != names for file in files):
        findings.notes.append("the files' categories differ; they were matched by their names.")
    if not files[0].panoptic:
        names = with_background(names)
    try:
        return LabelSet(tuple(names))
    except UserError as error:
        raise UserError(f"{files[0].path}: {error}") from error


def _find_images(files: list[_File], images: Path | None, findings: Findings) -> Iterator[tuple]:
    """Yields each image that is there: JSON file, its path, its path in the JSON, its entry."""
    seen: dict[Path, str] = {}
    for file in files:
        places = _folders(file.path, images)
        folders, missing, moved = [place for place in places if place.is_dir()], [], 0
        for entry in file.images:
            name = entry[0]["file_name"]
            title = f"{file.path}: image {name!r}"
            parts = [part for part in re.split(r"[\\/]", name) if part not in ("", ".")]
            away = bool(re.match(r"[\\/]|[A-Za-z]:", name)) or ".." in parts
            # Paths that are absolute or lead out of the folder are of another computer.
            paths: list[Path] = [] if away else _existing(folders, parts)
            if not paths and parts[-1:] != [".."]:
                parts = parts[-1:]
                paths = _existing(folders, parts)
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
                yield file, paths[0], "/".join(parts), entry
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


def _folders(path: Path, images: Path | None) -> list[Path]:
    """Where the images of a JSON file may be."""
    if images:
        return [images]
    roots = [path.parent]
    if path.parent.name.lower().startswith(("annotation", "label")):
        roots.append(path.parent.parent)
    subset = path.stem.partition("_")[2]
    words = [word for word in re.split("[^a-z]+", path.stem.lower()) if word in SPLIT_WORDS]
    inside = ["", "images", "data"]
    for name in filter(None, dict.fromkeys([path.stem, subset, *words])):
        inside += [name, f"images/{name}", f"{name}/images"]
    return [root / name for root in roots for name in inside]


def _draw(path: Path, record: dict, objects, ids, findings: Findings, height: int, width: int):
    _require_recorded_size(path, record, height, width)
    shapes = []
    for number, name, segmentation in objects:
        title = f"{path}: annotation {number} of {record['file_name']!r}"
        try:
            runs = coco_shapes.run_lengths(segmentation, height, width)
        except ValueError as error:
            findings.problems.append(f"{title} has {error}. Correct or remove it.")
            continue
        if coco_shapes.reach(segmentation, height, width) > 1:
            findings.leave_out("where it is outside its image", title)
        shapes.append((runs, ids[name]))
    columns = np.zeros(height * width, np.uint8)
    for runs, class_id in sorted(shapes, key=lambda shape: -shape[0][1::2].sum()):
        coco_shapes.draw(runs, class_id, columns)
    return np.ascontiguousarray(columns.reshape(width, height).T)


def _require_recorded_size(path: Path, record: dict, height: int, width: int) -> None:
    recorded = record.get("width"), record.get("height")
    if None in recorded or recorded == (width, height):
        return
    remedy = "Restore the image that was annotated."
    if recorded == (height, width):
        remedy = "If EXIF turns it, add --exif ignore."
    raise UserError(
        f"{path}: image {record['file_name']!r} has the width and height {recorded[0]} and "
        f"{recorded[1]}, but its file {width} and {height}. {remedy}"
    )


def _draw_panoptic(path: Path, record, objects, ids, findings: Findings, height: int, width: int):
    if not objects:
        return np.full((height, width), IGNORE_ID, np.uint8)
    [(_, file_name, classes)] = objects
    places = [path.with_suffix(""), path.parent]
    found = _existing(places, re.split(r"[\\/]", file_name)[-1:])
    if not found:
        raise UserError(f"{path}: the PNG {file_name!r} is missing. Add it in {places[0]}.")
    # A segment's id is R + 256 G + 65536 B, and 0 is no segment.
    colors = decode_image(read_file(found[0]), str(found[0])).astype(np.int32)
    numbers, inverse = np.unique(colors @ [1, 256, 65536], return_inverse=True)
    table = [ids[classes[n]] if n in classes else IGNORE_ID for n in numbers.tolist()]
    unknown = [str(n) for n in numbers.tolist() if n and n not in classes]
    if unknown:
        findings.leave_out("as segments_info lacks its id", f"{found[0]}: {few(unknown)}")
    for segment in sorted(classes.keys() - {*numbers.tolist()}, key=str):
        findings.leave_out("as the PNG lacks it", f"{path}: segment {segment} of {file_name!r}")
    return np.array(table, np.uint8)[inverse.reshape(colors.shape[:2])]
