import keras
import numpy as np
import pytest

from fcn_keras.training.averages import Averages, with_averages

STEPS = 7


def fitted(decay):
    """A small network with BatchNorm, its averages, and all its weights after each step."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.BatchNormalization()])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    averages = Averages(model, decay)
    seen = [model.get_weights()]

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(self.model.get_weights())

    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (STEPS * 8, 4)), rng.normal(size=(STEPS * 8, 3))
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[averages, Note()])
    return model, averages, seen, (x, y)


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_it_is_the_moving_average_of_weights_and_statistics(decay):
    model, averages, seen, _ = fitted(decay)
    expected = seen[0]
    for step, weights in enumerate(seen[1:], start=1):
        kept = min(decay, (1 + step) / (10 + step))
        expected = [kept * mean + (1 - kept) * new for mean, new in zip(expected, weights)]
    with with_averages(averages):
        for found, value in zip(model.get_weights(), expected):
            np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6)
    for found, value in zip(model.get_weights(), seen[-1]):
        np.testing.assert_array_equal(found, value)  # its own again
    assert any(np.abs(a - b).max() > 1e-3 for a, b in zip(expected, seen[-1]))


def test_validation_is_that_of_the_averages():
    model, averages, _, (x, y) = fitted(0.99)
    with with_averages(averages):
        expected = ((model.predict(x, verbose=0) - y) ** 2).mean()
    own = ((model.predict(x, verbose=0) - y) ** 2).mean()
    found = model.evaluate(x, y, verbose=0, callbacks=[averages])
    assert found == pytest.approx(expected, rel=1e-4) and abs(found - own) > 1e-2
    assert ((model.predict(x, verbose=0) - y) ** 2).mean() == own


def test_they_are_saved_with_the_optimizer(tmp_path):
    model, averages, _, _ = fitted(0.9)
    model.save(tmp_path / "model.keras")
    other, restored, _, _ = fitted(0.1)
    other.load_weights(tmp_path / "model.keras")
    for mean, expected in zip(restored.averages, averages.averages):
        np.testing.assert_array_equal(mean, expected)
