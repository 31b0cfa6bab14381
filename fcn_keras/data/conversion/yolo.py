"""YOLO's polygons: a text file per image, an object per line, and a YAML file for all.

A line is `class x1 y1 x2 y2 ...` in fractions of the image's width and height. Objects are drawn
as ultralytics does: vertices are cut to whole pixels, an object has its outline, and smaller
objects are above larger ones. Class i becomes id i + 1, since 0 is background.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import re
import reprlib
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw

from fcn_keras.data.conversion.files import files_below, head
from fcn_keras.data.conversion.shapes import MAX_POINTS, checked_number, require_inside
from fcn_keras.data.conversion.source import (
    Example,
    Findings,
    Options,
    Source,
    split_in,
    split_name,
    with_background,
)
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError, few
from fcn_keras.files.finding import IMAGE_SUFFIXES
from fcn_keras.files.reading import as_object, damage_as_user_errors, read_text

OPTIONS: set[str] = set()
SPLIT_KEYS = ("train", "val", "validation", "test")
YAML = (".yaml", ".yml")
ROW = re.compile(rb"\s*\d{1,2}([ \t]+[-+.\de]+){4,}\s*")
MAX_LABELS = 1000  # that are looked into if there is no YAML file
POLYGONS = "Boxes are for detection: export polygons (segmentation)."
MAX_YAML = 1 << 18  # bytes: the parser needs seconds for a megabyte
# Keys of other data sets that ultralytics reads, and what to do with them.
OTHERS = {
    "kpt_shape": "its labels are keypoints, not polygons. Export polygons.",
    "masks_dir": "its labels are PNG masks. Convert them by --images, --masks and --classes.",
}


def recognizes(place: Path) -> bool:
    return bool(_yaml_files(place))


def read(place: Path, options: Options, findings: Findings) -> Source:
    files = _yaml_files(place) if place.is_dir() else [place]
    if len(files) != 1:
        found = few([file.name for file in files]) or "none"
        raise UserError(
            (without_yaml(place) if place.is_dir() and not files else "")
            or f"{place}: one YAML file with names and train is needed. Found: {found}. Write "
            "data.yaml, or name the right one as the source."
        )
    [file] = files
    with damage_as_user_errors(f"{file}: not readable as YOLO's YAML", "Correct it."):
        content = _read_yaml(file)
        names = _names(content)
    for key, remedy in OTHERS.items():
        if key in content:
            raise UserError(f"{file}: {key} says that {remedy}")
    with damage_as_user_errors(f"{file}: its names", "Correct them."):
        labels = LabelSet(with_background(names))
    ids = [labels.names.index(name) for name in names]
    root = file.parent
    if isinstance(content.get("path"), str):
        inside = _inside(root, content["path"])
        root = inside if inside and inside.is_dir() else root
    images: dict[Path, tuple[str, str]] = {}
    for split, name, image in _images(file, root, content, findings):
        if image in images:
            findings.leave_out(f"from {split}, as it is in {images[image][0]}", image)
        images.setdefault(image, (split, name))
    label_files = {image: _label_file(root, image) for image in images}
    _require_polygons(file, root, label_files, findings)
    examples = []
    for image, (split, name) in images.items():
        draw = functools.partial(_draw, label_files[image], ids, findings)
        examples.append(Example(name, image, label_files[image], draw, split, upright=True))
    return Source(labels, examples)


def without_yaml(folder: Path) -> str:
    """The message about labels in a folder without the YAML file, or an empty one."""
    first, most, polygons = None, 0, False
    for path in itertools.islice(files_below(folder, {".txt"}), MAX_LABELS):
        rows = [row for row in head(path).splitlines() if row.strip()]
        if rows and all(map(ROW.fullmatch, rows)):
            first = first or path
            most = max(most, *(int(row.split()[0]) for row in rows))
            polygons |= any(len(row.split()) > 6 for row in rows)
    if first is None:
        return ""
    if not polygons:
        return f"{first}: a file of boxes as in YOLO. {POLYGONS}"
    splits: dict[str, list[str]] = {}
    for image in files_below(folder, IMAGE_SUFFIXES):
        if _label_file(folder, image).is_file():
            parent = image.parent.relative_to(folder)
            splits.setdefault(split_in(parent.parts) or "train", []).append(parent.as_posix())
    if not splits:
        return f"{first}: a file of labels of YOLO, whose image is not in {folder}. Add the images."
    names = _rows(folder / "classes.txt") or _rows(folder / "obj.names")
    names = [name.strip() for name in names if name.strip()]
    content: dict[str, str | list[str]] = {
        **{key: os.path.commonpath(places) or "." for key, places in splits.items()},
        "names": names or [f"class_{id}" for id in range(most + 1)],
    }
    file = next((path for end in YAML for path in folder.glob(f"*{end}")), folder / "data.yaml")
    known = head(file).decode(errors="replace")
    missing = [key for key in content if not re.search(rf"^{key}\s*:", known, re.M)]
    lines = [f"{key}: {json.dumps(content[key], ensure_ascii=False)}" for key in missing]
    return (
        f"{first}: a file of labels of YOLO, which need {file} with names and train. Write it, for "
        f"example: printf '\\n%s' {shlex.join(lines)} >> {shlex.quote(str(file))}"
    )


def _yaml_files(place: Path) -> list[Path]:
    """The YAML files, in a folder or of a path, that describe a data set."""
    paths = sorted([*place.glob("*.yaml"), *place.glob("*.yml")]) if place.is_dir() else [place]
    keys = rb"^names\s*:", rb"^(train|val)\s*:"
    return [
        path
        for path in paths
        if path.suffix.lower() in YAML
        if all(re.search(key, head(path), re.M) for key in keys)
    ]


def _read_yaml(path: Path) -> dict:
    if not path.is_file() or path.stat().st_size > MAX_YAML:
        raise ValueError(f"not a file of at most {MAX_YAML >> 10} KiB")
    try:
        return as_object(yaml.safe_load(read_text(path)), "the content")
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def _names(content: dict) -> list[str]:
    names, count = content.get("names"), content.get("nc")
    if isinstance(names, dict):
        if {*map(str, names)} != {*map(str, range(len(names)))}:
            raise ValueError(f"the keys of its names are not 0 to {len(names) - 1}")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list) or not names:
        raise ValueError("its names are neither a list nor an object")
    for index, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise ValueError(f"name {index} is not text; write it in quotation marks")
    if count is not None and count != len(names):
        raise ValueError(f"nc does not agree with its {len(names)} names")
    return [str(name).strip() for name in names]


def _inside(root: Path, text: str) -> Path | None:
    """What a path means below `root`: all of it or, if it is of another computer, its end.

    As in ultralytics, "../train" is "train" there.
    """
    parts = [part for part in re.split(r"[\\/]", text.strip()) if part not in ("", ".")]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    for start in range(len(parts)):
        with contextlib.suppress(OSError, ValueError):  # too long, or with a null character
            if root.joinpath(*parts[start:]).exists():
                return root.joinpath(*parts[start:])
    return None if parts else root


def _images(file: Path, root: Path, content: dict, findings: Findings) -> Iterator[tuple]:
    """Yields the split, name and path of each image."""
    for key in SPLIT_KEYS:
        places = content.get(key) or []
        for text in places if isinstance(places, list) else [places]:
            if not isinstance(text, str):
                raise UserError(f"{file}: {key} is not a path or a list of paths. Correct it.")
            place = _inside(root, text)
            if place is None and key == "test":  # Roboflow names it in any case
                findings.leave_out("as it does not exist", f"{file}: test: {text}")
            elif place is None:
                raise UserError(
                    f"{file}: {key} is {text!r}, which is not in {root}. Correct or remove it, or "
                    f"move {file.name} to the data set's folder."
                )
            else:
                if place != root / text and not text.startswith("../"):
                    findings.notes.append(f"{file}: {key}, {text}, was read as {place}.")
                base = root if isinstance(places, list) or place.is_file() else place
                for image in _listed(place, root, findings):
                    name = image.relative_to(base).with_suffix("").as_posix()
                    yield split_name(key), name, image


def _listed(place: Path, root: Path, findings: Findings) -> Iterator[Path]:
    """Yields the images of a folder or of a list."""
    if place.is_dir():
        yield from files_below(place, IMAGE_SUFFIXES)
        return
    with damage_as_user_errors(f"{place}: not readable as a list of images"):
        if not place.is_file():
            raise ValueError("not a regular file")
        lines = read_text(place).splitlines()
    for number, line in enumerate(lines, 1):
        if line.strip():
            image = _inside(place.parent, line) or _inside(root, line)
            if image and image.is_file():
                yield image
            else:
                name = reprlib.repr(line.strip())
                findings.problems.append(f"{place}:{number}: {name} is not in {root}.")


def _label_file(root: Path, image: Path) -> Path:
    """The file of an image's labels: the last folder "images" becomes "labels"."""
    before, found, after = f"/{image.relative_to(root).as_posix()}".rpartition("/images/")
    moved = root / f"{before}/labels/{after}".lstrip("/") if found else image
    return moved.with_suffix(".txt")


