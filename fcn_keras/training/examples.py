"""The examples that `fit` takes: a run's splits, and its batches in training and validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from fcn_keras.data import pipeline
from fcn_keras.data.augmentation import Augmentation
from fcn_keras.data.custom import augmented
from fcn_keras.data.split import Split, resized
from fcn_keras.runs.config import TrainConfig, split_of
from fcn_keras.training.devices import distribute, several_workers
from fcn_keras.training.keras_bridge import with_one_iterator


def load_splits(config: TrainConfig) -> tuple[Split, Split]:
    """The images for training and for validation."""
    return split_of(config, "train"), split_of(config, "val")


def as_seen(
    config: TrainConfig, splits: tuple[Split, Split], augment: Callable | None = None
) -> tuple[Split, Split]:
    """The splits at the network's size; training images are kept in memory once read.

    `train`'s argument `augment` is applied to these whenever they are read.
    """
    train_split, val_split = (
        resized(split, config.short_side) if config.short_side else split for split in splits
    )
    train_split = pipeline.cached(train_split, config.cache_mb << 20)
    if augment:
        train_split = augmented(train_split, augment)
        train_split.read(0)  # a mistake shows here as it is, later as an error of TensorFlow
    return train_split, val_split


def fit_data(config: TrainConfig, splits: tuple[Split, Split], epochs_done: int, strategy):
    """Training batches, and validation batches that repeat, as `fit` takes them."""
    train_split, val_split = splits
    if several_workers(strategy):

        def training_share(worker, workers, replicas):
            batches = _training_batches(config, train_split, epochs_done, (worker, workers))
            return batches.rebatch(config.batch_size // (workers * replicas))

        def evaluation_share(worker, workers, replicas):
            return pipeline.evaluation_share(val_split, worker, workers, replicas).repeat()

        batches = distribute(strategy, training_share)
        validation = distribute(strategy, evaluation_share)
    else:
        batches = _training_batches(config, train_split, epochs_done)
        validation = pipeline.evaluation_batches(val_split, strategy.num_replicas_in_sync)
        validation = strategy.experimental_distribute_dataset(validation.repeat())
    return batches, with_one_iterator(validation)


def _training_batches(config: TrainConfig, split: Split, epochs_done: int, share=(0, 1)):
    """Batches of the remaining epochs: the coarse ones, then those of full size."""
    augment = augmentation_of(config)
    change = max(epochs_done, min(config.coarse_epochs or 0, config.epochs))
    stages = ((augment.halved(), epochs_done, change), (augment, change, config.epochs))
    batches = [
        pipeline.training_batches(
            split, stage, config.batch_size, epochs=(first, end), seed=config.seed, share=share
        )
        for stage, first, end in stages
        if first < end
    ]
    return batches[0] if len(batches) == 1 else batches[0].concatenate(batches[1])


def augmentation_of(config: TrainConfig) -> Augmentation:
    """The augmentation of a run's settings."""
    names = {field.name for field in dataclasses.fields(Augmentation)} - {"halve"}
    return Augmentation(**{name: getattr(config, name) for name in names})
