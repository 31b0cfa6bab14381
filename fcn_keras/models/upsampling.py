"""Upsampling by transposed convolution: its bilinear kernel, its fast form, the crop behind it."""

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
class BlockwiseConv2DTranspose(keras.layers.Conv2DTranspose):
    """`Conv2DTranspose` that trains by matrix products where they are faster.

    With kernel `2s`, stride `s` and "same" padding, an output pixel is a weighted sum
    over 2x2 inputs, the same four for each block of `s / 2` times `s / 2` pixels. So
    each of a block's four positions within a stride is one matrix product of all those
    neighbours, `(B h w, 4 in_channels)`, and the kernel's part for it. Convolution
    kernels have to go through windows of `2s` times `2s` pixels instead: with stride 32
    and 21 classes, forward and backward pass took twice as long on a processor.

    Strides below 8, other kernels, and inference, whose plain layer other runtimes
    know, are left to the parent.
    """

    def call(self, inputs, training=None):
        stride = self.strides[0]
        blockwise = (
            self.strides == (stride, stride)
            and self.kernel_size == (2 * stride, 2 * stride)
            and (self.padding, self.output_padding) == ("same", None)
            and (self.dilation_rate, self.data_format) == ((1, 1), "channels_last")
            and stride % 2 == 0
        )
        if not (training and blockwise and stride >= 8):
            return super().call(inputs)
        height, width, channels = ops.shape(inputs)[1:]
        half = stride // 2
        first_second = (0, 1)  # half of a stride, and neighbour of the two that reach it
        padded = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))

        def neighbours(p, q):  # (B, h, w, 4 in)
            shifted = [
                padded[:, p + a : p + a + height, q + b : q + b + width]
                for a in first_second
                for b in first_second
            ]
            return ops.concatenate(shifted, axis=-1)

        windows = ops.stack([neighbours(p, q) for p in first_second for q in first_second])
        windows = ops.reshape(windows, (4, -1, 4 * channels))
        # Kernel rows are (neighbour, half, row of the half), both counted backwards.
        kernel = ops.reshape(self.kernel, (2, 2, half, 2, 2, half, self.filters, channels))
        kernel = ops.flip(ops.transpose(kernel, (1, 4, 0, 3, 7, 2, 5, 6)), (0, 1, 2, 3))
        kernel = ops.reshape(kernel, (4, 4 * channels, -1))
        if self.use_bias:  # an input that is 1 saves a pass over all pixels
            windows = ops.pad(windows, ((0, 0), (0, 0), (0, 1)), constant_values=1)
            bias = ops.broadcast_to(ops.tile(self.bias, half**2), (4, 1, kernel.shape[-1]))
            kernel = ops.concatenate([kernel, bias], axis=1)
        blocks = ops.matmul(windows, kernel)  # (4, B h w, half half out)
        blocks = ops.reshape(blocks, (2, 2, -1, height, width, half, half * self.filters))
        blocks = ops.transpose(blocks, (2, 3, 0, 5, 4, 1, 6))  # (B, h, p, half, w, q, half out)
        outputs = ops.reshape(blocks, (-1, height * stride, width * stride, self.filters))
        return self.activation(outputs)


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
        if tuple(maps.shape[1:3]) == (height, width):  # a slice would copy them
            return maps
        return maps[:, :height, :width, :]

    def compute_output_shape(self, input_shape):
        maps, reference = input_shape
        return (maps[0], reference[1], reference[2], maps[3])
