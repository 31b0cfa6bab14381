import keras
import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image
from support.d2l_reference import d2l_kernel

from fcn_keras.inference.loading import load_model
from fcn_keras.models.fcn import build_fcn
from fcn_keras.models.upsampling import (
    BilinearInitializer,
    BilinearUpsampling,
    CropLike,
    PerClassUpsampling,
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


def test_crop_keeps_the_top_left():
    maps = np.arange(2 * 5 * 6 * 1).reshape(2, 5, 6, 1).astype("float32")
    cropped = CropLike()([maps, np.zeros((2, 3, 4, 7), "float32")])
    np.testing.assert_array_equal(cropped, maps[:, :3, :4])


def test_nothing_to_crop_is_no_operation():
    maps = keras.ops.ones((1, 3, 4, 2))
    assert CropLike()([maps, keras.ops.ones((1, 3, 4, 5))]) is maps


@pytest.mark.parametrize(("factor", "size"), [(2, (5, 7)), (3, (1, 1)), (8, (4, 3))])
def test_repeated_edges_are_those_of_resize(factor, size):
    maps = np.random.default_rng(0).normal(size=(2, *size, 4)).astype("float32")
    ours = BilinearUpsampling(factor)(maps)
    sides = [side * factor for side in size]
    theirs = keras.ops.image.resize(maps, sides, interpolation="bilinear")
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", [BilinearUpsampling, PerClassUpsampling])
@pytest.mark.parametrize(("factor", "size"), [(2, (5, 7)), (8, (1, 1)), (32, (2, 3))])
def test_channels_apart_are_those_of_the_transposed_convolution(kind, factor, size):
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    maps = tf.constant(rng.normal(size=(2, *size, 3)).astype("float32"))
    target = rng.normal(size=(2, *(side * factor for side in size), 3)).astype("float32")
    dense = np.array(BilinearInitializer()((2 * factor, 2 * factor, 3, 3)))
    same = np.s_[:, :, range(3), range(3)]  # of the kernel, between the same channels
    layer = kind(factor, zero_edges=True) if kind is BilinearUpsampling else kind(factor)
    layer.build(maps.shape)
    if layer.weights:
        np.testing.assert_allclose(layer.kernel, dense[same], atol=1e-7)
        dense *= rng.normal(size=dense.shape)
        layer.set_weights([dense[same]])
    kernel = tf.constant(dense)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((maps, kernel))
        expected = tf.nn.conv2d_transpose(maps, kernel, target.shape, factor)
        outputs = layer(maps)
        losses = [tf.reduce_sum(each * target) for each in (outputs, expected)]
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    of_maps = [tape.gradient(loss, maps) for loss in losses]
    np.testing.assert_allclose(*of_maps, rtol=1e-4, atol=1e-4)
    for weight in layer.trainable_variables:
        own = np.array(tape.gradient(losses[1], kernel))[same]
        np.testing.assert_allclose(tape.gradient(losses[0], weight.value), own, atol=1e-4)


def test_odd_factors_of_one_kernel_per_class_are_refused():
    with pytest.raises(ValueError, match="factor must be even. Received: 3"):
        PerClassUpsampling(3)


@pytest.mark.parametrize("output_stride", [32, 8])
def test_all_kinds_of_upsampling_start_equal(output_stride, tmp_path):
    image = np.random.default_rng(0).uniform(0, 255, (1, 70, 90, 3)).astype("float32")
    logits = []
    for kind in ("dense", "per-class", "fixed"):
        keras.utils.set_random_seed(0)
        model = build_fcn("tiny", 5, output_stride, weights=None, upsampling=kind)
        logits.append(model(image))
        model.save(tmp_path / "model.keras")
        np.testing.assert_array_equal(load_model(tmp_path / "model.keras")(image), logits[-1])
        np.testing.assert_allclose(logits[-1], logits[0], atol=1e-5)
    assert not any("upscore" in weight.path for weight in model.weights)
