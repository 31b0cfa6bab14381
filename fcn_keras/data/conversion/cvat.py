"""CVAT's exports: "CVAT for images 1.1" and "Segmentation mask 1.1".

| the first               | content                                                     |
|-------------------------|-------------------------------------------------------------|
| annotations.xml         | labels, and the shapes of each image                        |
| images/NAME             | photographs; images/SUBSET/NAME if exported from a project  |

| the second              | content                                                     |
|-------------------------|-------------------------------------------------------------|
| labelmap.txt            | `name:r,g,b:parts:actions`, `background` in any row         |
| JPEGImages, SegmentationClass, ImageSets | VOC's layout with masks in these colours   |

Shapes are filled as CVAT fills them for its own masks: by ascending `z_order`, later ones over
earlier ones, boxes and ellipses too. What no shape covers is background. CVAT turns
photographs upright.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from xml.parsers import expat

import numpy as np

from fcn_keras.data.conversion.files import keep_apart
from fcn_keras.data.conversion.source import Example, Findings, Options, Source, split_name
from fcn_keras.data.conversion.voc import listed_examples
from fcn_keras.data.decoding import decode_mask
from fcn_keras.data.directory import IMAGE_FOLDER, MASK_FOLDER, read_file
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files.images import bad_files_named, encode_image, open_header
from fcn_keras.files.reading import damage_as_user_errors, read_text

OPTIONS = {"images"}
LABELMAP = "labelmap.txt"
BACKGROUND = "background"
AREAS = ("mask", "polygon", "box", "ellipse")
OTHERS = ("tag", "points", "polyline", "cuboid", "skeleton")  # CVAT's masks lack them, too
MAX_BYTES = 512 << 20
MAX_DEPTH = 64  # of elements
MAX_COORDINATE = 1_000_000
MAX_OUTLINE = 5_000_000  # steps of a fifth of a pixel, each of some 100 bytes
SAVE_IMAGES = "Export with 'Save images' in CVAT, or pass the photographs' folder by --images."


def recognizes(place: Path) -> bool:
    if os.path.isdir(place):
        masks = os.path.isdir(place / MASK_FOLDER) and os.path.isfile(place / LABELMAP)
        return masks or bool(_xml_files(place))
    return _is_xml(place)


def read(place: Path, options: Options, findings: Findings) -> Source:
    if os.path.isfile(place / LABELMAP):
        return _read_masks(place, options, findings)
    files = _xml_files(place) if os.path.isdir(place) else [place]
    if len(files) != 1:
        found = ", ".join(path.name for path in files[:4]) or "neither"
        raise UserError(
            f"{place}: one annotations.xml or {LABELMAP} is needed. Found: {found}. Pass one file "
            "of CVAT's export."
        )
    return _read_xml(files[0], options, findings)


def _xml_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.xml") if _is_xml(path))


def _is_xml(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.suffix.lower() == ".xml" and b"<annotations" in file.read(1000)
    except OSError:
        return False


# ---- Segmentation mask 1.1


def _read_masks(root: Path, options: Options, findings: Findings) -> Source:
    images = options.images or root / IMAGE_FOLDER
    if not os.path.isdir(images):
        raise UserError(f"{images}: no such folder. {SAVE_IMAGES}")
    labels = _read_labelmap(root / LABELMAP)

    def draw(path: Path) -> np.ndarray:
        return _read_colors(path, labels)

    examples = listed_examples(root, images, draw, findings)
    return Source(labels, [dataclasses.replace(example, upright=True) for example in examples])


def _read_labelmap(path: Path) -> LabelSet:
    names, colors = [], []
    with damage_as_user_errors(f"{path}: not a labelmap of CVAT", "Export it again."):
        for line in read_text(path).lstrip("\ufeff").splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            row = re.fullmatch(r"\s*(.+?)\s*:((?:\s*\d{1,3}\s*,){2}\s*\d{1,3})\s*(:.*)?", line)
            if not row:
                raise ValueError(f"a line is 'name:r,g,b:parts:actions', not {line[:60]!r}")
            names.append(row[1])
            colors.append(tuple(map(int, row[2].split(","))))
        for color in colors:
            if colors.count(color) > 1:
                raise ValueError(f"several classes have the colour {color}")
        return _background_first(names, colors)


def _background_first(names: Sequence[str], colors: Sequence[tuple]) -> LabelSet:
    """The classes with background as id 0; it is black if it is not among them."""
    rows = list(zip(names, colors))
    background = next((row for row in rows if row[0].lower() == BACKGROUND), None)
    if background:
        rows.remove(background)
    rows.insert(0, background or (BACKGROUND, (0, 0, 0)))
    palette = tuple(color for _, color in rows)
    return LabelSet(
        tuple(name for name, _ in rows), palette if len({*palette}) == len(palette) else ()
    )


def _read_colors(path: Path, labels: LabelSet) -> np.ndarray:
    """Reads a mask in colours, which an image editor may have saved as grey or with a palette."""
    data = read_file(path)
    with bad_files_named(str(path)):
        image = open_header(data, str(path))
        if image.format == "PNG" and image.mode in ("1", "L", "P"):
            data = encode_image(image.convert("RGB"), compress_level=1)
    return decode_mask(data, labels, str(path))


# ---- CVAT for images 1.1


@dataclasses.dataclass(frozen=True)
class _Shape:
    title: str
    kind: str
    id: int
    attributes: dict[str, str]
    layer: tuple[int, bool]


class _Content:
    """What expat finds in the XML: the labels, and each image with its elements."""

    def __init__(self, path: Path):
        self.labels: list[dict[str, str]] = []
        self.images: list[tuple[dict, list[tuple[str, dict]]]] = []
        self._file, self._text = path, ""
        self._path: list[str] = []

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
            try:
                parser.Parse(self._file.read_bytes(), True)
            except expat.ExpatError as error:
                raise ValueError(str(error)) from error

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
        self._text += text

    def _refuse_doctype(self, *_) -> None:
        raise UserError(f"{self._file}: has a DOCTYPE, which CVAT never writes. Remove it.")


def _read_xml(path: Path, options: Options, findings: Findings) -> Source:
    content = _Content(path)
    content.read()
    labels, ids = _labels(content, path, findings)
    photographs = _Photographs(path, options.images)
    examples: list[Example] = []
    seen: set[Path] = set()
    for attributes, elements in content.images:
        name, subset = attributes.get("name", ""), attributes.get("subset", "")
        place = f"{path}: {name or 'an image without a name'}"
        shapes = _shapes(elements, ids, place, findings)
        parts = f"{subset or 'default'}/{name}".split("/")
        if not name or not {"", ".", ".."}.isdisjoint(parts) or "\0" in name + subset:
            findings.problems.append(f"{place}: not the name of a file in the folder of images.")
        elif not shapes:
            findings.leave_out("as nothing in it is labelled by an area", place)
        elif not (image := photographs.find(subset, name)):
            findings.problems.append(f"{place}: there is no such photograph. {SAVE_IMAGES}")
        elif image in seen:
            findings.problems.append(f"{place}: {image} is already another image's. Rename one.")
        else:
            seen.add(image)
            draw = _drawing(shapes, attributes, place, findings)
            split = None if subset in ("", "default") else split_name(subset)
            stem = str(PurePosixPath(name).with_suffix(""))
            examples.append(Example(stem, image, path, draw, split, upright=True))
    if not seen:
        if any(SAVE_IMAGES in problem for problem in findings.problems):
            raise UserError(f"{path}: none of its photographs is beside it. {SAVE_IMAGES}")
        if not findings.problems:
            raise UserError(f"{path}: no image with a mask, polygon, box or ellipse.")
    return Source(labels, keep_apart(examples, findings))


class _Photographs:
    """Finds photographs by subset and name, or by the last part of a name."""

    def __init__(self, xml: Path, folder: Path | None):
        self._folders = [folder] if folder else [xml.parent / "images", xml.parent]

    def find(self, subset: str, name: str) -> Path | None:
        names = (f"{subset}/{name}".lstrip("/"), name, name.rpartition("/")[2])
        places = (folder / name for folder in self._folders for name in names)
        return next((place for place in places if os.path.isfile(place)), None)


def _labels(content: _Content, path: Path, findings: Findings) -> tuple[LabelSet, dict[str, int]]:
    """The classes, and the id of each: those labels that an area may have."""
    used = {
        _label(attributes)
        for _, elements in content.images
        for tag, attributes in elements
        if tag in AREAS
    }
    rows: dict[str, tuple[int, ...] | None] = {}
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
    colors = [color or (0, 0, 0) for color in rows.values()]  # equal ones are not used
    with damage_as_user_errors(f"{path}: labels", "Rename them in CVAT."):
        labels = _background_first(list(rows), colors)
    first = labels.names[0]
    findings.notes.append(
        f"pixels in no shape are {first}; --map '{first}=' makes them unlabelled."
    )
    return labels, {name: labels.names.index(name) for name in rows}


def _label(attributes: dict[str, str]) -> str:
    return attributes.get("label", "").strip()


def _color(text: str) -> tuple[int, ...] | None:
    return tuple(bytes.fromhex(text[1:])) if re.fullmatch("#[0-9a-fA-F]{6}", text) else None


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
        size = attributes.get("height", height), attributes.get("width", width)
        if tuple(map(str, size)) != (str(height), str(width)):
            raise UserError(
                f"{place}: labelled at {size[0]}×{size[1]}, but the photograph is "
                f"{height}×{width} (height×width). Use the photograph that was labelled."
            )
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
    if shape.kind == "mask":
        left, top, inside = _decode_runs(mask.shape, shape.attributes)
    elif shape.kind == "ellipse":
        left, top, inside = _fill_ellipse(mask.shape, shape.attributes)
    else:
        points = _polygon(shape.attributes) if shape.kind == "polygon" else _box(shape.attributes)
        left, top, inside = _fill_polygon(mask.shape, points)
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
        number = float(text)
    except ValueError:
        raise ValueError(f"its {name} is {text[:60]!r}, not a number") from None
    if not abs(number) <= MAX_COORDINATE:  # nor is NaN
        raise ValueError(f"its {name} is {text[:60]!r}, not within ±{MAX_COORDINATE:,}")
    return number


def _polygon(attributes: dict[str, str]) -> np.ndarray:
    """float64 `(N, 2)` of x and y."""
    pairs = [pair.split(",") for pair in attributes.get("points", "").split(";")]
    if len(pairs) < 3:
        raise ValueError(f"it has {len(pairs)} points, but a polygon needs 3")
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


def _window(size: tuple[int, ...], low, high) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the pixels between two points; `ValueError` if none."""
    (left, top), (right, bottom) = np.floor(low), np.ceil(high)
    if right < 0 or bottom < 0 or left >= size[1] or top >= size[0]:
        raise ValueError(f"it is outside of the photograph of {size[0]}×{size[1]} (height×width)")
    return (
        int(max(left, 0)),
        int(max(top, 0)),
        int(min(right, size[1])),
        int(min(bottom, size[0])),
    )


