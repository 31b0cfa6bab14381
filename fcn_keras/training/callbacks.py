"""What happens during `fit`: saving each epoch, stopping by steps or patience."""

from __future__ import annotations

import contextlib
import gc
import math
import signal
import time
from collections.abc import Callable

import keras

from fcn_keras import signals
from fcn_keras.errors import UserError
from fcn_keras.files.writing import atomic_path
from fcn_keras.runs.folder import RunFolder
from fcn_keras.runs.history import BEST_BY, out_of_patience, validated
from fcn_keras.training.averages import Averages, with_averages
from fcn_keras.training.devices import share_first


class Recorder(keras.callbacks.Callback):
    """Saves the models and the history after each epoch, in an order that survives a kill.

    `last.keras` comes last, and its optimizer's step count tells how many epochs are done.
    If `history.csv` or `best.keras` is ahead of it, the resumed run writes them again.

    Args:
        run: Where to write; `None` for a worker that writes nothing.
        history: Rows of the epochs that are done already.
        averages: What `best.keras` gets in place of the weights; `None` for the weights.
        patience: Epochs without a better `val_mean_iou` after which training
            stops; `None` for never.
        columns: Maps an epoch, counted from 0, to further columns of its row.
    """

    def __init__(
        self,
        run: RunFolder | None,
        history: list[dict],
        averages: Averages | None = None,
        patience: int | None = None,
        columns: Callable[[int], dict] = lambda epoch: {},
    ):
        super().__init__()
        self.columns = columns
        self.run = run
        self.history = list(history)
        self.averages = averages
        self.patience = patience

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        seconds = round(time.monotonic() - self.started, 3)  # with validation, before saving
        logs = {name: float(value) for name, value in logs.items()}
        self._require_finite(epoch, logs)
        learning_rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        best = max(validated(self.history), default=-1.0)
        row = {"epoch": epoch + 1, **_with_validation(logs), "learning_rate": learning_rate}
        self.history.append({**row, **self.columns(epoch), "seconds": seconds})
        if self.run:
            # Before the first validation, the newest model is the best.
            self._save(self.run, is_best=logs.get(BEST_BY, best) > best or best < 0)
        if out_of_patience(self.history, self.patience):
            self.model.stop_training = True

    def _require_finite(self, epoch: int, logs: dict) -> None:
        """Raises `UserError` rather than let values that are not finite replace what is saved."""
        found = {name: logs[name] for name in ("loss", "val_loss") if name in logs}
        # If the last step breaks them and no validation follows, the loss does not show it.
        sums = [keras.ops.sum(keras.ops.abs(weight)) for weight in self.model.weights]
        found["sum of the weights"] = float(keras.ops.sum(keras.ops.stack(sums)))
        for name, value in found.items():
            if not math.isfinite(value):
                kept = ""
                if self.run and self.run.last.is_file():
                    kept = f" in a new run; --init-from {self.run.path} keeps the earlier epochs"
                raise UserError(
                    f"The {name} became {value} in epoch {epoch + 1}. Lower --learning-rate{kept}."
                )

    def _save(self, run: RunFolder, is_best: bool) -> None:
        if is_best:
            # A new model of these layers lacks the optimizer, whose state is twice their size.
            inference = keras.Model(self.model.input, self.model.outputs[0], name=self.model.name)
            with with_averages(self.averages), atomic_path(run.best, durable=True) as path:
                inference.save(path)
        run.write_history(self.history)
        with atomic_path(run.last, durable=True) as path:
            self.model.save(path)
        # Each save leaves 0.07 MB in reference cycles, which Python would hardly ever look
        # for among TensorFlow's many objects.
        gc.collect()


class ShareStatistics(keras.callbacks.Callback):
    """Gives all replicas the first one's BatchNorm statistics before validation.

    Those are saved. Unless BatchNorm is synchronised, each replica has its own and would
    validate with them.
    """

    def on_test_begin(self, logs=None):
        share_first(self.model.distribute_strategy, self.model.non_trainable_variables)


class UnfreezeBackbone(keras.callbacks.Callback):
    """Freezes the backbone until a number of epochs are done.

    BatchNorm then keeps its statistics, too. Layers that are frozen already stay frozen.

    Args:
        model: An FCN, compiled, its optimizer built for all of its variables.
        epochs: That number.
    """

    def __init__(self, model: keras.Model, epochs: int):
        super().__init__()
        self.epochs = epochs
        self.layers = [each for each in model.get_layer("backbone").layers if each.trainable]
        for layer in self.layers:
            layer.trainable = False

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epochs:
            for layer in self.layers:
                layer.trainable = True
            self.model.make_train_function(force=True)


class StopAtStep(keras.callbacks.Callback):
    """Stops training after a number of optimizer steps in total.

    Args:
        step: That number.
        done: Steps taken before this call of `fit`.
    """

    def __init__(self, step: int, done: int = 0):
        super().__init__()
        self.step = step
        self.done = done

    def on_train_batch_end(self, batch, logs=None):
        self.done += 1
        if self.done >= self.step:
            self.model.stop_training = True


class Interruption(keras.callbacks.Callback):
    """Makes sure that what a signal's handler raises ends `fit`; also a context around `fit`.

    Python drops such an exception while it deletes an object, and TensorFlow may replace
    it with its own; here it is raised again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.noted: BaseException | None = None

    def __enter__(self):
        handlers = {number: signal.getsignal(number) for number in signals.SIGNALS}
        self.before = {number: before for number, before in handlers.items() if callable(before)}
        with contextlib.suppress(ValueError):  # not in the main thread
            for number in self.before:
                signal.signal(number, self._note)
        return self

    def __exit__(self, kind, *_):
        for number, before in self.before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, before)
        if self.noted and kind is not type(self.noted):
            raise self.noted

    def _note(self, number, frame):
        try:
            self.before[number](number, frame)
        except BaseException as raised:
            self.noted = raised
            raise

    def on_train_batch_end(self, batch, logs=None):
        if self.noted:
            raise self.noted

    def on_test_batch_end(self, batch, logs=None):
        self.on_train_batch_end(batch)


def _with_validation(logs: dict) -> dict:
    """The logs, with NaN for what an epoch without validation lacks."""
    names = [name for name in logs if not name.startswith("val_")]
    return {**logs, **{f"val_{name}": logs.get(f"val_{name}", math.nan) for name in names}}
