"""Gradient accumulation: a batch's gradients in parts, one after another."""

from __future__ import annotations

import keras
import tensorflow as tf


def accumulate(model: keras.Model, parts: int) -> None:
    """Makes each training step compute its batch in parts, which takes less memory.

    The optimizer steps once, along the mean of the parts' gradients. Where all parts have as many
    labelled pixels, that is the gradient of the whole batch, but for BatchNorm, whose statistics
    are those of a part. Keras's `gradient_accumulation_steps` fails under a `MirroredStrategy`.

    This replaces a method of the instance, not its class, so that it is saved as a plain model.

    Args:
        model: Compiled.
        parts: Of each replica's batch, whose size they divide.
    """
    step, optimizer = model.train_step, model.optimizer

    def train_step(data) -> dict:
        images, masks = keras.utils.unpack_x_y_sample_weight(data)[:2]
        gradients: list = []
        try:
            for part in zip(tf.split(images, parts), tf.split(masks, parts)):
                found: list = []
                optimizer.apply_gradients = found.extend
                with tf.control_dependencies(gradients):  # else TensorFlow computes all at once
                    logs = step(tuple(map(tf.identity, part)))
                sums = gradients or [0.0] * len(found)
                gradients = [total + gradient / parts for total, (gradient, _) in zip(sums, found)]
        finally:
            del optimizer.apply_gradients
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return logs

    model.train_step = train_step
