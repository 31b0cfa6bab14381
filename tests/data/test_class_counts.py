import math

import numpy as np
import pytest

from fcn_keras.data.class_counts import balanced_weights


def test_rare_classes_weigh_more_and_absent_ones_as_much_as_others():
    # Of 1000 labelled pixels; the 500 unlabelled ones do not count.
    weights = balanced_weights(np.array([900, 99, 1, 0, 500]))
    expected = [1 / math.log(1.02 + share) for share in (0.9, 0.099, 0.001)]
    assert weights[:3] == pytest.approx(expected, rel=5e-3) and weights[3] == 1
    assert weights[2] == 48.1  # 48.146, to three significant digits


def test_weights_are_finite():
    assert balanced_weights(np.array([10**12, 1, 0])) == (1.42, 50.5)
    assert balanced_weights(np.array([0, 0, 9])) == (1, 1)
