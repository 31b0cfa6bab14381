"""Options of inference, checked without TensorFlow, whose import takes seconds."""

from __future__ import annotations

import importlib.util

from fcn_keras.errors import UserError, require_packages

MAX_SCALE = 8
MAX_SHORT_SIDE = 4096
BLENDS = ("exact", "average", "smooth")
RUNTIMES = ("keras", "tensorflow", "openvino", "onnx")
PRECISIONS = ("float32", "bfloat16")
PACKAGES = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime", "tf2onnx")}
FILE_PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}  # that run an ONNX file


class NetworkError(UserError):
    """A runtime that cannot be used, whatever the image."""


def default_runtime(onnx_file: bool) -> str:
    """What runs a model unless a runtime is named; an ONNX file by one that is installed."""
    if not onnx_file:
        return "tensorflow"
    found = (name for name, package in FILE_PACKAGES.items() if importlib.util.find_spec(package))
    return next(found, "onnx")


def require_runtime(
    runtime: str, precision: str | None, load: bool = True, onnx_file: bool = False
) -> None:
    """Checks the arguments of `load_network`; `load` is that of `require_packages`.

    Raises:
        NetworkError: If a name is unknown, the runtime lacks the precision, or its
            packages are missing.
    """
    if runtime not in RUNTIMES:
        raise NetworkError(f"runtime must be one of {', '.join(RUNTIMES)}. Received: {runtime!r}.")
    if precision not in (None, *PRECISIONS):
        names = ", ".join(PRECISIONS)
        raise NetworkError(f"precision must be one of {names}. Received: {precision!r}.")
    others = "openvino" if onnx_file else "tensorflow or openvino"
    lacking = {"keras": PRECISIONS, "onnx": ("bfloat16",)}
    if precision in lacking.get(runtime, ()):
        raise NetworkError(
            f"The runtime {runtime} does not support this precision; use {others}. "
            f"Received: {precision!r}."
        )
    if onnx_file and runtime not in FILE_PACKAGES:
        raise NetworkError(
            f"An ONNX file is run by openvino or onnx. Received: runtime {runtime!r}."
        )
    try:
        if onnx_file:
            require_packages("An ONNX file", None, FILE_PACKAGES[runtime], load=load)
            return
        require_packages(f"The runtime {runtime}", runtime, *PACKAGES.get(runtime, ()), load=load)
    except UserError as error:
        raise NetworkError(*error.args) from error


def require_options(
    tile: int,
    blend: str,
    overlap: int,
    scales: tuple[float, ...],
    max_pixels: int,
    short_side: int | None = None,
    min_confidence: float = 0.0,
) -> None:
    """Raises `UserError` unless these are valid fields of a `Segmenter`."""
    if blend not in BLENDS:
        raise UserError(f"blend must be one of {', '.join(BLENDS)}. Received: {blend!r}.")
    if not scales or not all(0 < scale <= MAX_SCALE for scale in scales):
        raise UserError(f"scales must be positive and at most {MAX_SCALE}. Received: {scales}.")
    for name, value in (("tile", tile), ("max_pixels", max_pixels)):
        if value < 1:
            raise UserError(f"{name} must be at least 1. Received: {value}.")
    require_short_side(short_side)
    if not 0 <= min_confidence <= 1:  # NaN is not, either
        raise UserError(f"min_confidence must be 0 to 1. Received: {min_confidence}.")
    if blend != "exact" and not 0 <= overlap < tile:
        raise UserError(
            f"overlap must be 0 to {tile - 1} for tiles of {tile}. Received: {overlap}."
        )


def require_short_side(short_side: int | None) -> None:
    """Raises `UserError` unless it is `None`, 0 or a number of pixels."""
    if short_side is not None and not 0 <= short_side <= MAX_SHORT_SIDE:
        raise UserError(
            f"short_side must be 0 (photographs keep their size) to {MAX_SHORT_SIDE} pixels. "
            f"Received: {short_side}."
        )
