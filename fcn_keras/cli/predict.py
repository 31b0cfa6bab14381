"""`fcn-keras predict`: model + images -> masks."""

from __future__ import annotations

import sys

from fcn_keras.cli.early import check_data, check_inputs, check_model, check_place
from fcn_keras.cli.shared import (
    add_model_flags,
    add_overwrite_flag,
    add_runtime_flags,
    add_split_flags,
    load_segmenter,
    progress,
    selected_split,
)
from fcn_keras.errors import UserError, printable, require_packages
from fcn_keras.files import storage
from fcn_keras.files.finding import NO_IMAGES, FoundImage, found_images
from fcn_keras.files.results import EXTRAS, FOLDERS, POLYGONS, Results
from fcn_keras.runs.validation import flag


def add(commands) -> None:
    parser = commands.add_parser(
        "predict",
        help="predict the class of every pixel",
        description="Writes a palette PNG of class ids for each image. A bad image is reported "
        "and skipped; the exit code is then 1.",
    )
    parser.set_defaults(command=_predict, parser=parser)
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="images, folders or patterns, or s3:// or gs://"
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="folder for the results, or s3:// or gs://"
    )
    add_model_flags(parser)
    add_runtime_flags(parser)
    parser.add_argument("--dataset", help="data set to predict, instead of PATHs")
    add_split_flags(parser)
    parser.add_argument("--overlay", action="store_true", help="draw the classes over the images")
    parser.add_argument(
        "--confidence",
        action="store_true",
        help="save each pixel's largest probability as a grey PNG (255 is 1), and plot it",
    )
    parser.add_argument(
        "--probabilities", action="store_true", help="save all probabilities, as float16 .npz"
    )
    parser.add_argument(
        "--polygons",
        choices=POLYGONS,
        help="write JSON that labelme or programs for COCO open, to correct the classes",
    )
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=0.0,
        metavar="P",
        help="leave pixels unlabelled (255) whose most likely class is less probable than this, "
        "0 to 1 (0)",
    )
    parser.add_argument("--skip-existing", action="store_true", help="continue an earlier call")
    add_overwrite_flag(parser)
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help="largest image accepted, in pixels; raise it for trusted images only (179 million)",
    )
    parser.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="distribute the images with Ray: on this machine, or on the cluster at ADDRESS, which "
        "is HOST:PORT, or auto for this machine's cluster",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="number of Ray workers (1)")
    parser.add_argument("--worker-cpus", type=int, metavar="N", help="CPUs per Ray worker (1)")


def _predict(arguments) -> int:
    if bool(arguments.paths) == bool(arguments.dataset):
        raise UserError("Give either images to predict, or --dataset.")
    if arguments.paths and (arguments.limit is not None or arguments.split):
        raise UserError("--limit and --split require --dataset.")
    if arguments.dataset and arguments.polygons:
        raise UserError("--polygons applies to image files, not to --dataset.")
    if arguments.dataset and arguments.max_pixels is not None:
        raise UserError("--max-pixels applies to files, not to --dataset.")
    _check_ray_flags(arguments)
    for name in ("overlay", "confidence"):
        if getattr(arguments, name):
            require_packages(flag(name), None, "matplotlib", load=False)
    check_place(arguments.output, folder=True)
    if arguments.dataset:
        check_data(arguments)
    else:
        check_inputs(arguments.paths, arguments.output)
    check_model(arguments, arguments.max_pixels)  # last, as it may download the model
    limit = {} if arguments.max_pixels is None else {"max_pixels": arguments.max_pixels}
    images, split = _images(arguments)
    extras = [name for name in EXTRAS if getattr(arguments, name)]
    extras += [arguments.polygons] if arguments.polygons else []
    results = Results(arguments.output, extras)
    planned = results.planned(images, arguments.skip_existing, arguments.overwrite)
    segmenter = load_segmenter(arguments, min_confidence=arguments.min_confidence, **limit)
    if arguments.ray is None:
        if storage.is_address(arguments.output):
            results.claim(planned)  # once, not for each image
        total, there, failed = _run_here(arguments, segmenter, extras, images, split, results)
    else:
        total, there, failed = _run_on_ray(arguments, segmenter, extras, results, planned)
    if not total:
        raise UserError(f"{arguments.paths[0]}: {NO_IMAGES}")
    if arguments.polygons == "coco":
        _merge_coco(arguments, extras, results, segmenter.labels)
    for path in arguments.paths if len(arguments.paths) > 1 else ():
        if storage.is_folder(path) and not any(found_images([path], arguments.output)):
            print(f"Note: {printable(path)}: {NO_IMAGES}", file=sys.stderr)
    skipped = f", {there} already existed" if arguments.skip_existing else ""
    done = total - there - failed
    print(f"{done} of {total} images predicted{skipped}, {failed} failed.", end=" ")
    print(f"Results: {printable(arguments.output.rstrip('/'))}/")
    return 1 if failed else 0


