"""Upsampling by transposed convolution: its bilinear kernel, the crop behind it, a faster form."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("fcn_keras")
class BilinearInitializer(keras.initializers.Initializer):
    """Kernel of a `Conv2DTranspose` that makes it interpolate bilinearly.

    A layer with kernel `2s` (or `2s - 1`) and stride `s` then upsamples `s`
    times, each channel on its own: output channel `i` reads input channel `i`.
    With unequal channel counts the first `min(in, out)` are paired and the
    other kernels are zero.

    Source: *Dive into Deep Learning*, "Fully Convolutional Networks"; Long et
    al. 2015, section 3.3.
    """

    def __call__(self, shape, dtype=None):
        """Returns the kernel.

        Args:
            shape: `(height, width, out_channels, in_channels)`, the order of
                `Conv2DTranspose`; any height and width.
            dtype: The kernel's dtype; Keras's default float where `None`.

        Raises:
            ValueError: If `shape` is not of length 4.
        """
        if len(shape) != 4:
            raise ValueError(
                "BilinearInitializer makes kernels of shape (height, width, out_channels, "
                f"in_channels), for Conv2DTranspose. Received: shape={tuple(shape)}"
            )
        height, width, out_channels, in_channels = shape
        window = np.outer(_triangle(height), _triangle(width))
        kernel = window[:, :, None, None] * np.eye(out_channels, in_channels)
        return ops.convert_to_tensor(kernel, dtype=dtype or keras.config.floatx())


def _triangle(size: int) -> np.ndarray:
    """Linear interpolation's weights: 1 at the centre, falling to 0 beyond the ends."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    return 1 - np.abs(np.arange(size) - center) / factor


@keras.saving.register_keras_serializable("fcn_keras")
class CropLike(keras.layers.Layer):
    """Crops the first of two maps to the height and width of the second.

    A backbone of stride `s` rounds sizes up: its features have `ceil(H / s)`
    rows, which upsample to `H` rows or a few more. The surplus is at the bottom
    and right, where the backbone's padding put it.

    Call with `[maps, reference]`, shapes `(B, H1, W1, C)` and `(B, H2, W2, D)`,
    `H1 >= H2` and `W1 >= W2`; returns `(B, H2, W2, C)`.
    """

    def call(self, inputs):
        maps, reference = inputs
        height, width = ops.shape(reference)[1:3]
        return maps[:, :height, :width, :]

    def compute_output_shape(self, input_shape):
        maps, reference = input_shape
        return (maps[0], reference[1], reference[2], maps[3])


@keras.saving.register_keras_serializable("fcn_keras")
class BlockUpsampling(keras.layers.Layer):
    """A faster `Conv2DTranspose(filters, 2 * stride, strides=stride, padding="same")`.

    It is for inference and even strides. Each block of `stride` rows and columns
    of the result depends on 2x2 elements of the input alone, so that one matrix
    product gives all blocks. TensorFlow's transposed convolution writes the
    product of each element, four times as much, and adds these up.

    Maps `(B, H, W, D)` to `(B, H * stride, W * stride, filters)`.
    """

    def __init__(self, filters: int, stride: int, **options):
        super().__init__(**options)
        self.filters, self.stride = filters, stride

    def build(self, input_shape):
        block = self.stride**2 * self.filters
        self.kernel = self.add_weight(shape=(4 * input_shape[-1], block), name="kernel")
        self.bias = self.add_weight(shape=(block,), initializer="zeros", name="bias")

    def call(self, inputs):
        height, width = (size + 1 for size in ops.shape(inputs)[1:3])
        padded = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        corners = [
            padded[:, row : row + height, column : column + width]
            for row in (0, 1)
            for column in (0, 1)
        ]
        blocks = ops.matmul(ops.concatenate(corners, axis=-1), self.kernel) + self.bias
        side = self.stride
        rows = ops.transpose(
            ops.reshape(blocks, (-1, height, width, side, side * self.filters)), (0, 1, 3, 2, 4)
        )
        maps = ops.reshape(rows, (-1, height * side, width * side, self.filters))
        margin = side // 2
        return maps[:, margin : margin - side, margin : margin - side]

    def compute_output_shape(self, input_shape):
        height, width = (size and size * self.stride for size in input_shape[1:3])
        return (input_shape[0], height, width, self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}

    def weights_of(self, layer: keras.layers.Conv2DTranspose) -> list[np.ndarray]:
        """The weights with which this layer does what the other does."""
        kernel, bias = (ops.convert_to_numpy(weight) for weight in (layer.kernel, layer.bias))
        side, channels = self.stride, kernel.shape[-1]
        # (corner's row, row of the block, corner's column, column, filter, channel), where the
        # upper left corner reaches the block with the latter half of its kernel.
        halves = kernel.reshape(2, side, 2, side, self.filters, channels)[::-1, :, ::-1]
        blocks = halves.transpose(0, 2, 5, 1, 3, 4).reshape(4 * channels, -1)
        return [blocks, np.tile(bias, side**2)]


def upsample_by_blocks(model: keras.Model) -> keras.Model:
    """A network for inference that upsamples by `BlockUpsampling` where it can.

    Args:
        model: A functional model, such as `build_fcn`'s. It stays as it is.

    Returns:
        A model that gives the same but for rounding. It shares the other layers
        with `model`, so that later changes of these are changes of both.
    """
    replaced = {}

    def clone(layer):
        if not _fits_blocks(layer):
            return layer
        replaced[layer.name] = layer
        options = {"dtype": layer.dtype_policy, "name": layer.name}
        return BlockUpsampling(layer.filters, layer.strides[0], **options)

    copy = keras.models.clone_model(model, clone_function=clone)
    for name, layer in replaced.items():
        new = copy.get_layer(name)
        new.set_weights(new.weights_of(layer))
    return copy


def _fits_blocks(layer: keras.layers.Layer) -> bool:
    if not isinstance(layer, keras.layers.Conv2DTranspose):
        return False
    stride = layer.strides[0]
    return (
        layer.strides == (stride, stride)
        and layer.kernel_size == (2 * stride, 2 * stride)
        and stride % 2 == 0
        and layer.padding == "same"
        and layer.output_padding is None
        and layer.dilation_rate == (1, 1)
        and layer.data_format == "channels_last"
        and layer.activation is keras.activations.linear
        and layer.use_bias
    )
