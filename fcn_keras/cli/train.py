"""`fcn-keras train`: one flag for every field of `TrainConfig`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import typing

from fcn_keras.cli.early import check_resumed, check_run_dir, check_training
from fcn_keras.cli.shared import import_tensorflow, print_next
from fcn_keras.errors import UserError
from fcn_keras.runs.checks import flag
from fcn_keras.runs.config import GROUPS, SETTINGS, TrainConfig
from fcn_keras.runs.recipes import RECIPES

RESUMABLE = ("epochs", "max_steps", "devices", "data_dir")


def add(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="train a network",
        usage="%(prog)s [-h] [--resume RUN | --config RUN] [SETTING ...]",
        description="Trains an FCN; without flags, on synthetic data that needs no download.",
        epilog="Flags override the recipe's settings. Brackets show the default, and the values of "
        "recipes that differ. Recipes: "
        + "; ".join(f"{name} ({_recipe_summary(name)})" for name in RECIPES),
    )
    parser.set_defaults(command=_train, parser=parser)
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="resume a run; may be combined with " + ", ".join(flag(name) for name in RESUMABLE),
    )
    parser.add_argument(
        "--config",
        metavar="RUN",
        help="repeat a run in a new folder, with the settings of its config.json or a copy of it",
    )
    add_config_flags(parser)


def add_config_flags(parser, left_out: tuple[str, ...] = ()) -> None:
    """Adds a flag for every field of `TrainConfig`; flags that are not given set nothing."""
    hints = typing.get_type_hints(TrainConfig)
    for field in SETTINGS:
        if field.name in GROUPS:
            group = parser.add_argument_group(GROUPS[field.name])
        if field.name not in left_out:
            group.add_argument(flag(field.name), **_flag_options(field, hints[field.name]))
    hidden = {"default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
    parser.add_argument("--jaccard-weight", type=float, **hidden)  # of earlier versions


def given_settings(arguments) -> dict:
    """The fields of `TrainConfig` whose flags were given, and `jaccard_weight`; see `renamed`."""
    names = [*(field.name for field in SETTINGS), "jaccard_weight"]
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


def _flag_options(field: dataclasses.Field, hint) -> dict:
    """`add_argument`'s options for a field."""
    metadata = field.metadata
    options = {"default": argparse.SUPPRESS, "help": metadata["help"] + _defaults(field)}
    if hint is bool:
        return {**options, "action": argparse.BooleanOptionalAction}
    inner = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    if typing.get_origin(hint) is not tuple and inner:  # X | None
        hint = inner[0]
    if typing.get_origin(hint) is tuple:
        elements = typing.get_args(hint)
        options["nargs"] = "+" if elements[-1] is Ellipsis else len(elements)
        hint = _number_or_auto if str in inner else elements[0]
    if field.name == "recipe":
        options["choices"] = list(RECIPES)
    elif metadata["choices"]:
        options["choices"] = metadata["choices"]
    else:
        options["metavar"] = metadata["metavar"] or field.name.upper()
    return {**options, "type": hint}


def _number_or_auto(text: str) -> float | str:
    try:
        return text if text == "auto" else float(text)
    except ValueError as error:
        message = f"must be auto or numbers. Received: {text!r}"
        raise argparse.ArgumentTypeError(message) from error


def _defaults(field: dataclasses.Field) -> str:
    """A field's default in brackets, and the values of the recipes that have others."""
    recipes: dict[str, list[str]] = {}
    for name, settings in RECIPES.items():
        value = settings.get(field.name, field.default)
        if value != field.default:
            recipes.setdefault(_text(value), []).append(name)
    texts = [] if field.default is None or field.name == "recipe" else [_text(field.default)]
    texts += [f"{', '.join(names)}: {text}" for text, names in recipes.items()]
    return f" ({'; '.join(texts)})" if texts else ""


def _text(value) -> str:
    """A value as it is typed, or `on`, `off` or `automatic`."""
    if value is None:
        return "automatic"
    if isinstance(value, bool):
        return "on" if value else "off"
    values = value if isinstance(value, tuple) else (value,)
    return " ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)


def _train(arguments) -> int:
    settings = given_settings(arguments)
    if arguments.resume and arguments.config:
        raise UserError("--resume continues a run, --config repeats one. Give only one of them.")
    if arguments.resume:
        fixed = sorted(set(settings) - set(RESUMABLE))
        if fixed:
            raise UserError(
                f"{flag(fixed[0])} cannot change in a resumed run; only "
                f"{', '.join(map(flag, RESUMABLE))} can."
            )
        check_resumed(arguments.resume, settings)
        import_tensorflow()
        from fcn_keras.training.train import resume

        return _finished(resume(arguments.resume, **settings))
    config = _config(arguments.config, settings)
    check_run_dir(config.run_dir)
    check_training(config)
    import_tensorflow()
    from fcn_keras.training.train import train

    return _finished(train(config))


def _finished(run) -> int:
    if run:  # None for a worker that is not the chief
        predict = ("predict", "--model", run.path, "--output", "results", "PHOTOS")
        print_next(("report", run.path), predict)
    return 0


def _config(run_or_file: str | None, settings: dict) -> TrainConfig:
    """The settings of a recipe or of another run, with the flags' values."""
    if run_or_file is None:
        return TrainConfig.from_recipe(settings.pop("recipe", None), **settings)
    if "recipe" in settings:
        raise UserError(f"--recipe {settings['recipe']}: --config sets the recipe. Give only one.")
    from fcn_keras.runs.additions import shown_additions
    from fcn_keras.runs.folder import RunFolder  # needs NumPy, which not every command does
    from fcn_keras.runs.paths import NAMES, require_relative

    run = RunFolder(run_or_file)
    if run.path.is_file():
        run.config = run.path
    run.require_known_settings()
    if additions := run.read_additions():
        print(
            f"Note: {run_or_file} was trained from Python with {shown_additions(additions)}, which "
            "--config leaves out.",
            file=sys.stderr,
        )
    config = run.read_config().replaced(**{"run_dir": None, **settings})
    needed = {*NAMES} - {*settings}
    require_relative(config, run.config, needed, ", or pass new paths, such as --dataset")
    return config


def _recipe_summary(name: str) -> str:
    config = TrainConfig.from_recipe(name)
    return (
        f"{config.network}, {config.epochs} epochs, "
        f"batch {config.batch_size or 'automatic'}, {config.optimizer} {config.learning_rate:g}"
    )
