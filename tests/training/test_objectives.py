import keras
import numpy as np
import pytest

from fcn_keras.training.objectives import SegmentationCrossentropy, SegmentationMetrics

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
    mask[mask == 2] = 1  # an absent class has no influence
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    ious = []
    for number in (0, 1, 3):
        p, t = probabilities[mask != 255][:, number], mask[mask != 255] == number
        ious.append((p * t).sum() / (p + t - p * t).sum())
    plain, both = (
        float(SegmentationCrossentropy(jaccard_weight=weight)(mask, logits)) for weight in (0, 0.5)
    )
    assert both - plain == pytest.approx(0.5 * (1 - np.mean(ious)), rel=1e-4)


def gradient(loss, mask, logits):
    tf = pytest.importorskip("tensorflow")
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(mask, logits)
    return tape.gradient(value, logits).numpy()


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 4.0)])
def test_the_gradient_is_that_of_keras(weights):
    mask, logits = example()

    def plain(mask, logits):
        pixel_loss = keras.ops.sparse_categorical_crossentropy(
            np.where(mask == 255, 0, mask), logits, from_logits=True
        )
        pixel_weights = (mask != 255) * np.array(weights or [1.0] * CLASSES)[mask % CLASSES]
        return keras.ops.sum(pixel_loss * pixel_weights) / pixel_weights.sum()

    ours = gradient(SegmentationCrossentropy(weights), mask, logits)
    np.testing.assert_allclose(ours, gradient(plain, mask, logits), atol=1e-8)
    assert (ours[mask == 255] == 0).all() and np.abs(ours).max() > 1e-3


def test_hopeless_logits_have_a_finite_loss_and_the_whole_gradient():
    mask, logits = np.zeros((1, 1, 2), "uint8"), np.zeros((1, 1, 2, CLASSES), "float32")
    logits[0, 0, 0, 1] = 1e4  # beyond the range of probabilities
    # The other pixel has the loss log(4).
    expected = (-np.log(1.2e-38) + np.log(4)) / 2
    assert float(SegmentationCrossentropy()(mask, logits)) == pytest.approx(expected, rel=1e-5)
    gradients = gradient(SegmentationCrossentropy(), mask, logits)
    np.testing.assert_allclose(gradients[0, 0], [[-0.5, 0.5, 0, 0], [-3 / 8, *[1 / 8] * 3]])


def test_a_loss_that_is_no_number_stays_none():
    mask, logits = example()
    logits[0, 0, 0, 0] = np.nan
    mask[0, 0, 0] = 0
    assert np.isnan(float(SegmentationCrossentropy()(mask, logits)))


def results(*batches):
    metrics = SegmentationMetrics(CLASSES)
    for mask, logits in batches:
        metrics.update_state(mask, logits)
    return {name: float(value) for name, value in metrics.result().items()}


def test_unlabelled_pixels_have_no_say():
    mask, logits = example()
    changed = logits + (mask == 255)[..., None] * np.arange(CLASSES, dtype="float32") * 50
    loss = SegmentationCrossentropy()
    assert float(loss(mask, logits)) == pytest.approx(float(loss(mask, changed)), rel=1e-6)
    assert results((mask, logits)) == results((mask, changed))


def test_nothing_labelled_gives_zero():
    mask, logits = example(void=1.1)
    assert (mask == 255).all()
    assert float(SegmentationCrossentropy()(mask, logits)) == 0
    assert results((mask, logits)) == {"pixel_accuracy": 0, "mean_iou": 0}


def test_a_class_that_does_not_occur_is_left_out_of_the_mean():
    mask = np.array([[[0, 0, 1, 255]]], "uint8")
    logits = np.eye(CLASSES, dtype="float32")[np.array([[[0, 1, 1, 3]]])]
    # Class 0: one of two pixels; class 1: one of two; 2 and 3 occur in neither.
    assert results((mask, logits)) == pytest.approx({"pixel_accuracy": 2 / 3, "mean_iou": 0.5})


def test_accuracy_and_iou_over_two_batches():
    hits = total = 0
    intersection, union = np.zeros(CLASSES), np.zeros(CLASSES)
    for seed in range(2):
        mask, logits = example(seed)
        prediction, labelled = logits.argmax(-1), mask != 255
        hits += (prediction == mask)[labelled].sum()
        total += labelled.sum()
        for c in range(CLASSES):
            truth_c, predicted_c = (mask == c) & labelled, (prediction == c) & labelled
            intersection[c] += (truth_c & predicted_c).sum()
            union[c] += (truth_c | predicted_c).sum()
    found = results(example(0), example(1))
    assert found["pixel_accuracy"] == pytest.approx(hits / total)
    assert found["mean_iou"] == pytest.approx((intersection / union).mean())


def test_both_survive_serialisation():
    loss = keras.losses.deserialize(
        keras.losses.serialize(SegmentationCrossentropy([1, 2, 3, 4], ignore_class=7))
    )
    assert (loss.class_weights, loss.ignore_class) == ([1, 2, 3, 4], 7)
    metric = keras.metrics.deserialize(keras.metrics.serialize(SegmentationMetrics(5, 7)))
    assert (metric.num_classes, metric.ignore_class) == (5, 7)
