"""`fcn-keras export`: model -> SavedModel for TF Serving, or a file of another format."""

from __future__ import annotations

from fcn_keras.cli.early import check_local_place
from fcn_keras.cli.shared import (
    MODEL_HELP,
    add_short_side_flag,
    import_tensorflow,
    print_next,
)
from fcn_keras.errors import UserError
from fcn_keras.export import FILES, MAX_PIXELS, MAX_SIDE, require_format, require_limits
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
        from fcn_keras.export.single_file import export_file

        path = export_file(segmenter, arguments.output, arguments.format, origin)
    print(f"Exported and verified: {path}")
    if arguments.format == "saved_model":
        print_next(("serve", "--model-base-path", arguments.output))
    return 0
