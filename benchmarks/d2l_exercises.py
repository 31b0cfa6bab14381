"""The exercises of d2l's chapter on fully convolutional networks; each prints a table.

    python benchmarks/d2l_exercises.py upsampling     (1) Xavier or bilinear initialisation
    python benchmarks/d2l_exercises.py test-images    (3) the classes of all test images
    python benchmarks/d2l_exercises.py skips          (4) FCN-32s, 16s, 8s; at once or in stages

(2), tuning, is `fcn-keras tune`. Each uses the synthetic sample data; `--dataset FOLDER` uses
photographs. Finished runs in --out are kept, interrupted ones resume after their last epoch.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from pathlib import Path

import numpy as np
from kept_runs import finished_run, mean_and_spread, row, seconds_of, table
from PIL import Image

from fcn_keras.cli.shared import import_tensorflow, progress
from fcn_keras.errors import UserError

INITIALIZERS = {"bilinear": "bilinear", "Xavier": "glorot_uniform"}
BAND = 3  # pixels on each side of a boundary
SHOWN = 4  # of the worst and the best images


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="EXERCISE")
    add_exercise(commands, "upsampling", upsampling, epochs=8, seeds=(0, 1))
    add_exercise(commands, "skips", skips, epochs=6, seeds=(0,))
    images = add_exercise(commands, "test-images", test_images, epochs=12, seeds=(0,))
    images.add_argument("--model", metavar="RUN", help="run to predict with (trains one)")
    images.add_argument("--split", default="val", help="split of the images (val)")
    arguments = parser.parse_args(argv)
    if arguments.dataset == "sample" and arguments.limit is None:
        arguments.limit = 192
    import_tensorflow()
    try:
        print(arguments.exercise(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def add_exercise(
    commands, name: str, exercise, epochs: int, seeds: tuple
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name)
    parser.set_defaults(exercise=exercise)
    parser.add_argument("--dataset", default="sample", help="sample, voc2012, or a folder")
    parser.add_argument("--recipe", help="recipe for all other settings")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--limit", type=int, help="images per split (192 for the sample data)")
    parser.add_argument("--crop", type=int, nargs=2)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    parser.add_argument("--out", type=Path, default=Path("runs", f"d2l-{name}"))
    return parser


def upsampling(arguments) -> str:
    """Exercise 1: the same training with different initial values of the upsampling kernel."""
    lines = [
        row("initialisation, seed", *quarters("loss"), *quarters("val mean IoU"), "best mean IoU")
    ]
    for name, initializer in INITIALIZERS.items():
        figures = []
        for seed in arguments.seeds:
            run = finished_run(
                arguments,
                f"{name.lower()}-s{seed}",
                seed=seed,
                output_stride=32,
                upsampling_initializer=initializer,
            )
            history, count = run.read_history(), arguments.epochs
            ends = [history[-(-count * quarter // 4) - 1] for quarter in (1, 2, 3, 4)]
            losses, ious = ([end[key] for end in ends] for key in ("loss", "val_mean_iou"))
            figures.append([*losses, *ious, run.read_metrics()["mean_iou"]])
            lines.append(row(f"{name}, {seed}", *figures[-1]))
        if len(figures) > 1:
            lines.append(row(f"{name}, mean", *map(mean_and_spread, zip(*figures))))
    return table(lines)


def skips(arguments) -> str:
    """Exercise 4: skips, trained at once or in stages with as many steps in total."""
    if arguments.epochs % 6:
        raise UserError(
            f"--epochs must be a multiple of 6, for two and three equal stages. Received: "
            f"{arguments.epochs}."
        )
    lines = [row("network", "epochs", "mean IoU", f"within {BAND} px of boundaries", "seconds")]
    for stages in ((32,), (16,), (8,), (32, 16), (32, 16, 8)):
        name = "-".join(map(str, stages))
        figures = []
        for seed in arguments.seeds:
            source, seconds = None, 0
            for stage, stride in enumerate(stages, 1):
                run = finished_run(
                    arguments,
                    f"fcn{name}-{stage}-s{seed}",
                    seed=seed,
                    output_stride=stride,
                    init_from=source,
                    epochs=arguments.epochs // len(stages),
                )
                source, seconds = str(run.path), seconds + seconds_of(run)
            figures.append([run.read_metrics()["mean_iou"], boundary_iou(run, arguments), seconds])
        *ious, seconds = zip(*figures)
        kind = "at once" if len(stages) == 1 else f"after FCN-{stages[-2]}s"
        epochs = " + ".join([str(arguments.epochs // len(stages))] * len(stages))
        label = f"FCN-{stages[-1]}s {kind}"
        lines.append(
            row(label, epochs, *map(mean_and_spread, ious), f"{statistics.mean(seconds):.0f}")
        )
    return table(lines)


def test_images(arguments) -> str:
    """Exercise 3: every image's mask, the metrics over all, the worst and best images."""
    from fcn_keras import load_split
    from fcn_keras.evaluation.scores import Scores, confusion_matrix, format_scores

    model = arguments.model or finished_run(arguments, "model", seed=arguments.seeds[0]).path
    split = load_split(arguments.dataset, arguments.split)
    split = split.take(arguments.limit or len(split))
    masks = predicted_masks(model, split, arguments.out / "predictions")
    classes = len(split.labels)
    matrices = [confusion_matrix(split.read(i)[1], masks[i], classes) for i in range(len(split))]
    reports = [Scores(split.labels, matrix) for matrix in matrices]
    order = sorted(range(len(split)), key=lambda index: reports[index].mean_iou)
    lines = [row("image", "mean IoU", "pixel accuracy")]
    for name, indices in {"worst": order[:SHOWN], "best": order[::-1][:SHOWN]}.items():
        for index in indices:
            report, label = reports[index], f"{name}: {split.ids[index]}"
            lines.append(row(label, report.mean_iou, report.pixel_accuracy))
        draw(split, masks, indices, arguments.out / f"{name}.png")
    print(f"Masks and overlays: {arguments.out / 'predictions'}; pictures: worst.png, best.png")
    return format_scores(Scores(split.labels, sum(matrices))) + "\n\n" + table(lines)


