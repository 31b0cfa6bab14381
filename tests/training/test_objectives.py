import keras
import numpy as np
import pytest
from support.processes import ROOT, environment, finish

from fcn_keras.training.objectives import SegmentationCrossentropy, SegmentationMetrics
from fcn_keras.training.region_losses import REGION_LOSSES

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


def smoothed(right, probabilities, smoothing):
    return -(1 - smoothing) * np.log(right) - smoothing * np.log(probabilities).mean()


def reference_of_kind(kind, mask, logits, weights, smoothing=0.0):
    """The losses by their definitions, pixel by pixel in float64."""
    pixels = []  # the probability of the true class, loss and weight of each labelled one
    for place in np.ndindex(mask.shape):
        if mask[place] != 255:
            exponentials = np.exp(logits[place].astype("float64"))
            probabilities = exponentials / exponentials.sum()
            right = probabilities[mask[place]]
            factor = (1 - right) ** 2 if kind == "focal" else 1
            loss = factor * smoothed(right, probabilities, smoothing)
            pixels.append((right, loss, weights[mask[place]]))
    if kind == "ohem":
        pixels.sort()
        hard = sum(right <= 0.7 for right, _, _ in pixels)
        pixels = pixels[: max(hard, -(-len(pixels) // 16))]
    _, losses, weights = np.transpose(pixels)
    return (losses * weights).sum() / weights.sum()


VARIANTS = [
    dict(kind="focal"),
    dict(kind="ohem"),
    dict(label_smoothing=0.2),
    dict(kind="ohem", label_smoothing=0.2),
]


def sharp_example(scale):
    """Logits that are mostly right, and the surer the larger `scale` is."""
    mask, logits = example()
    return mask, logits + scale * np.eye(CLASSES, dtype="float32")[mask % CLASSES]


# At 2 some pixels are hard; at 8 none is, and the worst 1/16 of the labelled ones count.
@pytest.mark.parametrize("scale", [0, 2, 8])
@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 4.0)])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_variants_follow_their_definitions(variant, weights, scale):
    mask, logits = sharp_example(scale)
    kind, smoothing = variant.get("kind"), variant.get("label_smoothing", 0.0)
    numbers = weights or (1,) * CLASSES
    loss = SegmentationCrossentropy(weights, **variant)
    expected = reference_of_kind(kind, mask, logits, numbers, smoothing)
    assert float(loss(mask, logits)) == pytest.approx(expected, rel=1e-4, abs=1e-12)
    ours = gradient(loss, mask, logits)
    assert (ours[mask == 255] == 0).all()
    for place in [*zip(*np.nonzero(mask != 255))][::4]:
        for c in range(CLASSES):
            step = np.zeros(logits.shape)
            step[*place, c] = 1e-6
            both = [
                reference_of_kind(kind, mask, logits + sign * step, numbers, smoothing)
                for sign in (1, -1)
            ]
            slope = (both[0] - both[1]) / 2e-6
            assert ours[*place, c] == pytest.approx(slope, rel=1e-3, abs=1e-7)


def test_smoothed_targets_are_those_of_keras():
    mask, logits = example(void=0)
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    expected = float(theirs(np.eye(CLASSES, dtype="float32")[mask], logits))
    ours = SegmentationCrossentropy(label_smoothing=0.3)
    assert float(ours(mask, logits)) == pytest.approx(expected, rel=1e-6)


def test_the_hardest_pixels_of_a_batch_alone_count():
    mask, logits = np.zeros((1, 4, 8), "uint8"), np.zeros((1, 4, 8, 2), "float32")
    logits[..., 0] = np.arange(32, dtype="float32").reshape(1, 4, 8) + 5  # all above 0.7
    # 1/16 of 32 pixels are two: those with the margins 5 and 6.
    expected = np.log1p(np.exp([-5.0, -6.0])).mean()
    loss = SegmentationCrossentropy(kind="ohem")
    assert float(loss(mask, logits)) == pytest.approx(expected, rel=1e-5)
    mask[0, 0, :4] = 255  # 28 are left, of which two are again the least
    expected = np.log1p(np.exp([-9.0, -10.0])).mean()
    assert float(loss(mask, logits)) == pytest.approx(expected, rel=1e-4)


