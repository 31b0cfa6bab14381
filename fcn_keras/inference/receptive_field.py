"""A network's receptive field, computed from its layers, for exact tiling."""

from __future__ import annotations

import keras

from fcn_keras.errors import UserError
from fcn_keras.inference.field import Field
from fcn_keras.models.graph import calls
from fcn_keras.models.short_side import ShortSide
from fcn_keras.models.upsampling import BilinearUpsampling, CropLike

_POINTWISE = (
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.Normalization,
    keras.layers.ReLU,
    ShortSide,
)


def receptive_field(model: keras.Model) -> Field:
    """The field of a model's output, the larger of those in height and width.

    Source: Araujo, Norris and Sim 2019, "Computing Receptive Fields of
    Convolutional Neural Networks".

    Args:
        model: A functional model of one image to one map, such as `build_fcn`'s.

    Raises:
        UserError: If a layer's reach is not known.
    """
    fields = [_fields(model, [Field()], axis)[0] for axis in (0, 1)]
    return max(fields, key=lambda field: field.halo)


def _fields(model: keras.Model, inputs: list[Field], axis: int) -> list[Field]:
    """The fields of a model's outputs, given those of its inputs."""
    known = {id(tensor): field for tensor, field in zip(model.inputs, inputs)}
    for call in calls(model):
        layer = call.operation
        fields = [known[id(tensor)] for tensor in call.input_tensors]
        if isinstance(layer, keras.Model):
            known |= zip(map(id, call.output_tensors), _fields(layer, fields, axis))
        elif fields:  # else an input
            known[id(call.output_tensors[0])] = _after_layer(layer, fields, axis)
    return [known[id(tensor)] for tensor in model.outputs]


def _after_layer(layer, fields: list[Field], axis: int) -> Field:
    field = fields[0]
    if isinstance(layer, (*_POINTWISE, CropLike)):  # CropLike keeps the top left
        return field
    if isinstance(layer, keras.layers.Add):
        for other in fields[1:]:
            field = field.joined(other)
        return field
    if isinstance(layer, keras.layers.ZeroPadding2D):
        return field.after_convolution(1, 1, (layer.padding[axis][0],) * 2)
    if isinstance(layer, keras.layers.Conv2DTranspose):
        kernel, stride = layer.kernel_size[axis], layer.strides[axis]
        crop = (kernel - stride) // 2 if layer.padding == "same" else 0
        return field.after_transposed_convolution(kernel, stride, crop)
    if isinstance(layer, BilinearUpsampling):
        factor = layer.factor  # reaches as far as the transposed convolution that interpolates
        return field.after_transposed_convolution(2 * factor, factor, factor // 2)
    if isinstance(layer, keras.layers.Conv2D):
        kernel = (layer.kernel_size[axis] - 1) * layer.dilation_rate[axis] + 1
        return field.after_convolution(kernel, layer.strides[axis], _padding(layer, kernel, axis))
    if isinstance(layer, (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)):
        kernel = layer.pool_size[axis]
        return field.after_convolution(kernel, layer.strides[axis], _padding(layer, kernel, axis))
    raise UserError(
        f"The reach of layer {layer.name!r} ({type(layer).__name__}) is not known, so tiles cannot "
        "be exact. Use --blend average."
    )


def _padding(layer, kernel: int, axis: int) -> tuple[int, int]:
    if layer.padding == "valid":
        return 0, 0
    most = (kernel - 1) // 2
    # With strides, "same" padding depends on the size of the map.
    return (most if layer.strides[axis] == 1 else 0), most