def draw(split, masks: list[np.ndarray], indices: list[int], path: Path) -> None:
    """Draws these images, their predictions and true masks."""
    from fcn_keras.evaluation import charts
    from fcn_keras.files.writing import write_file

    images, truths = zip(*map(split.read, indices))
    predictions = [masks[index] for index in indices]
    figure = charts.draw_grid(list(images), predictions, list(truths), split.labels)
    write_file(path, lambda partial: figure.savefig(partial, dpi=120, format="png"))


def predicted_masks(model, split, folder: Path) -> list[np.ndarray]:
    """Predicts the images that have no masks yet; returns all masks."""
    from fcn_keras import Segmenter
    from fcn_keras.evaluation.scores import require_same_classes
    from fcn_keras.inference.batch import jobs_of_split, predict_jobs
    from fcn_keras.runs.folder import model_file

    segmenter = Segmenter.load(model)
    require_same_classes(segmenter.labels, split.labels)
    # Masks older than the model are from another model.
    changed = model_file(model).stat().st_mtime
    jobs = [dataclasses.replace(job, changed=changed) for job in jobs_of_split(split)]
    results = predict_jobs(segmenter, jobs, folder, ["overlay"], skip_existing=True)
    problems = [problem for _, problem in progress(results, total=len(jobs))]
    if any(problems):
        raise UserError(next(problem for problem in problems if problem))
    print(f"{len(problems)} images predicted, {len(jobs) - len(problems)} kept.")
    return [np.asarray(Image.open(folder / f"{name}.png")) for name in split.ids]


def boundary_iou(run, arguments) -> float:
    """The mean IoU of a run's model over the validation pixels near the true boundaries."""
    from fcn_keras import Segmenter, evaluate, load_split
    from fcn_keras.evaluation.subsets import near_boundaries
    from fcn_keras.files.writing import write_file

    path = run.path / "boundary.json"
    if not path.is_file():
        split = load_split(arguments.dataset, "val")
        split = near_boundaries(split.take(arguments.limit or len(split)), BAND)
        report = evaluate(Segmenter.load(run.path), split)
        write_file(path, lambda partial: partial.write_text(json.dumps(report.mean_iou)))
    return json.loads(path.read_text())


def quarters(name: str) -> list[str]:
    return [f"{name} {percent} %" for percent in (25, 50, 75, 100)]


if __name__ == "__main__":
    sys.exit(main())
