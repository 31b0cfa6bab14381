"""d2l's training on photographs: beside PyTorch, and with one thing changed at a time.

    python benchmarks/chapter.py twin --data-dir DIR --weights DIR --peer PYTHON
    python benchmarks/chapter.py same-start --data-dir DIR --weights DIR --peer PYTHON
    python benchmarks/chapter.py variations --data-dir DIR --weights DIR

`twin` trains recipe voc2012 and the same in `chapter_twin.py`, with other random numbers,
by turns; `same-start` repeats it with the twin's crops and initial scores; `variations`
trains the networks of `VARIATIONS`. All take only photographs that are at least as large as
a crop, as d2l does, and are scored by the same code on the same masks. Finished runs in --out
are kept. DIR of --data-dir contains `VOCdevkit`, all of VOC 2012 or a part; DIR of --weights
a ResNet-18 as timm's model.safetensors. PYTHON is that of an environment with torch,
torchvision, safetensors and Pillow.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from kept_runs import finished_run, row, table
from PIL import Image

from fcn_keras.cli import main as fcn_keras
from fcn_keras.cli.shared import import_tensorflow
from fcn_keras.data import load_split
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.errors import UserError
from fcn_keras.evaluation.scores import evaluate
from fcn_keras.evaluation.subsets import d2l_examples, with_masks
from fcn_keras.files.writing import atomic_folder
from fcn_keras.runs.config import TrainConfig, split_of
from fcn_keras.training.objectives import SegmentationCrossentropy
from fcn_keras.training.optimizers import make_optimizer
from fcn_keras.training.start import pace_statistics
from fcn_keras.training.train import build_model, resume

CROP, BATCH = (320, 480), 32
VARIATIONS = {
    "FCN-32s": {},
    "170 steps": {"resumed": "FCN-32s", "epochs": 17},
    "Xavier": {"upsampling_initializer": "glorot_uniform"},
    # At the recipe's rate of 0.032, the loss becomes NaN in the first epoch.
    "frozen BatchNorm, rate 0.0032": {"freeze": "batchnorm", "learning_rate": 0.0032},
    "FCN-16s": {"output_stride": 16},
    "FCN-8s": {"output_stride": 8},
    "FCN-16s after FCN-32s": {"output_stride": 16, "init_from": "FCN-32s"},
    "FCN-8s after that": {"output_stride": 8, "init_from": "FCN-16s after FCN-32s"},
}
# What `finished_run` reads besides; the recipe's own values.
KEPT = {"dataset": "voc2012", "limit": None, "crop": None, "batch_size": None}
FIGURES = ("training loss", "pixel accuracy", "mean IoU", "accuracy, crops", "mean IoU, crops")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="TABLE")
    for make_table, seeds in ((twin, 5), (same_start, 5), (variations, 3)):
        command = commands.add_parser(make_table.__name__.replace("_", "-"))
        command.set_defaults(make_table=make_table)
        command.add_argument("--data-dir", type=Path, required=True, help="contains VOCdevkit")
        command.add_argument("--weights", type=Path, required=True, help="of ResNet-18")
        command.add_argument("--seeds", type=int, nargs="+", default=[*range(seeds)])
        command.add_argument("--epochs", type=int, default=5)
        command.add_argument(
            "--classes",
            nargs="+",
            choices=VOC_LABELS.names,
            default=VOC_LABELS.names,
            metavar="NAME",
            help="classes whose mean IoU is printed; a part of VOC may lack some (all)",
        )
        command.add_argument("--out", type=Path, default=Path("runs", "chapter"))
        if make_table != variations:
            command.add_argument("--peer", default=sys.executable, help="Python with torchvision")
        else:
            command.add_argument("--names", nargs="+", choices=VARIATIONS, default=[*VARIATIONS])
    arguments = parser.parse_args(argv, argparse.Namespace(recipe="voc2012", **KEPT))
    import_tensorflow()
    try:
        write_crops(arguments)
        print(arguments.make_table(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def twin(arguments) -> str:
    """Ours and PyTorch's by seed, their means and the spread."""
    return compared(arguments, lambda seed: ours(arguments, "FCN-32s", seed))


