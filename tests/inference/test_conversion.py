"""Whether a converted model agrees with its original: what is said, and where it begins."""

import numpy as np
import pytest

from fcn_keras.inference.conversion import TOLERANCES, deviation

# Probabilities of 0.5 each at four pixels. By the derivative of the logistic function, 1/4 there,
# a first logit that is larger by d makes its probability larger by d / 4, and the mask is still 0.
EXPECTED = np.zeros((1, 2, 2, 2), np.float32)


@pytest.mark.parametrize("kind", ["runtime in float32", "onnx", "litert", "keras"])
def test_probabilities_may_differ_by_the_tolerance(kind):
    allowed, _ = TOLERANCES[kind]
    for share, message in ((0.98, ""), (1.02, "probabilities differ by up to")):
        actual = EXPECTED + np.array([4 * share * allowed, 0], np.float32)
        found = deviation(kind, actual, EXPECTED)
        assert found.startswith(message) and bool(found) == bool(message)


@pytest.mark.parametrize("kind", ["runtime in bfloat16", "saved_model"])
def test_classes_must_agree(kind):
    logits = np.zeros((1, 10, 10, 2), np.float32)
    actual = logits.argmax(axis=-1)
    assert deviation(kind, actual, logits) == ""
    actual[0, 0, :3] = 1
    found = deviation(kind, actual, logits)
    assert found.startswith("97.0000% of the pixels have the same class (needed: ")


@pytest.mark.parametrize("kind", TOLERANCES)
def test_results_without_numbers_or_of_another_shape_do_not_agree(kind):
    assert "differ by up to nan" in deviation(kind, EXPECTED * np.nan, EXPECTED)
    assert "(1, 1, 2, 2), not (1, 2, 2, 2)" in deviation(kind, EXPECTED[:, 1:], EXPECTED)
    assert "(2, 2), not (1, 2)" in deviation(kind, EXPECTED[0, ..., 0].astype(int), EXPECTED)
