"""Label Studio's JSON: tasks, each with an image and what one or several annotators drew.

What is painted is in rle-pack's bits, as RGBA, or in a PNG; other shapes are in per cent of the
image.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import datetime
import functools
import itertools
import json
import math
import re
import reprlib
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fcn_keras.data.conversion.files import json_files, json_heads
from fcn_keras.data.conversion.names import Photographs, label_set
from fcn_keras.data.conversion.rle_pack import decode_rle
from fcn_keras.data.conversion.shapes import Canvas, checked_number, checked_points, most_faults
from fcn_keras.data.conversion.source import Example, Findings, Options, Source
from fcn_keras.data.split import IGNORE_ID
from fcn_keras.errors import UserError, few
from fcn_keras.files.finding import IMAGE_SUFFIXES
from fcn_keras.files.images import bad_files_named, open_header
from fcn_keras.files.reading import damage_as_user_errors, read_text

OPTIONS = {"images", "classes"}
MAX_BYTES = 1 << 30  # one file holds all tasks
MARKS = (b'"annotations"', b'"completions"', b'"predictions"')
AREAS = ("brush", "bitmask", "polygon", "rectangle", "ellipse", "")  # also with "labels" behind
NO_AREAS = ("keypoint", "vector")
PREDICTED = "as it has predictions only"
EXPORT = "Export the project as JSON in Label Studio."


def recognizes(place: Path) -> bool:
    heads = [*json_heads(place)]
    lists = [head for head in heads if head.startswith(b"[")]
    return any(b'"from_name"' in head for head in heads) or any(
        b'"annotation_id"' in head or (b'"data"' in head and any(mark in head for mark in MARKS))
        for head in lists
    )


def read(place: Path, options: Options, findings: Findings) -> Source:
    photographs = Photographs(options.images or (place if place.is_dir() else place.parent))
    counts: dict[str, tuple[int, Path]] = {}
    found: list[tuple[str, Path, Path, list[Region]]] = []
    seen: dict[Path, str] = {}
    for file in json_files(place):
        for title, task in _tasks(file, findings):
            try:
                annotation = _annotation(title, task, findings)
                if annotation is None:
                    continue
                regions, image = _regions(title, annotation, findings), _image(task, photographs)
                if other := seen.get(image):
                    raise ValueError(f"{other} has the same image. Remove one.")
            except ValueError as error:
                findings.problems.append(f"{title}: {error}")
                continue
            seen[image] = title
            found.append((title, file, image, regions))
            for region in regions:
                count, first = counts.get(region.label, (0, file))
                counts[region.label] = count + 1, first
    if not found and not findings.problems:
        remedy = "Submit the predictions first. " if PREDICTED in findings.left_out else ""
        raise UserError(f"{place}: no annotated task of Label Studio. {remedy}{EXPORT}")
    if empty := [title for title, _, _, regions in found if not regions]:
        findings.notes.append(f"annotated tasks without areas: {len(empty)}, such as {empty[0]}.")
    labels, ids, background = label_set(counts, "background", options, findings)
    examples = []
    for title, file, image, regions in found:
        name = image.relative_to(photographs.root).with_suffix("").as_posix()
        draw = functools.partial(_draw, title, regions, ids, background, findings)
        examples.append(Example(name, image, file, draw, upright=True))  # as browsers show it
    return Source(labels, examples)


def _tasks(file: Path, findings: Findings) -> Iterator[tuple[str, dict]]:
    """The tasks of a file, each with its name for messages."""
    try:
        with damage_as_user_errors(f"{file}: not readable as Label Studio's JSON", EXPORT):
            text = read_text(file, MAX_BYTES).removeprefix("\ufeff")
            content = json.loads(text, object_hook=_packed)
    except UserError as error:
        findings.problems.append(str(error))
        return
    tasks = content if isinstance(content, list) else [content]
    for number, task in enumerate(tasks, 1):
        if isinstance(task, dict) and isinstance(task.get("task"), dict) and "result" in task:
            task = {**task["task"], "annotations": [task]}  # a file of a target storage
        if isinstance(task, dict) and "data" in task:
            yield f"{file}: task {reprlib.repr(task.get('id', number))}", task
        elif isinstance(task, dict) and "annotation_id" in task:
            findings.problems.append(f"{file}: JSON-MIN, which lacks the order of areas. {EXPORT}")
            return
        else:
            findings.leave_out("as it is not a task of Label Studio", f"{file}: item {number}")


def _packed(values: dict) -> dict:
    """Run lengths as bytes, which take an eighth of a list's memory."""
    if isinstance(values.get("rle"), list):
        with contextlib.suppress(TypeError, ValueError):
            values["rle"] = bytes(values["rle"])
    return values


