"""`fcn-keras export`: model -> SavedModel for TF Serving, or a file of another format."""

from __future__ import annotations

import functools
import os

from fcn_keras.cli.early import check_local_place
from fcn_keras.cli.shared import (
    MODEL_HELP,
    add_short_side_flag,
    import_tensorflow,
    print_next,
    progress,
)
from fcn_keras.errors import UserError
from fcn_keras.export import (
    CALIBRATION_IMAGES,
    FILES,
    INT8_FORMATS,
    LEAST_IMAGES,
    MAX_MIOU_DROP,
    MAX_PIXELS,
    MAX_SIDE,
    require_format,
    require_limits,
)
from fcn_keras.files.writing import require_replaceable

PROVENANCE = b'"fcn_keras": ["n]'  # in exported files: the version of this package


def add(commands) -> None:
    parser = commands.add_parser(
        "export",
        help="export a model for TF Serving, ONNX Runtime or LiteRT",
        description="Writes a SavedModel to DIR/VERSION, where VERSION is the next free number, or "
        "one file of another format. The result is run and compared with the model before it "
        "appears there, so TF Serving never loads a part of it.",
    )
    parser.set_defaults(command=_export, parser=parser)
    parser.add_argument("--model", required=True, metavar="RUN_OR_FILE", help=MODEL_HELP)
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIR_OR_FILE",
        help="folder of all versions of the SavedModel, or the file to write for other formats",
    )
    parser.add_argument(
        "--format",
        choices=("saved_model", *FILES),
        default="saved_model",
        help="format to write: onnx takes and returns tensors of any size, litert does so with "
        "float16 weights, keras is a small file without the optimizer (saved_model)",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="quantise an onnx or litert file to 8-bit integers, and print the drop in mean IoU",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DATASET",
        help="data set with the model's classes, as for train --dataset: images of its training "
        "split calibrate int8, and mean IoU is that of its validation split",
    )
    parser.add_argument(
        "--calibrate-images",
        type=int,
        metavar="N",
        help=f"number of images to calibrate with ({CALIBRATION_IMAGES})",
    )
    parser.add_argument(
        "--max-miou-drop",
        type=float,
        metavar="D",
        help="largest drop of mean IoU at which the int8 file is written; 0.01 is one point "
        f"({MAX_MIOU_DROP})",
    )
    parser.add_argument(
        "--max-side",
        type=int,
        metavar="N",
        help="longest side that the SavedModel's network sees, in pixels; larger photographs are "
        f"downscaled and their masks upscaled ({MAX_SIDE})",
    )
    parser.add_argument(
        "--max-pixels",
        type=int,
        metavar="N",
        help=f"largest photograph that the SavedModel accepts, in pixels ({MAX_PIXELS})",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        help="compute type of the SavedModel; bfloat16 is less exact, but faster on CPUs that "
        "support it (float32)",
    )
    add_short_side_flag(parser)


def _export(arguments) -> int:
    limits = {
        name: value
        for name in ("max_side", "max_pixels")
        if (value := getattr(arguments, name)) is not None
    }
    if (limits or arguments.precision) and arguments.format != "saved_model":
        raise UserError("--max-side, --max-pixels and --precision require --format saved_model.")
    settings = _int8_settings(arguments)
    formats = {suffix: name for name, (suffix, _) in FILES.items()}
    named = formats.get(os.path.splitext(arguments.output)[1])
    if named and arguments.format == "saved_model":
        raise UserError(f"{arguments.output}: a SavedModel is a folder. Add --format {named}.")
    from fcn_keras.inference.options import require_short_side
    from fcn_keras.runs.folder import provenance, require_model

    require_limits(**limits)
    require_short_side(arguments.short_side)
    check_local_place(arguments.output, folder=arguments.format == "saved_model")
    if arguments.format != "saved_model":
        require_format(arguments.output, arguments.format)
        require_replaceable("--output", arguments.output, PROVENANCE)
    require_model(arguments.model)
    import_tensorflow()
    from fcn_keras.inference.segmenter import Segmenter

    segmenter = Segmenter.load(arguments.model, short_side=arguments.short_side)
    origin = provenance(arguments.model)
    if arguments.format == "saved_model":
        from fcn_keras.export.saved_model import export_saved_model

        limits["precision"] = arguments.precision
        path = export_saved_model(segmenter, arguments.output, origin, **limits)
    else:
        path = _exported_file(segmenter, arguments, origin, settings)
    print(f"Exported and verified: {path}")
    if arguments.format == "saved_model":
        print_next(("serve", "--model-base-path", arguments.output))
    elif arguments.format == "onnx":
        print_next(("predict", "--model", arguments.output, "--output", "results", "PHOTOS"))
    return 0


def _int8_settings(arguments) -> dict:
    """The fields of `Int8` that the flags give, checked."""
    names = {"calibrate": "dataset", "calibrate_images": "images", "max_miou_drop": "max_miou_drop"}
    given = {field: getattr(arguments, name) for name, field in names.items()}
    given = {field: value for field, value in given.items() if value is not None}
    if given and not arguments.int8:
        raise UserError("--calibrate, --calibrate-images and --max-miou-drop require --int8.")
    if not arguments.int8:
        return {}
    if arguments.format not in INT8_FORMATS:
        raise UserError(
            f"--int8 requires --format {' or '.join(INT8_FORMATS)}. Received: {arguments.format}."
        )
    if not arguments.calibrate:
        raise UserError("--int8 requires --calibrate, a data set with the model's classes.")
    if given.get("images", LEAST_IMAGES) < LEAST_IMAGES:
        raise UserError(
            f"--calibrate-images must be at least {LEAST_IMAGES}. Received: {given['images']}."
        )
    if not 0 <= given.get("max_miou_drop", 0) <= 1:
        raise UserError(
            f"--max-miou-drop must be between 0 and 1. Received: {given['max_miou_drop']}."
        )
    from fcn_keras.data import labels_of

    for part in ("train", "val"):
        labels_of(arguments.calibrate, part)
    return given


def _exported_file(segmenter, arguments, origin: dict, settings: dict):
    from fcn_keras.export.quantization import Int8
    from fcn_keras.export.single_file import export_file

    # The export silences standard error, but not this copy of it.
    with os.fdopen(os.dup(2), "w") as terminal:
        bar = functools.partial(progress, file=terminal)
        int8 = Int8(progress=bar, **settings) if settings else None
        path = export_file(segmenter, arguments.output, arguments.format, origin, int8)
    if int8:
        figures = (f"{int8.mean_iou[name]:.4f} in {name}" for name in ("float32", "int8"))
        print(f"Mean IoU on the validation split: {', '.join(figures)}")
    return path
