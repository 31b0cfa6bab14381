import keras
import numpy as np
import pytest

from fcn_keras.training.accumulation import accumulate
from fcn_keras.training.objectives import SegmentationCrossentropy, SegmentationMetrics


def trained(parts, optimizer, normalized=False):
    """Logs and weights after three steps of 16 images without unlabelled pixels."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    normalization = [layers.BatchNormalization()] if normalized else []
    model = keras.Sequential(
        [keras.Input((6, 5, 3)), layers.Conv2D(4, 3, padding="same"), *normalization]
    )
    metrics = [SegmentationMetrics(4)]
    model.compile(optimizer, SegmentationCrossentropy(), metrics=metrics, jit_compile=False)
    if parts > 1:
        accumulate(model, parts)
    rng = np.random.default_rng(0)
    images, masks = rng.normal(size=(48, 6, 5, 3)), rng.integers(0, 4, (48, 6, 5))
    history = model.fit(images, masks, batch_size=16, shuffle=False, verbose=0).history
    assert int(model.optimizer.iterations) == 3
    return history, model.get_weights()


@pytest.mark.parametrize("make", [keras.optimizers.SGD, keras.optimizers.Adam])
def test_four_parts_of_4_are_a_batch_of_16(make):
    whole, expected = trained(1, make(0.1))
    logs, weights = trained(4, make(0.1))
    for found, value in zip(weights, expected):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)
    for name, values in whole.items():
        assert logs[name] == pytest.approx(values, rel=1e-5)


def test_batchnorm_sees_each_part():
    _, [*_, variance] = trained(4, keras.optimizers.SGD(0.1), normalized=True)
    _, [*_, of_whole] = trained(1, keras.optimizers.SGD(0.1), normalized=True)
    # Three updates keep 0.99 ** 3 of the initial 1; twelve keep 0.99 ** 12.
    assert np.all(np.abs(variance - of_whole) > 1e-3)
