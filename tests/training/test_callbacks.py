"""Signals that arrive in a real `fit` of a tiny model, in a process of its own."""

import pytest
from support.processes import finish, heed_signals

PROGRAM = """
import signal
import keras
import numpy as np
from fcn_keras import signals
from fcn_keras.training.callbacks import Interruption

class Dropping(keras.callbacks.Callback):
    '''A signal that arrives when Python drops its exception.'''

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

def fit(method, number):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = np.zeros((4, 1)), np.zeros((4, 1))
    with Interruption() as interruption:
        callbacks = [Dropping(method, number), interruption]
        model.fit(*data, validation_data=data, epochs=3, callbacks=callbacks, verbose=0)

for method in ("on_train_batch_begin", "on_test_batch_begin", "on_epoch_end", "on_train_end"):
    # Once a signal has stopped something, the next one ends the process.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        fit(method, signal.SIGINT)
    except KeyboardInterrupt:
        restored = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        print(f"{method}: Ctrl-C, restored: {restored}", flush=True)
    try:
        with signals.raised():
            fit(method, signal.SIGTERM)
    except signals.Stop as stop:
        print(f"{method}: signal {stop.number}", flush=True)

# TensorFlow turns a signal that arrives while it raises into a RuntimeError.
try:
    with signals.raised():
        try:
            signal.raise_signal(signal.SIGTERM)
        except signals.Stop as stop:
            raise RuntimeError from stop
except signals.Stop as stop:
    print(f"RuntimeError: signal {stop.number}")
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("signals") / "program.py"
    path.write_text(PROGRAM)
    return finish(path, preexec_fn=heed_signals).splitlines()


@pytest.mark.parametrize(
    "method", ["on_train_batch_begin", "on_test_batch_begin", "on_epoch_end", "on_train_end"]
)
def test_signals_end_fit_even_if_python_drops_their_exception(method, lines):
    assert f"{method}: Ctrl-C, restored: True" in lines
    assert f"{method}: signal 15" in lines


def test_a_stop_that_becomes_another_error_is_still_a_stop(lines):
    assert "RuntimeError: signal 15" in lines
