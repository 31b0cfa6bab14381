import keras
import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image
from support.d2l_reference import d2l_kernel

from fcn_keras.models.upsampling import BilinearInitializer, CropLike


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