def _require_polygons(file: Path, root: Path, labels: dict[Path, Path], findings: Findings) -> None:
    """Notes what has no partner; raises `UserError` unless there is a polygon."""
    with_label = [label for label in labels.values() if label.is_file() and label.stat().st_size]
    if not with_label:
        if not labels:
            raise UserError(
                f"{file}: none of its images is in {root}. Add them, or correct its paths."
            )
        like = next(iter(labels.values()))
        raise UserError(f"{file}: there are no labels, such as {like}. Correct its paths.")
    if not any(len(row.split()) > 6 for label in with_label for row in _rows(label)):
        raise UserError(f"{file}: its labels are boxes. {POLYGONS}")
    if len(with_label) < len(labels):
        missing = len(labels) - len(with_label)
        findings.notes.append(f"images without labels are background everywhere: {missing}.")
    known = {*labels.values()}
    for folder in sorted({label.parent for label in known}):
        if "labels" in folder.relative_to(root).parts:
            for path in sorted({*folder.glob("*.txt")} - known):
                findings.leave_out("as it has no image", path)


def _rows(label: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError):  # reported when it is drawn
        return read_text(label).splitlines()
    return []


def _draw(label: Path, ids: list[int], findings: Findings, height: int, width: int) -> np.ndarray:
    shapes = []
    if label.is_file():
        with damage_as_user_errors(f"{label}: not readable"):
            rows = read_text(label).splitlines()
        for number, row in enumerate(rows, 1):
            try:
                if row.strip():
                    shapes.append(_shape(row, ids, height, width))
            except ValueError as error:
                findings.problems.append(f"{label}:{number}: {error}. Correct or remove it.")
    mask = Image.new("L", (width, height))
    for _, points, class_id in sorted(shapes, key=lambda shape: -shape[0]):
        _fill(ImageDraw.Draw(mask), points, class_id)
    return np.array(mask)


