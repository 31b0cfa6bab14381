"""Losses of whole regions, from each class's soft overlap with the truth, on any Keras backend.

They are functions of `(mask, logits, labelled)`: int32 `(B, H, W)` of class ids, float32
`(B, H, W, C)`, and float32 `(B, H, W)`, which is 0 for the pixels to ignore. Each returns a scalar
in 0..1, the mean over the classes that occur in the batch.
"""

from __future__ import annotations

import functools

import keras
from keras import ops

LEVELS = 4096  # of a pixel's error; more change the Lovász loss by less than 1e-6


def soft_overlap_loss(mask, logits, labelled, false_positives: float, false_negatives: float):
    """One minus the mean soft Tversky index. Where nothing is labelled, the loss is 1.

    With the pixels' probabilities in place of counts, a class's index is `hits / (hits +
    false_positives * FP + false_negatives * FN)`. Weights of 1 give the IoU, of 0.5 the Dice
    coefficient.

    Source: Salehi et al. 2017, "Tversky Loss Function for Image Segmentation Using 3D Fully
    Convolutional Deep Networks"; for the IoU, Rahman and Wang 2016, "Optimizing
    Intersection-Over-Union in Deep Neural Networks for Image Segmentation"; for Dice, Milletari et
    al. 2016, "V-Net", section 3, without its squares.
    """
    classes = logits.shape[-1]
    probabilities = ops.reshape(ops.softmax(logits) * labelled[..., None], (-1, classes))
    truth = ops.reshape(ops.one_hot(mask, classes) * labelled[..., None], (-1, classes))
    hits = ops.sum(probabilities * truth, axis=0)
    pixels = ops.sum(truth, axis=0)
    # FP is the sum of the probabilities less hits, FN that of the pixels.
    of_hits = 1 - false_positives - false_negatives
    whole = false_positives * ops.sum(probabilities, axis=0) + false_negatives * pixels
    present = ops.cast(pixels > 0, "float32")
    index = present * hits / ops.maximum(whole + of_hits * hits, 1e-7)
    return 1 - ops.sum(index) / ops.maximum(ops.sum(present), 1)


def lovasz_softmax_loss(mask, logits, labelled):
    """The Lovász extension of one minus the mean IoU. Where nothing is labelled, the loss is 0.

    A class's loss is the sum over the pixels, from the largest error to the smallest, of the error
    times what the pixel adds to one minus the IoU. Instead of being sorted, which takes ten times
    as long, pixels are counted by their error in `LEVELS` steps: the order of equal errors
    does not matter.

    Source: Berman et al. 2018, "The Lovász-Softmax Loss", algorithm 1, over the
    classes present and all pixels of the batch.
    """
    classes = logits.shape[-1]
    probabilities = ops.softmax(logits)
    truth = ops.one_hot(mask, classes, dtype="bool")
    errors = ops.where(truth, 1 - probabilities, probabilities)
    levels = ops.cast((1 - ops.stop_gradient(errors)) * (LEVELS - 1) + 0.5, "int32")
    levels = ops.clip(levels, 0, LEVELS - 1)  # also where the errors are no numbers
    places = (2 * ops.arange(classes) + ops.cast(truth, "int32")) * LEVELS + levels
    beyond = 2 * classes * LEVELS  # where the unlabelled pixels are counted
    counted = ops.reshape(ops.where(labelled[..., None] > 0, places, beyond), (-1,))
    counts = ops.cast(count(counted, beyond + 1)[:beyond], "float32")
    counts = ops.reshape(counts, (classes, 2, LEVELS))
    others, own = counts[:, 0], counts[:, 1]
    pixels = ops.sum(own, axis=1, keepdims=True)
    union = pixels + ops.cumsum(others, axis=1)
    # Within a level the class's own pixels come first. Differences of the IoU would cancel.
    of_own = 1 / ops.maximum(union - others, 1)
    of_others = (pixels - ops.cumsum(own, axis=1)) / ops.maximum((union - others) * union, 1)
    steps = ops.reshape(ops.stack([of_others, of_own], axis=1), (-1,))
    present = ops.cast(pixels[:, 0] > 0, "float32")
    losses = errors * ops.take(steps, places) * labelled[..., None]
    losses = ops.sum(ops.reshape(losses, (-1, classes)), axis=0)
    return ops.sum(present * losses) / ops.maximum(ops.sum(present), 1)


def count(values, size: int):
    """How often each of `0..size-1` occurs in values, int32 `(N,)`: `(size,)`."""
    if keras.backend.backend() == "tensorflow":
        return ops.bincount(values, minlength=size)
    # JAX cannot compile bincount; TensorFlow takes 20 times as long for this.
    return ops.segment_sum(ops.ones_like(values), values, size)


REGION_LOSSES = {
    "jaccard": functools.partial(soft_overlap_loss, false_positives=1.0, false_negatives=1.0),
    "dice": functools.partial(soft_overlap_loss, false_positives=0.5, false_negatives=0.5),
    # The values with which Salehi et al. had the best results: they favour recall.
    "tversky": functools.partial(soft_overlap_loss, false_positives=0.3, false_negatives=0.7),
    "lovasz": lovasz_softmax_loss,
}
