"""A run's folder and its data set -> everything on the page."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from fcn_keras.data.overlay import at_most
from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError
from fcn_keras.evaluation.scores import (
    ImageScore,
    Scores,
    image_scores,
    require_same_classes,
    total_scores,
)
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.runs.additions import shown_additions
from fcn_keras.runs.config import TrainConfig, split_of
from fcn_keras.runs.folder import RunFolder
from fcn_keras.runs.history import best_epoch
from fcn_keras.runs.paths import require_relative

MAX_SIDE = 480  # of the pictures
CHANGED = 0.001  # mean IoU; a larger difference is not a rounding error
MOVED = "If the data set has moved, pass its new path as --dataset or --data-dir."


@dataclasses.dataclass(frozen=True)
class Example:
    """A validation image as the page shows it, shrunk to `MAX_SIDE`.

    Args:
        score: Its metrics.
        image: uint8 `(H, W, 3)`.
        masks: By title, class ids `(H, W)`, 255 where unlabelled.
    """

    score: ImageScore
    image: np.ndarray
    masks: dict[str, np.ndarray]

    @classmethod
    def of(cls, score: ImageScore, image: np.ndarray, masks: dict[str, np.ndarray]) -> Example:
        """An example from an image and masks of any size."""
        image = at_most(image, MAX_SIDE, Image.Resampling.LANCZOS)
        return cls(score, image, {name: at_most(mask, MAX_SIDE) for name, mask in masks.items()})


@dataclasses.dataclass
class Contents:
    """What is known about a run; the fields from `counts` on are empty without its data set.

    Args:
        run: Its folder.
        config: Its settings.
        labels: Its classes.
        origin: What `RunFolder.read_origin` returns.
        history: The rows of `history.csv`.
        metrics: The content of `metrics.json`, `None` until the run is finished.
        notes: Sentences on what is missing or odd.
        counts: Images per split of the data set.
        scores: The metrics of `best.keras` on validation.
        worst: Examples with the lowest mean IoU, the lowest first.
        best: Examples with the highest, the highest first.
    """

    run: RunFolder
    config: TrainConfig
    labels: LabelSet
    origin: dict
    history: list[dict]
    metrics: dict | None
    notes: list[str]
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    scores: Scores | None = None
    worst: list[Example] = dataclasses.field(default_factory=list)
    best: list[Example] = dataclasses.field(default_factory=list)

    @property
    def measures(self) -> dict | None:
        """The metrics as in `metrics.json`, from this evaluation if there was one."""
        return self.scores.to_dict() if self.scores else self.metrics


def gather(
    run_dir,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    images: int = 4,
    progress: Callable = lambda items: items,
) -> Contents:
    """Reads a run and evaluates its `best.keras` once, image by image.

    Args:
        run_dir: The run's folder.
        dataset: Where its data set is now. Default: as in its settings.
        data_dir: The same for the folder that holds `VOCdevkit`.
        images: How many of the worst and of the best images to keep.
        progress: Wraps the indices of the validation images.

    Returns:
        The `Contents`. If the model or data set cannot be used, they have everything else
        and a note on what is missing.

    Raises:
        UserError: If the folder is not a run, is damaged or has no finished epoch, or a
            data set that was asked for cannot be used.
    """
    contents = read_run(run_dir)
    where = located(contents.config, dataset, data_dir)
    try:
        segment, val, ranked = measure(contents, where, progress)
        _add_images(contents, segment, val, ranked, images)
        contents.counts["val"] = len(val)
        with contextlib.suppress(UserError):  # the training images may be missing
            contents.counts["train"] = len(split_of(where, "train"))
        add_scores(contents, ranked)
    except UserError as error:
        if where != contents.config:
            raise
        contents.notes.append(
            f"The model could not be evaluated, so the confusion matrix, accuracies and "
            f"images are missing: {error} {MOVED}"
        )
    return contents


def read_run(run_dir) -> Contents:
    """Reads a run without its model and data set; raises `UserError` like `gather`."""
    run = RunFolder(run_dir)
    config, labels = run.read_config(), run.read_labels()
    history = run.require_history()
    metrics = run.read_metrics() if run.metrics.is_file() else None
    contents = Contents(run, config, labels, run.read_origin(), history, metrics, notes=[])
    if metrics is None:
        contents.notes.append(
            f"The run has no metrics.json: it is still training, or was stopped, after "
            f"{len(history)} of {config.epochs} epochs. "
            f"Continue it with fcn-keras train --resume {run.path}."
        )
    if additions := run.read_additions():
        contents.notes.append(
            f"The run was trained from Python with {shown_additions(additions)}, which the "
            "command leaves out."
        )
    return contents


def located(config: TrainConfig, dataset: str | None, data_dir: str | None) -> TrainConfig:
    """The settings with the new place of the data set, if it has moved."""
    moved: dict[str, Any] = {"dataset": dataset, "data_dir": data_dir}
    return dataclasses.replace(config, **{key: value for key, value in moved.items() if value})


def measure(
    contents: Contents, config: TrainConfig, progress: Callable
) -> tuple[Segmenter, Split, list[ImageScore]]:
    """Evaluates a run's `best.keras`.

    Args:
        contents: The run.
        config: Its settings as `located` returns them.
        progress: As for `gather`.

    Returns:
        The model, the validation images, and their metrics as from `image_scores`.

    Raises:
        UserError: If the model or data set cannot be used.
    """
    labels = contents.labels
    kept = {
        key for key in ("dataset", "data_dir") if vars(config)[key] == vars(contents.config)[key]
    }
    require_relative(config, contents.run.config, kept)
    val = split_of(config, "val")
    require_same_classes(labels, val.labels)
    segment = Segmenter.load(contents.run.best)
    require_same_classes(labels, segment.labels)
    ranked = image_scores(segment, val, progress)
    if not ranked:
        raise UserError(f"{config.dataset}: no validation image has a labelled pixel.")
    return segment, val, ranked


def _add_images(contents, segment: Segmenter, val: Split, ranked: list[ImageScore], images: int):
    def examples(chosen):
        for score in chosen:
            image, truth = val.read(score.index)
            yield Example.of(score, image, {"prediction": segment(image), "truth": truth})

    # No image is among both the worst and the best.
    half = min(images, -(-len(ranked) // 2))
    contents.worst = list(examples(ranked[:half]))
    contents.best = list(examples(ranked[half:][: -images - 1 : -1]))


def add_scores(contents: Contents, ranked: list[ImageScore]) -> None:
    """Adds the images' metrics, and a note if they are no longer those found by training."""
    contents.scores = total_scores(contents.labels, ranked)
    if contents.metrics:
        before, where = contents.metrics["mean_iou"], "metrics.json"
    else:
        best = best_epoch(contents.history)
        before = next(r["val_mean_iou"] for r in contents.history if r["epoch"] == best)
        where = "history.csv"
    now = contents.scores.mean_iou
    if abs(now - before) > CHANGED:
        contents.notes.append(
            f"The mean IoU is {now:.3f} now but was {before:.3f} in {where}: the validation "
            "images or best.keras have changed since."
        )
