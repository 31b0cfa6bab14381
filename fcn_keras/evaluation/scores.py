"""Model + split -> the four metrics of Long et al. 2015, section 5.

`subsets` can change beforehand which pixels count.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from fcn_keras.data.split import LabelSet, Split, placeholder_names
from fcn_keras.errors import UserError, few
from fcn_keras.runs.folder import MEASURES


@dataclasses.dataclass(frozen=True)
class Scores:
    """A confusion matrix and the metrics that follow from it.

    Classes that neither truth nor prediction contains are left out of the means.

    Args:
        labels: The classes.
        confusion: int64 `(classes, classes)`; `[t, p]` counts the pixels of class
            `t` that were predicted as `p`.
    """

    labels: LabelSet
    confusion: np.ndarray

    @property
    def pixel_accuracy(self) -> float:
        """Share of the labelled pixels that are correct."""
        return _ratio(np.trace(self.confusion), self.confusion.sum())

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes in the truth of the share of their pixels that are correct."""
        truth = self.confusion.sum(axis=1)
        return _mean(np.diag(self.confusion)[truth > 0] / truth[truth > 0])

    @property
    def class_iou(self) -> np.ndarray:
        """Intersection over union of each class, `(classes,)`, NaN if the class is in neither."""
        hits = np.diag(self.confusion)
        union = self.confusion.sum(axis=0) + self.confusion.sum(axis=1) - hits
        return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)

    @property
    def mean_iou(self) -> float:
        """Mean of `class_iou` over the classes that occur."""
        return _mean(self.class_iou[~np.isnan(self.class_iou)])

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of `class_iou` weighted by the pixels of each class in the truth."""
        truth = self.confusion.sum(axis=1)
        return _ratio(np.nansum(self.class_iou * truth), truth.sum())

    @property
    def confusion_shares(self) -> np.ndarray:
        """The confusion matrix with each row as shares of the true class's pixels."""
        return self.confusion / np.maximum(self.confusion.sum(axis=1, keepdims=True), 1)

    def to_dict(self) -> dict:
        """The metrics as in `metrics.json`; `None` for a class that is left out."""
        ious = [None if np.isnan(iou) else float(iou) for iou in self.class_iou]
        measures = {name: getattr(self, name) for name in MEASURES}
        return {**measures, "per_class_iou": dict(zip(self.labels.names, ious))}


def evaluate(segment: Callable, split: Split, progress=lambda items: items) -> Scores:
    """Compares predictions and truth, one image at a time.

    Args:
        segment: Maps an RGB image, uint8 `(H, W, 3)`, to class ids `(H, W)`;
            a `Segmenter`.
        split: The examples, at their original size.
        progress: Wraps the sequence of indices, to show progress.

    Returns:
        The `Scores` of all labelled pixels.

    Raises:
        UserError: If an example cannot be read.
    """
    classes = len(split.labels)
    confusion = np.zeros((classes, classes), np.int64)
    for index in progress(range(len(split))):
        image, mask = split.read(index)
        confusion += confusion_matrix(mask, segment(image), classes)
    return Scores(split.labels, confusion)


@dataclasses.dataclass(frozen=True)
class ImageScore:
    """How well one image of a split was predicted.

    Args:
        index: Its place in the split.
        id: Its name there.
        scores: The `Scores` of this image alone.
    """

    index: int
    id: str
    scores: Scores

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes that the image's truth or prediction contains."""
        return self.scores.mean_iou

    @property
    def pixel_accuracy(self) -> float:
        """Share of the image's labelled pixels that are right."""
        return self.scores.pixel_accuracy


def image_scores(segment: Callable, split: Split, progress=lambda items: items) -> list[ImageScore]:
    """Scores each image separately, to find those that a model does worst on.

    Args:
        segment: As for `evaluate`.
        split: The examples, at their original size.
        progress: As for `evaluate`.

    Returns:
        An `ImageScore` per image, sorted by mean IoU, then pixel accuracy, the lowest
        first, then by the split's order. Images without a labelled pixel have no
        score and are left out. `total_scores` adds the scores up.

    Raises:
        UserError: If an example cannot be read.
    """
    classes = len(split.labels)
    scores = []
    for index in progress(range(len(split))):
        image, mask = split.read(index)
        confusion = confusion_matrix(mask, segment(image), classes)
        if confusion.any():
            scores.append(ImageScore(index, split.ids[index], Scores(split.labels, confusion)))
    return sorted(scores, key=lambda score: (score.mean_iou, score.pixel_accuracy))


def total_scores(labels: LabelSet, images: Iterable[ImageScore]) -> Scores:
    """The `Scores` of all images together: those of `evaluate`, without predicting again."""
    confusion = np.zeros((len(labels), len(labels)), np.int64)
    return Scores(labels, sum((image.scores.confusion for image in images), confusion))


def require_same_classes(model_labels: LabelSet, data_labels: LabelSet) -> None:
    """Raises `UserError` if a model's classes are not those of a data set.

    Only their number counts if the model's classes have no names.
    """
    nameless = model_labels.names == placeholder_names(len(model_labels))
    if len(model_labels) != len(data_labels) or not (
        nameless or model_labels.names == data_labels.names
    ):
        raise UserError(
            f"The model has the {len(model_labels)} classes {few(model_labels.names)}, the data "
            f"set the {len(data_labels)} classes {few(data_labels.names)}. They must be the same."
        )


def format_scores(scores: Scores) -> str:
    """The metrics and a line for each class, as text; "–" for a class that is left out."""
    lines = [f"{title:22}  {getattr(scores, name):.4f}" for name, title in MEASURES.items()]
    width = max(5, *map(len, scores.labels.names))
    lines.append(f"\n{'class':{width}}     IoU  accuracy       pixels")
    truth = scores.confusion.sum(axis=1)
    for name, iou, hits, pixels in zip(
        scores.labels.names, scores.class_iou, np.diag(scores.confusion), truth
    ):
        iou_text = "–" if np.isnan(iou) else f"{iou:.4f}"
        accuracy = f"{hits / pixels:.4f}" if pixels else "–"
        lines.append(f"{name:{width}}  {iou_text:>6}  {accuracy:>8}  {pixels:11}")
    return "\n".join(lines)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts pairs of classes over the labelled pixels.

    Args:
        truth: Integer class ids of any shape; ids of `num_classes` and above, such as
            255, are left out.
        prediction: Class ids of the same shape, all below `num_classes` where the truth is.

    Returns:
        int64 `(num_classes, num_classes)`, truth by prediction.

    Raises:
        UserError: If a prediction is no class.
    """
    labelled = truth < num_classes
    predicted = prediction[labelled]
    if predicted.size and predicted.max() >= num_classes:
        raise UserError(
            f"A prediction has the id {predicted.max()}, which is no class. Metrics need a class "
            "for every pixel: evaluate without min_confidence."
        )
    pairs = truth[labelled].astype(np.int64) * num_classes + predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _mean(values: np.ndarray) -> float:
    return _ratio(values.sum(), values.size)


def _ratio(part, whole) -> float:
    return float(part / whole) if whole else 0.0
