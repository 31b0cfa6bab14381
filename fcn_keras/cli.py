"""The command line: flags in, exit codes and short error messages out.

The only file that defines flags. TensorFlow is imported after they are parsed,
so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import logging
import os
import sys
import typing

import fcn_keras
from fcn_keras.config import RECIPES, TrainConfig
from fcn_keras.errors import UserError

RESUMABLE = ("epochs", "max_steps", "devices", "data_dir")


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 only on success."""
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return arguments.command(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted. A run goes on with --resume and its folder.", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line; argparse would print all flags first."""

    def error(self, message):
        self.exit(2, f"error: {message}. See {self.prog} --help.\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fcn-keras", description="Fully convolutional networks for semantic segmentation."
    )
    parser.add_argument("--version", action="version", version=fcn_keras.__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_data(commands)
    return parser


def _add_train(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network",
        description="Trains an FCN; with no flags, on drawn sample data that needs no download.",
        epilog="Flags replace the recipe's settings. Recipes: "
        + "; ".join(f"{name} ({_recipe_summary(name)})" for name in RECIPES),
    )
    parser.set_defaults(command=_train, parser=parser)
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run; may be joined by " + ", ".join(_flag(name) for name in RESUMABLE),
    )
    hints = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        parser.add_argument(_flag(field.name), **_flag_options(field, hints[field.name]))


def _flag_options(field: dataclasses.Field, hint) -> dict:
    """`add_argument`'s options for a field. Flags that are not given set nothing."""
    metadata = field.metadata
    options = {"default": argparse.SUPPRESS, "help": metadata["help"]}
    if hint is bool:
        return {**options, "action": argparse.BooleanOptionalAction}
    inner = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    if typing.get_origin(hint) is not tuple and inner:  # X | None
        hint = inner[0]
    if typing.get_origin(hint) is tuple:
        elements = typing.get_args(hint)
        options["nargs"] = "+" if elements[-1] is Ellipsis else len(elements)
        hint = elements[0]
    if field.name == "recipe":
        options["choices"] = list(RECIPES)
    elif metadata["choices"]:
        options["choices"] = metadata["choices"]
    else:
        options["metavar"] = metadata["metavar"] or field.name.upper()
    return {**options, "type": hint}


def _train(arguments) -> int:
    settings = {
        field.name: getattr(arguments, field.name)
        for field in dataclasses.fields(TrainConfig)
        if hasattr(arguments, field.name)
    }
    if arguments.resume:
        fixed = sorted(set(settings) - set(RESUMABLE))
        if fixed:
            raise UserError(
                f"{_flag(fixed[0])} cannot change in a resumed run; only "
                f"{', '.join(map(_flag, RESUMABLE))} can."
            )
        _import_tensorflow()
        from fcn_keras.training import resume

        resume(arguments.resume, **settings)
        return 0
    config = TrainConfig.from_recipe(settings.pop("recipe", None), **settings)
    _import_tensorflow()
    from fcn_keras.training import train

    train(config)
    return 0


def _add_model_flags(parser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="RUN_OR_FILE", help="a run's folder, or a .keras file"
    )
    parser.add_argument(
        "--tile", type=int, default=1408, metavar="N", help="largest side processed in one piece"
    )
    parser.add_argument(
        "--blend",
        choices=("exact", "average", "smooth"),
        default="exact",
        help="how the pieces of larger images are joined: exact equals one pass, average "
        "averages their overlapping logits, smooth does so with a smooth window",
    )
    parser.add_argument(
        "--overlap", type=int, default=256, metavar="N", help="of pieces that are averaged"
    )
    parser.add_argument(
        "--scales", type=float, nargs="+", default=[1.0], metavar="S", help="sizes to average over"
    )
    parser.add_argument("--flip", action="store_true", help="average the mirrored image in")


def _add_split_flags(parser) -> None:
    parser.add_argument("--split", help="its part (val)")
    parser.add_argument("--data-dir", metavar="DIR", help="folder that holds VOCdevkit")
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only")


def _load_segmenter(arguments):
    _import_tensorflow()
    from fcn_keras.prediction import Segmenter

    return Segmenter.load(
        arguments.model,
        tile=arguments.tile,
        blend=arguments.blend,
        overlap=arguments.overlap,
        scales=tuple(arguments.scales),
        flip=arguments.flip,
        progress=_tile_progress,
    )


def _load_split(arguments):
    from fcn_keras.datasets import load_split

    if arguments.limit is not None and arguments.limit < 1:
        raise UserError(f"--limit must be at least 1. Received: {arguments.limit}.")
    split = load_split(arguments.dataset, arguments.split or "val", arguments.data_dir)
    return split.take(arguments.limit) if arguments.limit else split


def _progress(items, total: int | None = None, unit: str = "image", **options):
    """A progress bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    return tqdm(items, total=total, unit=unit, disable=not sys.stderr.isatty(), **options)


def _tile_progress(pieces, total: int):
    return _progress(pieces, total, unit="tile", leave=False, position=1)


def _add_evaluate(commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="measure a model on a data set",
        description="Prints the four measures of Long et al. and the IoU of every class, on whole "
        "images at their own size. --crop 320 480 --void background is d2l's protocol.",
    )
    parser.set_defaults(command=_evaluate, parser=parser)
    _add_model_flags(parser)
    parser.add_argument(
        "--dataset", required=True, help="sample, voc2012, voc2012_aug, or a folder in VOC's layout"
    )
    _add_split_flags(parser)
    parser.add_argument("--json", metavar="FILE", help="write the measures to this file")
    parser.add_argument("--confusion", metavar="FILE", help="draw the confusion matrix to this PNG")
    parser.add_argument(
        "--crop",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="one random crop an image, always the same; smaller images are dropped",
    )
    parser.add_argument(
        "--void",
        choices=("ignore", "background"),
        default="ignore",
        help="leave unlabelled pixels out, or count them as class 0",
    )


def _evaluate(arguments) -> int:
    if arguments.crop and min(arguments.crop) < 1:
        raise UserError(f"--crop must be at least 1 pixel each way. Received: {arguments.crop}.")
    segmenter = _load_segmenter(arguments)
    from fcn_keras import visualize
    from fcn_keras.evaluation import d2l_examples, evaluate, format_report, require_same_classes
    from fcn_keras.run_folder import write_file

    split = _load_split(arguments)
    require_same_classes(segmenter.labels, split.labels)
    if arguments.crop or arguments.void == "background":
        split = d2l_examples(split, arguments.crop, arguments.void == "background")
    report = evaluate(segmenter, split, _progress)
    print(format_report(report))
    if arguments.json:
        text = json.dumps(report.to_dict(), indent=2) + "\n"
        write_file(arguments.json, lambda path: path.write_text(text))
    if arguments.confusion:
        figure = visualize.draw_confusion(report)
        write_file(arguments.confusion, lambda path: figure.savefig(path, dpi=120, format="png"))
    return 0


def _add_predict(commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="predict the class of every pixel of images",
        description="Writes a palette PNG of class ids for each image. A bad image is reported "
        "and skipped; the exit code is then 1.",
    )
    parser.set_defaults(command=_predict, parser=parser)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="images, folders or patterns")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    _add_model_flags(parser)
    parser.add_argument("--dataset", help="predict a data set's images, not files")
    _add_split_flags(parser)
    parser.add_argument("--overlay", action="store_true", help="draw the classes over the images")
    parser.add_argument("--confidence", action="store_true", help="draw the largest probability")
    parser.add_argument("--probabilities", action="store_true", help="save all, as float16 .npz")
    parser.add_argument("--skip-existing", action="store_true", help="go on with an earlier call")
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="accept trusted images of up to N pixels"
    )


def _predict(arguments) -> int:
    if bool(arguments.paths) == bool(arguments.dataset):
        raise UserError("Give either images to predict, or --dataset.")
    if arguments.paths and (arguments.limit is not None or arguments.split):
        raise UserError("--limit and --split go with --dataset.")
    segmenter = _load_segmenter(arguments)
    from fcn_keras.batch_prediction import EXTRAS, jobs_of_paths, jobs_of_split, predict_jobs
    from fcn_keras.datasets.decoding import allow_pixels

    allow_pixels(arguments.max_pixels)
    if arguments.dataset:
        jobs = jobs_of_split(_load_split(arguments))
    else:
        jobs = jobs_of_paths(arguments.paths, arguments.output)
    if not jobs:
        raise UserError(f"{arguments.paths[0]}: no images there, outside of --output.")
    extras = [name for name in EXTRAS if getattr(arguments, name)]
    done = failed = 0
    results = predict_jobs(segmenter, jobs, arguments.output, extras, arguments.skip_existing)
    with _progress(results, total=len(jobs)) as bar:
        for _, problem in bar:
            done += 1
            if problem:
                failed += 1
                bar.clear()
                print(f"error: {problem}", file=sys.stderr)
    skipped = f", {len(jobs) - done} were there already" if arguments.skip_existing else ""
    print(f"{done - failed} of {len(jobs)} images predicted{skipped}, {failed} failed.")
    return 1 if failed else 0


def _add_data(commands) -> None:
    data = commands.add_parser("data", help="inspect a data set").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = data.add_parser(
        "check",
        help="find what is wrong with a folder of images and masks",
        description="Counts images and pixels by class in a folder in VOC's layout, and lists "
        "every problem. The exit code is 1 if there is any.",
    )
    check.add_argument("directory", metavar="DIR")
    check.set_defaults(command=_check, parser=check)


def _check(arguments) -> int:
    from fcn_keras.datasets.check import check_directory

    report = check_directory(arguments.directory, _progress)
    for split, size in report.split_sizes.items():
        names = [*report.labels.names, "(unlabelled)"]
        pixels, images = report.pixels[split], report.images[split]
        width = max(map(len, names))
        print(f"{split}: {size} images\n  {'class':{width}}  images       pixels   share")
        for name, image_count, pixel_count in zip(names, images, pixels):
            share = pixel_count / max(1, pixels.sum())
            print(f"  {name:{width}}  {image_count:6}  {pixel_count:11}  {share:6.2%}")
    for problem in report.problems:
        print(f"problem: {problem}", file=sys.stderr)
    print("1 problem." if len(report.problems) == 1 else f"{len(report.problems)} problems.")
    return 1 if report.problems else 0


def _import_tensorflow() -> None:
    """Imports TensorFlow without the notes on its build, which no log level hides.

    They pass where the user has set `TF_CPP_MIN_LOG_LEVEL`.
    """
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        try:
            importlib.import_module("tensorflow")
            importlib.import_module("tensorflow_text")  # KerasHub's, with notes of its own
            # Images of many sizes make it warn of retracing, which ends after a few.
            logging.getLogger("tensorflow").setLevel(logging.ERROR)
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            os.close(null)


def _recipe_summary(name: str) -> str:
    config = TrainConfig.from_recipe(name)
    return (
        f"FCN-{config.output_stride}s, {config.epochs} epochs, batch {config.batch_size}, "
        f"{config.optimizer} {config.learning_rate:g}"
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
