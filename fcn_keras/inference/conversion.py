"""A model -> copies and graphs for other runtimes."""

from __future__ import annotations

from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from fcn_keras.inference.folding import fold_batchnorm
from fcn_keras.inference.options import NetworkError
from fcn_keras.models.block_upsampling import upsample_by_blocks
from fcn_keras.models.graph import copied, nested_layers

HEAD = ("head_conv", "head_bn", "head_relu", "head_dropout")  # of a dilated FCN, before its scores


def fast_copy(model: keras.Model) -> keras.Model:
    """An inference copy by `fold_batchnorm` and `upsample_by_blocks`, equal but for rounding."""
    return upsample_by_blocks(fold_batchnorm(model))


def in_float32(model: keras.Model) -> keras.Model:
    """The model, or if its precision is another, a copy that stores and computes in float32."""
    if all(layer.dtype_policy.name == "float32" for layer in nested_layers(model)):
        return model
    copy = model.from_config(_with_float32(model.get_config()))
    copy.set_weights(model.get_weights())
    return copy


def _with_float32(config):
    """A model's configuration with the policy float32 in place of all others."""
    if isinstance(config, list | tuple):
        return type(config)(map(_with_float32, config))
    if not isinstance(config, dict):
        return config
    if config.get("class_name") == "DTypePolicy":
        return {**config, "config": {"name": "float32"}}
    return {name: _with_float32(value) for name, value in config.items()}


def in_bfloat16(model: keras.Model) -> keras.Model:
    """A copy of an FCN that computes in bfloat16 what `build_fcn(dtype=...)` would.

    Raises:
        NetworkError: If the model has no layer `backbone`.
    """
    if not any(layer.name == "backbone" for layer in model.layers):
        raise NetworkError(
            "In bfloat16, tensorflow computes the layer 'backbone' of an FCN; this model has none. "
            "Use --precision float32."
        )
    copy = copied(model)
    head = (layer for layer in copy.layers if layer.name in HEAD)
    for layer in (*nested_layers(copy.get_layer("backbone")), *head):
        layer.dtype_policy = "mixed_bfloat16"
    return copy


def traced(model: keras.Model):
    """The model as a concrete function of float32 images of any batch size, height and width."""
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    function = tf.function(lambda images: model(images, training=False), input_signature=[images])
    return function.get_concrete_function()


def with_constants(model: keras.Model):
    """The model as a `tf.function` with constants for weights, from `images` to `logits`.

    Converters mistake captured tensors for inputs, or drop them.
    """
    constant = convert_variables_to_constants_v2(traced(model))
    images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
    return tf.function(lambda images: {"logits": constant(images)[0]}, input_signature=[images])


def write_graph(model: keras.Model, path: Path) -> None:
    """Writes a model as a frozen TensorFlow graph, from images to logits."""
    graph = convert_variables_to_constants_v2(traced(model)).graph
    path.write_bytes(graph.as_graph_def().SerializeToString())


def write_onnx(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    """Writes a float32 model with texts as its metadata; needs the packages of `[onnx]`."""
    import onnx
    import tf2onnx

    function = with_constants(model)
    proto, _ = tf2onnx.convert.from_function(function, function.input_signature)
    for tensor in (*proto.graph.input, *proto.graph.output):
        for axis, name in enumerate(("batch", "height", "width")):
            tensor.type.tensor_type.shape.dim[axis].dim_param = name
    set_texts(proto, texts)
    onnx.save(proto, path)


def set_texts(proto, texts: dict[str, str]) -> None:
    """Sets an ONNX model's metadata: texts by the names of files, without extensions."""
    import onnx

    onnx.helper.set_model_props(proto, {Path(name).stem: text for name, text in texts.items()})
