"""Loss and metrics for masks with unlabelled pixels, on any Keras backend."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from fcn_keras.data.split import IGNORE_ID


@keras.saving.register_keras_serializable("fcn_keras")
class SegmentationCrossentropy(keras.losses.Loss):
    """Cross-entropy of logits, averaged over the labelled pixels of the batch.

    With class weights it is the weighted average that PyTorch's
    `CrossEntropyLoss(weight=..., ignore_index=255)` computes. A batch without
    labelled pixels has loss 0. Under a distribution strategy each replica
    averages over its own labelled pixels.

    Args:
        class_weights: One weight per class, or `None` for equal weights. The
            `class_weight` of Keras's `fit` would take a mask for one-hot.
        ignore_class: Id of the pixels to ignore.
        jaccard_weight: Weight of the `soft_jaccard_loss` that is added.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
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
        weights = ops.cast(labelled, "float32")
        if self.class_weights is not None:
            weights = weights * ops.take(ops.array(self.class_weights, "float32"), mask)
        weights = weights / ops.maximum(ops.sum(weights), 1e-7)
        loss = _weighted_crossentropy(y_pred, mask, weights)
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


def _weighted_crossentropy(logits, mask, weights):
    """The sum over pixels of their weight times `-log(softmax(logits)[mask])`.

    A pixel's loss is capped at 87, where float32's probabilities end; the gradient is not. It is
    `weight * (softmax - one_hot)`, in as few passes over the logits as possible: they are by far
    the largest map of the network.
    """

    @ops.custom_gradient
    def crossentropy(logits):
        probabilities = ops.softmax(logits)
        right = ops.take_along_axis(probabilities, mask[..., None], axis=-1)[..., 0]
        loss = -ops.sum(weights * ops.log(ops.maximum(right, 1.2e-38)))

        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream
            off = probabilities - ops.one_hot(mask, logits.shape[-1])
            return off * (upstream * weights)[..., None]

        return loss, gradient

    return crossentropy(logits)


def add_auxiliary_loss(model: keras.Model, weight: float, class_weights=None) -> None:
    """Adds the auxiliary head's cross-entropy to the loss of a compiled model, in training only.

    Metrics, and the loss in validation, are those of the first output. This replaces methods of
    the instance, not its class, so that it is saved as a plain model.

    Args:
        model: Its outputs are logits and auxiliary logits, as `build_fcn` makes them; its loss and
            metrics are for one output.
        weight: Of the auxiliary head's loss.
        class_weights: As in `SegmentationCrossentropy`.
    """
    compute_loss, compute_metrics = model.compute_loss, model.compute_metrics
    auxiliary_loss = SegmentationCrossentropy(class_weights)

    def loss_of_both(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = compute_loss(x, y, y_pred[0], sample_weight, training)
        return loss + weight * auxiliary_loss(y, y_pred[1]) if training else loss

    def metrics_of_first(x, y, y_pred, sample_weight=None):
        return compute_metrics(x, y, y_pred[0], sample_weight)

    model.compute_loss, model.compute_metrics = loss_of_both, metrics_of_first


def soft_jaccard_loss(mask, logits, labelled):
    """One minus the mean IoU of probabilities and truth over the classes in the batch.

    Source: Rahman and Wang 2016, "Optimizing Intersection-Over-Union in Deep
    Neural Networks for Image Segmentation".

    Args:
        mask: int32 `(B, H, W)` of class ids.
        logits: float32 `(B, H, W, C)`.
        labelled: float32 `(B, H, W)`, 0 for the pixels to ignore.

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
class SegmentationMetrics(keras.metrics.Metric):
    """Pixel accuracy and mean IoU of the labelled pixels, from one confusion matrix.

    Together they take a quarter of the time of Keras's two metrics, which matters in
    every training step. The mean IoU is over the classes that occur, as in Keras.

    Args:
        num_classes: Channels of the logits.
        ignore_class: Id of the pixels to ignore.
    """

    def __init__(
        self, num_classes: int, ignore_class: int = IGNORE_ID, name: str = "metrics", **kwargs
    ):
        super().__init__(name=name, **kwargs)
        self.num_classes = num_classes
        self.ignore_class = ignore_class
        # [t, p] counts the pixels of class t that were predicted as p.
        self.confusion = self.add_weight(shape=(num_classes**2,), initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds masks `(B, H, W)` and logits `(B, H, W, C)`."""
        mask, labelled = _labelled(y_true, self.ignore_class)
        # Takes half as long as argmax, which has to tell 0 from -0.
        predicted = ops.cast(ops.top_k(y_pred, 1, sorted=False)[1][..., 0], "int32")
        beyond = self.num_classes**2  # where the unlabelled pixels are counted
        pairs = ops.where(labelled, mask * self.num_classes + predicted, beyond)
        pairs = ops.reshape(pairs, (-1,))
        if keras.backend.backend() == "tensorflow":
            counts = ops.bincount(pairs, minlength=beyond + 1)
        else:  # JAX cannot compile bincount; TensorFlow takes 20 times as long for this
            counts = ops.segment_sum(ops.ones_like(pairs, self.dtype), pairs, beyond + 1)
        self.confusion.assign_add(ops.cast(counts[:beyond], self.dtype))

    def result(self) -> dict:
        """Returns `{"pixel_accuracy": ..., "mean_iou": ...}`."""
        confusion = ops.reshape(self.confusion, (self.num_classes, self.num_classes))
        hits = ops.diagonal(confusion)
        union = ops.sum(confusion, axis=0) + ops.sum(confusion, axis=1) - hits
        occur = ops.sum(ops.cast(union > 0, self.dtype))
        return {
            "pixel_accuracy": ops.sum(hits) / ops.maximum(ops.sum(confusion), 1),
            "mean_iou": ops.sum(hits / ops.maximum(union, 1)) / ops.maximum(occur, 1),
        }

    def get_config(self):
        config = {"name": self.name, "dtype": self.dtype, "num_classes": self.num_classes}
        return {**config, "ignore_class": self.ignore_class}


def _labelled(y_true, ignore_class):
    """The mask with unlabelled pixels set to class 0, and which pixels are labelled."""
    mask = ops.cast(y_true, "int32")
    labelled = ops.not_equal(mask, ignore_class)
    return ops.where(labelled, mask, 0), labelled
