"""Upsampling: bilinear kernels and weights, layers that need no dense kernel, and the crop."""

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("fcn_keras")
class BilinearInitializer(keras.initializers.Initializer):
    """Kernel of a `Conv2DTranspose` that makes it interpolate bilinearly.

    A layer with kernel `2s` (or `2s - 1`) and stride `s` then upsamples by a
    factor of `s`, each channel separately: output channel `i` reads input channel
    `i`. If the channel counts differ, the first `min(in, out)` are paired and the
    other kernels are zero.

    Source: *Dive into Deep Learning*, "Fully Convolutional Networks"; Long et
    al. 2015, section 3.3.
    """

    def __call__(self, shape, dtype=None):
        """Returns the kernel.

        Args:
            shape: `(height, width, out_channels, in_channels)`, the order of
                `Conv2DTranspose`; any height and width.
            dtype: The kernel's dtype; Keras's default float type if `None`.

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
    """The weights of linear interpolation: 1 at the centre, falling to 0 beyond the ends."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    return 1 - np.abs(np.arange(size) - center) / factor


@keras.saving.register_keras_serializable("fcn_keras")
class BilinearUpsampling(keras.layers.Layer):
    """Resizes maps `(B, h, w, C)` bilinearly to `(B, h * factor, w * factor, C)`.

    Pixels have their centres at halves. It is a matrix product for each axis, whose gradient is
    one, too: on a CPU, TensorFlow's `resize` takes six times as long to train.

    Args:
        factor: How much larger the maps become.
        zero_edges: What lies beyond the maps: zeros, as for a transposed convolution with the
            kernel of `BilinearInitializer`; or their edges, repeated, as in PyTorch's
            `interpolate(mode="bilinear", align_corners=False)`.
    """

    def __init__(self, factor: int, zero_edges: bool = False, **options):
        super().__init__(**options)
        self.factor, self.zero_edges = factor, zero_edges

    def call(self, inputs):
        height, width, channels = ops.shape(inputs)[1:]
        tall, wide = height * self.factor, width * self.factor
        repeat = not self.zero_edges
        # Columns first, while the rows are few; then all columns of a row at once.
        maps = ops.matmul(interpolation(width, wide, 3, repeat), inputs)  # (B, h, wide, C)
        maps = ops.reshape(maps, (-1, 1, height, wide * channels))
        maps = ops.matmul(interpolation(height, tall, 3, repeat), maps)
        return ops.reshape(maps, (-1, tall, wide, channels))

    def compute_output_shape(self, input_shape):
        return _upsampled_shape(input_shape, self.factor)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor, "zero_edges": self.zero_edges}


@keras.saving.register_keras_serializable("fcn_keras")
class PerClassUpsampling(keras.layers.Layer):
    """Upsamples maps `(B, h, w, C)` by an even factor, each channel by itself.

    Equals a `Conv2DTranspose` with kernel `2 * factor`, stride `factor` and "same" padding whose
    kernel is zero between different channels, but takes memory and time in proportion to the
    channels instead of their square. The kernel, `(2 * factor, 2 * factor, C)`, is trained and
    interpolates bilinearly at first.

    Source: the FCNs of Long et al. in Caffe, whose deconvolutions have one group per class.
    """

    def __init__(self, factor: int, **options):
        super().__init__(**options)
        if factor % 2:
            raise ValueError(f"factor must be even. Received: {factor}")
        self.factor = factor

    def build(self, input_shape):
        shape = (2 * self.factor, 2 * self.factor, input_shape[-1])
        self.kernel = self.add_weight(shape=shape, initializer=_bilinear_per_class, name="kernel")

    def call(self, inputs):
        factor, (height, width, channels) = self.factor, ops.shape(inputs)[1:]
        # What an input adds to its own factor * factor outputs and to those of its neighbours.
        kernel = ops.pad(self.kernel, ((factor // 2,) * 2, (factor // 2,) * 2, (0, 0)))
        kernel = ops.reshape(kernel, (3, factor, 3, factor, channels))
        kernel = ops.reshape(ops.transpose(kernel, (4, 1, 0, 2, 3)), (channels, factor, 9, factor))
        padded = ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)))
        shifts = [(2 - down, 2 - right) for down in range(3) for right in range(3)]
        seen = [padded[:, down : down + height, right : right + width] for down, right in shifts]
        windows = ops.transpose(ops.stack(seen), (4, 1, 2, 3, 0))  # (C, B, h, w, 9)
        maps = ops.matmul(ops.reshape(windows, (channels, 1, -1, 9)), kernel)
        maps = ops.reshape(maps, (channels, factor, -1, height, width * factor))
        maps = ops.transpose(maps, (2, 3, 1, 4, 0))
        return ops.reshape(maps, (-1, height * factor, width * factor, channels))

    def compute_output_shape(self, input_shape):
        return _upsampled_shape(input_shape, self.factor)

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


def _bilinear_per_class(shape, dtype=None):
    window = np.outer(_triangle(shape[0]), _triangle(shape[1]))[..., None]
    return ops.convert_to_tensor(np.repeat(window, shape[2], axis=-1), dtype=dtype)


def _upsampled_shape(shape, factor: int) -> tuple:
    height, width = (size and size * factor for size in shape[1:3])
    return (shape[0], height, width, shape[3])


def interpolation(size, target, axis: int, repeat_edges: bool = True):
    """Weights that resize an axis of maps bilinearly, by a matrix product.

    Targets that are smaller are antialiased: triangles are as wide as a resized pixel or more.

    Args:
        size: Of the axis, a number or a tensor.
        target: Likewise, when resized.
        axis: 2 or 3. The weights have four axes, for which LiteRT needs no reshaping of several
            unknown sizes: of the last two, the maps' is `axis` and the other one is the target's.
        repeat_edges: Whether edges are repeated beyond the maps, instead of zeros.
    """
    scale = ops.cast(size, "float32") / ops.cast(target, "float32")

    def middles(count, axis):
        places = ops.cast(ops.arange(0, count, dtype="int32"), "float32") + 0.5
        return ops.reshape(places, [-1 if each == axis else 1 for each in range(4)])

    distances = ops.abs(middles(size, axis) - scale * middles(target, 5 - axis))
    weights = ops.maximum(1 - distances / ops.maximum(scale, 1.0), 0.0)
    return weights / ops.sum(weights, axis=axis, keepdims=True) if repeat_edges else weights


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
