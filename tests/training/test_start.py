"""What a run starts from: automatic settings, and the weights of a run with other classes."""

import dataclasses
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.fake_folder import CLASSES
from support.runs import QUICK

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError
from fcn_keras.inference.loading import load_model
from fcn_keras.models.fcn import build_fcn, copy_weights
from fcn_keras.runs.config import TrainConfig
from fcn_keras.training.start import copy_run, pace_statistics, plan
from fcn_keras.training.train import _build_and_compile


def fcn_8s(classes, backbone="tiny"):
    keras.utils.set_random_seed(5)
    return build_fcn(backbone, classes, 8, weights=None)


def examples(count):
    """A split whose files are not read."""
    return Split("train", LabelSet(CLASSES), tuple(map(str, range(count))), read=None)


def kernel(model, layer):
    return np.asarray(model.get_layer(layer).kernel)


def same_values(model, other, layer="backbone"):
    pairs = zip(model.get_layer(layer).get_weights(), other.get_layer(layer).get_weights())
    return all(np.array_equal(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("cat", "dog"), r"other classes \(ground, box, bar\): the backbone is copied; score_32"),
        (("cat", "dog", "cow"), "the backbone is copied; score_32, .*, upscore_8 start afresh."),
        (("cat", "bar"), "in score_32, .*, upscore_8: bar keep their values; cat start afresh."),
        (("bar", "ground", "box"), "upscore_8, values are matched by class name."),
        ((*CLASSES, "cat"), "upscore_8: ground, box, bar keep their values; cat start afresh."),
    ],
)
def test_classes_keep_their_values_by_name(names, note, untrained_run, capfd):
    source = load_model(untrained_run)
    model, fresh = fcn_8s(len(names)), fcn_8s(len(names))
    copy_run(str(untrained_run), model, LabelSet(names))
    errors = capfd.readouterr().err
    assert errors.startswith(f"Note: --init-from {untrained_run} has ") and errors.count("\n") == 1
    assert re.search(note, errors)
    assert same_values(model, source) and not same_values(model, fresh)
    known = [name for name in names if name in CLASSES]
    for layer in ("score_32", "score_16", "score_8"):
        for index, name in enumerate(names):
            origin = source if name in known else fresh
            theirs = CLASSES.index(name) if name in known else index
            ours = kernel(model, layer)[..., index]
            np.testing.assert_array_equal(ours, kernel(origin, layer)[..., theirs])
    for name in known:  # including what the upsampling mixes in
        ours = kernel(model, "upscore_8")[..., names.index(name), [*map(names.index, known)]]
        theirs = kernel(source, "upscore_8")[..., CLASSES.index(name), :]
        np.testing.assert_array_equal(ours, theirs[..., [*map(CLASSES.index, known)]])


def test_a_source_of_the_same_classes_is_copied_whole(untrained_run, tmp_path, capfd):
    source, model = load_model(untrained_run), fcn_8s(3)
    copy_run(str(untrained_run), model, LabelSet(CLASSES))
    assert capfd.readouterr().err == ""
    assert all(map(np.array_equal, model.get_weights(), source.get_weights()))
    # A file outside its run's folder has no names.
    alone = shutil.copy(untrained_run / "best.keras", tmp_path)
    again = fcn_8s(3)
    copy_run(str(alone), again, LabelSet(("a", "b", "c")))
    assert "does not name its classes; they are taken to be a, b, c in" in capfd.readouterr().err
    assert all(map(np.array_equal, again.get_weights(), source.get_weights()))
    other = fcn_8s(2)
    copy_run(str(alone), other, LabelSet(("a", "class_1")))
    assert "(class_0, class_1, class_2): " in capfd.readouterr().err
    assert same_values(other, source) and same_values(other, fcn_8s(2), "score_32") is False


@pytest.mark.parametrize("kind", ["per-class", "fixed"])
def test_a_source_with_other_upsampling_is_noted(kind, untrained_run, capfd):
    model = build_fcn("tiny", 3, 8, weights=None, upsampling=kind)
    copy_run(str(untrained_run), model, LabelSet(CLASSES))
    note = f"with --upsampling dense, not {kind}; upsampling starts as bilinear."
    assert note in capfd.readouterr().err
    source = load_model(untrained_run)
    assert same_values(model, source) and same_values(model, source, "score_8")
    fresh = build_fcn("tiny", 3, 8, weights=None, upsampling=kind)
    assert same_values(model, fresh, "upscore_8")


