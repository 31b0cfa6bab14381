"""Whether training on 100,000 files starts as fast, in as little memory, as on 100.

    python benchmarks/many_files.py                        # 5 minutes on two idle cores

Makes both data sets, of 48×64 pixels, and trains on each with `train.py` in a separate
process: 20 steps of two small crops, without a cache. Prints the seconds until the run folder
exists, when all files are found and the network is built, the seconds until the end of the
only epoch, including validation on two images, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from kept_runs import table
from PIL import Image

ROOT = Path(__file__).parents[1]
STEPS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 100_000], metavar="N")
    arguments = parser.parse_args()
    lines = ["| images | seconds to the run folder | to the epoch's end | peak memory, MB |"]
    with tempfile.TemporaryDirectory() as scratch:
        for count in arguments.counts:
            folder = draw_folder(Path(scratch, str(count)), count)
            start, end, peak_mb = trained(folder, Path(scratch, f"run-{count}"))
            lines.append(f"| {count:,} | {start:.1f} | {end:.1f} | {peak_mb:.0f} |")
            print(lines[-1], file=sys.stderr)
    print(table(lines))
    return 0


def draw_folder(root: Path, count: int) -> Path:
    """A data set with one file for each photograph and mask, all with the same content."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    (root / "classes.txt").write_text("left\nright\n")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)).save(root / "photo.jpg")
    mask = np.repeat([0, 1], 32).astype(np.uint8)
    Image.fromarray(np.tile(mask, (48, 1))).save(root / "mask.png")
    photo, mask = ((root / name).read_bytes() for name in ("photo.jpg", "mask.png"))
    ids = [f"image_{number:06}" for number in range(count)]
    for name in ids:
        (root / "JPEGImages" / f"{name}.jpg").write_bytes(photo)
        (root / "SegmentationClass" / f"{name}.png").write_bytes(mask)
    for split, chosen in (("train", ids[:-2]), ("val", ids[-2:])):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(chosen))
    return root


def trained(folder: Path, run: Path) -> tuple[float, float, float]:
    """Seconds to the run folder and to the end of the epoch, and the peak memory in MB."""
    options = "--weights none --crop 32 32 --batch-size 2 --epochs 1 --cache-mb 0".split()
    command = [sys.executable, ROOT / "train.py", "--dataset", folder, "--run-dir", run, *options]
    begin, start = time.perf_counter(), None
    process = subprocess.Popen(
        [*map(str, command), "--max-steps", str(STEPS)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)},
    )
    end = peak = 0.0
    for line in process.stdout:
        start = start or time.perf_counter() - begin
        if "val_loss" in line:
            end = time.perf_counter() - begin
            # Linux keeps the peak; the pictures of a run, drawn later, do not count.
            peak = peak_mb(process.pid)
    if process.wait():
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {process.returncode}")
    return start, end, peak


def peak_mb(pid: int) -> float:
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "VmHWM" in line
    ]
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
