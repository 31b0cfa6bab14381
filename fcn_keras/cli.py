"""The command line: flags in, exit codes and short error messages out.

The only file that defines flags. TensorFlow is imported after they are parsed,
so that `--help` and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import sys
import typing

import fcn_keras
from fcn_keras.config import RECIPES, TrainConfig
from fcn_keras.errors import UserError

RESUMABLE = ("epochs", "max_steps", "devices", "data_dir")


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 only on success."""
    arguments = _parser().parse_args(argv)
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
    parser.set_defaults(command=_train)
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
    check.set_defaults(command=_check)


def _check(arguments) -> int:
    from tqdm import tqdm

    from fcn_keras.datasets.check import check_directory

    def progress(items):
        return tqdm(items, unit="image", disable=not sys.stderr.isatty())

    report = check_directory(arguments.directory, progress)
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
    print(f"{len(report.problems)} problems.")
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
