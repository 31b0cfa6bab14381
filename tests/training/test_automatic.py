"""Settings that a run decides by the machine, the data and the weights at hand."""

import json
import math
from pathlib import Path

import keras_hub
import numpy as np
import pytest
from kagglehub import cache
from kagglehub.handle import parse_model_handle
from support.fake_folder import write_folder
from support.runs import QUICK

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError
from fcn_keras.models.backbones import build_features
from fcn_keras.runs.config import TrainConfig
from fcn_keras.training.automatic import batch_size_for, from_random, settle
from fcn_keras.training.start import plan


def split_of(images, size=(48, 64)):
    def read(index):
        return np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)

    return Split("train", LabelSet(("a", "b")), tuple(map(str, range(images))), read)


def test_automatic_weights_are_imagenet_only_where_they_can_be_had(
    monkeypatch, tmp_path, shapes, capfd
):
    config = TrainConfig.from_recipe(dataset=str(shapes))
    assert (config.recipe, config.weights, config.epochs) == ("finetune", "auto", 0)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a port that refuses
    settled, _ = settle(config, split_of(6), 1)
    assert (settled.recipe, settled.weights, settled.optimizer) == ("strong", "none", "sgd")
    errors = capfd.readouterr().err
    assert errors.startswith("Note: --weights auto starts from random values. The weights 'resn")
    assert "python -c 'import keras_hub; " in errors and '.save_to_preset("DIR")\'' in errors

    # As in KerasHub's cache after a download.
    address = keras_hub.models.ResNetBackbone.presets["resnet_18_imagenet"]["kaggle_handle"]
    handle = parse_model_handle(address.removeprefix("kaggle://"))
    cached = Path(cache.get_cached_path(handle))
    preset = keras_hub.models.ResNetBackbone(
        [64], [7], [64, 128, 256, 512], [2, 2, 2, 2], [1, 2, 2, 2], "basic_block"
    )
    preset.save_to_preset(str(cached))
    for file in cached.iterdir():
        cache.Cache().mark_as_complete(handle, file.name)
    assert settle(config, split_of(6), 1)[0].weights == "imagenet" and capfd.readouterr().err == ""
    features = build_features("resnet18", "imagenet")
    assert np.array_equal(*(net.get_layer("conv1_conv").kernel for net in (features, preset)))


