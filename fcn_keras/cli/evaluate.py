"""`fcn-keras evaluate`: model or masks, and a data set -> metrics."""

from __future__ import annotations

import json
from pathlib import Path

from fcn_keras.cli.early import check_data, check_model, check_place
from fcn_keras.cli.shared import (
    add_model_flags,
    add_runtime_flags,
    add_split_flags,
    load_segmenter,
    print_problems,
    progress,
    selected_split,
)
from fcn_keras.errors import UserError, require_packages
from fcn_keras.files.writing import require_replaceable, write_file
from fcn_keras.runs.validation import flag

SOFTWARE = "fcn-keras evaluate"  # in the picture's metadata
# Flags that concern a model's predictions.
MODEL_FLAGS = ("tile", "blend", "overlap", "scales", "flip", "short_side", "runtime", "precision")


def add(commands) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="compute the metrics of a model, or of masks, on a data set",
        description="Prints the four metrics of Long et al. and the IoU of every class, on whole "
        "images at their original size. --crop 320 480 --void background is d2l's protocol.",
    )
    parser.set_defaults(command=_evaluate, parser=parser)
    predictions = parser.add_mutually_exclusive_group(required=True)
    predictions.add_argument(
        "--masks",
        metavar="DIR",
        help="folder of predicted masks, one for each image, as predict or another program wrote "
        "them",
    )
    add_model_flags(parser, predictions)
    add_runtime_flags(parser)
    parser.add_argument(
        "--dataset",
        required=True,
        help="sample, voc2012, voc2012_aug, tfds:NAME or a folder in VOC's layout",
    )
    add_split_flags(parser)
    parser.add_argument("--json", metavar="FILE", help="write the metrics to this file")
    parser.add_argument("--confusion", metavar="FILE", help="plot the confusion matrix to this PNG")
    parser.add_argument(
        "--crop",
        type=int,
        nargs=2,
        metavar=("H", "W"),
        help="evaluate one random but fixed crop per image, with --masks the same crop of the "
        "mask; smaller images are dropped",
    )
    parser.add_argument(
        "--void",
        choices=("ignore", "background"),
        default="ignore",
        help="whether to ignore unlabelled pixels or count them as class 0 (ignore)",
    )
    parser.add_argument(
        "--boundary",
        type=int,
        metavar="PIXELS",
        help="evaluate only the pixels within this distance of a true class boundary",
    )


def _evaluate(arguments) -> int:
    if arguments.crop and min(arguments.crop) < 1:
        raise UserError(f"--crop needs sides of at least 1 pixel. Received: {arguments.crop}.")
    if arguments.boundary is not None and arguments.boundary < 1:
        raise UserError(f"--boundary must be at least 1 pixel. Received: {arguments.boundary}.")
    if arguments.json:
        if Path(arguments.json).name == "metrics.json":
            raise UserError("--json: metrics.json belongs to a run. Choose another name.")
        if arguments.json == arguments.confusion:
            raise UserError("--json and --confusion name the same file. Choose two names.")
        require_replaceable("--json", arguments.json, rb'"per_class_iou": ')
    if arguments.confusion:
        require_replaceable("--confusion", arguments.confusion, SOFTWARE.encode())
    for path in filter(None, (arguments.json, arguments.confusion)):
        check_place(path)
    if arguments.model is None:
        _check_masks(arguments)
    check_data(arguments)
    if arguments.confusion:
        require_packages("--confusion", None, "matplotlib", load=False)
    if arguments.model is not None:
        check_model(arguments)  # last, as it may download the model
    segmenter = None if arguments.model is None else load_segmenter(arguments)
    from fcn_keras.evaluation.scores import evaluate, format_scores, require_same_classes
    from fcn_keras.evaluation.subsets import d2l_examples, near_boundaries, with_masks

    split = selected_split(arguments)
    if segmenter:
        require_same_classes(segmenter.labels, split.labels)
    else:
        split, segmenter = with_masks(split, arguments.masks), lambda mask: mask
        if problems := _problems(split):
            print_problems(problems, " Nothing was evaluated.")
            return 1
    if arguments.crop or arguments.void == "background":
        split = d2l_examples(split, arguments.crop, arguments.void == "background")
    if arguments.boundary:
        split = near_boundaries(split, arguments.boundary)
    scores = evaluate(segmenter, split, progress)
    print(format_scores(scores))
    if arguments.json:
        text = json.dumps(scores.to_dict(), indent=2) + "\n"
        write_file(arguments.json, lambda path: path.write_text(text))
    if arguments.confusion:
        from fcn_keras.evaluation import charts

        figure = charts.draw_confusion(scores)
        metadata = {"Software": SOFTWARE}
        write_file(
            arguments.confusion,
            lambda path: figure.savefig(path, dpi=120, format="png", metadata=metadata),
        )
    return 0


def _check_masks(arguments) -> None:
    for name in MODEL_FLAGS:
        if getattr(arguments, name) != arguments.parser.get_default(name):
            raise UserError(f"{flag(name)} requires --model: masks are evaluated as they are.")
    if not Path(arguments.masks).is_dir():
        raise UserError(f"--masks {arguments.masks}: no such folder.")


def _problems(split) -> list[str]:
    problems = []
    for index in progress(range(len(split))):
        try:
            split.read(index)
        except UserError as error:
            problems.append(str(error))
    return problems
