"""Time and memory against image size, batch, classes and number of images.

    python benchmarks/growth.py                            # 10 minutes on two idle cores

ResNet-18 FCN-32s, float32. Each line is a separate process, whose peak memory
includes TensorFlow's 0.5 GB; time is the median of the rounds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from pathlib import Path

from contest import Contestant, compete
from kept_runs import row, table

STEP = {"precision": "float32", "batch": 4, "size": (320, 480), "classes": 21}
FORWARD = {"precision": "float32", "batch": 1, "size": (320, 480), "classes": 21}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory() as scratch:
        tables = {
            "Training step, batch 4": varied("training_step", STEP, "size", *sizes(32, 64, 96)),
            "Training step, 320×480": varied("training_step", STEP, "batch", 1, 2, 4, 8, 16),
            "Training step, batch 4, 320×480": by_classes("training_step", STEP),
            "Forward pass": varied("forward", FORWARD, "size", *sizes(32, 64, 128, 256)),
            "Forward pass, 320×480": by_classes("forward", FORWARD),
            "`predict` of 320×480": folders(Path(scratch), 10, 100, 1000),
        }
        for title, contestants in tables.items():
            # One at a time: comparing these does not need percent accuracy.
            for contestant in contestants:
                compete([contestant], arguments.rounds)
            lines = [f"| {title} | seconds | seconds per image | peak memory, MB |"]
            for c in contestants:
                lines.append(row(c.name, c.median * c.amount, c.median, f"{c.peak_mb:.0f}"))
            print(table(lines) + "\n", flush=True)
    return 0


def sizes(*heights: int) -> list[tuple[int, int]]:
    return [(5 * height, 15 * height // 2) for height in heights]


def by_classes(task: str, given: dict) -> list[Contestant]:
    contestants = []
    for kind in ("dense", "per-class", "fixed"):
        kinds = varied(task, {**given, "upsampling": kind}, "classes", 2, 21, 150)
        contestants += [dataclasses.replace(c, name=f"{kind}, {c.name}") for c in kinds]
    return contestants


def varied(task: str, given: dict, name: str, *values) -> list[Contestant]:
    contestants = []
    for value in values:
        options = {**given, name: value}
        text = "×".join(map(str, value)) if isinstance(value, tuple) else str(value)
        contestants.append(
            Contestant(f"{name} {text}", f"speed_ours:{task}", options, options["batch"], calls=3)
        )
    return contestants


def folders(scratch: Path, *counts: int) -> list[Contestant]:
    """Folders of links to one photograph."""
    from speed import draw_photographs, in_process, write_model

    in_process(write_model, str(scratch / "model.keras"))
    in_process(draw_photographs, str(scratch / "drawn"), 1, (320, 480))
    [photo, *_] = sorted((scratch / "drawn" / "JPEGImages").iterdir())
    contestants = []
    for count in counts:
        folder = scratch / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.jpg").hardlink_to(photo)
        options = {"model": str(scratch / "model.keras"), "photos": str(folder)}
        contestants.append(
            Contestant(f"{count} images", "speed_ours:prediction", options, count, warm_up=1)
        )
    return contestants


if __name__ == "__main__":
    sys.exit(main())
