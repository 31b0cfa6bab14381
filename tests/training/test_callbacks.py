"""Callbacks in a real `fit` of a tiny model."""

import signal

import keras
import numpy as np
import pytest

from fcn_keras import signals
from fcn_keras.training.callbacks import Interruption


class Dropping(keras.callbacks.Callback):
    """A signal that arrives when Python drops its exception."""

    def __init__(self, method, number):
        super().__init__()
        self.number = number
        setattr(self, method, self.press)

    def press(self, *arguments, **options):
        class Removed:
            def __del__(_):
                signal.raise_signal(self.number)

        removed = Removed()
        del removed


@pytest.fixture(autouse=True)
def pythons_handlers():
    """The tests' parent process may ignore Ctrl-C, and pytest itself handles the others."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def fit(method, number):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = np.zeros((4, 1)), np.zeros((4, 1))
    with Interruption() as interruption:
        callbacks = [Dropping(method, number), interruption]
        model.fit(*data, validation_data=data, epochs=3, callbacks=callbacks, verbose=0)


# Slow, though they take a second: a real Ctrl-C within `fit` once ended a worker of pytest-xdist,
# which then waited forever. The cause is not known.
METHODS = ["on_train_batch_begin", "on_test_batch_begin", "on_epoch_end", "on_train_end"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("method", METHODS)
def test_ctrl_c_ends_fit_even_if_python_drops_it(method):
    with pytest.raises(KeyboardInterrupt):
        fit(method, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("method", METHODS)
def test_so_does_a_signal_of_the_command_line(method):
    with pytest.raises(signals.Stop) as stop, signals.raised():
        fit(method, signal.SIGTERM)
    assert stop.value.number == signal.SIGTERM


def test_a_stop_that_becomes_another_error_is_still_a_stop():
    """TensorFlow turns a signal that arrives while it raises into a RuntimeError."""
    with pytest.raises(signals.Stop), signals.raised():
        try:
            signal.raise_signal(signal.SIGTERM)
        except signals.Stop as stop:
            raise RuntimeError from stop
