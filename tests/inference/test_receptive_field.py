import keras
import numpy as np
import pytest
import tensorflow as tf

from fcn_keras.errors import UserError
from fcn_keras.inference.receptive_field import Field, receptive_field
from fcn_keras.models.fcn import build_fcn
from fcn_keras.models.upsampling import BilinearUpsampling, PerClassUpsampling


def model_of(*layers):
    inputs = x = keras.Input((None, None, 1))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def measured(model, row, size=64):
    """First and last input row that an output row depends on, by its gradient."""
    for variable in model.trainable_variables:  # positive, so that nothing cancels out
        variable.assign(np.abs(variable) + 0.1)
    image = tf.Variable(
        np.random.default_rng(0).uniform(1, 2, (1, size, size, 1)).astype("float32")
    )
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(image)[:, row])
    rows = np.flatnonzero(np.abs(tape.gradient(value, image)[0, :, :, 0]).sum(axis=1))
    return rows[0] - row, rows[-1] - row


L = keras.layers
CHAINS = {
    "convolution": [L.Conv2D(1, 5, padding="same")],
    "dilated": [L.Conv2D(1, 3, padding="same", dilation_rate=4)],
    "down and up": [
        L.ZeroPadding2D(3),
        L.Conv2D(1, 7, strides=2),
        L.Conv2D(1, 3, padding="same"),
        L.Conv2DTranspose(1, 4, strides=2, padding="same"),
    ],
    "pooled": [
        L.ZeroPadding2D(1),
        L.AveragePooling2D(3, strides=2),
        L.Conv2DTranspose(1, 3, strides=2, padding="same"),
    ],
    "nested": [keras.Sequential([keras.Input((None, None, 1)), L.Conv2D(1, 5, padding="same")])],
    "down 4": [
        L.Conv2D(1, 2, strides=2),
        L.Conv2D(1, 2, strides=2),
        L.Conv2DTranspose(1, 8, strides=4, padding="same"),
    ],
    "down and resized": [L.Conv2D(1, 3, strides=4, padding="same"), BilinearUpsampling(4)],
    "down and up by class": [L.Conv2D(1, 3, strides=4, padding="same"), PerClassUpsampling(4)],
    "resized by 3": [L.Conv2D(1, 3, strides=3), BilinearUpsampling(3)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_field_covers_what_gradients_reach_and_little_more(name):
    model = model_of(*CHAINS[name])
    field = receptive_field(model)
    assert field.jump == 1
    reached = np.array([measured(model, row) for row in range(24, 32)])
    low, high = reached[:, 0].min(), reached[:, 1].max()
    assert field.low <= low and high <= field.high
    # The rows of a stride differ in reach; the field spans the union, rounded outwards.
    assert low - field.low < field.stride and field.high - high < field.stride


def test_known_reach_of_resnet18():
    """435 rows after the last stage (Araujo et al. 2019, table 1: 435 for ResNet-18)."""
    backbone = build_fcn("resnet18", 2, weights=None).get_layer("backbone")
    field = receptive_field(keras.Model(backbone.input, backbone.outputs[-1]))
    assert field.high - field.low + 1 == 435
    assert (field.jump, field.stride) == (32, 32)


def test_skips_reach_as_far_as_their_farthest_path():
    fields = [receptive_field(build_fcn("resnet18", 2, stride, weights=None)) for stride in (32, 8)]
    assert fields[1].low < fields[0].low and all(field.halo == 288 for field in fields)


def test_known_reach_of_a_dilated_resnet18():
    """As without dilation, 435 rows; 2 * 8 for the head, 8 for the next score, up to 8 rounded."""
    field = receptive_field(build_fcn("resnet18", 2, dilated=True, weights=None))
    assert (field.jump, field.stride) == (1, 8)
    assert 435 + 16 < field.high - field.low + 1 <= 435 + 16 + 16


def test_halo_is_rounded_up_to_the_grid():
    assert Field(1, -33, 20, 32).halo == 64
    assert Field(1, -10, 32, 32).halo == 32


def test_unknown_layer_is_named():
    model = model_of(L.GlobalAveragePooling2D(keepdims=True, name="everything"))
    with pytest.raises(UserError, match="layer 'everything'.*--blend average"):
        receptive_field(model)
