"""The runtimes that a model is exported for: how its file is written and run."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from fcn_keras.models.loading import LABELS_FILE, load_model


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of file.

    Args:
        suffix: How its name ends.
        packages: What must be installed to write and run it.
        write: Takes a model, texts by their names and the file's path.
        run: Takes the path and float32 images `(B, H, W, 3)`; returns logits.
        tolerance: How far its probabilities may be from the model's.
        agreement: The least share of pixels that must have the model's class.
    """

    suffix: str
    packages: tuple[str, ...]
    write: Callable[[keras.Model, dict[str, str], Path], None]
    run: Callable[[Path, np.ndarray], np.ndarray]
    tolerance: float
    agreement: float


def write_onnx(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    """Writes a model of float32 with texts for its metadata; needs the packages of `[onnx]`."""
    import onnx
    import tf2onnx

    function = _with_constants(model)
    proto, _ = tf2onnx.convert.from_function(function, function.input_signature)
    for tensor in (*proto.graph.input, *proto.graph.output):
        for axis, name in enumerate(("batch", "height", "width")):
            tensor.type.tensor_type.shape.dim[axis].dim_param = name
    properties = {Path(name).stem: text for name, text in texts.items()}
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)


def _run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def _write_litert(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    module = tf.Module()  # without one, the file has no signature
    module.function = _with_constants(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.function.get_concrete_function()], module
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    names = json.loads(texts[LABELS_FILE])["names"]
    # The reader of a flatbuffer starts in front, that of a zip archive at the end: so does the
    # metadata convention of TensorFlow Lite store associated files.
    _add_members(path, {**texts, "labels.txt": "".join(f"{name}\n" for name in names)})


def _run_litert(path: Path, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path)).get_signature_runner()(images=images)["logits"]


def _write_keras(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    (_copy(model) if model.compiled else model).save(path)
    _add_members(path, texts)


def _run_keras(path: Path, images: np.ndarray) -> np.ndarray:
    return logits_of(load_model(path), images)


def logits_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """A model's logits of float32 images, on the CPU."""
    with tf.device("CPU"):  # GPUs round the factors of their products
        return model(images, training=False).numpy()


def traced(model: keras.Model):
    """The model as a concrete function of float32 images of any batch, height and width."""
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    function = tf.function(lambda images: model(images, training=False), input_signature=[images])
    return function.get_concrete_function()


def _with_constants(model: keras.Model):
    """The model as a `tf.function` with constants for weights, from `images` to `logits`.

    Converters take tensors that a function captures for inputs or drop them.
    """
    constant = convert_variables_to_constants_v2(traced(model))
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    return tf.function(lambda images: {"logits": constant(images)[0]}, input_signature=[images])


def in_float32(model: keras.Model) -> keras.Model:
    """The model, or of one of mixed precision a copy without it: runtimes lack bfloat16."""
    if all(layer.compute_dtype == "float32" for layer in _layers(model)):
        return model
    copy = _copy(model)
    for layer in _layers(copy):
        layer.dtype_policy = "float32"
    return copy


def in_bfloat16(model: keras.Model) -> keras.Model:
    """A copy of an FCN whose backbone computes in bfloat16, as `build_fcn(dtype=...)` makes it."""
    copy = _copy(model)
    for layer in _layers(copy.get_layer("backbone")):
        layer.dtype_policy = "mixed_bfloat16"
    return copy


def _copy(model: keras.Model) -> keras.Model:
    copy = model.from_config(model.get_config())  # clone_model would copy the optimizer
    copy.set_weights(model.get_weights())
    return copy


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _add_members(path: Path, texts: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)


FORMATS = {
    "onnx": Format(
        ".onnx", ("onnx", "onnxruntime", "tf2onnx"), write_onnx, _run_onnx, 1e-4, 0.9999
    ),
    # float16 keeps 11 bits of a weight. At ResNet-18 that moved probabilities by 0.0015 (without
    # it 0.000002); deeper networks may add up more.
    "litert": Format(".tflite", ("ai_edge_litert",), _write_litert, _run_litert, 0.02, 0.99),
    "keras": Format(".keras", (), _write_keras, _run_keras, 1e-5, 0.9999),
}
