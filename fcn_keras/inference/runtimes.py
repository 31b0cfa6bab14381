"""A model -> a function that computes its logits: a faster copy of it, or another runtime."""

from __future__ import annotations

import collections
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from fcn_keras.files.silence import silenced
from fcn_keras.inference.conversion import (
    deviation,
    fast_copy,
    in_bfloat16,
    in_float32,
    write_graph,
    write_onnx,
)
from fcn_keras.inference.options import NetworkError, require_runtime

FIXED_SIZES = 4  # that OpenVINO compiles for; each takes as much memory as the weights

# Float32 images (B, H, W, 3) in 0..255 -> float32 logits (B, H, W, C).
Network = Callable[[np.ndarray], np.ndarray]


def load_network(
    model: keras.Model,
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
    bfloat16 is requested. The first result of the latter two, and of bfloat16, is
    compared with that of the model in float32.

    Args:
        model: A model such as `build_fcn`'s.
        runtime: A name from the table.
        precision: `"float32"`, the default, or `"bfloat16"`, which is faster where the
            processor supports it. Not for `keras`.
        threads: Of `openvino` and `onnx`, which choose if it is `None`.

    Returns:
        A function from float32 images `(B, H, W, 3)` of any height and width to
        float32 logits `(B, H, W, C)`. It raises `NetworkError` if it deviates.

    Raises:
        NetworkError: As for `require_runtime`, or if `tensorflow` is to compute a model without
            a layer `backbone` in bfloat16.
    """
    require_runtime(runtime, precision)
    if runtime == "keras":
        return model.predict_on_batch
    plain, bfloat16 = in_float32(model), precision == "bfloat16"
    fast = fast_copy(in_bfloat16(plain) if bfloat16 and runtime == "tensorflow" else plain)
    if runtime == "tensorflow":
        network = fast.predict_on_batch
        if not bfloat16:
            return network
    elif runtime == "openvino":
        network = _OpenVino(fast, "bf16" if bfloat16 else "f32", threads)
    else:
        network = _onnx(fast, threads)
    return _checked(network, plain, runtime, precision or "float32")


class _OpenVino:
    """A model that OpenVINO compiles for any size, and for sizes that recur."""

    def __init__(self, model: keras.Model, precision: str, threads: int | None):
        import openvino

        self._core = openvino.Core()
        # Through a file, as `openvino.convert_model` fails on Python 3.13 (OpenVINO 2026.4).
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.pb")
            write_graph(model, path)
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


def _onnx(model: keras.Model, threads: int | None) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        with silenced(1, 2), warnings.catch_warnings(action="ignore"):
            write_onnx(model, {}, path)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(["logits"], {"images": images})[0]


def _checked(network: Network, model: keras.Model, runtime: str, precision: str) -> Network:
    """The network, which now raises `NetworkError` if its first result is not the model's."""
    todo = [model]

    def run(images: np.ndarray) -> np.ndarray:
        logits = network(images)
        if todo:
            expected = todo[0].predict_on_batch(images)
            found = deviation(precision, logits, expected)
            if found:  # and again for each further image
                raise NetworkError(
                    f"The runtime {runtime} in {precision} deviates from the model on the first "
                    f"image: {found}. Use --runtime tensorflow, without --precision."
                )
            todo.clear()
        return logits

    return run
