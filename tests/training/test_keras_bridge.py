"""What `fit` does under a strategy, on this machine's CPU."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from fcn_keras.training.devices import make_strategy
from fcn_keras.training.keras_bridge import prepare_fit, with_one_iterator


def test_validations_go_on_with_one_iterator():
    strategy = make_strategy()
    with strategy.scope():
        zero = keras.layers.Dense(1, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), zero])
        model.compile(keras.optimizers.SGD(0.0), "mse")
    numbers = np.array([[0.0], [1.0], [2.0]])
    endless = tf.data.Dataset.from_tensor_slices((numbers, numbers)).batch(1).repeat()
    validation = with_one_iterator(strategy.experimental_distribute_dataset(endless))
    prepare_fit(model)
    history = model.fit(
        *(numbers, numbers), epochs=3, validation_data=validation, validation_steps=2, verbose=0
    ).history
    # Of 0 and 1, of 2 and 0, of 1 and 2.
    assert history["val_loss"] == pytest.approx([(0 + 1) / 2, (4 + 0) / 2, (1 + 4) / 2])