def test_automatic_weights_of_a_backbone_without_any(shapes, capfd):
    config = TrainConfig.from_recipe(dataset=str(shapes), backbone="resnet34")
    assert settle(config, split_of(6), 1)[0].weights == "none"
    assert "no ImageNet weights for resnet34" in capfd.readouterr().err
    begun = TrainConfig.from_recipe(dataset=str(shapes), init_from="run")
    assert settle(begun, split_of(6), 1)[0].weights == "none" and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("images", "epochs", "size"),
    # 16 need 200 * 16 examples in all, 8 half of that.
    [(40, 10, 4), (2, 1, 2), (54, 60, 16), (53, 60, 8), (160, 10, 8), (10_000, 60, 16)],
)
def test_few_images_make_small_batches(images, epochs, size):
    assert batch_size_for(images, epochs) == size
    config = TrainConfig.from_recipe("strong", weights="none", epochs=epochs)
    for replicas in (1, 3):
        settled, reasons = settle(config, split_of(images), replicas)
        assert settled.batch_size == -(-size // replicas) * replicas
        assert f"--batch-size {settled.batch_size}: {images} images" in reasons


def test_given_settings_are_not_decided():
    given = TrainConfig.from_recipe(
        "strong", weights="none", batch_size=7, epochs=9, crop=(64, 96), short_side=0
    )
    assert settle(given, split_of(100), 1) == (given, [])


@pytest.mark.parametrize(
    ("size", "crop"),
    # Multiples of 32 up to 320 * 480 = 153,600 pixels. 480×640 have that 1.41 squared times.
    [
        ((375, 500), (320, 448)),
        ((180, 240), (160, 224)),
        ((3000, 4000), (320, 448)),
        ((9, 70), (32, 64)),
    ],
)
def test_crops_follow_the_images(size, crop):
    config = TrainConfig.from_recipe("strong", weights="none")
    settled, reasons = settle(config, split_of(99, size), 1)
    assert settled.crop == crop
    assert f"--crop {crop[0]} {crop[1]}: images are {size[0]}×{size[1]} (median)" in reasons
    assert settled.short_side == (480 if min(size) > 800 else 0)
    assert any(reason.startswith("--short-side 480: ") for reason in reasons) == (min(size) > 800)


@pytest.mark.parametrize(
    ("images", "weights", "epochs"),
    # 12,000 or 24,000 images in all, and 20 to 240 epochs.
    [
        (10, "dir", 240),
        (200, "dir", 60),
        (200, "none", 120),
        (367, "none", 65),
        (10_000, "dir", 20),
    ],
)
def test_few_images_make_more_epochs(images, weights, epochs):
    config = TrainConfig.from_recipe("finetune", weights=weights, coarse_epochs=None)
    settled, reasons = settle(config, split_of(images), 1)
    assert (settled.epochs, settled.coarse_epochs) == (epochs, epochs // 2)
    assert f"--epochs {epochs}: {images} images" in reasons
    assert f"--coarse-epochs {epochs // 2}: half of the epochs" in reasons


def test_without_weights_what_the_recipe_set_gives_way_and_what_was_given_stays():
    config = TrainConfig.from_recipe("finetune", dataset="mine", weights="auto", batch_size=3)
    changed = from_random(config)
    expected = TrainConfig.from_recipe("finetune", dataset="mine", weights="none", batch_size=3)
    assert changed == expected and changed.recipe == "strong" and changed.batch_size == 3


def test_class_weights_follow_from_the_masks_of_training(shapes, capfd):
    train = load_split(str(shapes), "train")
    masks = [train.read(index)[1] for index in range(4)]
    counts = [sum(int((mask == number).sum()) for mask in masks) for number in range(3)]
    settings = {"dataset": str(shapes), "weights": "none", "batch_size": 2}
    config = TrainConfig.from_recipe(class_weights="auto", **settings)
    settled, _ = settle(config, train.take(4), 1)
    # Paszke et al. 2016, section 5; unlabelled pixels have no share.
    expected = [1 / math.log(1.02 + count / sum(counts)) for count in counts]
    assert settled.class_weights == pytest.approx(expected, rel=5e-3)
    told = plan(settled, (train, load_split(str(shapes), "val")))
    ground, box, bar = settled.class_weights
    assert told.endswith(f" in all. Class weights: ground {ground}, box {box}, bar {bar}.")
    assert "mask" not in capfd.readouterr().err  # the progress bar is for terminals


def test_class_weights_of_unreadable_masks_are_an_error(tmp_path):
    folder = write_folder(tmp_path)
    train = load_split(str(folder), "train")
    (folder / "SegmentationClass" / "train_3.png").write_bytes(b"no PNG")
    config = TrainConfig.from_recipe(
        dataset=str(folder), weights="none", batch_size=2, class_weights="auto"
    )
    with pytest.raises(UserError, match="train_3.png"):
        settle(config, train, 1)
    assert settle(config, train.take(3), 1)[0].class_weights != "auto"


def test_the_configuration_holds_what_automatic_settings_became(shapes, tmp_path, capfd):
    quick = [flag for flag in QUICK if flag not in ("--batch-size", "6")]
    flags = ["--epochs", "1", "--class-weights", "auto", "--loss", "ohem", "--label-smoothing"]
    flags += ["0.1", "--region-loss", "lovasz", "--region-weight", "1"]
    run_dir = ["--run-dir", str(tmp_path / "run")]
    assert main(["train", "--dataset", str(shapes), *quick, *flags, *run_dir]) == 0
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["train"]
    assert (settings["weights"], settings["batch_size"]) == ("none", 4)
    first, *others = settings["class_weights"]
    assert len(others) == 2 and 1.42 < first < min(others) < 50.5  # most pixels are ground
    assert "tiny has random weights only" in capfd.readouterr().err
