"""`Augmentation`: what it does by default, and that each setting changes only its own part."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.examples import SEEDS, blocks, each_transformed, require_agreement

from fcn_keras.data import colors, transforms
from fcn_keras.data.augmentation import Augmentation

SIZE = (48, 64)
GEOMETRY = {
    "vertical_flip": True,
    "quarter_turns": True,
    "rotation": 40.0,
    "shear": 15.0,
    "elastic": 4.0,
    "class_crops": 0.5,
}
COLORS = {"grey": 0.5, "blur": 2.0, "noise": 0.1, "jpeg": 40}


def earlier(image, mask, seed):
    """What version 0.2 did, with its seeds and its way to crop."""
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    image, mask = transforms.random_scale(image, mask, seeds[0], 0.75, 1.75)
    room = np.maximum(np.array(mask.shape) - SIZE, 0)
    draws = tf.random.stateless_uniform([2], seeds[1], 0, 1).numpy()
    top, left = np.minimum((draws * np.float32(room + 1)).astype(int), room)
    image = image[top : top + SIZE[0], left : left + SIZE[1]]
    mask = mask[top : top + SIZE[0], left : left + SIZE[1]]
    image, mask = transforms.pad_to(image, mask, *SIZE)
    if tf.random.stateless_uniform([], seeds[2]) < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    image, mask = colors.random_color(image, mask, seeds[3], 0.2, 0.3)
    tint_seed = tf.random.experimental.stateless_fold_in(seeds[3], 1)
    return colors.random_tint(image, mask, tint_seed, 0.4, 0.1)


def test_new_settings_are_off_and_the_earlier_ones_give_the_same_pixels():
    image, mask = blocks()
    augment = Augmentation(SIZE, (0.75, 1.75), True, brightness=0.2, contrast=0.3)
    augment = dataclasses.replace(augment, saturation=0.4, hue=0.1)
    for seed in SEEDS:
        seed = tf.constant(seed, tf.int64)
        for left, right in zip(augment(image, mask, seed), earlier(image, mask, seed)):
            np.testing.assert_array_equal(left, right)
    batch = tf.zeros((2, 8, 8, 3)), tf.zeros((2, 8, 8), tf.uint8)
    assert augment.mix(*batch, seed) == batch


@pytest.mark.parametrize("settings", [{name: value} for name, value in GEOMETRY.items()])
def test_a_geometric_transform_keeps_image_and_mask_together(settings):
    check_geometry(Augmentation(SIZE, **settings))


@pytest.mark.parametrize("augment", [Augmentation(SIZE, (0.5, 1.5), flip=True, **GEOMETRY)])
def test_all_geometric_transforms_keep_image_and_mask_together(augment):
    check_geometry(augment)
    check_geometry(augment.halved())


def check_geometry(augment):
    image, mask = blocks()
    plain = Augmentation(augment.crop)
    changed = 0
    for seed, (result, result_mask) in zip(SEEDS, each_transformed(augment, image, mask)):
        assert result.shape == (*augment.crop, 3) and result_mask.shape == augment.crop
        assert result.dtype == np.float32 and result_mask.dtype == np.uint8
        require_agreement(result, result_mask)
        seed = tf.constant(seed, tf.int64)
        changed += not np.array_equal(result_mask, plain(image, mask, seed)[1])
    assert 3 < changed


@pytest.mark.parametrize("name", COLORS)
def test_a_change_of_the_image_keeps_the_mask_and_what_the_others_do(name):
    image, mask = blocks()
    settings = {"flip": True, "brightness": 0.1, **COLORS}
    augment = Augmentation(SIZE, **settings)
    without = Augmentation(SIZE, **{key: settings[key] for key in settings if key != name})
    alone, plain = Augmentation(SIZE, **{name: COLORS[name]}), Augmentation(SIZE)
    changed = 0
    for seed, (result, result_mask) in zip(SEEDS, each_transformed(augment, image, mask)):
        seed = tf.constant(seed, tf.int64)
        assert 0 <= result.min() and result.max() <= 255
        np.testing.assert_array_equal(result_mask, without(image, mask, seed)[1])
        changed += not np.array_equal(alone(image, mask, seed)[0], plain(image, mask, seed)[0])
    assert changed > 3


@pytest.mark.parametrize(("height", "width"), [(20, 30), (200, 300)])
@pytest.mark.parametrize("warped", [{}, {"rotation": 180.0, "shear": 20.0, "elastic": 3.0}])
def test_a_class_crop_has_a_rare_class_as_often_as_others(height, width, warped):
    mask = np.zeros((height, width), np.uint8)
    mask[3, 4], mask[5:7] = 9, 255
    augment = Augmentation(SIZE, class_crops=1.0, **warped)
    image = np.zeros((height, width, 3), np.uint8)
    crops = [augment(image, mask, tf.constant([0, seed]))[1].numpy() for seed in range(24)]
    assert all({*np.unique(crop)} & {0, 9} for crop in crops)
    # Half of 24 are expected, with a standard deviation of 2.4.
    assert sum(9 in crop for crop in crops) >= 6


def test_a_mask_without_labels_is_cropped_as_ever():
    image, mask = np.zeros((90, 80, 3), np.uint8), np.full((90, 80), 255, np.uint8)
    for settings in ({"class_crops": 1.0}, {"class_crops": 1.0, "rotation": 9.0}):
        for _, crop in each_transformed(Augmentation(SIZE, **settings), image, mask, SEEDS[:2]):
            assert crop.shape == SIZE and (crop == 255).all()


def test_halving_halves_what_is_given_in_pixels():
    halved = Augmentation((101, 60), elastic=8.0, blur=3.0, rotation=9.0).halved()
    assert halved == Augmentation((51, 30), elastic=4.0, blur=1.5, rotation=9.0, halve=True)
