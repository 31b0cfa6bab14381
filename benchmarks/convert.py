"""Whether `data convert` reads 2,000 images of COCO as fast, in as little memory, as 500.

    python benchmarks/convert.py                           # 3 minutes on two idle cores

Writes both data sets, of one photograph of 640×480 pixels under many names, each with ten
objects: seven polygons of 40 points, two compressed run lengths and one that is a crowd's list.
Converts each in a separate process, and prints its images per second and peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from kept_runs import table
from PIL import Image
from pycocotools import mask as pycocotools

ROOT = Path(__file__).parents[1]
HEIGHT, WIDTH = 480, 640
OBJECTS = 10  # per image
# Linux's `ru_maxrss` would be that of the process which starts this one.
MEASURED = """
import pathlib, sys, time
import fcn_keras.data.conversion, fcn_keras.cli
begin = time.perf_counter()
code = fcn_keras.cli.main(sys.argv[1:])
print("Seconds:", time.perf_counter() - begin)
print(pathlib.Path("/proc/self/status").read_text())
sys.exit(code)
"""


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[500, 2_000], metavar="N")
    counts = parser.parse_args(arguments).counts
    lines = ["| images | annotations | JSON, MB | images per second | peak memory, MB |"]
    for count in counts:
        with tempfile.TemporaryDirectory() as scratch:
            path = write_coco(Path(scratch, "instances.json"), count)
            seconds, peak_mb = converted(path, Path(scratch, "data"))
            size = path.stat().st_size / 1e6
        annotations = OBJECTS * count
        lines.append(
            f"| {count:,} | {annotations:,} | {size:.1f} | {count / seconds:.1f} | {peak_mb:.0f} |"
        )
        print(lines[-1], file=sys.stderr)
    print(table(lines))
    return 0


def write_coco(path: Path, count: int) -> Path:
    """A JSON file with the images that it describes beside it."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    photo = np.stack([rows // 2, columns // 3, rows ^ columns], axis=2).astype(np.uint8)
    Image.fromarray(photo).save(path.with_name("0.jpg"))
    for index in range(1, count):
        path.with_name(f"{index}.jpg").write_bytes(path.with_name("0.jpg").read_bytes())
    content = {
        "images": [
            {"id": index, "file_name": f"{index}.jpg", "width": WIDTH, "height": HEIGHT}
            for index in range(count)
        ],
        "annotations": [
            annotation(rng, index, number) for index in range(count) for number in range(OBJECTS)
        ],
        "categories": [{"id": 3 * index, "name": f"class {index}"} for index in range(1, 81)],
    }
    path.write_text(json.dumps(content))
    return path


def annotation(rng, image: int, number: int) -> dict:
    """A blob of 40 corners, in one of COCO's encodings."""
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radii = rng.uniform(20, 90) * rng.uniform(0.7, 1, 40)
    points = np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
    points = (points + rng.uniform(0, 1, 2) * (WIDTH, HEIGHT)).clip(0, (WIDTH, HEIGHT))
    polygon = points.round(2).ravel().tolist()
    segmentation: list | dict = [polygon]
    if number >= 7:
        [rle] = pycocotools.frPyObjects([polygon], HEIGHT, WIDTH)
        segmentation = {"size": [HEIGHT, WIDTH], "counts": rle["counts"].decode()}
    if number == 9:
        flat = pycocotools.decode(rle).T.ravel()
        ends = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
        segmentation["counts"] = np.diff([0, *ends, flat.size]).tolist()
    return {
        "id": image * OBJECTS + number,
        "image_id": image,
        "category_id": 3 * int(rng.integers(1, 81)),
        "iscrowd": int(number == 9),
        "segmentation": segmentation,
    }


def converted(path: Path, output: Path) -> tuple[float, float]:
    """Seconds that `data convert` takes, and its peak memory in MB."""
    command = ["data", "convert", path, "--output", output]
    status = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, command)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ).stdout
    found = dict(re.findall(r"^(Seconds|VmHWM):\s+([\d.]+)", status, re.MULTILINE))
    return float(found["Seconds"]), int(found["VmHWM"]) / 1024


if __name__ == "__main__":
    sys.exit(main())
