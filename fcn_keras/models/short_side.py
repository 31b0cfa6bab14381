"""The size that a network sees photographs at: stored in the model, and resized to.

A model trained on photographs that were all resized to the same shorter side, such as
torchvision's FCNs (520 pixels), knows objects at that scale. The model itself does not resize:
tiles and crops reach it as they are. `Segmenter`, exported models and the page resize.
"""

from __future__ import annotations

import keras
from keras import ops

from fcn_keras.errors import UserError
from fcn_keras.files.images import resized_size
from fcn_keras.models.graph import calls


@keras.saving.register_keras_serializable("fcn_keras")
class ShortSide(keras.layers.Layer):
    """Stores the shorter side of the photographs that a model was trained on.

    Returns its input. Whoever calls the model itself resizes, if they want to.

    Args:
        pixels: The shorter side; 0 if photographs kept their size.
    """

    def __init__(self, pixels: int, **options):
        super().__init__(**options)
        if not isinstance(pixels, int) or pixels < 0:
            raise UserError(f"short_side must be 0 or more pixels. Received: {pixels!r}.")
        self.pixels = pixels

    def call(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "pixels": self.pixels}


def short_side_of(model: keras.Model) -> int:
    """The shorter side that a model stores; 0 if it stores none."""
    sides = (layer.pixels for layer in model.layers if isinstance(layer, ShortSide))
    return next(sides, 0)


def with_short_side(model: keras.Model, pixels: int) -> keras.Model:
    """A model that stores this shorter side; it shares its other layers with `model`."""
    if short_side_of(model) == pixels:
        return model
    model = keras.Model(model.input, model.output, name=model.name)  # without an optimizer
    stores = any(isinstance(layer, ShortSide) for layer in model.layers)
    side = ShortSide(pixels, dtype="float32", name="short_side")
    sources = {id(tensor) for tensor in model.inputs}
    first = next(
        call.operation for call in calls(model) if {id(t) for t in call.input_tensors} & sources
    )

    def clone(layer):
        return side if isinstance(layer, ShortSide) else layer

    def call(layer, inputs, *args, **options):
        if layer is first and not stores:
            inputs = side(inputs)
        return layer(inputs, *args, **options)

    return keras.models.clone_model(model, clone_function=clone, call_function=call)


def at_short_side(model: keras.Model, short_side: int) -> keras.Model:
    """A model that resizes images for the network, and the logits back to their size.

    For files that other runtimes run. It shares its layers with `model`.
    """
    images = keras.Input((None, None, 3), name="images")
    resized = ResizeToShortSide(short_side, dtype="float32")(images)
    [maps] = keras.tree.flatten(model(resized))  # a list, if the model is a copy
    logits = ResizeLike(dtype="float32", name="resized_logits")([maps, images])
    return keras.Model(images, logits, name=model.name)


class ResizeToShortSide(keras.layers.Layer):
    """Resizes images `(B, H, W, C)` to `resized_size`, bilinearly and with antialiasing.

    Equals Pillow's `resize`, but for its rounding. It is two matrix products, as ONNX Runtime
    and LiteRT have no resizing with antialiasing to sizes that are computed.
    """

    def __init__(self, short_side: int, **options):
        super().__init__(**options)
        self.short_side = short_side

    def call(self, inputs):
        height, width = ops.shape(inputs)[1:3]
        limits = {"low": ops.minimum, "high": ops.maximum}
        sides = resized_size(height, width, self.short_side, **limits)
        planes = ops.transpose(inputs, (0, 3, 1, 2))
        planes = ops.matmul(_antialiased(height, sides[0], 3), planes)
        planes = ops.matmul(planes, _antialiased(width, sides[1], 2))
        return ops.transpose(planes, (0, 2, 3, 1))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], None, None, input_shape[3])


def _antialiased(size, target, axis: int):
    """Weights that resize maps: triangles, as wide as a resized pixel or more.

    They have four axes, for which LiteRT needs no reshaping of several unknown sizes: the maps'
    `axis`, and on the other one of the last two, the resized maps'.
    """
    scale = ops.cast(size, "float32") / ops.cast(target, "float32")

    def middles(count, axis):
        places = ops.cast(ops.arange(0, count, dtype="int32"), "float32") + 0.5
        return ops.reshape(places, [-1 if each == axis else 1 for each in range(4)])

    distances = ops.abs(middles(size, axis) - scale * middles(target, 5 - axis))
    weights = ops.maximum(1 - distances / ops.maximum(scale, 1.0), 0.0)
    return weights / ops.sum(weights, axis=axis, keepdims=True)


class ResizeLike(keras.layers.Layer):
    """Resizes the first of two maps bilinearly, without antialiasing, to the second one's size."""

    def call(self, inputs):
        maps, reference = inputs
        import tensorflow as tf  # Keras's own needs to know the size

        return tf.image.resize(maps, ops.shape(reference)[1:3], "bilinear")

    def compute_output_shape(self, input_shape):
        maps, reference = input_shape
        return (maps[0], reference[1], reference[2], maps[3])
