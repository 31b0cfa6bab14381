"""Transposed convolution by matrix products, which is faster than convolution kernels.

With kernel `2s`, stride `s` and "same" padding, an output pixel is a weighted sum over 2x2
inputs, the same four for each block of `s / 2` times `s / 2` pixels. So each of the four
positions of a block within a stride takes one matrix product: of all those neighbours and the
part of the kernel for that position. Convolution kernels instead write, or read, each input's
products over `2s` times `2s` pixels, four times as many as there are.
"""

from __future__ import annotations

import keras
from keras import ops

# Smaller ones train faster with convolution kernels.
LEAST_TRAINED_STRIDE = 8


@keras.saving.register_keras_serializable("fcn_keras")
class BlockwiseConv2DTranspose(keras.layers.Conv2DTranspose):
    """`Conv2DTranspose` that trains by matrix products where they are faster.

    At stride 32 with 21 classes, a forward and backward pass takes half the time on a
    CPU. The parent class handles strides below 8, other kernels, and inference, as other
    runtimes know the plain layer.
    """

    def call(self, inputs, training=None):
        if not (training and _fits(self) and self.strides[0] >= LEAST_TRAINED_STRIDE):
            return super().call(inputs)
        bias = self.bias if self.use_bias else None
        return _upsampled(inputs, block_kernel(self.kernel, bias), self.strides[0])


@keras.saving.register_keras_serializable("fcn_keras")
class BlockUpsampling(keras.layers.Layer):
    """`Conv2DTranspose(filters, 2 * stride, strides=stride, padding="same")` for inference.

    Its weight is `block_kernel` of that layer's kernel; `stride` is even. Maps `(B, H, W, D)`
    to `(B, H * stride, W * stride, filters)`.
    """

    def __init__(self, filters: int, stride: int, use_bias: bool = True, **options):
        super().__init__(**options)
        self.filters, self.stride, self.use_bias = filters, stride, use_bias

    def build(self, input_shape):
        rows, columns = 4 * input_shape[-1] + self.use_bias, self.filters * self.stride**2 // 4
        self.kernel = self.add_weight(shape=(4, rows, columns), name="kernel")

    def call(self, inputs):
        return _upsampled(inputs, self.kernel, self.stride)

    def compute_output_shape(self, input_shape):
        height, width = (size and size * self.stride for size in input_shape[1:3])
        return (input_shape[0], height, width, self.filters)

    def get_config(self):
        own = {"filters": self.filters, "stride": self.stride, "use_bias": self.use_bias}
        return {**super().get_config(), **own}


def upsample_by_blocks(model: keras.Model) -> keras.Model:
    """A network for inference that upsamples by `BlockUpsampling` where it can.

    Args:
        model: A functional model, such as `build_fcn`'s. It is not changed.

    Returns:
        A model with the same output, up to rounding. It shares its other layers
        with `model`, so later changes to these affect both.
    """
    replaced = {}

    def clone(layer):
        if not (isinstance(layer, keras.layers.Conv2DTranspose) and _fits(layer)):
            return layer
        replaced[layer.name] = layer
        options = {"dtype": layer.dtype_policy, "name": layer.name}
        return BlockUpsampling(layer.filters, layer.strides[0], layer.use_bias, **options)

    copy = keras.models.clone_model(model, clone_function=clone)
    for name, layer in replaced.items():
        kernel = block_kernel(layer.kernel, layer.bias if layer.use_bias else None)
        copy.get_layer(name).set_weights([ops.convert_to_numpy(kernel)])
    return copy


def block_kernel(kernel, bias=None):
    """The matrices that upsample as a transposed convolution does.

    Args:
        kernel: `(2 stride, 2 stride, filters, channels)`, that of `Conv2DTranspose`.
        bias: `(filters,)` or `None`.

    Returns:
        `(4, 4 channels, (stride / 2)**2 filters)` for the positions (up, down) x (left,
        right) of a block within a stride, with an extra row for the bias, which saves a
        pass over all pixels.
    """
    half, (filters, channels) = kernel.shape[0] // 4, kernel.shape[2:]
    # A kernel's rows are (neighbour, position, row of the block), the first two in reverse.
    parts = ops.reshape(kernel, (2, 2, half, 2, 2, half, filters, channels))
    parts = ops.flip(ops.transpose(parts, (1, 4, 0, 3, 7, 2, 5, 6)), (0, 1, 2, 3))
    matrices = ops.reshape(parts, (4, 4 * channels, half**2 * filters))
    if bias is None:
        return matrices
    row = ops.broadcast_to(ops.tile(bias, half**2), (4, 1, half**2 * filters))
    return ops.concatenate([matrices, row], axis=1)


def _upsampled(maps, kernel, stride: int):
    """Maps `(B, h, w, channels)`, upsampled by a `block_kernel`."""
    height, width, channels = ops.shape(maps)[1:]
    half = stride // 2
    padded = ops.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def neighbours(p, q):  # of the blocks at one position: (B, h, w, 4 channels)
        shifted = [
            padded[:, p + a : p + a + height, q + b : q + b + width] for a in (0, 1) for b in (0, 1)
        ]
        return ops.concatenate(shifted, axis=-1)

    windows = ops.stack([neighbours(p, q) for p in (0, 1) for q in (0, 1)])
    windows = ops.reshape(windows, (4, -1, 4 * channels))
    if kernel.shape[1] > 4 * channels:  # the bias is the weight of an input of 1
        windows = ops.pad(windows, ((0, 0), (0, 0), (0, 1)), constant_values=1)
    blocks = ops.matmul(windows, kernel)  # (4, B h w, half half filters)
    row = kernel.shape[-1] // half
    blocks = ops.reshape(blocks, (2, 2, -1, height, width, half, row))
    blocks = ops.transpose(blocks, (2, 3, 0, 5, 4, 1, 6))  # (B, h, p, half, w, q, half filters)
    return ops.reshape(blocks, (-1, height * stride, width * stride, row // half))


def _fits(layer: keras.layers.Conv2DTranspose) -> bool:
    """Whether a transposed convolution can be computed by blocks."""
    stride = layer.strides[0]
    return (
        layer.strides == (stride, stride)
        and layer.kernel_size == (2 * stride, 2 * stride)
        and stride % 2 == 0
        and (layer.padding, layer.output_padding) == ("same", None)
        and (layer.dilation_rate, layer.data_format) == ((1, 1), "channels_last")
        and layer.activation is keras.activations.linear
    )
