"""CVAT's "CVAT for images 1.1".

| file              | content                                                            |
|-------------------|--------------------------------------------------------------------|
| annotations.xml   | labels, and the shapes of each image                               |
| images/NAME       | photographs; images/SUBSET/NAME in the export of a project         |

Shapes are filled as CVAT fills them for its own masks: by ascending `z_order`, later ones over
earlier ones, boxes and ellipses too. What no shape covers is background. CVAT turns photographs
upright.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

import numpy as np

from fcn_keras.data.conversion.filling import fill_ellipse, fill_polygon, fill_runs
from fcn_keras.data.conversion.shapes import (
    MAX_COORDINATE,
    MAX_POINTS,
    checked_number,
    require_size,
)
from fcn_keras.data.conversion.source import (
    BACKGROUND,
    Example,
    Findings,
    Options,
    Source,
    background_of,
    split_name,
)
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.reading import damage_as_user_errors

Color = tuple[int, int, int]
AREAS = ("mask", "polygon", "box", "ellipse")
OTHERS = ("tag", "points", "polyline", "cuboid", "skeleton")  # CVAT's masks lack them, too
ENDINGS = ("", ".PNG", ".png", ".jpg")
MAX_BYTES = 512 << 20
MAX_DEPTH = 64  # of elements
MAX_ELEMENTS = 1_000_000  # labels, images and shapes; each takes up to a kilobyte
MAX_TEXT = 10_000  # characters of a label's name that are kept
SAVE_IMAGES = "Export with 'Save images' in CVAT, or pass the photographs' folder by --images."


def read(path: Path, options: Options, findings: Findings) -> Source:
    content = _Content(path)
    content.read()
    labels, ids = _labels(content, path, findings)
    folders = [options.images] if options.images else [path.parent / "images", path.parent]
    examples: list[Example] = []
    seen: set[Path] = set()
    for attributes, elements in content.images:
        name, subset = attributes.get("name", ""), attributes.get("subset", "")
        place = f"{path}: {name or 'an image without a name'}"
        shapes = _shapes(elements, ids, place, findings)
        parts = f"{subset or 'default'}/{name}".split("/")
        if not name or not {"", ".", ".."}.isdisjoint(parts):
            findings.problems.append(f"{place}: not the name of a file in the folder of images.")
        elif not shapes:
            findings.leave_out("as nothing in it is labelled by an area", place)
        elif not (image := _find(folders, subset, name)):
            findings.problems.append(f"{place}: there is no such photograph. {SAVE_IMAGES}")
        elif image in seen:
            findings.problems.append(f"{place}: {image} is already another image's. Rename one.")
        else:
            seen.add(image)
            draw = _drawing(shapes, attributes, place, findings)
            split = None if subset in ("", "default") else split_name(subset)
            stem = name.removesuffix(image.suffix)
            examples.append(Example(stem, image, path, draw, split, upright=True))
    if not seen:
        if any(SAVE_IMAGES in problem for problem in findings.problems):
            raise UserError(f"{path}: none of its photographs is beside it. {SAVE_IMAGES}")
        if not findings.problems:
            raise UserError(f"{path}: no image with a mask, polygon, box or ellipse.")
    return Source(labels, examples)


def _find(folders: list[Path], subset: str, name: str) -> Path | None:
    """A photograph by subset and name, by name, or by the last part of its name.

    The names of a video's frames lack ".PNG".
    """
    names = (f"{subset}/{name}".lstrip("/"), name, name.rpartition("/")[2])
    places = (folder / f"{n}{end}" for folder in folders for end in ENDINGS for n in names)
    return next((place for place in places if os.path.isfile(place)), None)


class _Content:
    """What expat finds in the XML: the labels, and each image with its elements."""

    def __init__(self, path: Path):
        self.labels: list[dict[str, str]] = []
        self.images: list[tuple[dict, list[tuple[str, dict]]]] = []
        self._file, self._text = path, ""
        self._path: list[str] = []
        self._count = 0

    def read(self) -> None:
        parser = expat.ParserCreate("utf-8")  # whatever codec the file names
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._add_text
        parser.StartDoctypeDeclHandler = self._refuse_doctype
        with damage_as_user_errors(f"{self._file}: not an XML of CVAT", "Export it again."):
            size = self._file.stat().st_size
            if size > MAX_BYTES:
                raise ValueError(f"{size} bytes, more than the limit of {MAX_BYTES >> 20} MiB")
            data = self._file.read_bytes()
        try:
            parser.Parse(data, True)
        except expat.ExpatError as error:
            raise UserError(
                f"{self._file}: not an XML of CVAT ({error}). Export it again."
            ) from error

    def _start(self, tag: str, attributes: dict) -> None:
        path, self._text = self._path, ""
        path.append(tag)
        if path[0] != "annotations" or len(path) > MAX_DEPTH:
            raise UserError(f"{self._file}: not an XML of CVAT. Export 'CVAT for images 1.1'.")
        if path[1:] == ["track"]:
            raise UserError(
                f"{self._file}: 'CVAT for video', which holds key frames only. Export 'CVAT for "
                "images 1.1', which has the shapes of every frame."
            )
        self._count += path[1:-1] in ([], ["image"]) or tag == "label"
        if self._count > MAX_ELEMENTS:
            raise UserError(
                f"{self._file}: more than {MAX_ELEMENTS:,} labels, images and shapes. Export the "
                "tasks one by one."
            )
        if path[1:] == ["image"]:
            self.images.append((attributes, []))
        elif path[1:-1] == ["image"]:
            self.images[-1][1].append((tag, attributes))
        elif path[-2:] == ["labels", "label"]:
            self.labels.append({})

    def _end(self, tag: str) -> None:
        if self._path[-3:-1] == ["labels", "label"]:
            self.labels[-1][tag] = self._text.strip()
        self._path.pop()

    def _add_text(self, text: str) -> None:
        self._text = (self._text + text)[:MAX_TEXT]

    def _refuse_doctype(self, *_) -> None:
        raise UserError(f"{self._file}: has a DOCTYPE, which CVAT never writes. Remove it.")


def _labels(content: _Content, path: Path, findings: Findings) -> tuple[LabelSet, dict[str, int]]:
    """The classes, and the id of each: those labels that an area may have."""
    used = {
        _label(attributes)
        for _, elements in content.images
        for tag, attributes in elements
        if tag in AREAS
    }
    rows: dict[str, Color | None] = {}
    for label in content.labels:
        name = label.get("name", "")
        if name not in used and label.get("type") in OTHERS:
            findings.leave_out(f"as a {label['type']} has no area in CVAT's masks", f"label {name}")
        else:
            rows.setdefault(name, _color(label.get("color", "")))
    if not content.labels:
        findings.notes.append(f"{path} lists no labels: the classes are those used, by name.")
        rows = dict.fromkeys(sorted(used))
    for name in sorted(used - rows.keys()):
        findings.problems.append(f"{path}: the label {name!r} is used, but not listed in <labels>.")
    with damage_as_user_errors(f"{path}: labels", "Rename them in CVAT."):
        labels = background_first(rows)
    first = labels.names[0]
    findings.notes.append(
        f"pixels in no shape are {first}; --map '{first}=' makes them unlabelled."
    )
    return labels, {name: labels.names.index(name) for name in rows}


def background_first(colors: Mapping[str, Color | None]) -> LabelSet:
    """The classes with background as id 0; it is black if it is not among them.

    Args:
        colors: The colour of each class. Unless each has one of its own, none is used.
    """
    name = background_of(colors) or BACKGROUND
    rows = {name: colors.get(name, (0, 0, 0)), **colors}
    palette = tuple(color for color in rows.values() if color)
    return LabelSet(tuple(rows), palette if len({*palette}) == len(rows) else ())


def _label(attributes: dict[str, str]) -> str:
    return attributes.get("label", "").strip()


def _color(text: str) -> Color | None:
    if not re.fullmatch("#[0-9a-fA-F]{6}", text):
        return None
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


@dataclasses.dataclass(frozen=True)
class _Shape:
    title: str
    kind: str
    id: int
    attributes: dict[str, str]
    layer: tuple[int, bool]


def _shapes(elements, ids: dict[str, int], place: str, findings: Findings) -> list[_Shape]:
    shapes = []
    for number, (tag, attributes) in enumerate(elements, 1):
        title = f"{place}, {number} ({tag} of {_label(attributes)})"
        if tag in OTHERS:
            findings.leave_out(f"as a {tag} has no area in CVAT's masks", title)
        elif tag not in AREAS:
            findings.problems.append(f"{title}: an unknown kind of shape.")
        elif (id := ids.get(_label(attributes))) is not None:
            try:
                order = int(_number(attributes, "z_order", "0"))
                # CVAT turns boxes into polygons, which it appends.
                rotated = tag == "box" and _number(attributes, "rotation", "0") != 0
                shapes.append(_Shape(title, tag, id, attributes, (order, rotated)))
            except ValueError as error:
                findings.problems.append(f"{title}: {error}.")
    return sorted(shapes, key=lambda shape: shape.layer)


def _drawing(shapes: list[_Shape], attributes: dict, place: str, findings: Findings):
    def draw(height: int, width: int) -> np.ndarray:
        size = str(height), str(width)
        recorded = attributes.get("height", size[0]), attributes.get("width", size[1])
        require_size(recorded, size, place)
        mask = np.zeros((height, width), np.uint8)
        for shape in shapes:
            try:
                if not _paint(mask, shape):
                    findings.leave_out("as it covers the centre of no pixel", shape.title)
            except ValueError as error:
                findings.problems.append(f"{shape.title}: {error}.")
        return mask

    return draw


def _paint(mask: np.ndarray, shape: _Shape) -> bool:
    """Paints a shape; returns whether it has a pixel, and raises `ValueError` if it is bad."""
    size, attributes = mask.shape, shape.attributes
    if shape.kind == "mask":
        left, top, inside = fill_runs(size, *_runs(attributes, mask.size))
    elif shape.kind == "ellipse":
        cx, cy, rx, ry = (_number(attributes, name) for name in ("cx", "cy", "rx", "ry"))
        rotation = _number(attributes, "rotation", "0")
        left, top, inside = fill_ellipse(size, (cx, cy), (rx, ry), rotation)
    else:
        points = _polygon(attributes) if shape.kind == "polygon" else _box(attributes)
        left, top, inside = fill_polygon(size, points)
    height, width = inside.shape
    mask[top : top + height, left : left + width][inside] = shape.id
    return bool(inside.any())


def _number(attributes: dict[str, str], name: str, default: str | None = None) -> float:
    text = attributes.get(name, default)
    if text is None:
        raise ValueError(f"it has no {name}")
    return _checked(text, name)


def _checked(text: str, name: str) -> float:
    try:
        return checked_number(float(text))
    except ValueError:
        limits = f"not a number within ±{MAX_COORDINATE:,}"
        raise ValueError(f"its {name} is {text[:60]!r}, {limits}") from None


def _polygon(attributes: dict[str, str]) -> np.ndarray:
    """float64 `(N, 2)` of x and y."""
    text = attributes.get("points", "")
    count = text.count(";") + 1
    if not 3 <= count <= MAX_POINTS:
        raise ValueError(f"it has {count} points, but a polygon has 3 to {MAX_POINTS:,}")
    pairs = [pair.split(",") for pair in text.split(";")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("its points are not 'x,y;x,y;...'")
    return np.array([[_checked(text, "point") for text in pair] for pair in pairs])


def _box(attributes: dict[str, str]) -> np.ndarray:
    left, top, right, bottom = (_number(attributes, name) for name in ("xtl", "ytl", "xbr", "ybr"))
    angle = math.radians(_number(attributes, "rotation", "0"))
    points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    center = np.array([(left + right) / 2, (top + bottom) / 2])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (points - center) @ turn + center if angle else points


def _runs(attributes: dict[str, str], most: int) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """A mask's box, and its run lengths."""
    left, top, width, height = (
        int(_number(attributes, name)) for name in ("left", "top", "width", "height")
    )
    text = attributes.get("rle", "")
    if text.count(",") > most:
        raise ValueError("its rle has more runs than the photograph has pixels")
    try:
        runs = np.array(text.split(","), np.int64)
    except (ValueError, OverflowError):
        raise ValueError("its rle is not numbers") from None
    return (left, top, width, height), runs
