"""Each transform eagerly and inside tf.data, on pictures whose result is known."""

import numpy as np
import pytest
import tensorflow as tf

from fcn_keras.data import transforms

SEEDS = [(1, seed) for seed in range(12)]


def example(height=20, width=30):
    """An image whose red and green are row and column, and a mask that follows the column."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.float32)
    return image, (columns % 7).astype(np.uint8)


def run(transform, image, mask, seed):
    """The result, after checking that tf.data gives the same as eager execution."""
    eager = transform(tf.constant(image), tf.constant(mask), tf.constant(seed, tf.int64))
    dataset = tf.data.Dataset.from_tensors((image, mask, tf.constant(seed, tf.int64)))
    [in_graph] = dataset.map(transform).as_numpy_iterator()
    for left, right in zip(eager, in_graph):
        np.testing.assert_allclose(left, right, rtol=1e-6)
    return np.asarray(eager[0]), np.asarray(eager[1])


def test_crop_cuts_image_and_mask_alike():
    image, mask = example()
    starts = set()
    for seed in SEEDS:
        crop, crop_mask = run(
            lambda i, m, s: transforms.random_crop(i, m, s, 8, 12), image, mask, seed
        )
        top, left = int(crop[0, 0, 0]), int(crop[0, 0, 1])
        np.testing.assert_array_equal(crop, image[top : top + 8, left : left + 12])
        np.testing.assert_array_equal(crop_mask, mask[top : top + 8, left : left + 12])
        starts.add((top, left))
    assert len(starts) > 6


def test_crop_can_reach_every_place():
    image, mask = example(3, 3)
    starts = set()
    for seed in range(60):
        crop, _ = transforms.random_crop(image, mask, tf.constant([0, seed]), 2, 2)
        starts.add((int(crop[0, 0, 0]), int(crop[0, 0, 1])))
    assert starts == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_crop_pads_what_is_missing():
    image, mask = example(4, 30)
    crop, crop_mask = run(
        lambda i, m, s: transforms.random_crop(i, m, s, 6, 10), image, mask, SEEDS[0]
    )
    assert crop.shape == (6, 10, 3) and crop_mask.shape == (6, 10)
    assert (crop_mask[4:] == 255).all() and (crop_mask[:4] != 255).all()
    np.testing.assert_array_equal(crop[4:], np.broadcast_to(transforms.PADDING_RGB, (2, 10, 3)))


@pytest.mark.parametrize("factor", [0.5, 1.7, 3.0])
def test_scale_keeps_classes_and_places(factor):
    image, mask = example(20, 28)
    mask = (np.arange(28) // 14).astype(np.uint8)[None].repeat(20, axis=0) * 9
    scaled, scaled_mask = run(
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
    for seed in SEEDS:
        flipped, flipped_mask = run(transforms.random_flip, image, mask, seed)
        flips.append(flipped[0, 0, 1] != 0)
        step = -1 if flips[-1] else 1
        np.testing.assert_array_equal(flipped, image[:, ::step])
        np.testing.assert_array_equal(flipped_mask, mask[:, ::step])
    assert 0 < sum(flips) < len(flips)


def test_color_changes_within_bounds_and_keeps_the_mask():
    image, mask = np.full((4, 4, 3), 100, np.float32), np.eye(4, dtype=np.uint8)
    shifts = []
    for seed in SEEDS:
        changed, same = run(
            lambda i, m, s: transforms.random_color(i, m, s, 0.1, 0.5), image, mask, seed
        )
        np.testing.assert_array_equal(same, mask)
        shifts.append(changed[0, 0, 0] - 100)  # contrast leaves the mean, brightness moves it
    assert max(map(abs, shifts)) <= 25.5 and min(shifts) < -5 and max(shifts) > 5


def test_color_is_clipped():
    image = np.array([[[0, 255, 128]]], np.float32)
    for seed in SEEDS:
        changed, _ = transforms.random_color(image, image, tf.constant(seed), 1.0, 1.0)
        assert 0 <= np.min(changed) and np.max(changed) <= 255


def test_halving_averages_and_keeps_classes():
    image, mask = example(5, 9)
    halved, half_mask = transforms.halve(image, mask)
    np.testing.assert_allclose(halved, image[:4, :8].reshape(2, 2, 4, 2, 3).mean(axis=(1, 3)))
    np.testing.assert_array_equal(half_mask, mask[:4:2, :8:2])


def test_tint_keeps_luma_and_turns_by_the_angle():
    image = np.random.default_rng(0).uniform(90, 160, (6, 7, 3)).astype(np.float32)
    mask = np.zeros((6, 7), np.uint8)
    angles = []
    for seed in SEEDS:
        changed, _ = run(
            lambda i, m, s: transforms.random_tint(i, m, s, 0.0, 0.1), image, mask, seed
        )
        yiq, before = (x @ np.array(transforms.RGB_TO_YIQ).T for x in (changed, image))
        np.testing.assert_allclose(yiq[..., 0], before[..., 0], atol=1e-2)
        planes = [y[..., 1] + 1j * y[..., 2] for y in (yiq, before)]
        turns = np.angle(planes[0] / planes[1]) / (2 * np.pi)
        np.testing.assert_allclose(turns, turns[0, 0], atol=1e-3)
        angles.append(turns[0, 0])
    assert -0.1 <= min(angles) < -0.03 and 0.03 < max(angles) <= 0.1


def test_tint_stretches_saturation():
    image, mask = np.full((2, 2, 3), (120, 100, 80), np.float32), np.zeros((2, 2), np.uint8)
    luma = 0.299 * 120 + 0.587 * 100 + 0.114 * 80
    factors = []
    for seed in SEEDS:
        changed, _ = run(
            lambda i, m, s: transforms.random_tint(i, m, s, 0.5, 0.0), image, mask, seed
        )
        ratios = (changed[0, 0] - luma) / (image[0, 0] - luma)
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-2)
        factors.append(ratios[0])
    assert 0.5 <= min(factors) < 0.8 and 1.2 < max(factors) <= 1.5
