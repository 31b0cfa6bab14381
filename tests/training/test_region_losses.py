import numpy as np
import pytest

from fcn_keras.runs.config import TrainConfig
from fcn_keras.training.region_losses import REGION_LOSSES, count

CLASSES = 4


def example(seed=0, shape=(2, 5, 6), absent=3):
    """Masks with pixels to ignore and without one class, and logits."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, absent, shape).astype("int32")
    logits = rng.normal(size=(*shape, CLASSES)) + np.eye(CLASSES)[mask]
    return mask, logits.astype("float32"), (rng.random(shape) > 0.3).astype("float32")


def index_loss(mask, logits, labelled, denominator):
    """One minus the mean over the classes present of hits / denominator(hits, FP, FN)."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    scores = []
    for number in sorted({*mask[labelled > 0].tolist()}):
        hits = false_positives = false_negatives = 0.0
        for place in zip(*np.nonzero(labelled)):
            probability = probabilities[*place, number]
            if mask[place] == number:
                hits, false_negatives = hits + probability, false_negatives + 1 - probability
            else:
                false_positives += probability
        scores.append(hits / denominator(hits, false_positives, false_negatives))
    return 1 - np.mean(scores)


def lovasz(mask, logits, labelled):
    """Algorithm 1 of Berman et al. for each class present: one pixel after the other is wrong."""
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    losses = []
    for number in sorted({*mask[labelled > 0].tolist()}):
        truth = mask[labelled > 0] == number
        errors = abs(truth - probabilities[labelled > 0][:, number])
        wrong, before, loss = np.zeros(truth.shape, bool), 0.0, 0.0
        for place in np.argsort(-errors):
            wrong[place] = True
            predicted = truth ^ wrong
            jaccard_loss = 1 - (truth & predicted).sum() / (truth | predicted).sum()
            loss += errors[place] * (jaccard_loss - before)
            before = jaccard_loss
        losses.append(loss)
    return np.mean(losses)


REFERENCES = {
    "jaccard": lambda *data: index_loss(*data, lambda hits, fp, fn: hits + fp + fn),
    "dice": lambda *data: index_loss(*data, lambda hits, fp, fn: (2 * hits + fp + fn) / 2),
    "tversky": lambda *data: index_loss(*data, lambda h, fp, fn: h + 0.3 * fp + 0.7 * fn),
    "lovasz": lovasz,
}


def test_each_has_a_flag_and_a_reference():
    [field] = [TrainConfig.__dataclass_fields__["region_loss"]]
    assert [*field.metadata["choices"]] == [*REGION_LOSSES] == [*REFERENCES]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", REGION_LOSSES)
def test_values_and_gradients_follow_the_definitions(name, seed):
    tf = pytest.importorskip("tensorflow")
    mask, logits, labelled = example(seed)
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        loss = REGION_LOSSES[name](mask, variable, labelled)
    assert float(loss) == pytest.approx(REFERENCES[name](mask, logits, labelled), rel=1e-5)
    ours = tape.gradient(loss, variable).numpy()
    assert (ours[labelled == 0] == 0).all()
    for place in [*zip(*np.nonzero(labelled))][::5]:
        for c in range(CLASSES):
            step = np.zeros(logits.shape)
            step[*place, c] = 1e-6
            both = [REFERENCES[name](mask, logits + s * step, labelled) for s in (1, -1)]
            # Equal errors may be in either order: with 4096 levels a few are.
            assert ours[*place, c] == pytest.approx((both[0] - both[1]) / 2e-6, abs=2e-5)


def test_sorting_gives_the_same_lovasz_loss():
    """With 4000 pixels in 4096 levels, many errors share one."""
    mask, logits, labelled = example(shape=(4, 40, 25))
    ours = float(REGION_LOSSES["lovasz"](mask, logits, labelled))
    assert ours == pytest.approx(lovasz(mask, logits, labelled), abs=1e-6)


@pytest.mark.parametrize("name", REGION_LOSSES)
def test_right_and_wrong_masks_are_the_bounds(name):
    mask, _, labelled = example()
    for turn, expected in ((0, 0), (1, 1)):
        logits = 60 * np.eye(CLASSES, dtype="float32")[(mask + turn) % CLASSES]
        loss = REGION_LOSSES[name](mask, logits, labelled)
        assert float(loss) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "expected"), zip(REGION_LOSSES, (1, 1, 1, 0)))
def test_nothing_labelled_has_no_gradient(name, expected):
    tf = pytest.importorskip("tensorflow")
    mask, logits, labelled = example()
    with tf.GradientTape() as tape:
        variable = tf.Variable(logits)
        loss = REGION_LOSSES[name](mask, variable, 0 * labelled)
    assert float(loss) == expected and not tape.gradient(loss, variable).numpy().any()


def test_counts_are_those_of_numpy(monkeypatch):
    values = np.random.default_rng(0).integers(0, 9, 100).astype("int32")
    for backend in ("tensorflow", "jax"):  # by both ways of counting
        monkeypatch.setattr("keras.backend.backend", lambda name=backend: name)
        np.testing.assert_array_equal(count(values, 12), np.bincount(values, minlength=12))
