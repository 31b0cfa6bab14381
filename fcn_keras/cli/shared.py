"""What several commands share: flags of models and data, progress, TensorFlow's import."""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import sys
import warnings

from fcn_keras.cli.early import require_limit
from fcn_keras.errors import printable
from fcn_keras.files.silence import silenced


def add_model_flags(parser) -> None:
    parser.add_argument(
        "--model", required=True, metavar="RUN_OR_FILE", help="a run's folder, or a .keras file"
    )
    parser.add_argument(
        "--tile", type=int, metavar="N", help="largest side processed in one piece (1408)"
    )
    parser.add_argument(
        "--blend",
        choices=("exact", "average", "smooth"),
        default="exact",
        help="how the pieces of larger images are joined: exact equals one pass, average "
        "averages their overlapping logits, smooth does so with a smooth window (exact)",
    )
    parser.add_argument(
        "--overlap", type=int, metavar="N", help="overlap of pieces that are averaged (256)"
    )
    parser.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="S",
        help="sizes to average over (1)",
    )
    parser.add_argument("--flip", action="store_true", help="average the mirrored image in")


def add_runtime_flags(parser) -> None:
    parser.add_argument(
        "--runtime",
        choices=("tensorflow", "openvino", "onnx"),
        default="tensorflow",
        help="what computes the network; openvino needs the extra [openvino], onnx [onnx] "
        "(tensorflow)",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 is faster on processors that compute it, and less exact (float32)",
    )


def add_split_flags(parser) -> None:
    parser.add_argument("--split", help="its part (val)")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="folder that holds VOCdevkit ($TFDS_DATA_DIR or ~/tensorflow_datasets)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N images only (all)")


def add_overwrite_flag(parser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="let results replace the images themselves, and files that no earlier call has "
        "written",
    )


def load_segmenter(arguments, **options):
    """The model by its flags, which `check_model` has checked."""
    import_tensorflow()
    from fcn_keras.inference.segmenter import Segmenter

    sizes = {"tile": arguments.tile, "overlap": arguments.overlap}
    options |= {name: value for name, value in sizes.items() if value is not None}
    return Segmenter.load(
        arguments.model,
        blend=arguments.blend,
        scales=tuple(arguments.scales),
        flip=arguments.flip,
        progress=_tile_progress,
        runtime=getattr(arguments, "runtime", "tensorflow"),
        precision=getattr(arguments, "precision", "float32"),
        **options,
    )


def selected_split(arguments):
    from fcn_keras.data import load_split

    require_limit(arguments.limit)
    split = load_split(arguments.dataset, arguments.split or "val", arguments.data_dir)
    return split.take(arguments.limit) if arguments.limit else split


def print_next(*commands) -> None:
    """Prints what to do next: commands, quoted for a shell."""
    lines = (printable(shlex.join(["fcn-keras", *map(str, words)])) for words in commands)
    print("Next: " + "\n      ".join(lines))


def progress(items, total: int | None = None, unit: str = "image", **options):
    """A progress bar on a terminal, nothing elsewhere or where tqdm is missing."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar(items)
    return tqdm(items, total=total, unit=unit, disable=not sys.stderr.isatty(), **options)


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

    They pass where the user has set `TF_CPP_MIN_LOG_LEVEL`.
    """
    # Of tqdm, when KerasHub imports it in a notebook; it works without Jupyter's widgets.
    warnings.filterwarnings("ignore", message="IProgress not found")
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        with silenced(2):
            importlib.import_module("tensorflow")
            importlib.import_module("tensorflow_text")  # KerasHub's, with notes of its own
        # Images of many sizes make it warn of retracing, which ends after a few.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
