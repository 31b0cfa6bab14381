"""Loss and metrics for masks with unlabelled pixels, on any Keras backend."""

from __future__ import annotations

import keras
from keras import ops

from fcn_keras.datasets.base import IGNORE_ID


@keras.saving.register_keras_serializable("fcn_keras")
class SegmentationCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits, averaged over the labelled pixels of the batch.

    With class weights it is the weighted average that PyTorch's
    `CrossEntropyLoss(weight=..., ignore_index=255)` computes. A batch without
    one labelled pixel has loss 0. Under a distribution strategy each replica
    averages over its own labelled pixels.

    Args:
        class_weights: One weight a class, or `None` for equal ones. Keras's own
            `class_weight` of `fit` cannot serve: it takes a mask for one-hot.
        ignore_class: The mask's id that takes no part.
        jaccard_weight: The share of `soft_jaccard_loss` that is added.
    """

    def __init__(
        self,
        class_weights: list[float] | None = None,
        ignore_class: int = IGNORE_ID,
        jaccard_weight: float = 0.0,
        name: str = "segmentation_crossentropy",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.jaccard_weight = jaccard_weight
        self.ignore_class = ignore_class

    def call(self, y_true, y_pred):
        """Returns the loss, `(1,)`, of masks `(B, H, W)` and logits `(B, H, W, C)`."""
        mask, labelled = _labelled(y_true, self.ignore_class)
        y_pred = ops.cast(y_pred, "float32")
        pixel_loss = ops.sparse_categorical_crossentropy(mask, y_pred, from_logits=True)
        weights = ops.cast(labelled, "float32")
        if self.class_weights is not None:
            weights = weights * ops.take(ops.array(self.class_weights, "float32"), mask)
        loss = ops.sum(weights * pixel_loss) / ops.maximum(ops.sum(weights), 1e-7)
        if self.jaccard_weight:
            jaccard = soft_jaccard_loss(mask, y_pred, ops.cast(labelled, "float32"))
            loss = loss + self.jaccard_weight * jaccard
        # Keras divides a loss by the number of replicas unless it is a scalar.
        return ops.reshape(loss, (1,))

    def get_config(self):
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "jaccard_weight": self.jaccard_weight,
            "ignore_class": self.ignore_class,
        }


def soft_jaccard_loss(mask, logits, labelled):
    """One minus the mean IoU of probabilities and truth over the classes in the batch.

    Source: Rahman and Wang 2016, "Optimizing Intersection-Over-Union in Deep
    Neural Networks for Image Segmentation".

    Args:
        mask: int32 `(B, H, W)` of class ids.
        logits: float32 `(B, H, W, C)`.
        labelled: float32 `(B, H, W)`, 0 for the pixels that take no part.

    Returns:
        A scalar in 0..1; 1 where nothing is labelled.
    """
    classes = logits.shape[-1]
    probabilities = ops.reshape(ops.softmax(logits) * labelled[..., None], (-1, classes))
    truth = ops.reshape(ops.one_hot(mask, classes) * labelled[..., None], (-1, classes))
    hits = ops.sum(probabilities * truth, axis=0)
    pixels = ops.sum(truth, axis=0)
    union = ops.sum(probabilities, axis=0) + pixels - hits
    present = ops.cast(pixels > 0, "float32")
    iou = present * hits / ops.maximum(union, 1e-7)
    return 1 - ops.sum(iou) / ops.maximum(ops.sum(present), 1)


@keras.saving.register_keras_serializable("fcn_keras")
class PixelAccuracy(keras.metrics.Mean):
    """Share of the labelled pixels whose largest logit is that of their class.

    Args:
        ignore_class: The mask's id that takes no part.
    """

    def __init__(self, ignore_class: int = IGNORE_ID, name: str = "pixel_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.ignore_class = ignore_class

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds masks `(B, H, W)` and logits `(B, H, W, C)`."""
        mask, labelled = _labelled(y_true, self.ignore_class)
        hits = ops.equal(mask, ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
        super().update_state(ops.cast(hits, "float32"), sample_weight=ops.cast(labelled, "float32"))

    def get_config(self):
        return {"name": self.name, "dtype": self.dtype, "ignore_class": self.ignore_class}


def mean_iou(num_classes: int) -> keras.metrics.MeanIoU:
    """Mean intersection over union of logits over the classes present, 255 left out."""
    return keras.metrics.MeanIoU(
        num_classes, ignore_class=IGNORE_ID, sparse_y_pred=False, name="mean_iou"
    )


def _labelled(y_true, ignore_class):
    """The mask with unlabelled pixels set to class 0, and which pixels are labelled."""
    mask = ops.cast(y_true, "int32")
    labelled = ops.not_equal(mask, ignore_class)
    return ops.where(labelled, mask, 0), labelled
