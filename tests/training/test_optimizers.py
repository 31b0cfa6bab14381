import keras
import numpy as np
import pytest

from fcn_keras.models.fcn import build_fcn
from fcn_keras.runs.config import TrainConfig
from fcn_keras.training.optimizers import make_optimizer, rate_factors


def stepped(model, gradient=0.0, **settings):
    """The trainable values before and after a step along the same gradient everywhere."""
    optimizer = make_optimizer(TrainConfig(**settings), model, steps=10)
    before = [np.array(variable) for variable in model.trainable_variables]
    gradients = [keras.ops.full(value.shape, gradient) for value in before]
    optimizer.apply(gradients, model.trainable_variables)
    return before, [np.array(variable) for variable in model.trainable_variables]


@pytest.mark.parametrize(
    ("decay_all", "optimizer"), [(False, "sgd"), (False, "adamw"), (True, "sgd")]
)
def test_weight_decay_spares_biases_norms_and_upsampling(decay_all, optimizer):
    model = build_fcn("tiny", 2, weights=None)
    settings = {"optimizer": optimizer, "learning_rate": 0.1, "weight_decay": 0.5}
    pairs = zip(*stepped(model, **settings, decay_all=decay_all))
    for variable, (old, new) in zip(model.trainable_variables, pairs):
        spared = not decay_all and (old.ndim < 2 or "upscore" in variable.path)
        np.testing.assert_allclose(new, old * (1 if spared else 0.95), rtol=1e-5, atol=1e-7)


def test_adam_without_decay():
    before, after = stepped(build_fcn("tiny", 2, weights=None), optimizer="adamw", weight_decay=0.0)
    for old, new in zip(before, after):
        np.testing.assert_array_equal(old, new)


def test_each_stage_of_the_backbone_has_its_own_rate():
    model = build_fcn("tiny", 2, weights=None)
    factors = dict(zip((v.path for v in model.trainable_variables), rate_factors(model, 0.1, 0.5)))
    assert factors["score_32/kernel"] == factors["upscore_32/bias"] == 1
    assert factors["stack3_block0_1_conv/kernel"] == pytest.approx(0.1)
    assert factors["stack2_block0_1_bn/gamma"] == pytest.approx(0.1 * 0.5)
    assert factors["conv1_conv/kernel"] == pytest.approx(0.1 * 0.5**4)
    assert rate_factors(model, 1, 1) == []


@pytest.mark.parametrize("precision", ["off", "float16"])
def test_steps_and_decay_follow_the_rate_of_the_part(precision):
    model = build_fcn("tiny", 2, weights=None)
    scale = 2**15 if precision == "float16" else 1  # which the optimizer divides by
    settings = {"learning_rate": 0.1, "weight_decay": 0.5, "mixed_precision": precision}
    before, after = stepped(model, 0.3 * scale, **settings, backbone_rate=0.1, layer_decay=0.5)
    factors = rate_factors(model, 0.1, 0.5)
    for variable, factor, old, new in zip(model.trainable_variables, factors, before, after):
        spared = old.ndim < 2 or "upscore" in variable.path
        decayed = old * (1 if spared else 1 - 0.5 * 0.1 * factor)
        np.testing.assert_allclose(new, decayed - 0.3 * 0.1 * factor, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped_by_its_global_norm():
    model = build_fcn("tiny", 2, weights=None)
    for gradient, length in ((10.0, 0.5), (1e-6, None)):
        before, after = stepped(model, gradient, learning_rate=1.0, clip_norm=0.5)
        squares = sum(((new - old) ** 2).sum() for old, new in zip(before, after))
        size = sum(value.size for value in before)
        expected = length or 1e-6 * size**0.5  # below the limit, nothing changes
        assert squares**0.5 == pytest.approx(expected, rel=0.05)
