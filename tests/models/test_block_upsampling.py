"""Upsampling by matrix products against Keras's transposed convolution."""

import keras
import numpy as np
import pytest

from fcn_keras.models.block_upsampling import (
    BlockUpsampling,
    BlockwiseConv2DTranspose,
    upsample_by_blocks,
)


def training_pass(layer, maps, target):
    """The output of a step, and the gradients of its input and weights."""
    tf = pytest.importorskip("tensorflow")
    with tf.GradientTape() as tape:
        tape.watch(maps)
        outputs = layer(maps, training=True)
        loss = tf.reduce_sum(outputs * target)
    return [outputs, *tape.gradient(loss, [maps, *layer.trainable_variables])]


@pytest.mark.parametrize(
    ("stride", "size", "in_channels", "filters", "use_bias"),
    [(8, (5, 3), 4, 4, True), (16, (1, 2), 3, 5, False), (32, (2, 1), 2, 3, True)],
)
def test_blocks_train_as_the_plain_layer(stride, size, in_channels, filters, use_bias):
    tf = pytest.importorskip("tensorflow")
    options = {"strides": stride, "padding": "same", "use_bias": use_bias}
    plain = keras.layers.Conv2DTranspose(filters, 2 * stride, **options)
    blocks = BlockwiseConv2DTranspose(filters, 2 * stride, **options)
    rng = np.random.default_rng(0)
    maps = tf.constant(rng.normal(size=(2, *size, in_channels)).astype("float32"))
    for layer in (plain, blocks):
        layer.build(maps.shape)
    plain.set_weights([rng.normal(size=w.shape) for w in plain.get_weights()])
    blocks.set_weights(plain.get_weights())
    target = rng.normal(size=(2, size[0] * stride, size[1] * stride, filters)).astype("float32")
    expected = training_pass(plain, maps, target)
    for ours, theirs in zip(training_pass(blocks, maps, target), expected):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-5)
    np.testing.assert_array_equal(blocks(maps), plain(maps))


@pytest.mark.parametrize(
    ("stride", "training", "convolves"),
    [(8, True, False), (8, False, True), (2, True, True), (2, False, True)],
)
def test_only_training_at_large_strides_goes_by_blocks(stride, training, convolves):
    tf = pytest.importorskip("tensorflow")
    layer = BlockwiseConv2DTranspose(3, 2 * stride, strides=stride, padding="same")
    layer.build((None, None, None, 3))
    graph = tf.function(lambda maps: layer(maps, training=training)).get_concrete_function(
        tf.TensorSpec((None, None, None, 3))
    )
    kinds = {operation.type for operation in graph.graph.get_operations()}
    assert ("Conv2DBackpropInput" in kinds) == convolves


@pytest.mark.parametrize("kernel", [15, 12])
def test_other_kernels_are_convolved(kernel):
    options = {"strides": 8, "padding": "same", "kernel_initializer": "ones"}
    maps = np.random.default_rng(0).normal(size=(1, 3, 4, 2)).astype("float32")
    ours = BlockwiseConv2DTranspose(2, kernel, **options)(maps, training=True)
    theirs = keras.layers.Conv2DTranspose(2, kernel, **options)(maps)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("stride", "size"), [(2, (5, 7)), (8, (1, 1)), (32, (2, 3))])
def test_upsampling_by_blocks_is_the_transposed_convolution(stride, size, tmp_path):
    rng = np.random.default_rng(0)
    inputs = keras.Input((None, None, 5))
    up = keras.layers.Conv2DTranspose(3, 2 * stride, stride, padding="same", name="up")
    model = keras.Model(inputs, up(inputs))
    up.set_weights([rng.normal(size=weight.shape) for weight in up.get_weights()])
    blocks = upsample_by_blocks(model)
    assert isinstance(blocks.get_layer("up"), BlockUpsampling) and model.get_layer("up") is up
    assert blocks.output_shape == model.output_shape
    x = rng.normal(size=(2, *size, 5)).astype(np.float32)
    expected = model.predict_on_batch(x)
    assert expected.shape == (2, size[0] * stride, size[1] * stride, 3)
    np.testing.assert_allclose(blocks.predict_on_batch(x), expected, atol=1e-5)
    blocks.save(tmp_path / "blocks.keras")
    loaded = keras.models.load_model(tmp_path / "blocks.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "options"),
    [(3, 2, {}), (6, 3, {}), (4, 2, {"padding": "valid"}), (4, 2, {"activation": "relu"})],
)
def test_other_transposed_convolutions_stay(kernel, stride, options):
    inputs = keras.Input((None, None, 5))
    layer = keras.layers.Conv2DTranspose(3, kernel, stride, **{"padding": "same", **options})
    model = keras.Model(inputs, layer(inputs))
    assert upsample_by_blocks(model).layers[1] is layer
