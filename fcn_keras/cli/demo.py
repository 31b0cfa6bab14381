"""`fcn-keras demo`: model -> a page to try it in a browser."""

from __future__ import annotations

import sys
from pathlib import Path

from fcn_keras.cli.early import check_model
from fcn_keras.cli.listening import add_listening_flags, listening, url_of
from fcn_keras.cli.shared import add_model_flags, load_segmenter
from fcn_keras.errors import printable, require_packages


def add(commands) -> None:
    parser = commands.add_parser(
        "demo",
        help="try a model in the browser",
        description="Serves a web page that segments the photographs dropped on it. Works offline. "
        "Ctrl-C, SIGTERM or SIGHUP stops it.",
    )
    parser.set_defaults(command=_demo, parser=parser)
    add_model_flags(parser)
    add_listening_flags(parser, port=7860)
    parser.add_argument(
        "--examples", metavar="FOLDER", help="folder of example photographs (synthetic ones)"
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        default=64_000_000,
        metavar="N",
        help="largest photograph accepted, in pixels (64 million)",
    )


def _demo(arguments) -> int:
    require_packages("fcn-keras demo", "demo", "uvicorn", load=False)
    with listening(arguments.host, arguments.port) as listener:
        print(f"Loading {printable(arguments.model)} ...", file=sys.stderr, flush=True)
        segmenter, samples = _load(arguments)
        from fcn_keras.demo.server import serve

        title = Path(arguments.model).resolve().name
        ready = f"Showing {title} at {url_of(listener)}"
        serve(listener, segmenter, samples, title, arguments.host, ready)
    return 0


def _load(arguments):
    check_model(arguments, arguments.max_pixels)
    from fcn_keras.demo.samples import drawn_samples, folder_samples

    if arguments.examples:
        samples = folder_samples(arguments.examples, arguments.max_pixels)
    else:
        samples = drawn_samples()
    segmenter = load_segmenter(arguments, max_pixels=arguments.max_pixels)
    from fcn_keras.demo.prediction import segment

    segment(segmenter, samples[0].source)  # the first call is slow, and no user should wait for it
    return segmenter, samples
