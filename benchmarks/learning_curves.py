"""Mean IoU against the number of labelled photographs, from random and from pretrained weights.

    python benchmarks/learning_curves.py --dataset FOLDER --weights DIR --figure curves.png

Trains on 25, 50, 100, ... photographs of the split `train`, chosen at random, each choice part of
the next: by the recipe `strong` from random weights, and by `finetune` from those of --weights.
Prints the mean IoU on `val` and draws it. FOLDER is in VOC's layout. Finished runs in --out are
kept, interrupted ones resume.
"""

import argparse
import random
import sys
from pathlib import Path

from kept_runs import finished_run, row, seconds_of, table

from fcn_keras.cli.shared import import_tensorflow
from fcn_keras.errors import UserError

COUNTS = (25, 50, 100, 200, 400)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, type=Path, help="a folder in VOC's layout")
    parser.add_argument("--weights", default="imagenet", help="of the backbone (imagenet)")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS)
    parser.add_argument("--epochs", type=int, help="of each run (by the number of photographs)")
    parser.add_argument("--crop", type=int, nargs=2, metavar=("H", "W"))
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs", "learning_curves"))
    parser.add_argument("--figure", type=Path, help="a PNG to draw")
    arguments = parser.parse_args(argv)
    arguments.limit = None
    import_tensorflow()
    try:
        scores = measured(arguments)
        if arguments.figure:
            draw(scores, arguments.figure)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measured(arguments) -> dict[str, dict[int, float]]:
    """The mean IoU by start and number of photographs, printed as a table."""
    folder, source = arguments.out / "data", arguments.dataset
    starts = {"random": ("strong", "none"), "ImageNet": ("finetune", arguments.weights)}
    scores: dict = {name: {} for name in starts}
    lines = [row("photographs", "start", "mean IoU", "pixel accuracy", "seconds")]
    for count in arguments.counts:
        arguments.dataset = str(subset(source, folder / str(count), count))
        for name, (recipe, weights) in starts.items():
            arguments.recipe = recipe
            run = finished_run(arguments, f"{name}-{count}", weights=weights)
            metrics = run.read_metrics()
            scores[name][count] = metrics["mean_iou"]
            accuracy = metrics["pixel_accuracy"]
            lines.append(row(count, name, metrics["mean_iou"], accuracy, seconds_of(run)))
            print(table(lines), flush=True)
    return scores


def subset(source: Path, folder: Path, count: int) -> Path:
    """A data set of `count` of a folder's training photographs and all of its validation ones."""
    lists = Path("ImageSets", "Segmentation")
    (folder / lists).mkdir(parents=True, exist_ok=True)
    for name in ("JPEGImages", "SegmentationClass", "classes.txt"):
        if not (folder / name).exists():
            (folder / name).symlink_to((source / name).resolve())
    ids = sorted((source / lists / "train.txt").read_text().split())
    if count > len(ids):
        raise UserError(f"--counts: {source} has {len(ids)} training photographs, not {count}.")
    random.Random(0).shuffle(ids)
    (folder / lists / "train.txt").write_text("\n".join(ids[:count]) + "\n")
    (folder / lists / "val.txt").write_text((source / lists / "val.txt").read_text())
    return folder


def draw(scores: dict[str, dict[int, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, values in scores.items():
        axes.plot([*values], [*values.values()], marker="o", label=f"from {name} weights")
    axes.set_xscale("log")
    counts = [*next(iter(scores.values()))]
    axes.set_xticks(counts, map(str, counts))
    axes.minorticks_off()
    axes.set_xlabel("labelled photographs")
    axes.set_ylabel("mean IoU on val")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
