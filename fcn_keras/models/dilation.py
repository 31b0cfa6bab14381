"""Features of stride 8 throughout: dilation in place of a ResNet's last two strides."""

from __future__ import annotations

import functools

import keras

from fcn_keras.errors import UserError

# The stride of KerasHub's stages that is removed, up to and including each.
REMOVED_STRIDES = {"stack2": 2, "stack3": 4}


@keras.saving.register_keras_serializable("fcn_keras")
class DilatedConv2D(keras.layers.Conv2D):
    """`Conv2D` of stride 1 that computes dilation by TensorFlow's own kernels.

    Keras takes dilated convolutions through SpaceToBatch. That is slower, in OpenVINO by an
    order of magnitude. Padding is explicit because ONNX Runtime has no automatic
    padding with dilation. Where TensorFlow lacks the gradient, as on CPUs without oneDNN,
    training works like the parent.
    """

    def call(self, inputs, training=None):
        fits = (self.strides, self.padding, self.groups) == ((1, 1), "same", 1)
        fits = fits and self.data_format == "channels_last" and all(k % 2 for k in self.kernel_size)
        if keras.backend.backend() != "tensorflow" or not fits:
            return super().call(inputs)
        if training and not _has_gradient(self.compute_dtype):
            return super().call(inputs)
        import tensorflow as tf

        edges = [d * (k - 1) // 2 for d, k in zip(self.dilation_rate, self.kernel_size)]
        padded = tf.pad(inputs, [(0, 0), *((edge, edge) for edge in edges), (0, 0)])
        outputs = tf.nn.conv2d(padded, self.kernel, 1, "VALID", dilations=self.dilation_rate)
        return self.activation(outputs + self.bias if self.use_bias else outputs)


@functools.cache
def _has_gradient(dtype: str) -> bool:
    """Whether TensorFlow has the gradient of dilated convolution on the default device."""
    import tensorflow as tf

    with tf.init_scope():
        maps, kernel = tf.ones((1, 5, 5, 16), dtype), tf.ones((3, 3, 16, 16), dtype)
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            outputs = tf.nn.conv2d(maps, kernel, 1, "VALID", dilations=2)
        try:
            return tape.gradient(outputs, kernel) is not None
        except tf.errors.OpError:
            return False


def dilate(features: keras.Model) -> keras.Model:
    """A copy of a ResNet whose last two stages keep the resolution of the one before.

    The strides of stages three and four become 1. Every 3x3 convolution after a removed
    stride is dilated by it; one that had the stride itself keeps the dilation before it,
    also in the basic blocks that torchvision does not dilate. So the values at every fourth
    row and column are those of the strided network.

    Source: torchvision's `replace_stride_with_dilation=[False, True, True]`; Yu, Koltun and
    Funkhouser 2017, "Dilated Residual Networks".

    Args:
        features: KerasHub's ResNet as `build_features` makes it, with basic or bottleneck blocks.

    Returns:
        A model with the same weights and outputs, the latter all at stride 8.

    Raises:
        UserError: If it is another network.
    """
    names = {layer.name for layer in features.layers}
    kinds = {type(layer) for layer in features.layers if "_block" in layer.name}
    if not {"stack2_block0_1_conv", "stack3_block0_1_conv"} <= names or any(
        isinstance(layer, keras.layers.AveragePooling2D) for layer in features.layers
    ):
        raise UserError(
            "dilated=True needs a ResNet of KerasHub with basic or bottleneck blocks. Received: "
            f"{features.name!r} with {sorted(kind.__name__ for kind in kinds)}."
        )

    def is_padding(layer):  # needed only with strides
        return layer.name.split("_")[0] in REMOVED_STRIDES and layer.name.endswith("_pad")

    def clone(layer):
        config, kind = layer.get_config(), type(layer)
        removed = REMOVED_STRIDES.get(layer.name.split("_")[0])
        if removed and isinstance(layer, keras.layers.Conv2D):
            config |= {"strides": 1, "padding": "same"}
            rate = removed // layer.strides[0]
            if layer.kernel_size != (1, 1) and rate > 1:
                config["dilation_rate"], kind = rate, DilatedConv2D
        return kind.from_config(config)

    def call(layer, *args, **kwargs):
        return args[0] if is_padding(layer) else layer(*args, **kwargs)

    copy = keras.models.clone_model(features, clone_function=clone, call_function=call)
    for layer in copy.layers:
        if layer.weights:
            layer.set_weights(features.get_layer(layer.name).get_weights())
    return copy
