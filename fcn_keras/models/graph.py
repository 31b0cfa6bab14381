"""The calls and layers of a functional model, and a copy of it."""

from __future__ import annotations

from collections.abc import Iterator

import keras


def calls(model: keras.Model) -> list:
    """The calls of a model's layers, each after those whose results it uses.

    A call has the layer as `operation`, `input_tensors` and `output_tensors`.
    """
    # Keras 3 has no public access to them, and a `Sequential` none at all.
    depths = keras.Model(model.inputs, model.outputs)._nodes_by_depth
    return [call for depth in sorted(depths, reverse=True) for call in depths[depth]]


def nested_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """A model's layers, and those of the models among them."""
    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from nested_layers(layer)


def copied(model: keras.Model) -> keras.Model:
    """A copy with separate weights, and without the optimizer, which `clone_model` would copy."""
    copy = model.from_config(model.get_config())
    copy.set_weights(model.get_weights())
    return copy
