"""A model -> copies and graphs for other runtimes, and whether these agree with it."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from fcn_keras.inference.folding import fold_batchnorm
from fcn_keras.models.block_upsampling import upsample_by_blocks
from fcn_keras.models.graph import copied, nested_layers

# By how much a probability may differ, and the least share of pixels with the same class.
TOLERANCES = {
    "runtime in float32": (1e-3, 0.0),
    "runtime in bfloat16": (1.0, 0.98),
    "onnx": (1e-4, 0.9999),
    # float16 keeps 11 bits of a weight. At ResNet-18 that moved probabilities by 0.0015 (without
    # it 0.000002); deeper networks may add up more.
    "litert": (0.02, 0.99),
    "keras": (1e-5, 0.9999),
    "saved_model": (1.0, 1.0),
}


def deviation(kind: str, actual: np.ndarray, expected: np.ndarray) -> str:
    """Describes how a converted model deviates from its original.

    Args:
        kind: A key of `TOLERANCES`.
        actual: Logits `(B, H, W, C)` or masks `(B, H, W)` of the converted model.
        expected: Logits of the original.

    Returns:
        The differences that are too large, or `""`.
    """
    allowed, needed = TOLERANCES[kind]
    shape = expected.shape[: actual.ndim]
    if actual.shape != shape:
        return f"its results have the shape {actual.shape}, not {shape}"
    masks, found = actual, []
    if actual.ndim == expected.ndim:
        masks = actual.argmax(axis=-1)
        difference = np.abs(_softmax(actual) - _softmax(expected)).max()
        if not difference <= allowed:  # not a number is no agreement either
            found.append(f"probabilities differ by up to {difference:.2g} (allowed: {allowed})")
    same = (masks == expected.argmax(axis=-1)).mean()
    if same < needed:
        found.append(f"{same:.4%} of the pixels have the same class (needed: {needed:.2%})")
    return ", and ".join(found)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def fast_copy(model: keras.Model) -> keras.Model:
    """A copy for inference, by `fold_batchnorm` and `upsample_by_blocks`: same but for rounding."""
    return upsample_by_blocks(fold_batchnorm(model))


def in_float32(model: keras.Model) -> keras.Model:
    """The model, or of one of mixed precision a copy without it: runtimes lack bfloat16."""
    if all(layer.compute_dtype == "float32" for layer in nested_layers(model)):
        return model
    copy = copied(model)
    for layer in nested_layers(copy):
        layer.dtype_policy = "float32"
    return copy


def in_bfloat16(model: keras.Model) -> keras.Model:
    """A copy of an FCN whose backbone computes in bfloat16, as `build_fcn(dtype=...)` makes it."""
    copy = copied(model)
    for layer in nested_layers(copy.get_layer("backbone")):
        layer.dtype_policy = "mixed_bfloat16"
    return copy


def traced(model: keras.Model):
    """The model as a concrete function of float32 images of any batch, height and width."""
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    function = tf.function(lambda images: model(images, training=False), input_signature=[images])
    return function.get_concrete_function()


def with_constants(model: keras.Model):
    """The model as a `tf.function` with constants for weights, from `images` to `logits`.

    Converters take tensors that a function captures for inputs or drop them.
    """
    constant = convert_variables_to_constants_v2(traced(model))
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    return tf.function(lambda images: {"logits": constant(images)[0]}, input_signature=[images])


def write_graph(model: keras.Model, path: Path) -> None:
    """Writes a model as TensorFlow's frozen graph, from images to logits."""
    graph = convert_variables_to_constants_v2(traced(model)).graph
    path.write_bytes(graph.as_graph_def().SerializeToString())


def write_onnx(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    """Writes a model of float32 with texts for its metadata; needs the packages of `[onnx]`."""
    import onnx
    import tf2onnx

    function = with_constants(model)
    proto, _ = tf2onnx.convert.from_function(function, function.input_signature)
    for tensor in (*proto.graph.input, *proto.graph.output):
        for axis, name in enumerate(("batch", "height", "width")):
            tensor.type.tensor_type.shape.dim[axis].dim_param = name
    properties = {Path(name).stem: text for name, text in texts.items()}
    onnx.helper.set_model_props(proto, properties)
    onnx.save(proto, path)