def _annotation(title: str, task: dict, findings: Findings) -> dict | None:
    """The newest annotation that was not skipped, if there is any."""
    drawn = task.get("annotations", task.get("completions", []))
    if not isinstance(drawn, list) or not all(isinstance(entry, dict) for entry in drawn):
        raise ValueError(f"'annotations' is not a list of objects. {EXPORT}")
    done = [a for a in drawn if not a.get("was_cancelled") and not a.get("skipped")]
    if not done:
        undrawn = PREDICTED if task.get("predictions") else "as it has no annotation"
        findings.leave_out("as its annotations were skipped" if drawn else undrawn, title)
        return None
    *others, newest = sorted(done, key=_time)
    for other in others:
        findings.leave_out(
            "as the same image has a newer annotation",
            f"{title}, annotation {reprlib.repr(other.get('id'))}",
        )
    return newest


def _time(annotation: dict) -> float:
    """When an annotation was changed, in seconds; 0 if it does not say."""
    value = annotation.get("updated_at") or annotation.get("created_at")
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        if isinstance(value, (int, float)):
            return float(value)
        time = datetime.datetime.fromisoformat(str(value))
        return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()
    return 0.0


def _image(task: dict, photographs: Photographs) -> Path:
    """The photograph of a task; raises `ValueError` if there is none, or are several."""
    data = task["data"] if isinstance(task["data"], dict) else {}
    lists = [value if isinstance(value, list) else [value] for value in data.values()]
    values = [*itertools.chain(*lists)] or [task.get("file_upload")]
    names = {name for name in map(_file_name, values) if name}
    if len(names) != 1:
        raise ValueError(f"it has {len(names)} images ({few(sorted(names))}), but needs one.")
    [name] = names
    folder, slash, last = name.rpartition("/")
    # Label Studio puts eight digits before the names of uploaded files.
    own = re.sub("^[0-9a-f]{8}-", "", last)
    image = photographs.like(name) or photographs.like(f"{folder}{slash}{own}")
    if image is None:
        raise ValueError(
            f"its image {name!r} is not in {photographs.root}. Add it there, remove the task, or "
            "name the folder of photographs by --images."
        )
    return image


def _file_name(value) -> str:
    """The path of an image that a task's text names; empty if it names none."""
    if not isinstance(value, str) or value.startswith("data:"):
        return ""
    address = urllib.parse.urlsplit(value, allow_fragments="://" in value)
    local = urllib.parse.parse_qs(address.query).get("d", [""])[0]  # /data/local-files/?d=
    path = local or urllib.parse.unquote(address.path)
    return path if PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES else ""


@dataclasses.dataclass(frozen=True)
class Region:
    """An area: `value` has its shape, `size` is that of the image it was drawn on."""

    title: str
    label: str
    value: dict
    size: tuple[Any, Any]
    turned: Any


