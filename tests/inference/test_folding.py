"""Networks with their batch normalisation folded, against the networks themselves."""

import keras
import numpy as np
import pytest
from keras_hub.models import ResNetBackbone

from fcn_keras.inference.folding import fold_batchnorm
from fcn_keras.models.fcn import build_fcn


def with_statistics(model):
    """The model, with batch normalisations as after training."""
    rng = np.random.default_rng(0)
    ranges = {"gamma": (0.5, 1.5), "beta": (-0.3, 0.3)}
    ranges |= {"moving_mean": (-0.3, 0.3), "moving_variance": (0.3, 0.9)}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            with_statistics(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            for name, bounds in ranges.items():
                weight = getattr(layer, name)
                if weight is not None:
                    weight.assign(rng.uniform(*bounds, weight.shape))
    return model


def kinds(model):
    return [type(layer) for layer in model.get_layer("backbone").layers]


def norms(model):
    return sum(issubclass(kind, keras.layers.BatchNormalization) for kind in kinds(model))


def images(height, width):
    return np.random.default_rng(1).integers(0, 256, (2, height, width, 3)).astype(np.float32)


def assert_same(folded, model, x, tolerance=1e-5):
    expected = model.predict_on_batch(x)
    assert expected.std() > 1e-3
    scale = np.abs(expected).max()
    actual = folded.predict_on_batch(x)
    np.testing.assert_allclose(actual / scale, expected / scale, atol=tolerance)


# He et al. 2016, table 1: 1 + 2 * 8 and 1 + 3 * 16 convolutions, and shortcuts in 3 and 4 stages.
@pytest.mark.parametrize(
    ("backbone", "count"),
    [("resnet18", 20), pytest.param("resnet50", 53, marks=pytest.mark.slow)],
)
def test_resnets_give_the_same_without_batch_normalisation(backbone, count):
    fused = backbone == "resnet18"
    model = build_fcn(backbone, 3, 8, weights=None, fused_batchnorm=fused, freeze="batchnorm")
    with_statistics(model).compile("sgd", "mse")
    before = model.get_weights()
    folded = fold_batchnorm(model)
    assert (norms(model), norms(folded)) == (count, 0)
    assert len(kinds(model)) - len(kinds(folded)) == count
    assert [layer.name for layer in folded.layers[1:]] == [kept.name for kept in model.layers[1:]]
    assert model.compiled and not folded.compiled
    assert_same(folded, model, images(64, 96))
    assert_same(folded, model, images(45, 33))
    folded.set_weights([0 * value for value in folded.get_weights()])
    for value, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, weight)


def test_batch_normalisation_before_an_activation_stays():
    options = {"use_pre_activation": True}
    backbone = ResNetBackbone([64], [7], [64] * 4, [1] * 4, [1, 2, 2, 2], "basic_block", **options)
    model = with_statistics(build_fcn(backbone, 3, 32))
    folded = fold_batchnorm(model)
    # Each of the 4 blocks has one at its start and one between its convolutions.
    assert (norms(model), norms(folded)) == (8, 4)
    assert_same(folded, model, images(64, 96))


def test_mixed_precision_is_folded_in_float32():
    keras.utils.set_random_seed(0)  # the ratio below varies with the weights
    exact = with_statistics(build_fcn("tiny", 3, 32, weights=None))
    mixed = build_fcn("tiny", 3, 32, weights=None, dtype="mixed_bfloat16")
    mixed.set_weights(exact.get_weights())
    folded = fold_batchnorm(mixed)
    assert norms(folded) == 0
    kernel = folded.get_layer("backbone").get_layer("conv1_conv").kernel
    assert (kernel.dtype, folded.get_layer("score_32").kernel.dtype) == ("bfloat16", "float32")
    x = images(64, 96)
    expected = exact.predict_on_batch(x)
    errors = [np.abs(each.predict_on_batch(x) - expected).mean() for each in (mixed, folded)]
    assert 0 < errors[1] < 1.2 * errors[0]


def test_what_others_use_stays():
    """A convolution that is read twice, has an activation, or is called twice, is not changed."""
    norm, conv = keras.layers.BatchNormalization, keras.layers.Conv2D
    inputs = keras.Input((None, None, 3))
    twice_read = conv(3, 3, padding="same")(inputs)
    x = keras.layers.Add()([norm(name="a")(twice_read), twice_read])
    x = norm(name="b")(conv(3, 3, activation="relu")(x))
    shared = conv(3, 3)
    x = norm(name="c")(shared(norm(name="d")(shared(x))))
    x = norm(name="e", scale=False, center=False)(conv(4, 3, dilation_rate=2)(x))
    model = with_statistics(keras.Model(inputs, x))
    folded = fold_batchnorm(model)
    left = [layer.name for layer in folded.layers if isinstance(layer, norm)]
    assert sorted(left) == ["a", "b", "c", "d"]
    assert_same(folded, model, images(20, 30))