def _check_ray_flags(arguments) -> None:
    for name in ("workers", "worker_cpus"):
        value = getattr(arguments, name)
        if value is not None and arguments.ray is None:
            raise UserError(f"{flag(name)} requires --ray.")
        if value is not None and value < 1:
            raise UserError(f"{flag(name)} must be at least 1. Received: {value}.")
    if arguments.ray is not None and arguments.dataset:
        raise UserError("--ray applies to files, not to --dataset.")
    if arguments.ray is not None:
        require_packages("--ray", "cluster", "ray", load=False)


def _images(arguments):
    """The images, for Ray an iterator as there may be many; and the split they are from."""
    if not arguments.dataset:
        images = found_images(arguments.paths, arguments.output, FOLDERS)
        return (list(images) if arguments.ray is None else images), None
    split = selected_split(arguments)
    return [FoundImage("", name, 0.0) for name in split.ids], split


def _merge_coco(arguments, extras, results, labels) -> None:
    from fcn_keras.inference.annotations import write_coco

    results.claim([])
    written = Results(arguments.output, extras)  # not of images that failed
    images = found_images(arguments.paths, arguments.output, FOLDERS)
    images = (image for image in images if written.have(image.name, image.changed))
    write_coco(arguments.output, images, labels)


def _run_here(arguments, segmenter, extras, images, split, owned) -> tuple[int, int, int]:
    """The numbers of images in all, with existing results, and failed."""
    from fcn_keras.inference.batch import job_of_image, jobs_of_split, predict_jobs

    if split:
        jobs = jobs_of_split(split)
    else:
        jobs = [job_of_image(image, segmenter.max_pixels) for image in images]
    skip = arguments.skip_existing
    results = predict_jobs(segmenter, jobs, arguments.output, extras, skip, owned)
    done, _, failed = _counted(((problem, False) for _, problem in results), len(jobs))
    return len(jobs), len(jobs) - done, failed


def _run_on_ray(arguments, segmenter, extras, results, planned) -> tuple[int, int, int]:
    from fcn_keras.inference.batch_ray import predict_on_ray, ray_session

    workers, cpus = arguments.workers or 1, arguments.worker_cpus or 1
    with ray_session(arguments.ray or None, workers, cpus):
        results.claim(planned)
        outcomes = predict_on_ray(
            segmenter,
            arguments.paths,
            arguments.output,
            extras,
            arguments.skip_existing,
            workers,
            cpus,
        )
        return _counted(outcomes)


def _counted(outcomes, expected: int | None = None) -> tuple[int, int, int]:
    """Prints the problems; counts all images, those with existing results, and the failed."""
    total = skipped = failed = 0
    with progress(outcomes, total=expected) as bar:
        for problem, there in bar:
            total, skipped, failed = total + 1, skipped + there, failed + bool(problem)
            if problem:
                bar.clear()
                print(f"error: {printable(problem)}", file=sys.stderr)
    return total, skipped, failed
