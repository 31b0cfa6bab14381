"""A model -> a SavedModel for TF Serving, or a file of another format."""

from pathlib import Path

from fcn_keras.errors import UserError, require_packages

MAX_SIDE = 2048  # an exported model downscales photographs with a longer side to this
MAX_PIXELS = 64_000_000  # and refuses those with more pixels
# Of the training split, to quantise with by default and at least, and what mean IoU may lose.
CALIBRATION_IMAGES, LEAST_IMAGES, MAX_MIOU_DROP = 32, 4, 0.02
INT8_FORMATS = ("onnx", "litert")
# The extension of each format's files, and the packages that write and run them.
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "onnx": (".onnx", ("onnx", "onnxruntime", "tf2onnx")),
    "litert": (".tflite", ("ai_edge_litert.interpreter",)),
    "keras": (".keras", ()),
}


def require_limits(max_side: int = MAX_SIDE, max_pixels: int = MAX_PIXELS) -> None:
    """Raises `UserError` unless both are positive."""
    for name, value in (("max_side", max_side), ("max_pixels", max_pixels)):
        if value < 1:
            raise UserError(f"{name} must be at least 1. Received: {value}.")


def require_format(path, format: str) -> None:
    """Raises `UserError` if the file has another extension, or a package is missing."""
    path = Path(path)
    if format not in FILES:
        raise UserError(f"format must be one of {', '.join(FILES)}. Received: {format!r}.")
    suffix, packages = FILES[format]
    if path.suffix != suffix:
        raise UserError(
            f"{path}: format {format} writes {suffix} files. Name it "
            f"{path.stem or 'model'}{suffix}, or choose another --format."
        )
    require_packages(f"Format {format}", format, *packages, load=False)
