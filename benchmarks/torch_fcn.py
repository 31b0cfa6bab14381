"""Whether this package learns as well as PyTorch: the same FCN-8s, trained by both.

    python benchmarks/torch_fcn.py --dataset FOLDER --out runs/torch-fcn

Trains ResNet-18 FCN-8s from random weights with `fcn-keras train` and with
`torch_training.py`, a separate program: the same steps, batch, augmentation, AdamW,
poly schedule and float32, other random numbers. Both are evaluated after the last step on
whole validation images, each by its own confusion matrix. FOLDER is in VOC's layout.
Finished runs in --out are kept. Needs PyTorch.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

from fcn_keras.files.writing import atomic_path
from fcn_keras.runs.folder import RunFolder
from fcn_keras.runs.validation import flag

ROOT = Path(__file__).parents[1]
COMMAND = "import sys; from fcn_keras.cli import main; sys.exit(main())"
LISTS = Path("ImageSets", "Segmentation")
SETTINGS = (
    "epochs batch_size crop scale brightness contrast learning_rate weight_decay dataset"
).split()


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    require_same_settings(arguments)
    trainers = {"ours": train_ours, "PyTorch": train_theirs}
    results = {name: [] for name in trainers}
    for seed in arguments.seeds:
        for name, trainer in trainers.items():
            path = arguments.out / f"{name.lower()}-s{seed}.json"
            if path.is_file():
                print(f"{path}: already finished, kept.", flush=True)
            else:
                figures = trainer(arguments, seed)
                with atomic_path(path) as partial:
                    partial.write_text(json.dumps(figures, indent=1) + "\n")
            results[name].append(json.loads(path.read_text()))
    print(table(arguments, results))
    return 0


def parse(argv) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--crop", type=int, nargs=2, default=[160, 224])
    parser.add_argument("--scale", type=float, nargs=2, default=[0.75, 1.75])
    parser.add_argument("--brightness", type=float, default=0.2)
    parser.add_argument("--contrast", type=float, default=0.2)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    arguments = parser.parse_args(argv)
    arguments.dataset, arguments.out = arguments.dataset.resolve(), arguments.out.resolve()
    for name in ("train", "val"):
        if not (path := arguments.dataset / LISTS / f"{name}.txt").is_file():
            parser.error(f"--dataset: {path} is missing. Give a folder in VOC's layout.")
    return arguments


def require_same_settings(arguments) -> None:
    path = arguments.out / "settings.json"
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    settings["dataset"] = str(arguments.dataset)
    if path.is_file() and json.loads(path.read_text()) != settings:
        sys.exit(f"--out {arguments.out}: has results with other settings. Choose another folder.")
    path.write_text(json.dumps(settings, indent=1) + "\n")


def train_theirs(arguments, seed: int) -> dict:
    from torch_training import train_torch

    return train_torch(arguments.dataset, arguments, seed)


def train_ours(arguments, seed: int) -> dict:
    run = arguments.out / f"run-s{seed}"
    if (run / "config.json").is_file():
        flags = ["--resume", run]
    else:
        flags = ["--dataset", one_validation_image(arguments), "--run-dir", run, "--seed", seed]
        flags += (
            "--recipe strong --weights none --backbone resnet18 --output-stride 8 --flip".split()
        )
        flags += "--optimizer adamw --momentum 0 --schedule poly".split()
        for name in SETTINGS[:-1]:
            value = getattr(arguments, name)
            flags += [flag(name), *(value if isinstance(value, list) else [value])]
    epochs = re.findall(r"^(\d+)/\1 - (\d+)s - ", command("train", *flags), re.MULTILINE)
    times = [int(seconds) / int(steps) for steps, seconds in epochs] or [math.nan]
    report = arguments.out / f"report-s{seed}.json"
    command(
        *("evaluate", "--model", run / "last.keras"),
        *("--dataset", arguments.dataset, "--json", report),
    )
    figures = json.loads(report.read_text())
    return {
        "mean_iou": figures["mean_iou"],
        "pixel_accuracy": figures["pixel_accuracy"],
        "class_iou": list(figures["per_class_iou"].values()),
        "seconds_per_step": statistics.median(times[1:] or times),
        "loss": RunFolder(run).read_history()[-1]["loss"],
    }


def one_validation_image(arguments) -> Path:
    """The data set with one validation image, so that an epoch's time is its steps' time."""
    folder = arguments.out / "data"
    (folder / LISTS).mkdir(parents=True, exist_ok=True)
    for name in ("JPEGImages", "SegmentationClass", "classes.txt"):
        if not (folder / name).exists():
            (folder / name).symlink_to((arguments.dataset / name).resolve())
    for name, end in (("train", None), ("val", 1)):
        ids = (arguments.dataset / LISTS / f"{name}.txt").read_text().split()
        (folder / LISTS / f"{name}.txt").write_text("\n".join(ids[:end]) + "\n")
    return folder


def command(*words) -> str:
    """Runs `fcn-keras`; shows and returns its output."""
    lines = []
    with subprocess.Popen(
        [sys.executable, "-c", COMMAND, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        sys.exit(f"fcn-keras {words[0]} failed with exit code {process.returncode}.")
    return "".join(lines)


def table(arguments, results: dict[str, list[dict]]) -> str:
    images = len((arguments.dataset / LISTS / "train.txt").read_text().split())
    steps = max(1, images // arguments.batch_size) * arguments.epochs
    lines = [
        f"{steps} steps of batch {arguments.batch_size}, crop "
        f"{arguments.crop[0]}×{arguments.crop[1]}, {len(arguments.seeds)} seeds",
        "| | mean IoU | pixel accuracy | last epoch's loss | seconds per step |",
        "|---|---|---|---|---|",
    ]
    keys = ("mean_iou", "pixel_accuracy", "loss", "seconds_per_step")
    columns = {
        name: [[figures[key] for figures in runs] for key in keys] for name, runs in results.items()
    }
    for name, values in columns.items():
        cells = [" / ".join(f"{value:.3f}" for value in column) for column in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    differences = [
        f"{statistics.mean(ours) - statistics.mean(theirs):+.3f}"
        for ours, theirs in zip(*columns.values())
    ]
    return "\n".join([*lines, "| difference of the means | " + " | ".join(differences) + " |"])


if __name__ == "__main__":
    sys.exit(main())
