"""Folds batch normalisation into the convolutions before it, for inference."""

from __future__ import annotations

import collections

import keras
import numpy as np
from keras import ops

from fcn_keras.models.dilation import DilatedConv2D
from fcn_keras.models.graph import calls

_CONVOLUTIONS = (keras.layers.Conv2D, DilatedConv2D)


def fold_batchnorm(model: keras.Model) -> keras.Model:
    """A copy of a network whose convolutions do the batch normalisation after them.

    At inference, batch normalisation scales and shifts each channel by constants,
    which a convolution with another kernel and a bias does as well. The copy has fewer
    layers and passes over the maps. It is for inference only.

    A `BatchNormalization` stays unless it directly follows a convolution that has no
    activation, is called once and feeds nothing else; many stay with pre-activation.

    Args:
        model: A functional model, such as `build_fcn`'s; models within it are
            folded too. It is not changed.

    Returns:
        An uncompiled model with the same results but for rounding. Where a
        convolution computes in a precision other than that of its weights, they are
        folded in the latter and stored in the former.
    """
    model = keras.Model(model.inputs, model.outputs, name=model.name)  # without an optimizer
    convolutions = _foldable(model)
    norms = {convolution.name: norm for norm, convolution in convolutions.items()}
    removed = {norm.name for norm in convolutions}

    def clone(layer):
        if isinstance(layer, keras.Model):
            return fold_batchnorm(layer)
        config = layer.get_config()
        if type(layer) in _CONVOLUTIONS:
            config["dtype"] = layer.compute_dtype  # avoids casting its weights at each call
        if layer.name in norms:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer, *args, **kwargs):
        return args[0] if layer.name in removed else layer(*args, **kwargs)

    copy = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in copy.layers:
        if layer.name in norms:
            layer.set_weights(_folded(model.get_layer(layer.name), norms[layer.name]))
        elif layer.weights and not isinstance(layer, keras.Model):
            layer.set_weights(model.get_layer(layer.name).get_weights())
    return copy


def _foldable(model: keras.Model) -> dict[keras.layers.Layer, keras.layers.Layer]:
    """The batch normalisations that can be folded, and the convolutions before them."""
    uses = collections.Counter(id(tensor) for tensor in model.outputs)
    times: collections.Counter = collections.Counter()
    makers: dict = {}
    for call in calls(model):
        times[call.operation] += 1
        uses.update(id(tensor) for tensor in call.input_tensors)
        makers |= {id(tensor): call.operation for tensor in call.output_tensors}
    found = {}
    for call in calls(model):
        norm = call.operation
        if not isinstance(norm, keras.layers.BatchNormalization):
            continue
        [tensor] = call.input_tensors
        convolution = makers[id(tensor)]
        if (
            type(convolution) in _CONVOLUTIONS
            and convolution.activation is keras.activations.linear
            and times[norm] == times[convolution] == uses[id(tensor)] == 1
            and norm.axis in (-1, 3)
            and convolution.data_format == "channels_last"
        ):
            found[norm] = convolution
    return found


def _folded(convolution, norm) -> list[np.ndarray]:
    """Kernel and bias of the convolution that does both."""

    def values(variable, otherwise=0):
        return otherwise if variable is None else np.float32(ops.convert_to_numpy(variable))

    scale = values(norm.gamma, 1) / np.sqrt(values(norm.moving_variance, 1) + norm.epsilon)
    shift = values(norm.beta) + scale * (values(convolution.bias) - values(norm.moving_mean))
    return [values(convolution.kernel) * scale, shift]
