"""Learning-rate schedules beyond Keras's own."""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("fcn_keras")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule with a linear warm-up.

    Args:
        rate: A number, or a schedule, which counts the warm-up's steps, too.
        steps: Number of warm-up steps; step 0 has `1 / steps` of the rate.
    """

    def __init__(self, rate, steps: int):
        self.rate = rate
        self.steps = steps

    def __call__(self, step):
        rate = self.rate(step) if callable(self.rate) else self.rate
        done = (ops.cast(step, "float32") + 1) / self.steps
        return rate * ops.minimum(done, 1.0)

    def get_config(self):
        rate = self.rate
        if callable(rate):
            rate = keras.optimizers.schedules.serialize(rate)
        return {"rate": rate, "steps": self.steps}

    @classmethod
    def from_config(cls, config):
        rate = config["rate"]
        if isinstance(rate, dict):
            rate = keras.optimizers.schedules.deserialize(rate)
        return cls(rate, config["steps"])