def same_start(arguments) -> str:
    """The same, but ours has PyTorch's initial scores and crops."""
    return compared(arguments, lambda seed: from_same_start(arguments, seed))


def compared(arguments, figures_of_ours) -> str:
    figures = {"fcn_keras": [], "PyTorch": []}
    for seed in arguments.seeds:
        figures["PyTorch"].append(theirs(arguments, seed))
        figures["fcn_keras"].append(figures_of_ours(seed))
    lines = [row("", *FIGURES, "seconds per step")]
    for name, of_seeds in figures.items():
        lines += [row(f"{name}, {seed}", *one) for seed, one in zip(arguments.seeds, of_seeds)]
        lines.append(row(name, *map(mean_and_deviation, zip(*of_seeds))))
    return table(lines)


def variations(arguments) -> str:
    """The means over seeds of each variation."""
    lines = [row("", *FIGURES, "seconds per step")]
    for name in arguments.names:
        figures = [ours(arguments, name, seed) for seed in arguments.seeds]
        lines.append(row(name, *map(mean_and_deviation, zip(*figures))))
    return table(lines)


def ours(arguments, name: str, seed: int) -> list[float]:
    """Trains a variation, then predicts and scores it."""
    run = trained(arguments, name, seed)
    history = run.read_history()
    steps = len(split_of(run.read_config(), "train")) // BATCH
    # The last epoch validates, too.
    seconds = statistics.median(epoch["seconds"] for epoch in history[:-1] or history) / steps
    return [history[-1]["loss"], *scores(arguments, predicted(arguments, run.path)), seconds]


def predicted(arguments, folder: Path) -> list[Path]:
    """The masks of the model in a folder, which may be a run's: whole photographs, crops."""
    masks = [folder / "masks" / str(number) for number in (0, 1)]
    for output, data in zip(masks, data_sets(arguments)):
        model = ["--model", str(folder / "best.keras"), "--output", str(output)]
        if fcn_keras(["predict", *model, "--skip-existing", *data]):
            raise UserError(f"{folder}: its masks could not be predicted.")
    return masks


def trained(arguments, name: str, seed: int):
    """The finished run of a variation, after that which it starts from."""
    settings = {"epochs": arguments.epochs, **VARIATIONS[name]}
    folder = f"{name.lower().replace(',', '').replace(' ', '-')}-s{seed}"
    epochs = settings["validate_every"] = settings["epochs"]
    if begun := settings.pop("resumed", None):
        source, path = trained(arguments, begun, seed).path, arguments.out / folder
        if not path.exists():
            with atomic_folder(path) as partial:
                shutil.copytree(source, partial, ignore=shutil.ignore_patterns("masks"))
        return resume(path, epochs=epochs, validate_every=epochs)
    settings["weights"] = str(arguments.weights)
    if source := settings.get("init_from"):
        run = trained(arguments, source, seed)
        settings |= {"weights": "none", "init_from": str(run.path)}
    return finished_run(arguments, folder, **photographs(arguments), seed=seed, **settings)


def photographs(arguments) -> dict:
    return {"data_dir": str(arguments.data_dir), "skip_smaller": True}


