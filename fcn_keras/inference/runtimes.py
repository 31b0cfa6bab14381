"""A model -> a function that computes its logits: a faster copy of it, or another runtime."""

from __future__ import annotations

import collections
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fcn_keras.errors import UserError, first_line
from fcn_keras.files.silence import silenced
from fcn_keras.inference.agreement import deviation
from fcn_keras.inference.onnx_model import OnnxModel
from fcn_keras.inference.options import NetworkError, require_runtime

if TYPE_CHECKING:
    import keras

CAPABILITIES = "OPTIMIZATION_CAPABILITIES"  # a property of a device
FIXED_SIZES = 4  # that OpenVINO compiles for; each takes as much memory as the weights

# Float32 images (B, H, W, 3) in 0..255 -> float32 logits (B, H, W, C).
Network = Callable[[np.ndarray], np.ndarray]


def load_network(
    model: keras.Model | OnnxModel,
    runtime: str = "tensorflow",
    precision: str | None = None,
    threads: int | None = None,
) -> Network:
    """Prepares a model for many images.

    | runtime | what computes |
    |---|---|
    | `keras` | the model itself, in its own precision, including later training |
    | `tensorflow` | a `fast_copy` |
    | `openvino` | that copy in OpenVINO, on the CPU |
    | `onnx` | that copy in ONNX Runtime, on the CPU |

    All but `keras` compute in float32, whatever the model was trained in, unless
    bfloat16 is requested. The first result of the latter two, and in bfloat16 that of each size,
    is compared with that of the model in float32.

    An `OnnxModel` is computed by `openvino` or `onnx`. Its file was compared with the model
    when it was exported, and only bfloat16 is compared with the file in float32.

    Args:
        model: A model such as `build_fcn`'s, or one in an ONNX file.
        runtime: A name from the table.
        precision: `"float32"`, the default, or `"bfloat16"`, which is faster where the
            processor supports it. Not for `keras`.
        threads: Of `openvino` and `onnx`, which choose if it is `None`.

    Returns:
        A function from float32 images `(B, H, W, 3)` of any height and width to
        float32 logits `(B, H, W, C)`. It raises `NetworkError` if it deviates.

    Raises:
        NetworkError: As for `require_runtime`, if `tensorflow` is to compute a model without
            a layer `backbone` in bfloat16, or if an ONNX file cannot be loaded.
    """
    if isinstance(model, OnnxModel):
        return _load_file(model, runtime, precision, threads)
    require_runtime(runtime, precision)
    if runtime == "keras":
        return model.predict_on_batch
    from fcn_keras.inference.conversion import (
        fast_copy,
        in_bfloat16,
        in_float32,
        write_graph,
        write_onnx,
    )

    plain, bfloat16 = in_float32(model), precision == "bfloat16"
    fast = fast_copy(in_bfloat16(plain) if bfloat16 and runtime == "tensorflow" else plain)
    if runtime == "tensorflow":
        network = fast.predict_on_batch
        if not bfloat16:
            return network
    else:
        # OpenVINO's `convert_model`, without a file, fails on Python 3.13 (OpenVINO 2026.4).
        with tempfile.TemporaryDirectory() as folder:
            if runtime == "openvino":
                path = Path(folder, "model.pb")
                write_graph(fast, path)
            else:
                path = Path(folder, "model.onnx")
                with silenced(1, 2), warnings.catch_warnings(action="ignore"):
                    write_onnx(fast, {}, path)
            network = _open(path, runtime, precision, threads)
    return _checked(network, plain.predict_on_batch, runtime, precision or "float32")


def _load_file(
    model: OnnxModel, runtime: str, precision: str | None, threads: int | None
) -> Network:
    """The network of a file, which may be damaged or hostile in ways that only a runtime finds."""
    require_runtime(runtime, precision, onnx_file=True)
    try:
        network = _open(model.path, runtime, precision, threads)
        if precision == "bfloat16":
            plain = _open(model.path, runtime, "float32", threads)
            network = _checked(network, plain, runtime, precision, "Leave out --precision.")
    except NetworkError:
        raise
    except Exception as error:  # of OpenVINO and ONNX Runtime, which have no common class
        raise NetworkError(
            f"{model.path}: cannot be loaded by the runtime {runtime} ({first_line(error)}). "
            "Export it again."
        ) from error

    def run(images: np.ndarray) -> np.ndarray:
        expected = (*images.shape[:3], len(model.labels))
        try:
            logits = network(images)
        except NetworkError:
            raise
        except Exception as error:
            raise UserError(
                f"{model.path}: fails on images of {images.shape} ({first_line(error)}). Use "
                "another --runtime or a smaller --tile, or export it again."
            ) from error
        if logits.shape != expected or logits.dtype != np.float32:
            raise NetworkError(
                f"{model.path}: its network returns {logits.dtype} {logits.shape}, not float32 "
                f"{expected}. Export it again."
            )
        return logits

    return run


def _open(path: Path, runtime: str, precision: str | None, threads: int | None) -> Network:
    """The network in a file; `openvino` also reads frozen graphs."""
    if runtime == "openvino":
        return _OpenVino(path, "bf16" if precision == "bfloat16" else "f32", threads)
    return onnx_network(path, threads)


class _OpenVino:
    """A network that OpenVINO compiles for any size, and for sizes that recur."""

    def __init__(self, path: Path, precision: str, threads: int | None):
        import openvino

        self._core = openvino.Core()
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", CAPABILITIES):
            raise NetworkError(
                "This processor has no bfloat16 instructions, without which openvino is slower and "
                "wrong at some sizes. Use --precision float32."
            )
        self._graph = self._core.read_model(path)
        self._options: dict[str, str | int] = {"INFERENCE_PRECISION_HINT": precision}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._any_size = self._compile(self._graph)
        self._seen: collections.Counter = collections.Counter()
        self._fixed: dict[tuple, Network] = {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        shape = images.shape  # a fixed one saves about 5 % of the time
        self._seen[shape] += 1
        if self._seen[shape] == 2 and len(self._fixed) < FIXED_SIZES:
            graph = self._graph.clone()
            graph.reshape(list(shape))
            self._fixed[shape] = self._compile(graph)
        return self._fixed.get(shape, self._any_size)([images])[0]

    def _compile(self, graph):
        return self._core.compile_model(graph, "CPU", self._options)


def onnx_network(path: Path, threads: int | None = None) -> Network:
    """The network in a file, in ONNX Runtime, which chooses the threads if they are `None`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised, too
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def _checked(
    network: Network,
    expected: Network,
    runtime: str,
    precision: str,
    remedy: str = "Use --runtime tensorflow, without --precision.",
) -> Network:
    """The network, which now raises `NetworkError` if its first result is not the expected one.

    In bfloat16, for which kernels depend on it, the first result of each size.
    """
    seen = set()

    def run(images: np.ndarray) -> np.ndarray:
        logits = network(images)
        size = images.shape if precision == "bfloat16" else None
        if size not in seen:
            found = deviation(precision, logits, expected(images))
            if found:  # and again for each further image
                raise NetworkError(
                    f"The runtime {runtime} in {precision} deviates from the model on the first "
                    f"image{' of a size' if size else ''}: {found}. {remedy}"
                )
            seen.add(size)
        return logits

    return run