def _regions(title: str, annotation: dict, findings: Findings) -> list[Region]:
    """The labelled areas. An area's shape and its label may be in several results of one id."""
    results = annotation.get("result")
    if not isinstance(results, list):
        raise ValueError(f"'result' is not a list. {EXPORT}")
    shapes: dict[str, tuple[str, dict, list]] = {}
    faults = []
    for number, result in enumerate(results, 1):
        result = result if isinstance(result, dict) else {}
        kind, value = result.get("type"), result.get("value")
        id = result.get("id", f"number {number}")
        id = id if isinstance(id, str) else reprlib.repr(id)
        place = f"{title}, region {id}"
        if not isinstance(kind, str):
            faults.append(f"{place}: it has no type. {EXPORT}")
            continue
        area = kind.removesuffix("labels")
        if area in NO_AREAS:
            findings.leave_out(f"as it is a {area}, not an area", place)
        elif area in AREAS and isinstance(value, dict):
            labels = value.get(kind, []) if area != kind else []
            if isinstance(labels, list) and all(isinstance(label, str) for label in labels):
                shapes.setdefault(id, (place, result, []))[2].extend(labels)
            else:
                faults.append(f"{place}: {kind!r} is not a list of names. {EXPORT}")
        elif area in AREAS or area != kind:  # others are texts, choices and relations
            faults.append(f"{place}: the type {kind!r} cannot be read. Remove it.")
    findings.problems += most_faults(faults, title)
    regions = []
    for place, result, labels in shapes.values():
        label, *others = dict.fromkeys(label.strip() for label in labels) or [""]
        size = result.get("original_width"), result.get("original_height")
        if not labels:
            findings.leave_out("as it has no label", place)
            continue
        if others:
            findings.leave_out(f"as {label!r} is the first label", f"{place}: {', '.join(others)}")
        regions.append(Region(place, label, result["value"], size, result.get("image_rotation")))
    return regions


def _draw(
    title: str,
    regions: list[Region],
    ids: Mapping[str, int],
    background: int,
    findings: Findings,
    height: int,
    width: int,
) -> np.ndarray:
    canvas, faults = Canvas(height, width, background), []
    for region in regions:
        try:
            if None not in region.size and region.size != (width, height):
                raise ValueError(
                    f"it was drawn on an image of {reprlib.repr(region.size)} pixels, but the "
                    f"photograph has {width, height}"
                )
            if region.turned:
                raise ValueError(
                    f"it was drawn on the image turned by {reprlib.repr(region.turned)}°"
                )
            _draw_region(canvas, region, ids.get(region.label, IGNORE_ID), height, width, findings)
        except ValueError as error:
            faults.append(f"{region.title}: {error}. Fix it in Label Studio.")
    findings.problems += most_faults(faults, title)
    return canvas.mask()


def _draw_region(canvas, region: Region, id: int, height: int, width: int, findings) -> None:
    """Draws an area; raises `ValueError`, a clause, if it is faulty."""
    value, x_scale, y_scale = region.value, width / 100, height / 100

    def number(key: str, default=None) -> float:
        return checked_number(value.get(key, default))

    if "rle" in value:
        channels = decode_rle(value["rle"], height * width * 4).reshape(height, width, 4)
        if channels[..., 3].any():
            canvas.stamp(channels[..., 3] != 0, 0, 0, id)
        else:
            findings.leave_out("as nothing of it is painted", region.title)
    elif "imageDataURL" in value:
        canvas.stamp(_bitmap(value["imageDataURL"], (width, height)), 0, 0, id)
    elif "points" in value:
        points = checked_points(value["points"], 3)
        canvas.polygon([(x * x_scale, y * y_scale) for x, y in points], id)
    elif "radiusX" in value:
        center = number("x") * x_scale, number("y") * y_scale
        radii = number("radiusX") * x_scale, number("radiusY") * y_scale
        canvas.ellipse(center, radii, number("rotation", 0), id)
    else:  # a rectangle, turned about its first corner
        x, y = number("x") * x_scale, number("y") * y_scale
        w, h = number("width") * x_scale, number("height") * y_scale
        turn = math.radians(number("rotation", 0))
        across = w * math.cos(turn), w * math.sin(turn)
        down = -h * math.sin(turn), h * math.cos(turn)
        corners = [(0, 0), across, (across[0] + down[0], across[1] + down[1]), down]
        canvas.polygon([(x + dx, y + dy) for dx, dy in corners], id)


def _bitmap(address, size: tuple[int, int]) -> np.ndarray:
    """The pixels of a bitmask: a PNG of the image's size, transparent where it is not painted."""
    if not isinstance(address, str):
        raise ValueError("its imageDataURL is not text")
    with bad_files_named("its bitmask"):
        data = base64.b64decode(address.rpartition(",")[2])
        image = open_header(data, "its bitmask", ("PNG",))
        if image.size != size:
            raise ValueError(f"its bitmask has {image.size} pixels, but the photograph has {size}")
        return np.asarray(image.convert("RGBA"))[..., 3] != 0
