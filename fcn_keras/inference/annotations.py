"""Predicted masks as labelme's and COCO's JSON, so that people can correct them.

labelme fills each polygon in order, so holes are covered by what lies in them, painted later.
Unlabelled pixels (255) have no polygons, unless they are such holes.
In COCO no object lies on another: each region is one polygon, which enters its holes along a
line and comes back along it. Run lengths would need no such line, but most programs that
edit polygons do not open them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from fcn_keras.data.split import IGNORE_ID, LabelSet
from fcn_keras.errors import UserError
from fcn_keras.files import storage
from fcn_keras.files.finding import FoundImage
from fcn_keras.files.reading import as_object, damage_as_user_errors, parse_json
from fcn_keras.files.results import MERGED, result_name
from fcn_keras.files.writing import write_file
from fcn_keras.inference.polygons import Ring, regions_of

LABELME_VERSION = "5.5.0"  # whose format this is
LABELME_BACKGROUND, LABELME_UNLABELLED = "_background_", "__ignore__"


def labelme_file(mask: np.ndarray, labels: LabelSet, image_path: str) -> str:
    """labelme's JSON of a mask.

    Args:
        mask: Class ids, uint8 `(H, W)`.
        labels: The classes.
        image_path: The image's path relative to the file.
    """
    background = _background(labels)
    names = {**dict(enumerate(labels.names)), IGNORE_ID: LABELME_UNLABELLED}
    if background is not None:
        names[background] = LABELME_BACKGROUND
    regions = [region for region in regions_of(mask, (background, IGNORE_ID)) if region.painted]
    shapes = []
    for region in sorted(regions, key=lambda region: -region.filled):
        points = region.rings[0].pixels.tolist()
        points += points[:1] * (3 - len(points))  # labelme needs three, even for a line
        shapes.append(
            {
                "label": names[region.class_id],
                "points": points,
                "group_id": None,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
            }
        )
    content = {
        "version": LABELME_VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }
    return json.dumps(content)


def path_from(place: str, image: str) -> str:
    """An image's path relative to a file, or its name where there is no such path."""
    if storage.is_address(place) or storage.is_address(image):
        above, parts = place.split("/")[:-1], image.split("/")
        same = _shared([above, parts[:-1]])
        if same < 3:  # the scheme, nothing, the bucket
            return parts[-1]
        return "/".join([".."] * (len(above) - same) + parts[same:])
    folder, name = os.path.split(os.path.abspath(image))
    path = os.path.join(os.path.realpath(folder), name)
    return Path(os.path.relpath(path, os.path.realpath(os.path.dirname(place)))).as_posix()


def coco_part(mask: np.ndarray, labels: LabelSet) -> str:
    """The objects of one image for `write_coco`, as JSON; classes have their names."""
    background, objects = _background(labels), []
    for region in regions_of(mask):
        if region.class_id not in (background, IGNORE_ID):
            polygon = _joined(region.rings)
            x, y = polygon.T
            low, high = polygon.min(axis=0), polygon.max(axis=0)
            objects.append(
                {
                    "class": labels.names[region.class_id],
                    "segmentation": [polygon.ravel().tolist()],
                    "area": float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2),
                    "bbox": [*low.tolist(), *(high - low).tolist()],
                    "iscrowd": 0,
                }
            )
    return json.dumps({"height": mask.shape[0], "width": mask.shape[1], "objects": objects})


def write_coco(output: str, images: Iterable[FoundImage], labels: LabelSet) -> None:
    """Merges the parts of images into COCO's JSON, one part at a time.

    Names are relative to the folder that all images share. Images and objects are numbered
    in their order, classes by their ids, from 1 on.

    Raises:
        UserError: If a part is missing, damaged or of other classes, or the file cannot be
            written.
    """
    found = {_parts(image.path): image.name for image in images}  # one may be found twice
    shared = _shared([path[:-1] for path in found])
    background = _background(labels)
    names = [name for index, name in enumerate(labels.names) if index != background]
    numbers = {name: number for number, name in enumerate(names, 1)}
    categories = [
        {"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()
    ]

    def write(merged: Path) -> None:
        records, count = [], 0
        with merged.open("w", encoding="utf-8") as file:
            file.write(f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)},\n')
            file.write('"annotations": [')
            for index, (place, name) in enumerate(found.items(), 1):
                path = storage.join(output, result_name(name, "coco"))
                size, objects = _read_part(path, numbers)
                records.append({"id": index, "file_name": "/".join(place[shared:]), **size})
                for entry in objects:
                    category = numbers[entry.pop("class")]
                    count += 1
                    ids = {"id": count, "image_id": index, "category_id": category}
                    file.write(f"{',' if count > 1 else ''}\n{json.dumps({**ids, **entry})}")
            file.write(f'],\n"images": {json.dumps(records)}}}\n')

    write_file(storage.join(output, MERGED["coco"]), write)


def _parts(path: str) -> tuple[str, ...]:
    return tuple((path if storage.is_address(path) else os.path.abspath(path)).split("/"))


def _shared(folders: Iterable[Sequence[str]]) -> int:
    """How many of their first parts folders share."""
    lists = [list(folder) for folder in folders]
    first, last = min(lists, default=[]), max(lists, default=[])
    return next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), len(first))


def _read_part(path: str, numbers: dict[str, int]) -> tuple[dict[str, int], list[dict]]:
    """An image's size and objects."""
    again = "Predict it again, without --skip-existing."
    with damage_as_user_errors(f"{path}: not readable", again):
        data = storage.read(path) if storage.is_address(path) else Path(path).read_bytes()
        part = as_object(parse_json(data), "the content")
        size = {side: part[side] for side in ("height", "width")}
        objects = [as_object(entry, "an object") for entry in part["objects"]]
        classes = [entry["class"] for entry in objects]
    unknown = [name for name in classes if name not in numbers]
    if unknown:
        raise UserError(f"{path}: has the class {unknown[0]!r}, but the model has not. {again}")
    return size, objects


def _background(labels: LabelSet) -> int | None:
    """The class that is what no object covers."""
    names = [name.strip("_").lower() for name in labels.names]
    return names.index("background") if "background" in names else None


def _joined(rings: list[Ring]) -> np.ndarray:
    """An outline and its holes as one, float `(N, 2)`: up from each hole and back."""
    joined = rings[0].points
    # What is above a hole is already part of the outline.
    for hole in sorted((ring.points for ring in rings[1:]), key=lambda hole: hole[:, 1].min()):
        hole = np.roll(hole, -np.lexsort(hole.T)[0], axis=0)
        x, y = hole[0]
        here, there = joined, np.roll(joined, -1, axis=0)
        at = np.flatnonzero((here[:, 0] <= x) != (there[:, 0] <= x))
        here, there = here[at], there[at]
        share = (x - here[:, 0]) / (there[:, 0] - here[:, 0])
        heights = here[:, 1] + share * (there[:, 1] - here[:, 1])
        above = np.flatnonzero(heights <= y)
        last, gate = 0, joined[:1]  # where simplified outlines cross, nothing may be above
        if above.size:
            nearest = above[heights[above].argmax()]
            last = at[nearest]
            # A point within a slanting line would change the pixels along it.
            if heights[nearest] == here[nearest, 1] == there[nearest, 1]:
                gate = np.array([(x, heights[nearest])])
            else:
                last = (last + (share[nearest] > 0.5)) % len(joined)
                gate = joined[last : last + 1]
        after = last + 1
        joined = np.concatenate((joined[:after], gate, hole, hole[:1], gate, joined[after:]))
    return joined[(joined != np.roll(joined, 1, axis=0)).any(axis=1)]
