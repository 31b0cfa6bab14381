"""Networks compared: the same short training of each, and the time of a step.

    python benchmarks/networks.py --dataset FOLDER --weights DIR --networks FCN-8s dilated-FCN
    python benchmarks/networks.py --dataset FOLDER --weights DIR --networks FCN-8s per-class fixed

Prints mean IoU and pixel accuracy on the validation split after 100 steps of 8 crops by the
recipe `strong` (mean over the seeds ± half their range), and the seconds of a training step, timed
by turns. Finished runs in --out are kept, interrupted ones resume after their last epoch.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from pathlib import Path

from kept_runs import finished_run, mean_and_spread, row, table

from fcn_keras.cli.shared import import_tensorflow
from fcn_keras.errors import UserError
from fcn_keras.runs.config import TrainConfig

NETWORKS: dict[str, dict] = {
    "FCN-8s": {"output_stride": 8, "upsampling": "dense"},
    "per-class": {"output_stride": 8, "upsampling": "per-class"},
    "fixed": {"output_stride": 8, "upsampling": "fixed"},
    "dilated-FCN": {"dilated": True},
}
ROUNDS = 5  # of steps that are timed


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", required=True, help="a folder in VOC's layout, or voc2012")
    parser.add_argument("--data-dir", help="folder that holds VOCdevkit")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS])
    parser.add_argument("--weights", default="imagenet", help="initial weights (imagenet)")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--crop", type=int, nargs=2, default=(320, 480), metavar=("H", "W"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1, 2))
    parser.add_argument("--out", type=Path, default=Path("runs", "networks"))
    arguments = parser.parse_args(argv)
    arguments.recipe, arguments.epochs, arguments.limit = "strong", None, None
    import_tensorflow()
    try:
        print(compared(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def compared(arguments) -> str:
    from fcn_keras.data import load_split

    images = len(load_split(arguments.dataset, "train", arguments.data_dir))
    epochs = -(-arguments.steps // max(1, images // arguments.batch_size))
    shared = {name: getattr(arguments, name) for name in ("data_dir", "weights", "backbone")}
    shared |= {"max_steps": arguments.steps, "epochs": epochs, "validate_every": epochs}
    scores: dict = {name: [] for name in arguments.networks}
    for seed in arguments.seeds:
        for name in arguments.networks:
            run = finished_run(arguments, f"{name}-s{seed}", seed=seed, **shared, **NETWORKS[name])
            scores[name].append(run.read_metrics())
    seconds = step_seconds(arguments, shared)
    lines = [row("network", "mean IoU", "pixel accuracy", "seconds per step")]
    for name, metrics in scores.items():
        cells = (
            mean_and_spread([m[key] for m in metrics]) for key in ("mean_iou", "pixel_accuracy")
        )
        lines.append(row(name, *cells, statistics.median(seconds[name])))
    return table(lines)


def step_seconds(arguments, shared: dict) -> dict[str, list[float]]:
    """The seconds of each network's training steps on random pixels, taken by turns."""
    import numpy as np

    from fcn_keras.data import load_split
    from fcn_keras.training.objectives import (
        SegmentationCrossentropy,
        SegmentationMetrics,
        add_auxiliary_loss,
    )
    from fcn_keras.training.optimizers import make_optimizer
    from fcn_keras.training.train import build_model

    labels = load_split(arguments.dataset, "train", arguments.data_dir).labels
    rng = np.random.default_rng(0)
    shape = (arguments.batch_size, *arguments.crop)
    images = rng.integers(0, 256, (*shape, 3)).astype("float32")
    masks = rng.integers(0, len(labels), shape).astype("uint8")
    models = {}
    for name in arguments.networks:
        settings = {**shared, **NETWORKS[name], "dataset": arguments.dataset}
        config = TrainConfig.from_recipe("strong", **settings)
        model = build_model(dataclasses.replace(config, weights="none"), labels)
        metrics = [SegmentationMetrics(len(labels))]
        optimizer = make_optimizer(config, model, arguments.steps)
        model.compile(optimizer, SegmentationCrossentropy(), metrics=metrics, jit_compile=False)
        if config.auxiliary_weight:
            add_auxiliary_loss(model, config.auxiliary_weight, SegmentationCrossentropy())
        models[name] = model
    seconds: dict = {name: [] for name in models}
    for turn in range(ROUNDS + 1):
        for name, model in models.items():
            started = time.perf_counter()
            model.train_on_batch(images, masks)
            if turn:  # the first one compiles
                seconds[name].append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    sys.exit(main())
