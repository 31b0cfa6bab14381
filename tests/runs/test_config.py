import dataclasses
import math

import pytest
from support.fake_folder import write_folder

from fcn_keras.errors import UserError
from fcn_keras.runs.command import train_command
from fcn_keras.runs.config import DROPPED, GROUPS, SETTINGS, TrainConfig, split_of
from fcn_keras.runs.recipes import RECIPES


@pytest.mark.parametrize(
    ("dataset", "recipe"),
    [("sample", "sample"), ("voc2012", "voc2012"), ("voc2012_aug", "voc2012"), ("/my", "finetune")],
)
def test_the_data_set_chooses_the_recipe(dataset, recipe):
    config = TrainConfig.from_recipe(dataset=dataset)
    assert (config.recipe, config.dataset) == (recipe, dataset)


def test_settings_override_the_recipe():
    config = TrainConfig.from_recipe("voc2012", batch_size=4, dataset="/my")
    assert (config.batch_size, config.dataset, config.crop) == (4, "/my", (320, 480))


def test_voc2012_steps_as_d2l_does():
    config = TrainConfig.from_recipe("voc2012")
    assert (config.batch_size, config.crop, config.epochs) == (32, (320, 480), 5)
    assert (config.optimizer, config.backbone, config.output_stride) == ("sgd", "resnet18", 32)
    # One step of PyTorch's SGD(lr=0.001, weight_decay=1e-3) on the sum of 32 losses,
    # from weight 2 with gradient 0.5 of the mean loss ...
    theirs = 2 - 0.001 * (32 * 0.5 + 1e-3 * 2)
    # ... and of Keras's on the mean loss.
    ours = 2 - config.learning_rate * 0.5 - config.learning_rate * config.weight_decay * 2
    assert math.isclose(ours, theirs, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_size": -1}, "--batch-size must be at least 0. Received: -1."),
        ({"epochs": -1}, "--epochs must be at least 0"),
        ({"learning_rate": 0.0}, "--learning-rate must be positive"),
        ({"learning_rate": math.nan}, "--learning-rate must be finite"),
        ({"crop": (0, 5)}, "--crop needs two sides, or 0 0"),
        ({"scale": (2.0, 1.0)}, "--scale needs 0 < LOW <= HIGH"),
        ({"output_stride": 4}, "--output-stride must be one of 32, 16, 8. Received: 4"),
        ({"validate_every": 0}, "--validate-every must be at least 1"),
        ({"warmup_steps": -1}, "--warmup-steps must be at least 0. Received: -1."),
        ({"momentum": -0.1}, "--momentum must be at least 0. Received: -0.1."),
        ({"batch_size": "8"}, "--batch-size must be int. Received: '8'."),
        ({"batch_size": True}, "--batch-size must be int. Received: True."),
        ({"batch_size": 1.5}, "--batch-size must be int. Received: 1.5."),
        ({"seed": 2**32}, "--seed must be at most 4294967295. Received: 4294967296."),
        ({"learning_rate": None}, "--learning-rate must be float. Received: None."),
        ({"learning_rate": 10**400}, "--learning-rate must be at most 4294967295"),
        ({"momentum": math.inf}, "--momentum must be finite. Received: inf."),
        ({"class_weights": (1, math.nan)}, "--class-weights must be finite"),
        ({"class_weights": "balanced"}, "--class-weights must be auto, or one number per class. R"),
        ({"class_weights": ("auto", 1.0)}, r"one number per class. Received: \('auto', 1.0\)."),
        ({"class_weights": (1, -0.5)}, "--class-weights must be at least 0"),
        ({"label_smoothing": 1.0}, "--label-smoothing must be below 1, such as 0.1. Received: 1.0"),
        ({"label_smoothing": 0.1, "loss": "focal"}, "--label-smoothing does not apply to --loss"),
        ({"loss": "hinge"}, "--loss must be one of crossentropy, focal, ohem. Received: 'hinge'"),
        ({"region_loss": "dice"}, "--region-loss dice requires a positive --region-weight"),
        ({"jaccard_weight": -1.0}, "--region-weight must be at least 0. Received: -1.0."),
        (
            {"jaccard_weight": 1.0, "region_loss": "dice"},
            "--jaccard-weight W stands for --region-loss jaccard --region-weight W",
        ),
        ({"seed": -1}, "--seed must be at least 0"),
        ({"cache_mb": -1}, "--cache-mb must be at least 0"),
        ({"hue": -0.1}, "--hue must be at least 0"),
        ({"skip_smaller": True, "short_side": 9}, "--skip-smaller needs a --crop, and does not"),
        ({"ema": 1.0}, "--ema must be below 1. Received: 1.0."),
        ({"accumulation_steps": 0}, "--accumulation-steps must be at least 1"),
        ({"freeze": "backbone", "frozen_epochs": 2}, "--frozen-epochs does not apply to --freeze"),
        ({"rotation": 181.0}, "--rotation must be at most 180. Received: 181.0."),
        ({"class_crops": 1.5}, "--class-crops must be at most 1"),
        ({"noise": 25}, "--noise must be at most 1. Received: 25."),
        ({"jpeg": 0}, "--jpeg must be at least 1"),
        ({"jpeg": 0.9}, r"--jpeg must be int \| None. Received: 0.9."),
        ({"cutmix": -1.0}, "--cutmix must be at least 0"),
        ({"limit": 0}, "--limit must be at least 1"),
        ({"devices": 0}, "--devices must be at least 1"),
        ({"crop": (3,)}, r"--crop must be tuple\[int, int\]. Received: \(3,\)."),
        ({"crop": [[3], 4]}, r"--crop must be tuple\[int, int\]"),
        ({"flip": 1}, "--flip must be bool. Received: 1."),
        ({"devices": "2"}, r"--devices must be int \| None. Received: '2'."),
        (
            {"dataset": "a\0b"},
            r"--dataset must not contain control characters. Received: 'a\\x00b'",
        ),
        ({"data_dir": "\x1b[2J"}, "--data-dir must not contain control characters"),
        (
            {"recipe": "best"},
            "--recipe must be one of sample, voc2012, voc2012_best, camvid, camvid_random, strong",
        ),
    ],
)
def test_values_out_of_range_are_named(setting, message):
    with pytest.raises(UserError, match=message):
        TrainConfig.from_recipe(setting.pop("recipe", None), **setting)


