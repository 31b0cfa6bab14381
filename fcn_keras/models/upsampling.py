"""Upsampling: a bilinear kernel for transposed convolutions, resizing, and the crop after them."""

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

    Pixels have their centres at halves, and edges are repeated, as in PyTorch's
    `interpolate(mode="bilinear", align_corners=False)`. Keras's `UpSampling2D` is the same but
    needs to know the size of the maps.
    """

    def __init__(self, factor: int, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, inputs):
        resize = ops.image.resize
        if keras.backend.backend() == "tensorflow":
            from tensorflow.image import resize

        height, width = ops.shape(inputs)[1:3]
        return resize(inputs, (height * self.factor, width * self.factor), "bilinear")

    def compute_output_shape(self, input_shape):
        height, width = (size and size * self.factor for size in input_shape[1:3])
        return (input_shape[0], height, width, input_shape[3])

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}


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
