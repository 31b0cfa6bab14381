"""Whether a converted model agrees with its original: the message, and the limit."""

import keras
import numpy as np
import pytest

from fcn_keras.inference.agreement import TOLERANCES, deviation
from fcn_keras.inference.conversion import in_float32
from fcn_keras.models.fcn import build_fcn
from fcn_keras.models.graph import nested_layers

# Probabilities of 0.5 each at 1,000 pixels. By the derivative of the logistic function, 1/4 there,
# a first logit that is larger by d makes its probability larger by d / 4, and the mask is still 0.
EXPECTED = np.zeros((1, 20, 50, 2), np.float32)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_probabilities_may_differ_by_the_tolerance(precision):
    allowed, _ = TOLERANCES[precision]
    for share, agrees in ((0.98, True), (1.1, False)):
        actual = EXPECTED + np.array([4 * share * allowed, 0], np.float32)
        assert (deviation(precision, actual, EXPECTED) == "") == agrees


@pytest.mark.parametrize("precision", TOLERANCES)
def test_few_pixels_may_differ_by_more(precision):
    _, needed = TOLERANCES[precision]
    few = round(EXPECTED[..., 0].size * (1 - needed))
    for count in (few, few + 1):
        actual = EXPECTED.copy()
        actual.reshape(-1, 2)[:count, 0] = 20
        found = deviation(precision, actual, EXPECTED)
        assert bool(found) == (count > few)
    assert found.startswith(f"{count / 1000:.4%} of the pixels differ in probability by more")
    assert found.endswith(f"(allowed: {1 - needed:.0%}), by up to 0.5")


@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_mask_may_have_a_class_that_is_almost_as_probable(precision):
    allowed, _ = TOLERANCES[precision]
    ones = np.ones(EXPECTED.shape[:-1], int)
    # exp(d) times as probable; each of the two probabilities is (exp(d) - 1) / (exp(d) + 1) / 2
    # from their mean.
    for share, agrees in ((0.9, True), (1.1, False)):
        logit = np.log((1 + 2 * share * allowed) / (1 - 2 * share * allowed))
        expected = EXPECTED + np.array([logit, 0], np.float32)
        assert deviation(precision, 0 * ones, expected) == ""
        assert (deviation(precision, ones, expected) == "") == agrees


@pytest.mark.parametrize("precision", TOLERANCES)
def test_results_without_numbers_or_of_another_shape_do_not_agree(precision):
    assert "up to nan" in deviation(precision, EXPECTED * np.nan, EXPECTED)
    assert "(1, 19, 50, 2), not (1, 20, 50, 2)" in deviation(precision, EXPECTED[:, 1:], EXPECTED)
    assert "(20, 50), not (1, 20)" in deviation(
        precision, EXPECTED[0, ..., 0].astype(int), EXPECTED
    )


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_a_copy_in_float32_computes_as_if_it_had_always_been(dtype):
    keras.utils.set_random_seed(1)
    model = build_fcn("tiny", 3, 8, weights=None, dtype=dtype)
    copy, plain = in_float32(model), build_fcn("tiny", 3, 8, weights=None)
    plain.set_weights(model.get_weights())
    assert {layer.dtype_policy.name for layer in nested_layers(copy)} == {"float32"}
    images = np.random.default_rng(0).uniform(0, 255, (1, 40, 50, 3)).astype(np.float32)
    expected = plain.predict_on_batch(images)
    np.testing.assert_allclose(copy.predict_on_batch(images), expected, atol=1e-5)
    assert np.abs(model.predict_on_batch(images) - expected).max() > 1e-4  # and is not changed
    assert in_float32(plain) is plain
