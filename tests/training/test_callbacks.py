"""Callbacks in a real `fit` of a tiny model."""

import signal

import keras
import numpy as np
import pytest

from fcn_keras.training.callbacks import Interruption


class Dropping(keras.callbacks.Callback):
    """Ctrl-C at a moment when Python drops the exception."""

    def __init__(self, method):
        super().__init__()
        setattr(self, method, self.press)

    def press(self, *arguments, **options):
        class Removed:
            def __del__(self):
                signal.raise_signal(signal.SIGINT)

        removed = Removed()
        del removed


@pytest.fixture(autouse=True)
def pythons_handler():
    """What starts the tests may have Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("method", ["on_train_batch_begin", "on_test_batch_begin", "on_epoch_end"])
def test_ctrl_c_ends_fit_even_if_python_drops_it(method):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = np.zeros((4, 1)), np.zeros((4, 1))
    with pytest.raises(KeyboardInterrupt), Interruption() as interruption:
        callbacks = [Dropping(method), interruption]
        model.fit(*data, validation_data=data, epochs=3, callbacks=callbacks, verbose=0)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
