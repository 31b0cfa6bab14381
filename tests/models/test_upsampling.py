import keras
import matplotlib.cbook
import numpy as np
import pytest
from d2l_reference import d2l_kernel
from PIL import Image

from fcn_keras.models.upsampling import (
    BilinearInitializer,
    BlockwiseConv2DTranspose,
    CropLike,
)


@pytest.mark.parametrize("size", [1, 3, 4, 16, 64])
def test_kernel_is_that_of_d2l(size):
    kernel = keras.ops.convert_to_numpy(BilinearInitializer()((size, size, 5, 5)))
    np.testing.assert_allclose(kernel.transpose(3, 2, 0, 1), d2l_kernel(5, 5, size), atol=1e-6)


@pytest.mark.parametrize("channels", [(2, 3), (3, 2)])
def test_unequal_channels_pair_the_first(channels):
    out_channels, in_channels = channels
    kernel = keras.ops.convert_to_numpy(BilinearInitializer()((4, 4, out_channels, in_channels)))
    expected = d2l_kernel(in_channels, out_channels, 4)
    np.testing.assert_allclose(kernel.transpose(3, 2, 0, 1), expected, atol=1e-6)


def test_height_and_width_may_differ():
    kernel = keras.ops.convert_to_numpy(BilinearInitializer()((2, 4, 1, 1)))[..., 0, 0]
    # Size 2: factor 1, centre 0.5, weights 1 - 0.5. Size 4: factor 2, centre 1.5.
    np.testing.assert_allclose(kernel, np.outer([0.5, 0.5], [0.25, 0.75, 0.75, 0.25]))


def test_kernel_of_wrong_rank_is_refused():
    with pytest.raises(ValueError, match=r"Received: shape=\(3, 3\)"):
        BilinearInitializer()((3, 3))


def test_initializer_survives_serialisation():
    config = keras.initializers.serialize(BilinearInitializer())
    assert isinstance(keras.initializers.deserialize(config), BilinearInitializer)


@pytest.mark.parametrize("factor", [2, 4])
def test_photograph_is_resized_bilinearly(factor):
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        photo = np.asarray(Image.open(file).convert("RGB"), np.float32)[None, :200, :160] / 255
    layer = keras.layers.Conv2DTranspose(
        3,
        2 * factor,
        strides=factor,
        padding="same",
        use_bias=False,
        kernel_initializer=BilinearInitializer(),
    )
    ours = keras.ops.convert_to_numpy(layer(photo))
    resized = keras.ops.image.resize(photo, ours.shape[1:3], interpolation="bilinear")
    inside = np.s_[:, factor:-factor, factor:-factor]
    assert np.abs(ours[inside] - keras.ops.convert_to_numpy(resized)[inside]).max() < 1e-5
    assert np.ptp(ours[inside]) > 0.5  # a picture, not a constant


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


def test_crop_keeps_the_top_left():
    maps = np.arange(2 * 5 * 6 * 1).reshape(2, 5, 6, 1).astype("float32")
    cropped = CropLike()([maps, np.zeros((2, 3, 4, 7), "float32")])
    np.testing.assert_array_equal(cropped, maps[:, :3, :4])


def test_nothing_to_crop_is_no_operation():
    maps = keras.ops.ones((1, 3, 4, 2))
    assert CropLike()([maps, keras.ops.ones((1, 3, 4, 5))]) is maps
