"""Loss and metrics for masks with unlabelled pixels, on any Keras backend."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from fcn_keras.data.split import IGNORE_ID
from fcn_keras.runs.config import renamed
from fcn_keras.training.region_losses import REGION_LOSSES, count

# The focal loss's focusing parameter (Lin et al. 2017, section 3.2).
FOCUSING = 2
# The largest probability of a hard pixel's true class, and the least share of hard pixels. Both are
# those of OhemCELoss in github.com/CoinCheung/BiSeNet.
HARD, LEAST_HARD = 0.7, 1 / 16


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
        kind: `"crossentropy"`; `"focal"`, which multiplies a pixel's loss by `(1 - p)**2`, where
            `p` is the probability of its true class (Lin et al. 2017, "Focal Loss for Dense Object
            Detection"); or `"ohem"`, which averages over hard pixels only: those with `p <= 0.7`,
            but at least 1/16 of the labelled ones (Shrivastava et al. 2016, "Training Region-based
            Object Detectors with Online Hard Example Mining").
        label_smoothing: Share of each target that is spread evenly over all classes, as in
            `keras.losses.CategoricalCrossentropy`; not for `"focal"`.
        region_loss: A key of `REGION_LOSSES`.
        region_weight: Weight of the region loss that is added. It ignores class weights.
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        ignore_class: int = IGNORE_ID,
        kind: str = "crossentropy",
        label_smoothing: float = 0.0,
        region_loss: str = "jaccard",
        region_weight: float = 0.0,
        name: str = "segmentation_crossentropy",
        **kwargs,
    ):
        super().__init__(name=name, **kwargs)
        self.class_weights = None if class_weights is None else [float(w) for w in class_weights]
        self.ignore_class = ignore_class
        self.kind = kind
        self.label_smoothing = label_smoothing
        self.region_loss = region_loss
        self.region_weight = region_weight

    def call(self, y_true, y_pred):
        """Returns the loss, `(1,)`, of masks `(B, H, W)` and logits `(B, H, W, C)`."""
        mask, labelled = _labelled(y_true, self.ignore_class)
        y_pred = ops.cast(y_pred, "float32")
        weights = ops.cast(labelled, "float32")
        if self.class_weights is not None:
            weights = weights * ops.take(ops.array(self.class_weights, "float32"), mask)
        if self.kind == "ohem":
            weights = weights * ops.cast(_hard(y_pred, mask, labelled), "float32")
        weights = weights / ops.maximum(ops.sum(weights), 1e-7)
        focal = self.kind == "focal"
        loss = _weighted_crossentropy(y_pred, mask, weights, focal, self.label_smoothing)
        if self.region_weight:
            region_loss = REGION_LOSSES[self.region_loss]
            region = region_loss(mask, y_pred, ops.cast(labelled, "float32"))
            loss = loss + self.region_weight * region
        # Keras divides a loss by the number of replicas unless it is a scalar.
        return ops.reshape(loss, (1,))

    def get_config(self):
        return {
            **super().get_config(),
            "class_weights": self.class_weights,
            "ignore_class": self.ignore_class,
            "kind": self.kind,
            "label_smoothing": self.label_smoothing,
            "region_loss": self.region_loss,
            "region_weight": self.region_weight,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**renamed(config))


def _weighted_crossentropy(logits, mask, weights, focal: bool, smoothing: float):
    """The sum over pixels of their weight times `-log(softmax(logits)[mask])`, or variants of it.

    A pixel's loss is capped at 87, where float32's probabilities end; the gradient is not. It is
    `weight * (softmax - one_hot)`, in as few passes over the logits as possible: they are by far
    the largest map of the network.
    """

    @ops.custom_gradient
    def crossentropy(logits):
        probabilities = ops.softmax(logits)
        right = ops.take_along_axis(probabilities, mask[..., None], axis=-1)[..., 0]
        losses, slopes = -ops.log(ops.maximum(right, 1.2e-38)), weights
        if focal:
            wrong = 1 - right
            factor = wrong**FOCUSING
            slopes = weights * (factor + FOCUSING * wrong ** (FOCUSING - 1) * right * losses)
            losses = factor * losses
        if smoothing:
            even = -ops.mean(ops.log_softmax(logits), axis=-1)
            losses = (1 - smoothing) * losses + smoothing * even
        loss = ops.sum(weights * losses)

        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream
            target = ops.one_hot(mask, logits.shape[-1])
            if smoothing:
                target = (1 - smoothing) * target + smoothing / logits.shape[-1]
            return (probabilities - target) * (upstream * slopes)[..., None]

        return loss, gradient

    return crossentropy(logits)


def _hard(logits, mask, labelled):
    """Which pixels are hard: bool `(B, H, W)`. Those to ignore may be among them."""
    right = ops.take_along_axis(ops.softmax(logits), mask[..., None], axis=-1)[..., 0]
    right = ops.where(labelled, right, 2.0)  # beyond any probability
    least = ops.cast(ops.ceil(LEAST_HARD * ops.sum(ops.cast(labelled, "float32"))), "int32")
    ranked = ops.sort(ops.reshape(right, (-1,)))
    return right <= ops.maximum(ranked[ops.maximum(least - 1, 0)], HARD)


def add_auxiliary_loss(model: keras.Model, weight: float, auxiliary_loss: keras.Loss) -> None:
    """Adds the auxiliary head's loss to the loss of a compiled model, in training only.

    Metrics, and the loss in validation, are those of the first output. This replaces methods of
    the instance, not its class, so that it is saved as a plain model.

    Args:
        model: Its outputs are logits and auxiliary logits, as `build_fcn` makes them; its loss and
            metrics are for one output.
        weight: Of the auxiliary head's loss.
        auxiliary_loss: Of masks and auxiliary logits.
    """
    compute_loss, compute_metrics = model.compute_loss, model.compute_metrics

    def loss_of_both(x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = compute_loss(x, y, y_pred[0], sample_weight, training)
        return loss + weight * auxiliary_loss(y, y_pred[1]) if training else loss

    def metrics_of_first(x, y, y_pred, sample_weight=None):
        return compute_metrics(x, y, y_pred[0], sample_weight)

    model.compute_loss, model.compute_metrics = loss_of_both, metrics_of_first


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
        counts = count(ops.reshape(pairs, (-1,)), beyond + 1)
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
