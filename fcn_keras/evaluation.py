"""Model + split -> the four measures of Long et al. 2015, section 5."""

from __future__ import annotations

import dataclasses

import numpy as np

from fcn_keras.datasets.base import LabelSet, Split


@dataclasses.dataclass(frozen=True)
class Report:
    """A confusion matrix and the measures that follow from it.

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
        """Share of the labelled pixels that are right."""
        return _ratio(np.trace(self.confusion), self.confusion.sum())

    @property
    def mean_accuracy(self) -> float:
        """Mean over the classes in the truth of the share of their pixels that is right."""
        truth = self.confusion.sum(axis=1)
        return _mean(np.diag(self.confusion)[truth > 0] / truth[truth > 0])

    @property
    def class_iou(self) -> np.ndarray:
        """Intersection over union of each class, `(classes,)`, NaN where it is in neither."""
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

    def to_dict(self) -> dict:
        """The measures as `metrics.json` holds them; `None` stands for a class left out."""
        ious = [None if np.isnan(iou) else float(iou) for iou in self.class_iou]
        return {
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "mean_iou": self.mean_iou,
            "frequency_weighted_iou": self.frequency_weighted_iou,
            "per_class_iou": dict(zip(self.labels.names, ious)),
        }


def evaluate(model, split: Split, progress=lambda items: items) -> Report:
    """Compares predictions and truth on whole images at their own size.

    Args:
        model: Maps RGB images `(1, H, W, 3)` in 0..255 to logits `(1, H, W, C)`.
        split: The examples; one is in memory at a time.
        progress: Wraps the sequence of indices, to show how far it is.

    Returns:
        The `Report` of all labelled pixels.

    Raises:
        UserError: If an example cannot be read.
    """
    confusion = np.zeros((len(split.labels), len(split.labels)), np.int64)
    for index in progress(range(len(split))):
        image, mask = split.read(index)
        logits = model.predict_on_batch(image[None].astype(np.float32))[0]
        confusion += confusion_matrix(mask, logits.argmax(axis=-1), len(split.labels))
    return Report(split.labels, confusion)


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts pairs of classes over the labelled pixels.

    Args:
        truth: Integer class ids of any shape; ids from `num_classes` on, such as
            255, are left out.
        prediction: Class ids of the same shape, all below `num_classes`.

    Returns:
        int64 `(num_classes, num_classes)`, truth by prediction.
    """
    labelled = truth < num_classes
    pairs = truth[labelled].astype(np.int64) * num_classes + prediction[labelled]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def _mean(values: np.ndarray) -> float:
    return _ratio(values.sum(), values.size)


def _ratio(part, whole) -> float:
    return float(part / whole) if whole else 0.0
