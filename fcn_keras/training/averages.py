"""The exponential moving average of a model's weights."""

from __future__ import annotations

import contextlib

import keras
import tensorflow as tf


class Averages(keras.callbacks.Callback):
    """Averages all weights over the steps; validation and `best.keras` use the averages.

    After n steps the decay is at most (1 + n) / (10 + n), as in TensorFlow's
    `ExponentialMovingAverage`, so that the initial weights are soon forgotten. Keras's `use_ema`
    leaves out BatchNorm's statistics, which then do not fit the weights. The averages are
    variables of the optimizer, so that they are saved and restored with it.

    Source: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging".

    Args:
        model: Compiled, its optimizer built.
        decay: Of the average, near 1.
    """

    def __init__(self, model: keras.Model, decay: float):
        super().__init__()
        self.decay = decay
        self.weights = [w for w in model.weights if w.dtype == "float32"]  # no dropout's seeds
        optimizer = model.optimizer
        self.averages = [optimizer.add_variable_from_reference(w, "average") for w in self.weights]
        for average, weight in zip(self.averages, self.weights):
            average.assign(weight)
        self._update = tf.function(self._updated)

    def on_train_batch_end(self, batch, logs=None):
        step = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self._update(tf.constant(1 - min(self.decay, (1 + step) / (10 + step))))

    def _updated(self, share):
        for average, weight in zip(self.averages, self.weights):
            average.assign_add((weight - average) * share)

    def on_test_begin(self, logs=None):
        self._own = contextlib.ExitStack()
        self._own.enter_context(self.applied())

    def on_test_end(self, logs=None):
        self._own.close()

    @contextlib.contextmanager
    def applied(self):
        """Within it, the model has the averages as its weights."""
        kept = [keras.ops.convert_to_numpy(weight) for weight in self.weights]
        for average, weight in zip(self.averages, self.weights):
            weight.assign(average)
        try:
            yield
        finally:
            for weight, value in zip(self.weights, kept):
                weight.assign(value)


def with_averages(averages: Averages | None):
    """A context in which a model has the averages of its weights, if there are any."""
    return averages.applied() if averages else contextlib.nullcontext()
