"""Each transform eagerly and inside tf.data, on pictures whose result is known."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from support.examples import (
    SEEDS,
    blocks,
    each_transformed,
    example,
    require_agreement,
    transformed,
)

from fcn_keras.data import transforms


def random_crop(image, mask, seed, height, width):
    start = transforms.random_start(mask, seed, height, width)
    return transforms.crop(image, mask, start, height, width)


def test_crop_cuts_image_and_mask_alike():
    image, mask = example()
    starts = set()
    for crop, crop_mask in each_transformed(
        functools.partial(random_crop, height=8, width=12), image, mask
    ):
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        np.testing.assert_array_equal(crop, image[top : top + 8, left : left + 12])
        np.testing.assert_array_equal(crop_mask, mask[top : top + 8, left : left + 12])
        starts.add((top, left))
    assert len(starts) > 6


def test_crop_can_reach_every_place():
    image, mask = example(3, 3)
    starts = set()
    for seed in range(60):
        crop, _ = random_crop(image, mask, tf.constant([0, seed]), 2, 2)
        starts.add((int(crop[0, 0, 0]), int(crop[0, 0, 1])))
    assert starts == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_crop_pads_what_is_missing():
    image, mask = example(4, 30)
    crop, crop_mask = transformed(
        lambda i, m, s: random_crop(i, m, s, 6, 10), image, mask, SEEDS[0]
    )
    assert crop.shape == (6, 10, 3) and crop_mask.shape == (6, 10)
    assert (crop_mask[4:] == 255).all() and (crop_mask[:4] != 255).all()
    np.testing.assert_array_equal(crop[4:], np.broadcast_to(transforms.PADDING_RGB, (2, 10, 3)))


@pytest.mark.parametrize("factor", [0.5, 1.7, 3.0])
def test_scale_keeps_classes_and_places(factor):
    image, mask = example(20, 28)
    mask = (np.arange(28) // 14).astype(np.uint8)[None].repeat(20, axis=0) * 9
    scaled, scaled_mask = transformed(
        lambda i, m, s: transforms.random_scale(i, m, s, factor, factor), image, mask, SEEDS[0]
    )
    assert scaled_mask.shape == (round(20 * factor), round(28 * factor)) == scaled.shape[:2]
    assert set(np.unique(scaled_mask)) == {0, 9}  # nearest neighbour invents no class
    # Column c of the result is column (c + 0.5) / factor - 0.5 of the image.
    columns = np.arange(scaled.shape[1])
    expected = np.clip((columns + 0.5) * 28 / scaled.shape[1] - 0.5, 0, 27)
    np.testing.assert_allclose(scaled[5, :, 1], expected, atol=1e-4)
    assert np.argmax(scaled_mask[0] == 9) == scaled.shape[1] // 2


def test_scale_is_random_within_its_bounds():
    image, mask = example(100, 100)
    sizes = {
        transforms.random_scale(image, mask, tf.constant(seed), 0.5, 2.0)[1].shape[0]
        for seed in SEEDS
    }
    assert len(sizes) > 6 and 50 <= min(sizes) < 90 and 110 < max(sizes) <= 200


def test_flip_mirrors_both_or_neither():
    image, mask = example()
    flips = []
    for flipped, flipped_mask in each_transformed(transforms.random_flip, image, mask):
        flips.append(flipped[0, 0, 1] != 0)
        step = -1 if flips[-1] else 1
        np.testing.assert_array_equal(flipped, image[:, ::step])
        np.testing.assert_array_equal(flipped_mask, mask[:, ::step])
    assert 0 < sum(flips) < len(flips)


def test_halving_averages_and_keeps_classes():
    image, mask = example(5, 9)
    halved, half_mask = transforms.halve(image, mask)
    np.testing.assert_allclose(halved, image[:4, :8].reshape(2, 2, 4, 2, 3).mean(axis=(1, 3)))
    np.testing.assert_array_equal(half_mask, mask[:4:2, :8:2])


def test_a_vertical_flip_mirrors_both_or_neither():
    image, mask = example()
    flips = []
    for flipped, flipped_mask in each_transformed(
        functools.partial(transforms.random_flip, axis=0), image, mask
    ):
        flips.append(flipped[0, 0, 0] != 0)
        step = -1 if flips[-1] else 1
        np.testing.assert_array_equal(flipped, image[::step])
        np.testing.assert_array_equal(flipped_mask, mask[::step])
    assert 0 < sum(flips) < len(flips)


def test_a_turn_is_one_of_four():
    image, mask = example()
    seen = set()
    for turned, turned_mask in each_transformed(transforms.random_turn, image, mask):
        [turns] = [k for k in range(4) if np.array_equal(turned, np.rot90(image, k))]
        np.testing.assert_array_equal(turned_mask, np.rot90(mask, turns))
        seen.add(turns)
    assert seen == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [(12, 16), (40, 16), (12, 50), (40, 50)])
def test_a_class_crop_has_its_class_and_each_class_is_as_likely(size):
    mask = np.zeros((30, 40), np.uint8)
    mask[2, 3], mask[28:, 30:], mask[10:12] = 7, 4, 255  # one pixel, a corner, a band
    chosen = []
    for seed in range(150):
        start, pixel = transforms.class_start(
            mask, tf.constant([3, seed]), *size, 1.0, tf.constant([0, 0])
        )
        chosen.append(mask[tuple(pixel.numpy())])
        inside = pixel.numpy() - start.numpy()
        assert (0 <= inside).all() and (inside < size).all()
        assert (start.numpy() >= 0).all()
        assert (start.numpy() <= np.maximum(np.array(mask.shape) - size, 0)).all()
        _, crop = transforms.crop(np.zeros((30, 40, 3), np.float32), mask, start, *size)
        assert chosen[-1] in crop.numpy()
    assert set(chosen) == {0, 4, 7}
    # 50 of 150 are expected, with a standard deviation of sqrt(150 / 3 * 2 / 3) = 5.8.
    assert all(30 < chosen.count(number) < 70 for number in (0, 4, 7))


def test_the_pixel_of_a_class_may_be_anywhere_in_the_crop():
    mask = np.zeros((9, 9), np.uint8)
    mask[4, 4] = 1
    places = set()
    for seed in range(200):
        start, pixel = transforms.class_start(
            mask, tf.constant([0, seed]), 3, 3, 1.0, tf.constant([0, 0])
        )
        if mask[tuple(pixel.numpy())]:
            places.add(tuple((pixel - start).numpy()))
    assert places == {(row, column) for row in range(3) for column in range(3)}


def test_class_crops_are_a_share_and_need_a_label():
    start = tf.constant([5, 6])
    void, mask = np.full((30, 40), 255, np.uint8), np.ones((30, 40), np.uint8)

    def with_class(mask, share, seed):
        found, pixel = transforms.class_start(mask, tf.constant([1, seed]), 8, 8, share, start)
        if pixel[0] < 0:
            np.testing.assert_array_equal(found, start)
        return bool(pixel[0] >= 0)

    assert not any(with_class(void, 1.0, seed) for seed in range(5))
    # 30 of 100 are expected, with a standard deviation of 4.6.
    assert 16 < sum(with_class(mask, 0.3, seed) for seed in range(100)) < 44


def test_class_crops_are_the_same_in_tf_data():
    image, mask = example()

    def crop(image, mask, seed):
        start, _ = transforms.class_start(mask, seed, 8, 12, 0.7, tf.constant([0, 0]))
        return transforms.crop(image, mask, start, 8, 12)

    assert len(list(each_transformed(crop, image, mask))) == len(SEEDS)


def test_cutout_hides_a_rectangle_and_keeps_the_mask():
    image, mask = example(40, 60)
    image[..., 2] = 200  # unlike the colour that hides
    areas = []
    for cut, same in each_transformed(
        functools.partial(transforms.random_cutout, largest=0.5), image, mask
    ):
        np.testing.assert_array_equal(same, mask)
        hidden = (cut != image).any(axis=-1)
        rows, columns = hidden.any(axis=1), hidden.any(axis=0)
        np.testing.assert_array_equal(hidden, rows[:, None] & columns)
        assert (cut[hidden] == transforms.PADDING_RGB).all()
        for seen, size in ((rows, 40), (columns, 60)):
            assert seen.sum() <= size / 2 + 1
            assert (np.diff(np.flatnonzero(seen)) == 1).all()  # in one piece
        areas.append(hidden.mean())
    assert max(areas) > 0.1 and min(areas) < 0.03


def test_cutmix_takes_a_rectangle_of_the_next_example_with_its_mask():
    numbers = np.arange(5, dtype=np.uint8)[:, None, None]
    masks = np.broadcast_to(numbers, (5, 20, 30))
    images = (masks[..., None] * np.full(3, 10)).astype(np.float32)
    shares, untouched = [], 0
    cutmix = functools.partial(transforms.cutmix, probability=0.7)
    for mixed, mixed_masks in each_transformed(cutmix, images, masks):
        np.testing.assert_array_equal(mixed, mixed_masks[..., None] * np.full(3, 10.0))
        for number, mask in enumerate(mixed_masks):
            other = mask == (number + 1) % 5
            assert (other | (mask == number)).all()
            rectangle = other.any(axis=1)[:, None] & other.any(axis=0)
            np.testing.assert_array_equal(other, rectangle)
            shares.append(other.mean())
            untouched += not other.any()
    # 60 examples: 18 without a rectangle are expected, with a standard deviation of 3.5.
    assert 8 < untouched < 30 and max(shares) > 0.6


@pytest.mark.parametrize("size", [(40, 40), (100, 60), (100, 130)])
def test_image_and_mask_stay_together(size):
    image, mask = blocks()

    def all_of_them(image, mask, seed):
        image, mask = transforms.random_turn(image, mask, seed)
        image, mask = transforms.random_flip(image, mask, seed, axis=0)
        start, _ = transforms.class_start(mask, seed, *size, 0.5, tf.constant([0, 0]))
        return transforms.crop(image, mask, start, *size)

    for result in each_transformed(all_of_them, image, mask):
        assert require_agreement(*result) > 0.4
