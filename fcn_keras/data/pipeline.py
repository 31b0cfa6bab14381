"""Split -> tf.data: read, cache, shuffle, augment, batch, mix, prefetch."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import threading

import numpy as np
import tensorflow as tf

from fcn_keras.data.augmentation import Augmentation
from fcn_keras.data.split import IGNORE_ID, Split
from fcn_keras.data.transforms import PADDING_RGB
from fcn_keras.errors import UserError, printable


def training_batches(
    split: Split,
    augment: Augmentation,
    batch_size: int,
    *,
    epochs: tuple[int, int],
    seed: int,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches of shuffled, augmented examples for a range of epochs.

    Order and pixels depend only on the seed and the epoch number, so a run that
    resumes at epoch 3 sees what it would have seen without the interruption. An epoch
    leaves out the examples beyond its last full batch, different ones each time.

    Args:
        split: Where the examples come from.
        augment: Applied to each of them.
        batch_size: Examples per batch, over all replicas.
        epochs: The first epoch, and the one after the last, counted from 0.
        seed: Any integer.
        share: The index of a worker, and how many there are. Each reads only its part
            of every batch, the first worker the first examples.

    Returns:
        A dataset of `steps_per_epoch(split, batch_size)` batches per epoch: float32
        `(examples, *crop, 3)` and uint8 `(examples, *crop)`, where `examples` is
        `batch_size` divided by the number of workers.
    """
    count, used = len(split), steps_per_epoch(split, batch_size) * batch_size
    worker, workers = share
    examples = batch_size // workers

    def epoch_order(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(count), [seed, epoch])
        order = tf.gather(order, tf.range(used) % count)  # repeats if one batch exceeds the split
        numbers = epoch * used + tf.range(used, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((own(order), own(numbers)))

    def own(values):
        return tf.reshape(tf.reshape(values, (-1, workers, examples))[:, worker], [-1])

    read = _reader(split)

    def load(index, number):
        own_seed = tf.stack([tf.cast(seed, tf.int64), number])
        return *augment(*read(index), seed=own_seed), own_seed

    def mix(images, masks, seeds):
        return augment.mix(images, masks, seeds[0])

    return (
        tf.data.Dataset.range(*epochs)
        .flat_map(epoch_order)
        .map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .batch(examples, drop_remainder=True)
        .map(mix)  # not in parallel, which would hold more batches in memory
        .prefetch(tf.data.AUTOTUNE)
        .with_options(_options())
    )


def evaluation_batches(split: Split, batch_size: int) -> tf.data.Dataset:
    """Whole images in order, padded to the largest of their batch.

    The last batch is filled with unlabelled pixels, since a replica that gets
    no example at all makes the loss NaN.

    Returns:
        A dataset of float32 `(batch_size, H, W, 3)` and uint8 `(batch_size, H, W)`.
    """
    filler = -len(split) % batch_size
    read = _reader(split)
    indices = [*range(len(split)), *[-1] * filler]
    padding = tf.constant(sum(PADDING_RGB) / 3, tf.float32)
    return (
        tf.data.Dataset.from_tensor_slices(tf.constant(indices, tf.int32))
        .map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .map(lambda image, mask: (tf.cast(image, tf.float32), mask))
        .padded_batch(batch_size, padding_values=(padding, tf.constant(IGNORE_ID, tf.uint8)))
        .prefetch(2)
        .with_options(_options())
    )


def evaluation_share(split: Split, worker: int, workers: int, replicas: int) -> tf.data.Dataset:
    """One worker's whole images, each a batch of its own at its original size.

    Args:
        split: Where the examples come from.
        worker: The worker's index.
        workers: How many there are.
        replicas: Devices of each worker.

    Returns:
        A dataset of float32 `(B, H, W, 3)` and uint8 `(B, H, W)` with `B` = 1, as many batches
        for each worker, a multiple of `replicas`. Workers with fewer images end with
        unlabelled ones, which no metric counts; the mean loss counts them as 0.
    """
    own = range(worker, len(split), workers)
    steps = -(-len(split) // (workers * replicas))
    read = _reader(split)
    images = (
        tf.data.Dataset.from_tensor_slices(tf.constant([*own], tf.int32))
        .map(read, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .map(lambda image, mask: (tf.cast(image, tf.float32), mask))
        .batch(1)
    )
    # No batch of 0 images: TensorFlow's convolution gives it a wrong shape on CPUs.
    void = (
        tf.zeros((1, 32, 32, 3), tf.float32),
        tf.fill((1, 32, 32), tf.constant(IGNORE_ID, tf.uint8)),
    )
    filler = tf.data.Dataset.from_tensors(void).repeat(steps * replicas - len(own))
    return images.concatenate(filler).prefetch(2).with_options(_options())


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Full batches in a split; one if it is smaller than a batch."""
    return max(1, len(split) // batch_size)


def cached(split: Split, max_bytes: int) -> Split:
    """The same split, keeping the examples read first in memory, up to `max_bytes`."""
    kept: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    lock = threading.Lock()
    room = max_bytes

    def read(index: int):
        nonlocal room
        if index in kept:
            return kept[index]
        image, mask = split.read(index)
        size = image.nbytes + mask.nbytes
        with lock:
            if size <= room and index not in kept:
                kept[index] = image, mask
                room -= size
        return image, mask

    return dataclasses.replace(split, read=read)


@contextlib.contextmanager
def bad_files_as_user_errors():
    """Turns TensorFlow's report of an unreadable example back into the `UserError` it was."""
    try:
        yield
    except tf.errors.OpError as error:
        # TensorFlow carries a Python exception as text: "...UserError: message\nTraceback ...".
        found = re.search(r"UserError: (.*?)\s*Traceback \(most recent", str(error), re.DOTALL)
        if not found:
            raise
        raise UserError(found.group(1)) from error


def _reader(split: Split):
    def read_numpy(index):
        if index < 0:
            return np.zeros((1, 1, 3), np.uint8), np.full((1, 1), IGNORE_ID, np.uint8)
        try:
            return split.read(int(index))
        except UserError as error:  # TensorFlow would lose a name that is not UTF-8
            raise UserError(printable(str(error))) from error

    def read(index):
        image, mask = tf.numpy_function(read_numpy, [index], (tf.uint8, tf.uint8), stateful=False)
        return tf.ensure_shape(image, (None, None, 3)), tf.ensure_shape(mask, (None, None))

    return read


def _options() -> tf.data.Options:
    options = tf.data.Options()
    # One machine: sharding by file would only print warnings.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
