"""Shared by several commands: flags for models and data, progress, importing TensorFlow."""

from __future__ import annotations

import importlib
import logging
import os
import re
import shlex
import sys
import warnings
from pathlib import Path

from fcn_keras.cli.early import require_limit
from fcn_keras.errors import printable
from fcn_keras.files.onnx_files import is_onnx
from fcn_keras.files.silence import silenced

MODEL_HELP = (
    "run folder, .keras file, .pth file with an FCN of torchvision, or a published model such as "
    "torchvision/fcn_resnet50 (see fcn-keras weights list)"
)
SHOWN = 5  # of problems of one kind, and of what is left out for one reason


def add_model_flags(parser, alternatives=None) -> None:
    """Adds `--model`, which is required or one of a group of alternatives, and what tunes it."""
    (alternatives or parser).add_argument(
        "--model",
        required=alternatives is None,
        metavar="RUN_OR_FILE",
        help=f"{MODEL_HELP}; or an .onnx file written by export, which needs no TensorFlow",
    )
    parser.add_argument(
        "--tile", type=int, metavar="N", help="longest side processed in one piece (1408 pixels)"
    )
    parser.add_argument(
        "--blend",
        choices=("exact", "average", "smooth"),
        default="exact",
        help="how pieces of larger images are joined: exact equals a single pass, average averages "
        "overlapping logits, smooth does so with a smooth window (exact)",
    )
    parser.add_argument(
        "--overlap", type=int, metavar="N", help="overlap of averaged pieces (256 pixels)"
    )
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="image scales to average over (1)",
    )
    parser.add_argument("--flip", action="store_true", help="average over the mirrored image, too")
    add_short_side_flag(parser)


def add_short_side_flag(parser) -> None:
    parser.add_argument(
        "--short-side",
        type=int,
        metavar="N",
        help="resize photographs to this shorter side for the network; 0 for their own size (what "
        "the model stores)",
    )


def add_runtime_flags(parser) -> None:
    parser.add_argument(
        "--runtime",
        choices=("tensorflow", "openvino", "onnx"),
        help="library that runs the network; openvino needs the extra [openvino], onnx the extra "
        "[onnx] (tensorflow; for a .onnx file openvino or onnx, whichever is installed)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="compute type; bfloat16 is less exact, but faster on CPUs that support it (float32)",
    )


def add_split_flags(parser) -> None:
    parser.add_argument("--split", help="split of the data set (val)")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder that holds VOCdevkit or TFDS's data sets ($TFDS_DATA_DIR or "
        "~/tensorflow_datasets)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use only the first N images (all)")


def add_overwrite_flag(parser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="allow results to replace the images themselves, and files that no earlier call wrote",
    )


def load_segmenter(arguments, **options):
    """Loads the model of the flags, which `check_model` has checked."""
    if not is_onnx(arguments.model):
        import_tensorflow()
    from fcn_keras.inference.segmenter import Segmenter

    sizes = {"tile": arguments.tile, "overlap": arguments.overlap}
    options |= {name: value for name, value in sizes.items() if value is not None}
    return Segmenter.load(
        arguments.model,
        blend=arguments.blend,
        scales=tuple(arguments.scales),
        flip=arguments.flip,
        short_side=arguments.short_side,
        progress=_tile_progress,
        runtime=getattr(arguments, "runtime", None),
        precision=getattr(arguments, "precision", "float32"),
        **options,
    )


def selected_split(arguments):
    from fcn_keras.data import in_data_dir, load_split

    require_limit(arguments.limit)
    if in_data_dir(arguments.dataset):
        import_tensorflow()  # TFDS imports it, too
    split = load_split(arguments.dataset, arguments.split or "val", arguments.data_dir)
    return split.take(arguments.limit) if arguments.limit else split


def print_problems(problems, then: str = "", shown: int | None = SHOWN, end=None) -> None:
    """Prints a line for each problem, then how many there are and what follows from that.

    Args:
        problems: Lines of text.
        then: What follows, as a sentence.
        shown: How many to print of problems that differ in names and numbers only; `None` for all.
        end: Where the last line goes (standard output).
    """
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        place, _, what = problem.partition(": ")
        varying = rf"\b{re.escape(Path(place).stem)}\b|\S*[/\d]\S*"
        kinds.setdefault(re.sub(varying, "", what or problem), []).append(problem)
    for same in kinds.values():
        for problem in same[:shown]:
            print(f"problem: {printable(problem)}", file=sys.stderr)
        if rest := len(same) - len(same[:shown]):
            print(f"problem: and {rest} more like this", file=sys.stderr)
    print(f"{len(problems)} problem{'' if len(problems) == 1 else 's'}.{then}", file=end)


def print_next(*commands) -> None:
    """Prints the next commands to run, quoted for a shell."""
    lines = (printable(shlex.join(["fcn-keras", *map(str, words)])) for words in commands)
    print("Next: " + "\n      ".join(lines))


def progress(items, total: int | None = None, unit: str = "image", **options):
    """A progress bar on a terminal; nothing elsewhere or if tqdm is missing."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar(items)
    hidden = not (options.get("file") or sys.stderr).isatty()
    return tqdm(items, total=total, unit=unit, disable=hidden, **options)


class _NoBar:
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def clear(self):
        pass


def _tile_progress(pieces, total: int):
    return progress(pieces, total, unit="tile", leave=False, position=1)


def import_tensorflow() -> None:
    """Imports TensorFlow without the notes on its build, which no log level hides.

    They are shown if the user has set `TF_CPP_MIN_LOG_LEVEL` to less than 3.
    """
    # From tqdm, when KerasHub imports it in a notebook; it works without Jupyter's widgets.
    warnings.filterwarnings("ignore", message="IProgress not found")
    if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
        with silenced(2):
            importlib.import_module("tensorflow")
            importlib.import_module("tensorflow_text")  # KerasHub needs it; it prints notes, too
        # With images of many sizes it warns of retracing, which ends after a few.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
