"""Settings that a run decides itself: by the machine, the data and the weights at hand."""

from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
from tqdm import tqdm

from fcn_keras.data.class_counts import balanced_weights, count_pixels
from fcn_keras.data.split import Split
from fcn_keras.errors import UserError
from fcn_keras.files.images import resized_size
from fcn_keras.models.backbones import build_features
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.recipes import FROM_RANDOM, RECIPES
from fcn_keras.training.devices import fast_precision

# The values that ask for a choice.
AUTOMATIC = {
    **{"weights": "auto", "mixed_precision": "auto", "class_weights": "auto", "crop": (0, 0)},
    **{"batch_size": 0, "epochs": 0, "coarse_epochs": None, "short_side": None},
}
# Bounds of the automatic batch size. With fewer images, BatchNorm's statistics vary too much.
LEAST_BATCH, LARGEST_BATCH = 4, 16
FEW_STEPS = 200  # in which a network learns little
LARGEST_CROP = 320 * 480  # pixels
SIDE = 32  # of which crops have a multiple: the network's stride
SHORT_SIDE, LARGE_SIDE = 480, 800  # what photographs become whose shorter side is larger
SAMPLED = 50  # images whose size is looked at
# Images that a run sees in all. From pretrained weights, twice as many gained little on CamVid.
EXAMPLES, EXAMPLES_PRETRAINED = 24_000, 12_000
LEAST_EPOCHS, MOST_EPOCHS = 20, 240


def settle(config: TrainConfig, train: Split, replicas: int) -> tuple[TrainConfig, list[str]]:
    """The settings, with the automatic ones decided for this machine and these data.

    Args:
        config: With the values of `AUTOMATIC` for what is to be decided.
        train: The training images.
        replicas: Devices that share a batch.

    Returns:
        The settings, and a line for each choice that follows from the data, with its reason.

    Raises:
        UserError: If a mask that is looked at cannot be read.
    """
    images, reasons = len(train), []
    if config.weights == "auto":
        config = _with_known_weights(config)
    changes: dict = {}
    if config.mixed_precision == "auto":
        changes["mixed_precision"] = precision = fast_precision()
        speed = "no faster" if precision == "off" else "faster"
        reasons.append(f"--mixed-precision {precision}: this machine is {speed} with bfloat16")
    if not all(config.crop) or config.short_side is None:
        sizes = [train.mask(index).shape for index in range(0, images, -(-images // SAMPLED))]
        height, width = (int(side) for side in np.median(sizes, axis=0))
        of_size = f"images are {height}×{width} (median)"
        side = config.short_side
        if side is None:
            changes["short_side"] = side = short_side_for(height, width)
            reasons += [f"--short-side {side}: {of_size}"] * (side > 0)
        if not all(config.crop):
            seen = resized_size(height, width, side) if side else (height, width)
            changes["crop"] = rows, columns = crop_for(*seen)
            reasons.append(f"--crop {rows} {columns}: {of_size}")
    if not config.epochs:
        pretrained = config.weights != "none" or config.init_from
        changes["epochs"] = epochs_for(images, EXAMPLES_PRETRAINED if pretrained else EXAMPLES)
        reasons.append(f"--epochs {changes['epochs']}: {images} images")
    if config.coarse_epochs is None:
        changes["coarse_epochs"] = coarse = changes.get("epochs", config.epochs) // 2
        reasons.append(f"--coarse-epochs {coarse}: half of the epochs")
    if not config.batch_size:
        size = batch_size_for(images, changes.get("epochs", config.epochs))
        changes["batch_size"] = -(-size // replicas) * replicas
        reasons.append(f"--batch-size {changes['batch_size']}: {images} images")
    if config.class_weights == "auto":
        indices = tqdm(range(images), desc="Counting pixels", unit="mask", disable=None)
        counts = (count_pixels(train.mask(index), train.labels) for index in indices)
        changes["class_weights"] = balanced_weights(np.sum([*counts], axis=0))
    return dataclasses.replace(config, **changes), reasons


def _with_known_weights(config: TrainConfig) -> TrainConfig:
    """With ImageNet weights, or random values and the settings of the recipe for these."""
    if config.init_from:
        return dataclasses.replace(config, weights="none")
    try:
        build_features(config.backbone, "imagenet")
    except UserError as error:
        print(f"Note: --weights auto starts from random values. {error}", file=sys.stderr)
        return from_random(config)
    return dataclasses.replace(config, weights="imagenet")


def from_random(config: TrainConfig) -> TrainConfig:
    """The settings for random weights: those of the recipe in `FROM_RANDOM`, and what was given."""
    recipe = FROM_RANDOM.get(config.recipe, config.recipe)
    names = (RECIPES[config.recipe].keys() | RECIPES[recipe].keys()) - {*config.given}
    after = TrainConfig.from_recipe(recipe, dilated=config.dilated)
    changes = {name: getattr(after, name) for name in names}
    return dataclasses.replace(config, **{**changes, "recipe": recipe, "weights": "none"})


def batch_size_for(images: int, epochs: int) -> int:
    """A batch size that leaves enough steps to learn, within the bounds above."""
    size = LARGEST_BATCH
    while size > LEAST_BATCH and images * epochs < FEW_STEPS * size:
        size //= 2
    return min(size, images)


def short_side_for(height: int, width: int) -> int:
    """0, or what makes images small enough for a crop to show the objects in their context."""
    return SHORT_SIDE if min(height, width) > LARGE_SIDE else 0


def crop_for(height: int, width: int) -> tuple[int, int]:
    """The largest crop in the shape of images of this size, within the bounds above."""
    scale = min(1.0, math.sqrt(LARGEST_CROP / (height * width)))
    rows, columns = (max(SIDE, int(side * scale) // SIDE * SIDE) for side in (height, width))
    return rows, columns


def epochs_for(images: int, examples: int) -> int:
    """As many epochs as show the network this number of examples, within the bounds above."""
    return min(max(round(examples / images), LEAST_EPOCHS), MOST_EPOCHS)