def from_same_start(arguments, seed: int) -> list[float]:
    """Trains ours with the twin's initial scores and crops, then predicts and scores it."""
    out = arguments.out / f"same-start-s{seed}"
    if not out.exists():
        start = np.load(arguments.out / f"pytorch-s{seed}" / "start.npz")
        weights = {"weights": str(arguments.weights), **photographs(arguments)}
        config = TrainConfig.from_recipe(arguments.recipe, dataset="voc2012", **weights)
        split = split_of(config, "train")
        examples = [split.read(split.ids.index(name)) for name in start["names"]]
        steps = start["crops"].shape[0] * start["crops"].shape[1]
        model = build_model(config, split.labels)
        model.get_layer("score_32").kernel.assign(start["scores"].transpose(2, 3, 1, 0))
        pace_statistics(model, steps)
        optimizer = make_optimizer(config, model, steps)
        model.compile(optimizer, SegmentationCrossentropy(), jit_compile=False)
        seconds = []
        for epoch in start["crops"]:
            started, losses = time.monotonic(), []
            for batch in epoch:
                images, masks = zip(
                    *(cut(*examples[index], top, left) for index, top, left in batch)
                )
                pixels = np.stack(images).astype("float32"), np.stack(masks)
                losses.append(float(model.train_on_batch(*pixels)))
            seconds.append((time.monotonic() - started) / len(epoch))
            print(f"From the same start, seed {seed}: {statistics.mean(losses):.4f}", flush=True)
        with atomic_folder(out) as partial:
            partial.mkdir()
            model.save(partial / "best.keras")
            figures = statistics.mean(losses), statistics.median(seconds)
            (partial / "figures.json").write_text(json.dumps(figures))
    loss, seconds = json.loads((out / "figures.json").read_text())
    return [loss, *scores(arguments, predicted(arguments, out)), seconds]


def cut(image, mask, top: int, left: int):
    window = np.s_[top : top + CROP[0], left : left + CROP[1]]
    return image[window], mask[window]


def theirs(arguments, seed: int) -> list[float]:
    """Trains PyTorch's network, predicts with it, and scores its masks."""
    out = arguments.out / f"pytorch-s{seed}"
    if not (out / "metrics.json").is_file():
        command = [arguments.peer, str(Path(__file__).with_name("chapter_twin.py"))]
        voc = arguments.data_dir / "VOCdevkit" / "VOC2012"
        flags = {"data": voc, "weights": arguments.weights, "out": out, "seed": seed}
        flags["epochs"] = arguments.epochs
        for flag, value in flags.items():
            command += [f"--{flag}", str(value)]
        code = subprocess.run([*command, "--predict", str(voc), str(crops(arguments))]).returncode
        if code:
            raise UserError(f"--peer {arguments.peer}: chapter_twin.py ended with {code}.")
    found = json.loads((out / "metrics.json").read_text())
    seconds = statistics.median(found["seconds_per_step"])
    return [found["loss"][-1], *scores(arguments, [out / "0", out / "1"]), seconds]


def data_sets(arguments) -> list[list[str]]:
    """Flags of what is evaluated: whole photographs without void, crops with void as background."""
    whole = ["--dataset", "voc2012", "--data-dir", str(arguments.data_dir)]
    return [whole, ["--dataset", str(crops(arguments))]]


def crops(arguments) -> Path:
    return arguments.out.resolve() / "crops"


def write_crops(arguments) -> None:
    """Writes d2l's validation crops in VOC's layout, so that both networks see nothing else."""
    folder, lists = crops(arguments), Path("ImageSets", "Segmentation")
    if (folder / lists / "val.txt").is_file():
        return
    split = load_split("voc2012", "val", str(arguments.data_dir))
    examples = d2l_examples(split, CROP, void_is_background=True)
    for part in ("JPEGImages", "SegmentationClass", lists):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(examples.ids):
        image, mask = examples.read(index)
        Image.fromarray(image).save(folder / "JPEGImages" / f"{name}.png")
        Image.fromarray(mask).save(folder / "SegmentationClass" / f"{name}.png")
    (folder / "classes.txt").write_text("\n".join(split.labels.names) + "\n")
    (folder / lists / "train.txt").write_text("")
    (folder / lists / "val.txt").write_text("\n".join(examples.ids) + "\n")


def scores(arguments, masks: list[Path]) -> list[float]:
    """Pixel accuracy and mean IoU of whole photographs and of crops."""
    whole = load_split("voc2012", "val", str(arguments.data_dir))
    figures = []
    for split, folder in zip((whole, load_split(str(crops(arguments)), "val")), masks):
        found = evaluate(lambda mask: mask, with_masks(split, folder))
        chosen = [split.labels.names.index(name) for name in arguments.classes]
        figures += [found.pixel_accuracy, float(found.class_iou[chosen].mean())]
    return figures


def mean_and_deviation(values) -> str:
    """The mean ± the standard deviation."""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


if __name__ == "__main__":
    sys.exit(main())
