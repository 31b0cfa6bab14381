"""`fcn-keras request`: a server + photographs -> masks. Needs TensorFlow for gRPC only."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from fcn_keras import signals
from fcn_keras.cli.early import check_inputs, check_local_place, check_place
from fcn_keras.cli.shared import add_overwrite_flag, import_tensorflow, progress
from fcn_keras.errors import UserError, printable
from fcn_keras.files.finding import FoundImage, named_images
from fcn_keras.files.results import Results, result_name
from fcn_keras.files.writing import require_replaceable, write_file
from fcn_keras.serving.client.retrying import TemporaryError

OVERLAYS = "overlay"  # a folder in the output folder
FRACTIONS = rb'\A\{(\}\n|\n ".*": \{\n  ".*": [0-9.e-]+,?\n)'  # start of a --fractions file


def add(commands) -> None:
    parser = commands.add_parser(
        "request",
        help="send photographs to a server for prediction",
        description="Sends photographs to TensorFlow Serving or fcn-keras serve, and writes a "
        "palette PNG of class ids for each. Formats other than JPEG and PNG are converted first. "
        "A bad file is reported and skipped; the exit code is then 1.",
    )
    parser.set_defaults(command=_request, parser=parser)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="images, folders or patterns")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--url",
        default="http://localhost:8501",
        help="address of the server: http:// or https:// for REST, grpc:// for gRPC "
        "(http://localhost:8501)",
    )
    parser.add_argument("--model", default="fcn", metavar="NAME", help="name of the model (fcn)")
    parser.add_argument("--version", type=int, metavar="N", help="model version (the newest)")
    parser.add_argument("--label", help="label of the model version, instead of --version")
    parser.add_argument("--overlay", action="store_true", help="draw the classes over the images")
    parser.add_argument(
        "--fractions", metavar="FILE", help="write the class shares of each image as JSON"
    )
    parser.add_argument("--skip-existing", action="store_true", help="continue an earlier call")
    add_overwrite_flag(parser)
    parser.add_argument(
        "--parallel", type=int, default=8, metavar="N", help="images in flight at a time (8)"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=60,
        metavar="S",
        help="seconds allowed for a response, from connecting to its last byte (60)",
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=4,
        metavar="N",
        help="how often to resend an image if the server is unreachable, overloaded or slow (4)",
    )


def _request(arguments) -> int:
    if arguments.parallel < 1:
        raise UserError(f"--parallel must be at least 1. Received: {arguments.parallel}.")
    if arguments.fractions and arguments.skip_existing:
        raise UserError("--fractions needs all images. Omit --skip-existing.")
    if arguments.fractions:
        check_place(arguments.fractions)
    if arguments.fractions and not arguments.overwrite:
        require_replaceable("--fractions", arguments.fractions, FRACTIONS)
    check_inputs(arguments.paths, arguments.output)
    check_local_place(arguments.output, folder=True)
    jobs = list(named_images(arguments.paths, arguments.output, (OVERLAYS,)))
    results = Results(arguments.output, [OVERLAYS] if arguments.overlay else [])
    results.planned(jobs, arguments.skip_existing, arguments.overwrite)
    client = _connect(arguments)
    names, palette = client.labels()
    skip = arguments.skip_existing
    todo = [image for image in jobs if not (skip and results.have(image.name, image.changed))]
    shares = _segment_all(client, names, palette, todo, results, arguments)
    if arguments.fractions:
        text = json.dumps(dict(sorted(shares.items())), indent=1)
        write_file(arguments.fractions, lambda path: path.write_text(text + "\n"))
    if len(jobs) == 1:
        _print_shares(shares)
    failed, skipped = len(todo) - len(shares), ""
    if arguments.skip_existing:
        skipped = f", {len(jobs) - len(todo)} already existed"
    print(f"{len(shares)} of {len(jobs)} images segmented{skipped}, {failed} failed.", end=" ")
    print(f"Results: {printable(arguments.output.rstrip('/'))}/")
    return 1 if failed else 0


def _connect(arguments):
    if arguments.url.startswith("grpc:"):
        with contextlib.suppress(ImportError):  # connect() reports what is missing
            import_tensorflow()
    from fcn_keras.serving.client import connect

    names = ("model", "version", "label", "timeout", "retries")
    return connect(arguments.url, **{name: getattr(arguments, name) for name in names})


def _segment_all(client, names, palette, jobs, results, arguments) -> dict[str, dict[str, float]]:
    """Each class's share of the images that succeeded; failures are printed."""
    shares, unanswered = {}, 0
    with _noted_signals(client) as noted, ThreadPoolExecutor(arguments.parallel) as threads:
        try:
            futures = {
                threads.submit(
                    _segment, client, image, names, palette, results, arguments
                ): image.path
                for image in jobs
            }
            with progress(as_completed(futures), total=len(jobs)) as bar:
                for future in bar:
                    try:
                        shares[futures[future]] = dict(zip(names, future.result()))
                        unanswered = 0
                    except UserError as error:
                        bar.clear()
                        print(f"error: {printable(str(error))}", file=sys.stderr)
                        unanswered += isinstance(error.__cause__, TemporaryError)
                    if client.stopped.is_set():
                        raise signals.Stop(noted[0])
                    if unanswered >= max(arguments.parallel, 3):
                        raise UserError(
                            f"{client.url}: gave up after {unanswered} images in a row without a "
                            "response. Continue later with --skip-existing."
                        )
        finally:
            client.stopped.set()
            threads.shutdown(cancel_futures=True)  # drops what has not started
    return shares


@contextlib.contextmanager
def _noted_signals(client) -> Iterator[list[int]]:
    """Stops the client at the first Ctrl-C or other signal, the process at the second.

    An exception at the first could leave a lock that the threads share in a bad state.
    Yields the list of signals received.
    """
    noted: list[int] = []
    started = time.monotonic()

    def note(number, _):
        nonlocal started
        if noted and time.monotonic() - started > signals.BURST_SECONDS:
            os._exit(128 + number)
        if not noted:
            started = time.monotonic()
            noted.append(number)
            client.stopped.set()
            hint = "Waiting for responses in flight; press Ctrl-C again to stop at once."
            with contextlib.suppress(OSError):  # the terminal may be gone
                print(f"\n{hint}", file=sys.stderr)

    with signals.handled(note):
        yield noted


def _segment(client, image: FoundImage, names, palette, results, arguments) -> tuple[float, ...]:
    from fcn_keras.files.images import open_photograph
    from fcn_keras.serving.client import pictures

    path, output = image.path, Path(arguments.output)
    data = pictures.sendable_bytes(Path(path))
    try:
        segmentation = client.segment(data)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if len(segmentation.class_fractions) != len(palette):
        raise UserError(f"{path}: the server's model now has different classes. Start again.")
    mask = pictures.colored_mask(segmentation.mask_png, data, palette, path)
    mask_path = output / result_name(image.name, "mask")
    overlay_path = output / result_name(image.name, OVERLAYS)
    results.claim([image.name])
    if arguments.overlay:
        picture = pictures.overlay(open_photograph(data, path), mask, names, palette, path)
        write_file(overlay_path, lambda partial: picture.save(partial, "PNG"))
    write_file(mask_path, lambda partial: mask.save(partial, "PNG"))  # last: marks it as done
    return segmentation.class_fractions


def _print_shares(shares: dict[str, dict[str, float]]) -> None:
    for by_class in shares.values():
        width = max(map(len, by_class))
        for name, share in sorted(by_class.items(), key=lambda item: -item[1]):
            if share > 0:
                print(f"  {name:{width}}  {share:6.1%}")
