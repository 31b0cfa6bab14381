"""labelme's JSON: one file per photograph, whose shapes lie on top of earlier ones.

The rules are those of labelme 6.3 (`utils/shape.py`, `_label_file.py`), but a file may lack
what a mask does not need, and `imagePath` may be wrong. X-AnyLabeling's files differ by shapes
of four points.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import math
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from fcn_keras.data.conversion.files import json_files, json_heads
from fcn_keras.data.conversion.names import Photographs, label_set
from fcn_keras.data.conversion.relatives import relative_of
from fcn_keras.data.conversion.shapes import (
    MAX_POINTS,
    Canvas,
    checked_points,
    most_faults,
    require_size,
)
from fcn_keras.data.conversion.source import Example, Findings, Options, Source, split_in
from fcn_keras.data.split import IGNORE_ID
from fcn_keras.errors import UserError
from fcn_keras.files.images import bad_files_named, open_header
from fcn_keras.files.reading import damage_as_user_errors, read_text

OPTIONS = {"images", "classes"}
MAX_BYTES = 64 << 20  # with the photograph inside
MARKS = (b'"shapes"', b'"imagePath"', b'"imageData"')
LINE_WIDTH, POINT_RADIUS = 10, 5  # labelme's
# The least and most points of each kind of shape; the last two are X-AnyLabeling's.
KINDS = {
    "polygon": (3, MAX_POINTS),
    "rectangle": (2, 2),
    "oriented_rectangle": (4, 4),
    "circle": (2, 2),
    "line": (2, 2),
    "linestrip": (2, MAX_POINTS),
    "point": (1, 1),
    "mask": (2, 2),
    "rotation": (4, 4),
    "quadrilateral": (4, 4),
}


class _MissingError(UserError):
    """A photograph is not there."""


def recognizes(place: Path) -> bool:
    return any(mark in head for head in json_heads(place) for mark in MARKS)


def read(place: Path, options: Options, findings: Findings) -> Source:
    root = place if place.is_dir() else place.parent
    photographs = Photographs(options.images or root)
    load = functools.lru_cache(maxsize=1)(_load)  # the file whose turn it is, and no other
    images: dict[Path, Path | None] = {}
    others: dict[Path, tuple[str, str]] = {}
    counts: dict[str, tuple[int, Path]] = {}
    moved, empty, related, missing = [], [], [], []
    for file in json_files(place):
        try:
            content = load(file)
            if other := _other_format(file, content):
                others[file] = other
                continue
            for label in _labels(file, content):
                count, first = counts.get(label, (0, file))
                counts[label] = count + 1, first
            images[file], is_moved = _image(file, content, root, photographs, options)
            moved += [file] if is_moved else []
            empty += [] if content["shapes"] else [file]
            related += [file] if any("kie_linking" in shape for shape in _objects(content)) else []
        except _MissingError as error:
            missing.append(str(error))
        except UserError as error:
            text = str(error)
            findings.problems.append(text if text.startswith(str(file)) else f"{file}: {text}")
    if len(missing) > 1 and not images:
        missing = [
            f"{place}: none of the {len(missing)} photographs is in {photographs.root}. Name their "
            "folder by --images."
        ]
    findings.problems += missing
    if not images and not findings.problems:
        file, (kind, remedy) = next(iter(others.items()), (place, ("without any JSON", "")))
        raise UserError(f"{file}: {kind}, not labelme's. {remedy}".rstrip())
    for file, (kind, _) in others.items():
        findings.leave_out(f"as it is {kind}", file)
    _note_doubles(images, findings)
    if moved:
        findings.notes.append(
            f"files whose imagePath is wrong: {len(moved)}, such as {moved[0]}, whose photograph "
            f"was found at {images[moved[0]]}."
        )
    if related:
        findings.notes.append(
            f"files of X-AnyLabeling, drawn as in labelme: {len(related)}, such as {related[0]}."
        )
    if empty:
        findings.notes.append(f"files without shapes: {len(empty)}, such as {empty[0]}.")
    if place.is_dir():
        for path in photographs.unused():
            findings.leave_out("as no labelme file refers to it", path)
    labels, ids, background = label_set(counts, "_background_", options, findings)
    examples = []
    for file, image in images.items():
        name = file.relative_to(root).with_suffix("").as_posix()
        inside = functools.partial(_embedded, load, file)
        draw = functools.partial(_draw, load, file, ids, background, findings)
        # labelme turns photographs by EXIF when it opens them, but not those inside its files.
        upright = image is not None
        split = split_in(name.split("/")[:-1])
        examples.append(Example(name, image or inside, file, draw, split, upright))
    return Source(labels, examples)


def _load(file: Path) -> Any:
    remedy = "Save it again in labelme, as UTF-8, and without image data if it is large."
    with damage_as_user_errors(f"{file}: not readable as labelme's JSON", remedy):
        return json.loads(read_text(file, MAX_BYTES).removeprefix("\ufeff"))


def _other_format(file: Path, content) -> tuple[str, str] | None:
    """What a file is that is not labelme's, and what to do; `None` if it is labelme's."""
    if isinstance(content, dict) and ("shapes" in content or "imagePath" in content):
        return None
    if relative := relative_of(file):
        return relative.kind, relative.remedy
    if isinstance(content, dict) and "images" in content and "annotations" in content:
        return "a COCO file", "Use --format coco."
    if isinstance(content, list) and content and isinstance(content[0], dict):
        if "annotations" in content[0]:
            return "a Label Studio file", "Use --format label-studio."
    return "another program's file", "Export as labelme or COCO there."


def _labels(file: Path, content: dict) -> list[str]:
    """The labels of all shapes; what is wrong with a shape itself is found as it is drawn."""
    if not isinstance(content.get("shapes"), list):
        raise UserError(f"{file}: 'shapes' is not a list. Save the file again in labelme.")
    labels = [shape.get("label") for shape in _objects(content)]
    return [label.strip() for label in labels if isinstance(label, str)]


def _objects(content: dict) -> list[dict]:
    return [shape for shape in content["shapes"] if isinstance(shape, dict)]


def _image(
    file: Path, content: dict, root: Path, photographs: Photographs, options: Options
) -> tuple[Path | None, bool]:
    """The photograph, `None` if it is inside the file; and whether it is not at `imagePath`."""
    folder = file.parent.relative_to(root).as_posix()
    path = content.get("imagePath")
    path = path if isinstance(path, str) and path.strip() else ""
    beside = [f"{folder}/{name}" for name in (PureWindowsPath(path).name, file.stem) if name]
    embedded = bool(content.get("imageData"))
    with contextlib.suppress(UserError) if embedded else contextlib.nullcontext():
        if path and (image := photographs.exact(f"{folder}/{path}")):
            return None if embedded else image, False
        image = photographs.exact(*beside) or photographs.like(f"{folder}/{path}" if path else "")
        if image is None and options.images:
            image = photographs.like(file.stem)
        if image is None and not embedded:
            raise _MissingError(
                f"{file}: its photograph {path or file.stem!r} is not in {photographs.root}. Name "
                "its folder by --images, or remove the file."
            )
    return (None, False) if embedded else (image, bool(path) and not options.images)


def _embedded(load: Callable, file: Path) -> bytes:
    with damage_as_user_errors(f"{file}: 'imageData' is not base64"):
        data = load(file)["imageData"]
        if not isinstance(data, str):
            raise ValueError("it is not text")
        return base64.b64decode(data)


def _note_doubles(images: Mapping[Path, Path | None], findings: Findings) -> None:
    seen: dict[Path, Path] = {}
    for file, image in images.items():
        if image and seen.setdefault(image, file) != file:
            findings.problems.append(f"{file}: {seen[image]} has the same photograph. Remove one.")


def _draw(
    load: Callable,
    file: Path,
    ids: Mapping[str, int],
    background: int,
    findings: Findings,
    height: int,
    width: int,
) -> np.ndarray:
    content = load(file)
    declared = content.get("imageHeight"), content.get("imageWidth")
    if all(isinstance(side, int) for side in declared):
        require_size(declared, (height, width), file)
    canvas, faults = Canvas(height, width, background), []
    for number, shape in enumerate(content["shapes"], 1):
        try:
            _draw_shape(canvas, shape, ids)
        except ValueError as error:
            label = reprlib.repr(shape.get("label") if isinstance(shape, dict) else shape)
            faults.append(
                f"{file}: shape {number} ({label}): {error}. Fix or remove it in labelme."
            )
    findings.problems += most_faults(faults, file)
    return canvas.mask()


def _draw_shape(canvas: Canvas, shape, ids: Mapping[str, int]) -> None:
    """Draws a shape; raises `ValueError`, a clause, if it is faulty."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
        raise ValueError("it has no label")
    id = ids.get(shape["label"].strip(), IGNORE_ID)  # an unknown label is a problem already
    kind, points = shape.get("shape_type") or "polygon", shape.get("points")
    if kind == "rectangle" and isinstance(points, list) and len(points) == 4:
        kind = "oriented_rectangle"  # X-AnyLabeling's
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"its shape_type {reprlib.repr(kind)} is none of {', '.join(KINDS)}")
    points = checked_points(points, *KINDS[kind])
    if kind == "mask":
        left, top = map(int, points[0])
        canvas.stamp(_bitmap(shape.get("mask"), points), left, top, id)
    elif kind == "rectangle":
        canvas.rectangle(points, id)
    elif kind == "circle":
        canvas.disc(points[0], math.dist(*points), id)
    elif kind == "point":
        canvas.disc(points[0], POINT_RADIUS, id)
    elif kind in ("line", "linestrip"):
        canvas.line(points, LINE_WIDTH, id)
    else:
        canvas.polygon(points, id)


def _bitmap(text, points) -> np.ndarray:
    """The pixels of a mask shape: a PNG of its box's size, whose corners belong to the box."""
    if not isinstance(text, str):
        raise ValueError("it has no mask")
    (left, top), (right, bottom) = (map(int, point) for point in points)
    with bad_files_named("its mask"):
        image = open_header(base64.b64decode(text), "its mask", ("PNG",))
        image.load()
    if image.size != (right - left + 1, bottom - top + 1):
        raise ValueError(f"its mask of {image.size} pixels does not fit its box {points}")
    pixels = np.asarray(image)
    if pixels.ndim != 2:
        raise ValueError(f"its mask has {pixels.shape[2]} channels, but may have only one")
    return pixels != 0