def _fill_polygon(size: tuple[int, ...], points: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Left, top and bool `(h, w)`: the pixels inside by the even-odd rule.

    Equals `rleFrPoly` of COCO's API, which CVAT uses: outlines run on a grid of fifths of pixels,
    and where they pass the middle of a column, the pixels below begin or end.
    """
    left, top, right, bottom = _window(size, points.min(axis=0), points.max(axis=0))
    start = np.trunc(5 * points + 0.5).astype(int)
    end = np.roll(start, -1, axis=0)
    steep = np.ptp([start, end], axis=0) @ [1, -1] < 0
    start[steep], end[steep] = start[steep, ::-1], end[steep, ::-1]  # the longer way is first
    backward = start[:, 0] > end[:, 0]
    low, high = (np.where(backward[:, None], *ends) for ends in ((end, start), (start, end)))
    length, rise = (high - low).T
    if (length + 1).sum() > MAX_OUTLINE:
        raise ValueError(f"its outline is longer than {MAX_OUTLINE // 5:,} pixels")
    edge = np.repeat(np.arange(len(points)), length + 1)
    step = np.arange(len(edge)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(backward[edge], length[edge] - step, step)
    across = np.trunc(low[edge, 1] + (rise / np.maximum(length, 1))[edge] * step + 0.5).astype(int)
    along = low[edge, 0] + step
    x, y = np.where(steep[edge], (across, along), (along, across))
    lower_x, lower_y = np.minimum(x[1:], x[:-1]), np.minimum(y[1:], y[:-1])
    passed = (x[1:] != x[:-1]) & (lower_x % 5 == 2)
    column, row = lower_x[passed] // 5, (lower_y[passed] + 2) // 5
    seen = (left <= column) & (column < right)
    crossings = np.zeros((bottom - top + 1, right - left), bool)
    places = np.clip(row[seen], top, bottom) - top, column[seen] - left
    np.logical_xor.at(crossings, places, True)
    return left, top, np.logical_xor.accumulate(crossings)[:-1]


def _fill_ellipse(size: tuple[int, ...], attributes: dict[str, str]) -> tuple[int, int, np.ndarray]:
    """Left, top and bool `(h, w)`.

    Centre and radii are rounded to whole pixels and the outline belongs to it, as in OpenCV,
    which CVAT uses; 0.4% of the pixels of random ellipses differ.
    """
    x, y, rx, ry = (round(_number(attributes, name)) for name in ("cx", "cy", "rx", "ry"))
    angle = math.radians(_number(attributes, "rotation", "0"))
    if rx < 0 or ry < 0:
        raise ValueError("it has a negative radius")
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = rx + 0.5, ry + 0.5
    reach = np.array([math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)])
    left, top, right, bottom = _window(size, (x, y) - reach, (x, y) + reach + 1)
    rows, columns = np.ogrid[top - y : bottom - y, left - x : right - x]
    along, across = columns * cos + rows * sin, rows * cos - columns * sin
    return left, top, (along / a) ** 2 + (across / b) ** 2 <= 1


def _decode_runs(size: tuple[int, ...], attributes: dict[str, str]) -> tuple[int, int, np.ndarray]:
    """A mask's box: run lengths by rows, the first of zeros."""
    left, top, width, height = (
        int(_number(attributes, name)) for name in ("left", "top", "width", "height")
    )
    if min(left, top) < 0 or min(width, height) < 1:
        raise ValueError(f"its box is {width}×{height} at {left}, {top}")
    if left + width > size[1] or top + height > size[0]:
        raise ValueError(f"it is outside of the photograph of {size[0]}×{size[1]} (height×width)")
    try:
        runs = np.array(attributes.get("rle", "").split(","), np.int64)
    except (ValueError, OverflowError):
        raise ValueError("its rle is not numbers") from None
    if not 0 <= runs.min() <= runs.max() <= width * height or runs.sum() != width * height:
        raise ValueError(f"its rle does not fill its box of {width}×{height}")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return left, top, inside.reshape(height, width)
