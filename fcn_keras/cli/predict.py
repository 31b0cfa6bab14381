"""`fcn-keras predict`: model + images -> masks."""

from __future__ import annotations

import sys

from fcn_keras.cli.shared import (
    add_model_flags,
    add_split_flags,
    load_segmenter,
    progress,
    selected_split,
)
from fcn_keras.errors import UserError


def add(commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="predict the class of every pixel of images",
        description="Writes a palette PNG of class ids for each image. A bad image is reported "
        "and skipped; the exit code is then 1.",
    )
    parser.set_defaults(command=_predict, parser=parser)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="images, folders or patterns")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    add_model_flags(parser)
    parser.add_argument("--dataset", help="predict a data set's images, not files")
    add_split_flags(parser)
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
    segmenter = load_segmenter(arguments)
    from fcn_keras.batch_prediction import EXTRAS, jobs_of_paths, jobs_of_split, predict_jobs
    from fcn_keras.datasets.decoding import allow_pixels

    allow_pixels(arguments.max_pixels)
    if arguments.dataset:
        jobs = jobs_of_split(selected_split(arguments))
    else:
        jobs = jobs_of_paths(arguments.paths, arguments.output)
    if not jobs:
        raise UserError(f"{arguments.paths[0]}: no images there, outside of --output.")
    extras = [name for name in EXTRAS if getattr(arguments, name)]
    done = failed = 0
    results = predict_jobs(segmenter, jobs, arguments.output, extras, arguments.skip_existing)
    with progress(results, total=len(jobs)) as bar:
        for _, problem in bar:
            done += 1
            if problem:
                failed += 1
                bar.clear()
                print(f"error: {problem}", file=sys.stderr)
    skipped = f", {len(jobs) - done} were there already" if arguments.skip_existing else ""
    print(f"{done - failed} of {len(jobs)} images predicted{skipped}, {failed} failed.")
    return 1 if failed else 0
