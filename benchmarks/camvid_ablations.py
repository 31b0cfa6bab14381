"""Ablations of a ResNet-18 FCN-8s trained on CamVid from random weights, one change at a time.

    python benchmarks/camvid_ablations.py --camvid CAMVID --out FOLDER [NAME ...]

Trains each ablation of `ABLATIONS` (or those named) for the same number of steps
and prints a table. Finished runs are kept, interrupted ones resume after their last
epoch. CAMVID is CamVid in VOC's layout, 367 training images.

A full-size run is too long to repeat, so images are halved to 180×240, a quarter
of the pixels per step: 990 steps are then 30 epochs. Training leaves out one of the
three sequences. Its 101 frames represent a new scene, while the validation split is
from a sequence that is trained on. Both are evaluated after the last epoch.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from PIL import Image

HELD_OUT = "0006R0"
ROOT = Path(__file__).parents[1]
BASE = (
    "--backbone resnet18 --output-stride 8 --crop 160 224 --scale 0.75 1.75 --flip "
    "--brightness 0.2 --contrast 0.2 --batch-size 8 --optimizer adamw --learning-rate 1e-3 "
    "--weight-decay 1e-4 --schedule poly --epochs 30 --validate-every 5"
)
SHORT = "--region-weight 1 --epochs 15"
# The winning changes combined; as many pixels as SHORT.
RECIPE = "--region-weight 3 --batch-size 4 --epochs 30 --coarse-epochs 20"
# 1 / log(1.1 + the class's share of the pixels).
LOG_WEIGHTS = "--class-weights 4.11 3.4 9.56 2.8 7.3 5.45 9.4 9.44 6.7 9.87 10.2"
# Name: seeds, and the flags that differ from BASE.
ABLATIONS = {
    "base": ((0, 1), ""),
    "jaccard": ((0,), "--region-weight 1"),
    # Half as long, with the Jaccard loss.
    "short": ((0,), SHORT),
    # As many pixels: 20 epochs at a quarter of them, 10 at all.
    "short, coarse": ((0,), "--region-weight 1 --epochs 30 --coarse-epochs 20"),
    "short, recipe": ((0,), RECIPE),
    "short, recipe, log weights": ((0,), f"{RECIPE} {LOG_WEIGHTS}"),
    "short, log weights": ((0,), f"{SHORT} {LOG_WEIGHTS}"),
    "short, tint": (
        (0,),
        SHORT + " --saturation 0.5 --hue 0.05 --brightness 0.3 --contrast 0.3",
    ),
    "short, sgd": (
        (0,),
        SHORT + " --optimizer sgd --momentum 0.9 --learning-rate 0.05 --weight-decay 5e-4 "
        "--warmup-steps 50",
    ),
    "short, batch 4": ((0,), SHORT + " --batch-size 4"),
    "short, lr 3e-3": ((0,), SHORT + " --learning-rate 3e-3 --warmup-steps 50"),
    "short, jaccard 3": ((0,), SHORT + " --region-weight 3"),
    "short, decay": ((0,), SHORT + " --weight-decay 0.05"),
    "short, scales": ((0,), SHORT + " --scale 0.5 2.0"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--camvid", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--runs", type=int, help="stop after this number of runs")
    parser.add_argument("--table", action="store_true", help="only print the results so far")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()

    results = Results(arguments.out / "results.json")
    todo = [
        (name, seed)
        for name in arguments.names or ABLATIONS
        for seed in ABLATIONS[name][0]
        if (name, seed) not in results
    ]
    if arguments.table:
        todo = []
    for name, seed in todo[: arguments.runs]:
        data = make_data(arguments.camvid, arguments.out / "data" / "camvid-half")
        run_dir = arguments.out / "runs" / f"{name.replace(', ', '-').replace(' ', '')}-s{seed}"
        core_seconds = train(data, run_dir, f"{BASE} {ABLATIONS[name][1]} --seed {seed}".split())
        results.add(name, seed, core_seconds, measure(data, run_dir / "last.keras"))
        print(results.table(), flush=True)
    print(results.table())


class Results:
    """The finished runs, in a JSON file."""

    def __init__(self, path: Path):
        self.path = path
        self.rows = json.loads(path.read_text()) if path.is_file() else []

    def __contains__(self, key) -> bool:
        return key in {(row["name"], row["seed"]) for row in self.rows}

    def add(self, name: str, seed: int, core_seconds: float, figures: dict) -> None:
        row = {"name": name, "flags": ABLATIONS[name][1], "seed": seed}
        self.rows.append({**row, "core_seconds": round(core_seconds), **figures})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.rows, indent=1) + "\n")

    def table(self) -> str:
        """One line per ablation: the mean over its seeds, and the range of val mean IoU."""
        lines = ["| what | seeds | val mean IoU | range | new scene | core-seconds | flags |"]
        lines.append("|---|---|---|---|---|---|---|")
        for name in dict.fromkeys(row["name"] for row in self.rows):
            rows = [row for row in self.rows if row["name"] == name]
            val, scene, seconds = (
                statistics.mean(row[key] for row in rows)
                for key in ("val", "held_out", "core_seconds")
            )
            spread = max(row["val"] for row in rows) - min(row["val"] for row in rows)
            lines.append(
                f"| {name} | {len(rows)} | {val:.4f} | {spread:.4f} | {scene:.4f} | {seconds:.0f} "
                f"| {rows[0]['flags']} |"
            )
        return "\n".join(lines)


def make_data(camvid: Path, folder: Path) -> Path:
    """CamVid at half size; one sequence is left out of training, as the split `heldout`."""
    lists = folder / "ImageSets" / "Segmentation"
    if (lists / "heldout.txt").is_file():
        return folder
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for path in sorted((camvid / "JPEGImages").iterdir()):
        image, mask = (
            Image.open(path),
            Image.open(camvid / "SegmentationClass" / f"{path.stem}.png"),
        )
        size = image.width // 2, image.height // 2
        image.resize(size, Image.Resampling.BOX).save(folder / "JPEGImages" / f"{path.stem}.png")
        half = mask.resize(size, Image.Resampling.NEAREST)
        half.save(folder / "SegmentationClass" / f"{path.stem}.png")
    (folder / "classes.txt").write_text((camvid / "classes.txt").read_text())
    ids = {
        name: (camvid / "ImageSets" / "Segmentation" / f"{name}.txt").read_text().split()
        for name in ("train", "val")
    }
    ids["heldout"] = [name for name in ids["train"] if name.startswith(HELD_OUT)]
    ids["train"] = [name for name in ids["train"] if not name.startswith(HELD_OUT)]
    for name in ("train", "val", "heldout"):
        (lists / f"{name}.txt").write_text("\n".join(ids[name]) + "\n")
    return folder


def train(data: Path, run_dir: Path, flags: list[str]) -> float:
    """Trains or resumes a run; returns the CPU seconds of this call."""
    before = _children_seconds()
    if (run_dir / "config.json").is_file():
        command = ["--resume", run_dir]
    else:
        command = ["--dataset", data, "--run-dir", run_dir, *flags]
    subprocess.run([sys.executable, ROOT / "train.py", *map(str, command)], check=True)
    return _children_seconds() - before


def measure(data: Path, model: Path) -> dict:
    from fcn_keras.data import load_split
    from fcn_keras.evaluation.scores import evaluate
    from fcn_keras.inference.segmenter import Segmenter

    segment = Segmenter.load(model)
    val, held_out = (
        evaluate(segment, load_split(str(data), name)).to_dict() for name in ("val", "heldout")
    )
    return {
        "val": val["mean_iou"],
        "held_out": held_out["mean_iou"],
        "val_accuracy": val["pixel_accuracy"],
        "held_out_accuracy": held_out["pixel_accuracy"],
        "val_class_iou": val["per_class_iou"],
        "held_out_class_iou": held_out["per_class_iou"],
    }


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
