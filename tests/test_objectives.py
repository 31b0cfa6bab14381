import keras
import numpy as np
import pytest

from fcn_keras.objectives import PixelAccuracy, SegmentationCrossentropy, mean_iou

CLASSES = 4


def example(seed=0, void=0.3):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, 5, 6, CLASSES)).astype("float32")
    mask = rng.integers(0, CLASSES, (2, 5, 6)).astype("uint8")
    mask[rng.random(mask.shape) < void] = 255
    return mask, logits


def reference_loss(mask, logits, weights):
    """The weighted average over the labelled pixels, by loops."""
    total = norm = 0.0
    for pixel in np.ndindex(mask.shape):
        if mask[pixel] == 255:
            continue
        exponentials = np.exp(logits[pixel].astype("float64"))
        weight = weights[mask[pixel]]
        total -= weight * np.log(exponentials[mask[pixel]] / exponentials.sum())
        norm += weight
    return total / norm


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 4.0)])
def test_loss_is_the_mean_over_labelled_pixels(weights):
    mask, logits = example()
    loss = float(SegmentationCrossentropy(weights)(mask, logits))
    assert loss == pytest.approx(reference_loss(mask, logits, weights or (1,) * CLASSES), rel=1e-5)


def test_loss_agrees_with_torch():
    torch = pytest.importorskip("torch")
    mask, logits = example()
    weights = [0.5, 1.0, 2.0, 4.0]
    theirs = torch.nn.CrossEntropyLoss(torch.tensor(weights), ignore_index=255)(
        torch.from_numpy(logits.transpose(0, 3, 1, 2)), torch.from_numpy(mask.astype("int64"))
    )
    assert float(SegmentationCrossentropy(weights)(mask, logits)) == pytest.approx(
        float(theirs), rel=1e-5
    )


def test_the_jaccard_loss_is_added_as_one_minus_the_soft_iou():
    mask, logits = example()
    mask[mask == 2] = 1  # a class that is absent takes no part
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    ious = []
    for number in (0, 1, 3):
        p, t = probabilities[mask != 255][:, number], mask[mask != 255] == number
        ious.append((p * t).sum() / (p + t - p * t).sum())
    plain, both = (
        float(SegmentationCrossentropy(jaccard_weight=weight)(mask, logits)) for weight in (0, 0.5)
    )
    assert both - plain == pytest.approx(0.5 * (1 - np.mean(ious)), rel=1e-4)


def test_unlabelled_pixels_have_no_gradient_and_no_say():
    mask, logits = example()
    changed = logits + (mask == 255)[..., None] * np.arange(CLASSES, dtype="float32") * 50
    loss, metric = SegmentationCrossentropy(), PixelAccuracy()
    assert float(loss(mask, logits)) == pytest.approx(float(loss(mask, changed)), rel=1e-6)
    assert float(metric(mask, logits)) == float(PixelAccuracy()(mask, changed))


def test_nothing_labelled_gives_zero():
    mask, logits = example(void=1.1)
    assert (mask == 255).all()
    assert float(SegmentationCrossentropy()(mask, logits)) == 0
    assert float(PixelAccuracy()(mask, logits)) == 0


def test_accuracy_and_iou_over_two_batches():
    accuracy, iou = PixelAccuracy(), mean_iou(CLASSES)
    hits = total = 0
    intersection, union = np.zeros(CLASSES), np.zeros(CLASSES)
    for seed in range(2):
        mask, logits = example(seed)
        accuracy.update_state(mask, logits)
        iou.update_state(mask, logits)
        prediction, labelled = logits.argmax(-1), mask != 255
        hits += (prediction == mask)[labelled].sum()
        total += labelled.sum()
        for c in range(CLASSES):
            truth_c, predicted_c = (mask == c) & labelled, (prediction == c) & labelled
            intersection[c] += (truth_c & predicted_c).sum()
            union[c] += (truth_c | predicted_c).sum()
    assert float(accuracy.result()) == pytest.approx(hits / total)
    assert float(iou.result()) == pytest.approx((intersection / union).mean())


def test_both_survive_serialisation():
    loss = keras.losses.deserialize(
        keras.losses.serialize(SegmentationCrossentropy([1, 2, 3, 4], ignore_class=7))
    )
    assert (loss.class_weights, loss.ignore_class) == ([1, 2, 3, 4], 7)
    metric = keras.metrics.deserialize(keras.metrics.serialize(PixelAccuracy(ignore_class=7)))
    assert metric.ignore_class == 7