def _shape(row: str, ids: list[int], height: int, width: int) -> tuple[int, list, int]:
    """The pixels, vertices and class id of an object; raises `ValueError`: what is wrong."""
    number, *texts = row.split()
    try:
        values = [float(text) for text in texts]
        index = float(number)
    except ValueError:
        raise ValueError(f"not a line of numbers: {row[:40]!r}") from None
    if index not in range(len(ids)):
        raise ValueError(f"class {number}, but the classes are 0 to {len(ids) - 1}")
    if len(values) == 4:
        raise ValueError("a box among polygons, which YOLO does not mix")
    if len(values) % 2 or not 6 <= len(values) <= 2 * MAX_POINTS:
        raise ValueError(
            f"{len(values)} coordinates; a polygon has pairs, of 3 to {MAX_POINTS} points"
        )
    points = np.reshape([*map(checked_number, values)], (-1, 2)).astype(np.float32)
    require_inside(points * (width, height), height, width)
    pixels = (points * np.array([width, height], np.float32)).astype(np.int32)
    low = np.maximum(pixels.min(axis=0), 0)
    high = np.minimum(pixels.max(axis=0) + 1, (width, height))
    scratch = Image.new("1", tuple(np.maximum(high - low, 1).tolist()))
    _fill(ImageDraw.Draw(scratch), [(x, y) for x, y in (pixels - low).tolist()], 1)
    area = int(np.count_nonzero(np.asarray(scratch)))
    return area, [(x, y) for x, y in pixels.tolist()], ids[int(index)]


def _fill(canvas: ImageDraw.ImageDraw, points: list[tuple[int, int]], color: int) -> None:
    """Fills a polygon as OpenCV's `fillPoly` does, pixel for pixel.

    Its edges, drawn from their right end, have pixels that Pillow's polygon lacks.
    """
    canvas.polygon(points, fill=color, outline=color)
    for start, end in zip(points, [*points[1:], points[0]]):
        canvas.line([max(start, end), min(start, end)], fill=color)
