"""Rotation, shear and elastic distortion, against a loop over pixels."""

import math

import numpy as np
import pytest
import tensorflow as tf
from support.examples import SEEDS, blocks, each_transformed, require_agreement, transformed

from fcn_keras.data import warping
from fcn_keras.data.transforms import PADDING_RGB


def warp(matrix, size, start=(0, 0), displacement=None, pixel=None):
    def apply(image, mask, seed):
        field = tf.zeros((2, *size)) if displacement is None else displacement(seed)
        rotation = matrix(seed) if callable(matrix) else tf.constant(matrix, tf.float32)
        places = warping.places_of(mask, tf.constant(start), rotation, field)
        if pixel is not None:
            places = warping.moved_to(places, tf.constant(pixel))
        return warping.sample(image, mask, places)

    return apply


def rotation_by(degrees):
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [[cosine, -sine], [sine, cosine]]


def by_loop(image, mask, size, start, matrix):
    """The same, pixel by pixel, with the definition of bilinear interpolation."""
    height, width = mask.shape
    center = (np.minimum(size, mask.shape) - 1) / 2

    def color(row, column):
        inside = 0 <= row < height and 0 <= column < width
        return image[row, column] if inside else np.array(PADDING_RGB)

    warped, warped_mask = np.zeros((*size, 3)), np.full(size, 255)
    for pixel in np.ndindex(size):
        row, column = start + center + np.array(matrix) @ (pixel - center)
        top, left = math.floor(row), math.floor(column)
        for r in (top, top + 1):
            for c in (left, left + 1):
                weight = (1 - abs(row - r)) * (1 - abs(column - c))
                warped[pixel] += weight * color(r, c)
        r, c = math.floor(row + 0.5), math.floor(column + 0.5)
        if 0 <= r < height and 0 <= c < width:
            warped_mask[pixel] = mask[r, c]
    return warped, warped_mask


@pytest.mark.parametrize("size", [(16, 24), (40, 12), (40, 50)])
@pytest.mark.parametrize("degrees", [0, 17, -140])
def test_a_rotation_is_that_of_a_loop(size, degrees):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (30, 36, 3), dtype=np.uint8)
    mask = random.integers(0, 9, (30, 36), dtype=np.uint8)
    start = np.minimum((7, 9), np.maximum(np.array(mask.shape) - size, 0))
    matrix = rotation_by(degrees)
    warped, warped_mask = transformed(warp(matrix, size, start), image, mask, SEEDS[0])
    expected, expected_mask = by_loop(image, mask, size, start, matrix)
    np.testing.assert_allclose(warped, expected, atol=0.05)
    assert (warped_mask == expected_mask).mean() > 0.995  # but where a place is halfway


def test_a_quarter_is_exact_and_a_whole_image_turns_about_its_centre():
    image, mask = blocks(60, 60, 20)
    warped, warped_mask = transformed(warp([[0, -1], [1, 0]], (60, 60)), image, mask, SEEDS[0])
    np.testing.assert_allclose(warped, np.rot90(image, -1), atol=1e-3)
    np.testing.assert_array_equal(warped_mask, np.rot90(mask, -1))
    larger, _ = transformed(warp([[-1, 0], [0, -1]], (80, 90)), image, mask, SEEDS[0])
    np.testing.assert_allclose(larger[:60, :60], image[::-1, ::-1], atol=1e-3)


def test_angles_are_random_within_their_bounds():
    turns, slants = [], []
    for seed in range(60):
        matrix = warping.random_affine(tf.constant([2, seed]), 25.0, 0.0).numpy()
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(2), atol=1e-5)
        turns.append(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])))
        shear = warping.random_affine(tf.constant([2, seed]), 0.0, 25.0).numpy()
        np.testing.assert_allclose(shear, [[1, 0], [shear[1, 0], 1]], atol=1e-6)
        slants.append(math.degrees(math.atan(shear[1, 0])))
    for angles in (turns, slants):
        assert -25 <= min(angles) < -20 and 20 < max(angles) <= 25


@pytest.mark.parametrize("largest", [3.0, 12.0])
def test_an_elastic_field_is_bounded_smooth_and_keeps_the_order_of_pixels(largest):
    fields = [
        warping.random_displacement(tf.constant(seed), 120, 200, largest).numpy() for seed in SEEDS
    ]
    assert all(np.abs(field).max() <= largest for field in fields)
    assert max(np.abs(field).max() for field in fields) > 0.8 * largest
    for field in fields:
        for axis in (1, 2):
            # No place moves past its neighbour: places are pixels and displacements.
            assert (1 + np.diff(field[axis - 1], axis=axis - 1)).min() > 0
            assert np.abs(np.diff(field, n=2, axis=axis)).max() < 0.08 * largest
    assert not warping.random_displacement(tf.constant(SEEDS[0]), 8, 9, 0.0).numpy().any()


@pytest.mark.parametrize("size", [(48, 64), (100, 60), (100, 130)])
def test_image_and_mask_stay_together(size):
    image, mask = blocks()
    apply = warp(
        lambda seed: warping.random_affine(seed, 180.0, 20.0),
        size,
        np.minimum((10, 20), np.maximum(np.array(mask.shape) - size, 0)),
        lambda seed: warping.random_displacement(seed, *size, 4.0),
    )
    masks = set()
    for warped, warped_mask in each_transformed(apply, image, mask):
        assert require_agreement(warped, warped_mask) > 0.4
        masks.add(warped_mask.tobytes())
    assert len(masks) == len(SEEDS)


def test_a_pixel_that_left_the_crop_is_moved_back():
    mask = np.zeros((60, 80), np.uint8)
    mask[20, 30] = 5
    image = mask[..., None].repeat(3, axis=-1)
    for degrees in range(0, 360, 40):
        # The pixel is in the corner of the window.
        apply = warp(
            rotation_by(degrees),
            (24, 40),
            (20, 30),
            lambda seed: warping.random_displacement(seed, 24, 40, 3.0),
            (20, 30),
        )
        _, warped_mask = transformed(apply, image, mask, (3, degrees))
        assert 5 in warped_mask
    places = tf.random.uniform((2, 5, 6))
    np.testing.assert_array_equal(warping.moved_to(places, tf.constant([-1, -1])), places)
