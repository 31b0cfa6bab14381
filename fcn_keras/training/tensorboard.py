"""A run's `logs/`: curves, learning rate and validation images for TensorBoard."""

from __future__ import annotations

import keras
import tensorflow as tf

from fcn_keras.data.overlay import side_by_side
from fcn_keras.data.split import Split
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.training.averages import Averages, with_averages

IMAGE_GROUP = "photo | prediction | truth"


class TensorBoard(keras.callbacks.TensorBoard):
    """Keras's callback with validation images, whose steps are the epochs of `history.csv`.

    Each epoch is on disk when it ends: Keras alone would keep up to two minutes in
    memory, which a killed run would lose.

    Args:
        log_dir: The folder of the logs; a resumed run adds to what is there.
        split: Validation images.
        averages: What predicts in place of the weights, if given.
        count: How many of them to show as `side_by_side` pictures after each epoch
            with validation, always the same ones.
    """

    def __init__(self, log_dir, split: Split, averages: Averages | None = None, count: int = 4):
        super().__init__(log_dir)
        self.averages = averages
        self.examples = split.spread(count)

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        # The same layers without a strategy, as the other workers do not predict.
        model = keras.Model(self.model.input, self.model.outputs[0])
        self.segment = Segmenter(model, self.examples.labels)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch + 1, logs)
        self._train_writer.flush()
        if "val_loss" in logs:
            with with_averages(self.averages):
                self._log_images(epoch + 1)
            self._val_writer.flush()

    def _log_images(self, epoch: int) -> None:
        labels = self.examples.labels
        with self._val_writer.as_default(step=epoch):
            for index, name in enumerate(self.examples.ids):
                image, truth = self.examples.read(index)
                picture = side_by_side(image, self.segment(image), truth, labels)
                tf.summary.image(f"{IMAGE_GROUP}/{name}", picture[None])