def test_recipes_set_existing_fields_and_each_field_has_help():
    names = {field.name for field in SETTINGS}
    for recipe in RECIPES.values():
        assert set(recipe) <= names
    assert all(field.metadata["help"] for field in SETTINGS)
    assert set(GROUPS) <= names and not names & set(DROPPED)


def test_the_jaccard_weight_of_earlier_versions_is_a_region_loss():
    def region(config):
        return config.region_loss, config.region_weight

    assert region(TrainConfig.from_recipe("camvid")) == ("jaccard", 3.0)
    assert region(TrainConfig.from_recipe("camvid", jaccard_weight=1.0)) == ("jaccard", 1.0)
    dice = TrainConfig.from_recipe("camvid", region_loss="dice")
    assert region(dice) == ("dice", 3.0)
    assert region(dice.replaced(jaccard_weight=2.0)) == ("jaccard", 2.0)


def test_a_run_takes_the_first_images_and_drops_small_ones_from_training(tmp_path):
    folder = write_folder(tmp_path, train=3, val=3, size=(48, 64))
    config = TrainConfig(dataset=str(folder), limit=2, crop=(48, 64), skip_smaller=True)
    assert split_of(config, "train").ids == ("train_0", "train_1")
    larger = dataclasses.replace(config, crop=(49, 64))
    with pytest.raises(UserError, match="as large as the crop 49×64"):
        split_of(larger, "train")
    assert split_of(larger, "val").ids == ("val_0", "val_1")


def test_of_dilation_and_output_stride_the_given_one_replaces_the_other():
    def form(config):
        return config.dilated, config.output_stride, config.auxiliary_weight

    strong, best = TrainConfig.from_recipe("strong"), TrainConfig.from_recipe("voc2012_best")
    assert form(strong) == (False, 8, None)
    assert form(best) == form(TrainConfig(dilated=True)) == (True, None, 0.4)
    assert form(TrainConfig.from_recipe("strong", dilated=True)) == (True, None, 0.4)
    assert form(strong.replaced(dilated=True, auxiliary_weight=0.0)) == (True, None, 0.0)
    assert form(best.replaced(output_stride=16)) == (False, 16, None)
    assert form(best.replaced(dilated=False)) == (False, 32, None)
    assert form(best.replaced(epochs=3)) == (True, None, 0.4)
    for settings, message in [
        ({"dilated": True, "output_stride": 32}, "--output-stride does not apply to --dilated"),
        ({"dilated": True, "upsampling_initializer": "zeros"}, "does not apply to --dilated"),
        ({"dilated": True, "upsampling": "fixed"}, "--upsampling does not apply to --dilated"),
        (
            {"upsampling": "fixed", "upsampling_initializer": "zeros"},
            "--upsampling-initializer requires --upsampling dense",
        ),
        ({"auxiliary_weight": 0.4}, "--auxiliary-weight requires --dilated"),
        ({"dilated": True, "auxiliary_weight": -1.0}, "--auxiliary-weight must be at least 0"),
    ]:
        with pytest.raises(UserError, match=message):
            TrainConfig.from_recipe("strong", **settings)
    with pytest.raises(UserError, match="--output-stride does not apply to --dilated"):
        TrainConfig(dilated=True, output_stride=16)


@pytest.mark.parametrize(
    ("recipe", "settings", "words"),
    [
        ("strong", {"dilated": True}, "--dilated"),
        ("strong", {"dilated": True, "auxiliary_weight": 0.0}, "--dilated --auxiliary-weight 0.0"),
        ("voc2012_best", {}, ""),
        ("voc2012_best", {"output_stride": 8}, "--output-stride 8 --no-dilated"),
    ],
)
def test_the_command_of_a_form_gives_that_form(recipe, settings, words):
    config = TrainConfig.from_recipe(recipe, **settings)
    assert train_command(config) == f"fcn-keras train --recipe {recipe} {words}".strip()