def test_a_region_loss_is_added():
    mask, logits = example()
    plain = float(SegmentationCrossentropy()(mask, logits))
    for name, function in REGION_LOSSES.items():
        both = SegmentationCrossentropy(region_loss=name, region_weight=0.5)(mask, logits)
        region = function(np.where(mask == 255, 0, mask), logits, (mask != 255).astype("float32"))
        assert float(both) == pytest.approx(plain + 0.5 * float(region), rel=1e-5)


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
    regions = [dict(region_loss=name, region_weight=1.0) for name in REGION_LOSSES]
    for options in ({}, *VARIANTS, *regions):
        assert np.isnan(float(SegmentationCrossentropy(**options)(mask, logits)))


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
    for kind in ("crossentropy", "focal", "ohem"):
        loss = SegmentationCrossentropy(kind=kind)
        assert float(loss(mask, logits)) == 0 and not gradient(loss, mask, logits).any()
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
    options = dict(ignore_class=7, kind="ohem", label_smoothing=0.1)
    options |= dict(region_loss="dice", region_weight=0.5)
    loss = SegmentationCrossentropy([1, 2, 3, 4], **options)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config() == {**loss.get_config(), **options}
    assert again.class_weights == [1, 2, 3, 4]
    metric = keras.metrics.deserialize(keras.metrics.serialize(SegmentationMetrics(5, 7)))
    assert (metric.num_classes, metric.ignore_class) == (5, 7)


def test_the_loss_in_files_of_earlier_versions_is_read():
    config = {"class_weights": None, "jaccard_weight": 3.0, "ignore_class": 255, "name": "loss"}
    loss = SegmentationCrossentropy.from_config(config)
    assert (loss.region_loss, loss.region_weight) == ("jaccard", 3.0)


@pytest.mark.slow
def test_two_devices_average_the_losses_of_their_halves(tmp_path):
    program = tmp_path / "two_devices.py"
    program.write_text("""
import keras
import numpy as np
import tensorflow as tf

from fcn_keras.training.devices import make_strategy
from fcn_keras.training.objectives import SegmentationCrossentropy

strategy = make_strategy(2)
rng = np.random.default_rng(0)
images = rng.normal(size=(4, 8, 9, 3)).astype("float32")
masks = rng.integers(0, 3, (4, 8, 9)).astype("uint8")
data = tf.data.Dataset.from_tensor_slices((images, masks)).batch(4)
kernel = rng.normal(size=(1, 1, 3, 3))
regions = [dict(region_loss=name, region_weight=2.0) for name in ("jaccard", "dice", "lovasz")]
for options in (dict(kind="focal"), dict(kind="ohem", label_smoothing=0.1), *regions):
    loss = SegmentationCrossentropy([1, 2, 3], **options)
    with strategy.scope():
        layer = keras.layers.Conv2D(3, 1, use_bias=False)
        model = keras.Sequential([keras.Input((8, 9, 3)), layer])
        layer.set_weights([kernel])
        model.compile(keras.optimizers.SGD(1.0), loss, jit_compile=False)
    history = model.fit(data, verbose=0).history
    losses, slopes = [], []
    for half in (slice(2), slice(2, 4)):
        variable = tf.Variable(kernel, dtype="float32")
        with tf.GradientTape() as tape:
            losses.append(loss(masks[half], tf.nn.conv2d(images[half], variable, 1, "SAME")))
        slopes.append(tape.gradient(losses[-1], variable))
    np.testing.assert_allclose(history["loss"], [np.mean(losses)], rtol=1e-5)
    step = kernel - layer.get_weights()[0]
    np.testing.assert_allclose(step, np.mean(slopes, axis=0), atol=1e-5)
    assert abs(losses[0] - losses[1]) > 1e-3
""")
    finish(program, env=environment(PYTHONPATH=str(ROOT)))
