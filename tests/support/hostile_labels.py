"""Exports of labelling tools that are broken, odd or malicious."""

import json
import os
from pathlib import Path

from support.hostile_files import IDS, PNG

HEIGHT, WIDTH = IDS.shape
TRIANGLE = [[2, 2], [9, 2], [9, 9]]
FLAT = [2, 2, 9, 2, 9, 9]  # as COCO writes it
SPARSE = (64 << 20) + 1  # bytes, none of which are on the disk


def shape(points=TRIANGLE, label="b"):
    return {"label": label, "points": points}


def labelme(*shapes, **changes):
    """labelme's files about a photograph a, with these shapes and changes, and about a sound b."""

    def write(root: Path) -> None:
        for name, content in (("a", {"shapes": shapes, **changes}), ("b", {"shapes": [shape()]})):
            (root / f"{name}.png").write_bytes(PNG)
            content = {"imagePath": f"{name}.png", **content}
            (root / f"{name}.json").write_text(json.dumps(content))

    return write


def beside(name: str, content: str):
    """Sound files of labelme, and another JSON file."""

    def write(root: Path) -> None:
        labelme(shape())(root)
        (root / name).write_text(content)

    return write


def larger_than_allowed(root: Path) -> None:
    labelme(shape())(root)
    os.truncate(root / "a.json", SPARSE)


def moved(path: str):
    """labelme's files, whose photograph a is elsewhere."""

    def write(root: Path) -> None:
        labelme(shape(), imagePath=path)(root)
        (root / "a.png").rename(root.parent / "secret.png")

    return write


def coco(segmentation, category=1, file="a.png"):
    def write(root: Path) -> None:
        names = {"a.png": file, "b.png": "b.png"}
        for name in names:
            (root / name).write_bytes(PNG)
        annotation = {"id": 1, "image_id": 0, "category_id": category, "segmentation": segmentation}
        content = {
            "images": [
                {"id": id, "file_name": name, "height": HEIGHT, "width": WIDTH}
                for id, name in enumerate(names.values())
            ],
            "annotations": [annotation],
            "categories": [{"id": 1, "name": "b"}],
        }
        (root / "_annotations.coco.json").write_text(json.dumps(content))

    return write


def cvat(text: str):
    def write(root: Path) -> None:
        for name in "ab":
            (root / f"{name}.png").write_bytes(PNG)
        (root / "annotations.xml").write_text(text)

    return write


def yolo(row: str, yaml: str = "names: [b]\ntrain: images\nval: images\n"):
    def write(root: Path) -> None:
        for folder in ("images", "labels"):
            (root / folder).mkdir()
        for name in "ab":
            (root / f"images/{name}.png").write_bytes(PNG)
            (root / f"labels/{name}.txt").write_text(row)
        (root / "data.yaml").write_text(yaml)

    return write


def label_studio(value, kind="brushlabels", data=None):
    def write(root: Path) -> None:
        tasks = []
        for name in "ab":
            (root / f"{name}.png").write_bytes(PNG)
            result = {"type": kind, "id": "r", "value": {kind: ["b"], **value}}
            result |= {"original_width": WIDTH, "original_height": HEIGHT, "from_name": "x"}
            tasks.append(
                {"data": {"image": f"/x/{name}.png"}, "annotations": [{"result": [result]}]}
            )
        (root / "export.json").write_text(json.dumps(tasks))

    return write


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb">]><annotations>&b;</annotations>'
ALIASES = "k0: &k0 [x, x]\n" + "".join(f"k{n + 1}: &k{n + 1} [*k{n}, *k{n}]\n" for n in range(30))
LABELS = {
    "a photograph that is missing": moved("gone.png"),
    "a path that leads outside the folder": moved("../secret.png"),
    "a label with a line break": labelme(shape(label="a\nb")),
    "10,000 labels": labelme(*(shape(label=f"x{number}y") for number in range(10_000))),
    "a polygon of two points": labelme(shape(TRIANGLE[:2])),
    "a polygon that leaves the photograph": labelme(shape([[-9, 2], [50, 2], [9, 50]])),
    "a polygon outside the photograph": labelme(shape([[900, 2], [990, 2], [909, 90]])),
    "a coordinate that is not a number": labelme(shape([[2, 2], [9, float("nan")], [9, 9]])),
    "a coordinate of 1e300": labelme(shape([[2, 2], [9, 1e300], [9, 9]])),
    "a polygon of 100,002 points": labelme(shape(TRIANGLE * 33_334)),
    "the size of another photograph": labelme(shape(), imageHeight=1, imageWidth=1),
    "two files about one photograph": labelme(shape(), imagePath="b.png"),
    "JSON of another type": labelme(shapes=5),
    "JSON that is nested endlessly": beside("c.json", '{"shapes": ' + "[" * 100_000),
    "JSON of more than 64 MiB": larger_than_allowed,
    "a file of ISAT": beside("c.json", '{"info": {"note": "ISAT"}, "objects": []}'),
    "COCO: a category that is not listed": coco([FLAT], category=2),
    "COCO: run lengths of 4 gigapixels": coco({"size": [HEIGHT, WIDTH], "counts": [0, 2**32]}),
    "COCO: a path that leads outside the folder": coco([FLAT], file="../secret.png"),
    "CVAT: a document type, whose entities may grow": cvat(BOMB),
    "CVAT: an export for video": cvat('<annotations><track id="0"/></annotations>'),
    "YOLO: boxes": yolo("0 0.5 0.5 0.1 0.1"),
    "YOLO: aliases that grow": yolo(
        "0 0.1 0.1 0.5 0.1 0.5 0.5", ALIASES + "names: *k30\ntrain: images\n"
    ),
    "YOLO: a class that is not listed": yolo("7 0.1 0.1 0.5 0.1 0.5 0.5"),
    "Label Studio: run lengths of 4 gigapixels": label_studio({"rle": [255] * 40}),
    "Label Studio: run lengths that end early": label_studio({"rle": [0, 0, 12, 0]}),
}
