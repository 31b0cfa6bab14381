import keras
import numpy as np
import pytest

from fcn_keras.models.backbones import build_features
from fcn_keras.models.normalization import FusedBatchNormalization, fuse_batchnorm


def gradients_and_state(layer, x):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=True)
        loss = tf.reduce_sum(tf.sin(outputs))
    gradients = tape.gradient(loss, [x, *layer.trainable_variables])
    return [outputs, *gradients], layer.get_weights()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's kernel")
def test_a_step_equals_keras():
    import tensorflow as tf

    x = tf.constant(np.random.default_rng(0).normal(3, 2, (4, 7, 5, 6)).astype("float32"))
    plain = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    fused = FusedBatchNormalization(momentum=0.9, epsilon=1e-5)
    for layer in (plain, fused):
        layer.build(x.shape)
        layer.set_weights([np.arange(1, 7) / 3, np.arange(6) / 5, np.ones(6), np.ones(6)])
    (ours, state), (theirs, expected) = (gradients_and_state(b, x) for b in (fused, plain))
    for value, reference in zip(ours, theirs):
        np.testing.assert_allclose(value, reference, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(state[2], expected[2], rtol=1e-5)
    # With 140 values per channel, the unbiased variance is 140 / 139 of the biased one.
    np.testing.assert_allclose(state[3] - 0.9, (expected[3] - 0.9) * 140 / 139, rtol=1e-4)


def test_a_fused_backbone_predicts_the_same_and_is_fused_throughout(tmp_path):
    features = build_features("resnet18", None)
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.5, 1, w.shape) for w in features.weights]
    features.set_weights([value / value.size**0.5 for value in weights])
    fused = fuse_batchnorm(features)
    image = rng.normal(size=(1, 64, 96, 3)).astype("float32")
    for ours, theirs in zip(fused(image), features(image)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    kinds = [type(layer) for layer in fused.layers if "_bn" in layer.name]
    assert set(kinds) == {FusedBatchNormalization} and len(kinds) == 20
    fused.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(image)[-1], fused(image)[-1], rtol=1e-5)
