"""Ablations of a ResNet-18 FCN-8s trained on CamVid, one change at a time.

    python benchmarks/camvid_ablations.py --camvid CAMVID --out FOLDER [--weights DIR] [NAME ...]

Trains the recipe `camvid`, on photographs that are not enlarged, with each change of `ABLATIONS`
(or those named), from random weights or from those of --weights, for the same number of epochs, the
first half of them coarse, and prints a table. Finished runs are kept, interrupted ones resume after
their last epoch. CAMVID is CamVid in VOC's layout, 367 training images.

A full-size run is too long to repeat, so images are halved to 180×240, a quarter of the pixels per
step. Training leaves out one of the three sequences. Its 101 frames represent a new scene, while
the validation split is from a sequence that is trained on. Both are evaluated after the last epoch.
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
BASE = "--recipe camvid --short-side 0 --scale 0.75 1.75 --crop 160 224"
# Name: the flags that differ.
ABLATIONS = {
    "base": "",
    "colour": "--brightness 0.3 --contrast 0.3 --saturation 0.4 --hue 0.05",
    "scale": "--scale 0.5 2.0",
    "enlarged, as in the recipe": "--short-side 225 --scale 0.6 1.4",
    "rotation": "--rotation 10",
    "blur, grey, noise": "--blur 1.5 --grey 0.1 --noise 0.03",
    "cutmix": "--cutmix 0.5",
    "cutout": "--cutout 0.5",
    "class crops": "--class-crops 0.5",
    "class weights": "--class-weights auto",
    "focal": "--loss focal",
    "ohem": "--loss ohem",
    "label smoothing": "--label-smoothing 0.1",
    "lovasz": "--region-loss lovasz",
    "dice": "--region-loss dice",
    "tversky": "--region-loss tversky",
    "ema": "--ema 0.999",
    "clip": "--clip-norm 1",
    "backbone rate": "--learning-rate 1e-3 --backbone-rate 0.2",
    "layer decay": "--layer-decay 0.7",
    "frozen": "--frozen-epochs 5",
    "decay": "--weight-decay 0.05",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--camvid", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--weights", default="none", help="start from these (random values)")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0,))
    parser.add_argument("--table", action="store_true", help="only print the results so far")
    parser.add_argument("names", nargs="*", metavar="NAME", help="rows to train (all)")
    arguments = parser.parse_args()
    if unknown := {*arguments.names} - {*ABLATIONS}:
        parser.error(f"no such row: {', '.join(unknown)}. There are: {', '.join(ABLATIONS)}.")

    epochs, coarse = arguments.epochs, arguments.epochs // 2
    shared = f"{BASE} --weights {arguments.weights} --epochs {epochs} --coarse-epochs {coarse}"
    shared += f" --validate-every {epochs}"  # best.keras is then of the last epoch
    results = Results(arguments.out / "results.json")
    for name in arguments.names or ABLATIONS:
        for seed in arguments.seeds:
            if arguments.table or (name, seed) in results:
                continue
            data = make_data(arguments.camvid, arguments.out / "data" / "camvid-half")
            run_dir = (
                arguments.out / "runs" / f"{name.replace(', ', '-').replace(' ', '-')}-s{seed}"
            )
            flags = f"{shared} {ABLATIONS[name]} --seed {seed}"
            core_seconds = train(data, run_dir, flags.split())
            results.add(name, seed, core_seconds, measure(data, run_dir / "best.keras"))
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
        row = {"name": name, "flags": ABLATIONS[name], "seed": seed}
        self.rows.append({**row, "core_seconds": round(core_seconds), **figures})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.rows, indent=1) + "\n")

    def table(self) -> str:
        """One line per ablation: means over its seeds, and the range of val mean IoU."""
        lines = [
            "| what | seeds | val mean IoU | range | new scene | pole | core-seconds | flags |"
        ]
        lines.append("|---" * 8 + "|")
        for name in dict.fromkeys(row["name"] for row in self.rows):
            rows = [row for row in self.rows if row["name"] == name]
            val, scene, seconds = (
                statistics.mean(row[key] for row in rows)
                for key in ("val", "held_out", "core_seconds")
            )
            spread = max(row["val"] for row in rows) - min(row["val"] for row in rows)
            poles = [row[f"{key}_class_iou"]["pole"] for key in ("val", "held_out") for row in rows]
            cells = [f"{val:.4f}", f"{spread:.4f}", f"{scene:.4f}"]
            cells += [f"{statistics.mean(poles):.3f}", f"{seconds:.0f}", rows[0]["flags"]]
            lines.append("| " + " | ".join([name, str(len(rows)), *cells]) + " |")
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