def test_a_source_of_another_network_is_named(untrained_run, tmp_path):
    with pytest.raises(UserError, match="--init-from .*'backbone' differs .* same backbone"):
        copy_run(str(untrained_run), fcn_8s(3, "resnet18"), LabelSet(CLASSES))
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs)).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="other.keras: .* not an FCN of this package"):
        copy_run(str(tmp_path / "other.keras"), fcn_8s(3), LabelSet(CLASSES))
    scores = [keras.layers.Conv2D(count, 1)(inputs) for count in (3, 300)]
    keras.Model(inputs, scores).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="other.keras: a model must map images"):
        copy_run(str(tmp_path / "other.keras"), fcn_8s(3), LabelSet(CLASSES))
    keras.Model(inputs, scores[1]).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match="other.keras: .* not an FCN of this package"):
        copy_run(str(tmp_path / "other.keras"), fcn_8s(3), LabelSet(CLASSES))


def test_scores_of_another_shape_are_named():
    model, source = fcn_8s(3), fcn_8s(2)
    values = [np.ones((3, 3, 64, 2), np.float32), np.zeros(2, np.float32)]
    source.get_layer("score_32").get_weights = lambda: values
    with pytest.raises(UserError, match=r"'score_32' differs .* \(3, 3, 64, 2\) to start from"):
        copy_weights(source, model, [0, 1, None])


def test_a_run_on_other_classes_starts_from_another(finished_run, shapes, tmp_path, capfd):
    data = shutil.copytree(shapes, tmp_path / "data")
    (data / "classes.txt").write_text("ground\ncrate\nbar\nwheel\n")
    flags = ["--epochs", "1", "--init-from", str(finished_run), "--run-dir", str(tmp_path / "run")]
    assert main(["train", "--dataset", str(data), *QUICK, *flags]) == 0
    out, errors = capfd.readouterr()
    assert "in score_32: ground, bar keep their values; crate, wheel start afresh." in errors
    assert f"FCN-32s on tiny, starting from {finished_run}." in out


@pytest.mark.parametrize(("steps", "momentum"), [(10, 0.5), (50, 0.8), (100, 0.9), (9999, 0.9)])
def test_statistics_settle_in_short_runs(steps, momentum):
    model = fcn_8s(3)
    pace_statistics(model, steps)
    assert model.get_layer("backbone").get_layer("conv1_bn").momentum == pytest.approx(momentum)
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    layer = model.get_layer("backbone").get_layer("conv1_bn")
    before, after = np.asarray(layer.moving_variance), None
    model(images, training=True)
    after = np.asarray(layer.moving_variance)
    batch = (after - momentum * before) / (1 - momentum)
    model(images, training=True)
    again = np.asarray(layer.moving_variance)
    np.testing.assert_allclose(again, momentum * after + (1 - momentum) * batch, rtol=1e-3)


def test_a_run_that_is_cut_short_has_the_pace_of_the_whole(shapes):
    settings = {"dataset": str(shapes), "backbone": "tiny", "weights": "none", "batch_size": 2}
    splits = load_split(str(shapes), "train"), load_split(str(shapes), "val")
    for max_steps in (None, 2):
        config = TrainConfig.from_recipe(epochs=10, max_steps=max_steps, **settings)
        model, _ = _build_and_compile(config, splits, tf.distribute.get_strategy())
        layer = model.get_layer("backbone").get_layer("conv1_bn")
        assert layer.momentum == pytest.approx(1 - 10 / 30)  # 10 epochs of 6 images in batches of 2


def test_the_plan_says_what_the_run_starts_from(shapes):
    splits = load_split(str(shapes), "train"), load_split(str(shapes), "val")
    config = TrainConfig.from_recipe(dataset=str(shapes), weights="none", batch_size=2, epochs=7)
    assert plan(config, splits) == (
        "FCN-8s on resnet18, starting from random values. Images: 6 for training, 5 for "
        "validation. Recipe strong: 7 epochs, each of 3 steps of 2 images, 21 steps in all."
    )
    short, long = (dataclasses.replace(config, max_steps=steps) for steps in (20, 21))
    assert plan(short, splits).endswith(" of 2 images, 21 steps in all; ends after 20 of them.")
    assert plan(long, splits) == plan(config, splits)
    imagenet = TrainConfig.from_recipe("voc2012")
    assert "FCN-32s on resnet18, starting from ImageNet weights. " in plan(imagenet, splits)
    single = dataclasses.replace(config, epochs=1, batch_size=6)
    assert plan(single, splits).endswith(": 1 epoch, each of 1 step of 6 images, 1 step in all.")
    resized = dataclasses.replace(config, short_side=64)
    assert "5 for validation, resized to a shorter side of 64. " in plan(resized, splits)
