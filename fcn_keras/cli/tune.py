"""`fcn-keras tune`: hyperparameter search over learning rate, weight decay, crop and batch."""

from __future__ import annotations

import argparse
import re

from fcn_keras.cli.early import check_local_place, check_training
from fcn_keras.cli.shared import import_tensorflow
from fcn_keras.cli.train import add_config_flags, given_settings
from fcn_keras.errors import UserError, require_packages
from fcn_keras.runs.checks import flag
from fcn_keras.runs.config import TrainConfig

EPOCHS, CROP = 60, (320, 480)  # where the recipe leaves them open


def add(commands) -> None:
    parser = commands.add_parser(
        "tune",
        help="search for good hyperparameters",
        usage="%(prog)s [-h] --search-dir DIR [--report] [SETTING ...]",
        description="Trains a network several times with different learning rates, weight decays, "
        "crops and batch sizes, and reports which gave the best validation mean IoU. If it is "
        "stopped or killed, the same command continues it. A flag of train, such as "
        "--learning-rate, fixes its setting in all trials.",
    )
    parser.set_defaults(command=_tune, parser=parser)
    search = parser.add_argument_group("search")
    search.add_argument("--search-dir", required=True, metavar="DIR", help="folder of the search")
    search.add_argument("--report", action="store_true", help="only report the trials run so far")
    search.add_argument(
        "--tuner",
        choices=("random", "bayesian", "hyperband"),
        default="random",
        help="how Optuna chooses values; bayesian learns from earlier trials, after 10 random "
        "ones; hyperband chooses at random and stops unpromising trials early (random)",
    )
    search.add_argument(
        "--trials", type=int, metavar="N", help="number of trials (12; required for hyperband)"
    )
    search.add_argument(
        "--steps", type=int, metavar="N", help="optimizer steps per trial, instead of --epochs"
    )
    for name in ("learning-rates", "weight-decays"):
        search.add_argument(
            f"--{name}",
            type=float,
            nargs=2,
            metavar=("LOW", "HIGH"),
            help="bounds, searched on a logarithmic scale (the recipe's value times 0.1 and 10)",
        )
    search.add_argument(
        "--crops", type=_crop, nargs="+", metavar="HxW", help="crops (the recipe's and half of it)"
    )
    search.add_argument(
        "--batch-sizes",
        type=int,
        nargs="+",
        metavar="N",
        help="batch sizes (the recipe's and half of it)",
    )
    add_config_flags(parser, left_out=("run_dir", "max_steps"))


def _crop(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise argparse.ArgumentTypeError(f"must look like 160x224. Received: {text!r}")
    return text


def _tune(arguments) -> int:
    require_packages("fcn-keras tune", "tune", "optuna", load=False)
    from fcn_keras.tuning.search import claim_folder
    from fcn_keras.tuning.summary import read_trials, write_report

    if arguments.report:
        print(write_report(arguments.search_dir))
        return 0
    search = _search(arguments)
    check_local_place(arguments.search_dir, folder=True)
    check_training(search.train)
    claim_folder(search, arguments.search_dir)
    import_tensorflow()
    from fcn_keras.tuning.tuner import run_search

    try:
        run_search(search, arguments.search_dir)
    except KeyboardInterrupt as interrupt:
        interrupt.args = ("run the same command to continue the search",)
        raise
    print(f"\n{write_report(arguments.search_dir)}")
    print(f"\nReport: {arguments.search_dir}/report.md, report.json")
    if not any(row["rank"] for row in read_trials(arguments.search_dir)):
        raise UserError(f"{arguments.search_dir}: all trials failed; report.md says why.")
    return 0


def _search(arguments):
    from fcn_keras.tuning.search import FIELDS, Search

    given = given_settings(arguments)
    if arguments.steps and "epochs" in given:
        raise UserError("--steps and --epochs exclude each other: give one of them.")
    if arguments.tuner == "hyperband" and arguments.trials is None:
        raise UserError("--tuner hyperband compares many short trials: give --trials.")
    train = TrainConfig.from_recipe(given.pop("recipe", None), **given)
    # A search compares fixed lengths and crops, not those that follow from the data.
    train = train.replaced(
        epochs=train.epochs or EPOCHS, crop=train.crop if any(train.crop) else CROP
    )
    ranges = {}
    for name, field in FIELDS.items():
        values = getattr(arguments, name)
        if values and field in given:
            raise UserError(f"{flag(field)} fixes what {flag(name)} searches: give one of them.")
        if field not in given:
            ranges[name] = tuple(values or _default(field, getattr(train, field)))
    trials = 12 if arguments.trials is None else arguments.trials
    return Search(train, arguments.tuner, trials, arguments.steps, **ranges)


def _default(field: str, value) -> list:
    if field == "crop":
        sizes = [(side // 2 or 1 for side in value), value]
        return ["x".join(map(str, size)) for size in sizes]
    if field == "batch_size":
        value = value or 16  # 0 lets it follow the number of images
        return sorted({value // 2 or 1, value})
    value = value or 1e-4  # a range on a logarithmic scale has no 0
    return [float(f"{value / 10:.4g}"), float(f"{value * 10:.4g}")]
