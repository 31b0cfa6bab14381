"""Each change of colour eagerly and inside tf.data, on pictures whose result is known."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.examples import SEEDS, each_transformed, example

from fcn_keras.data import colors
from fcn_keras.data.transforms import PADDING_RGB


def test_color_changes_within_bounds_and_keeps_the_mask():
    image, mask = np.full((4, 4, 3), 100, np.float32), np.eye(4, dtype=np.uint8)
    shifts = []
    for changed, same in each_transformed(
        functools.partial(colors.random_color, brightness=0.1, contrast=0.5), image, mask
    ):
        np.testing.assert_array_equal(same, mask)
        shifts.append(changed[0, 0, 0] - 100)  # contrast leaves the mean, brightness moves it
    assert max(map(abs, shifts)) <= 25.5 and min(shifts) < -5 and max(shifts) > 5


def test_color_is_clipped():
    image = np.array([[[0, 255, 128]]], np.float32)
    for seed in SEEDS:
        changed, _ = colors.random_color(image, image, tf.constant(seed), 1.0, 1.0)
        assert 0 <= np.min(changed) and np.max(changed) <= 255


def test_tint_keeps_luma_and_turns_by_the_angle():
    image = np.random.default_rng(0).uniform(90, 160, (6, 7, 3)).astype(np.float32)
    mask = np.zeros((6, 7), np.uint8)
    angles = []
    for changed, _ in each_transformed(
        functools.partial(colors.random_tint, saturation=0.0, hue=0.1), image, mask
    ):
        yiq, before = (x @ np.array(colors.RGB_TO_YIQ).T for x in (changed, image))
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
    for changed, _ in each_transformed(
        functools.partial(colors.random_tint, saturation=0.5, hue=0.0), image, mask
    ):
        ratios = (changed[0, 0] - luma) / (image[0, 0] - luma)
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-2)
        factors.append(ratios[0])
    assert 0.5 <= min(factors) < 0.8 and 1.2 < max(factors) <= 1.5


def test_grey_is_the_luma_in_a_share_of_the_cases():
    image, mask = example()
    image[..., 2] = 77
    luma = image @ np.array([0.299, 0.587, 0.114])
    grey = 0
    for changed, _ in each_transformed(
        functools.partial(colors.random_grey, probability=0.5), image, mask
    ):
        if (changed == image).all():
            continue
        grey += 1
        np.testing.assert_allclose(changed, luma[..., None].repeat(3, axis=-1), rtol=1e-5)
    assert 2 < grey < 10


def test_blur_spreads_a_point_by_its_sigma():
    image, mask = np.tile(np.float32(PADDING_RGB), (41, 41, 1)), np.zeros((41, 41), np.uint8)
    image[20, 20] += 100
    sigmas = []
    for blurred, _ in each_transformed(
        functools.partial(colors.random_blur, largest=3.0), image, mask
    ):
        spread = (blurred - PADDING_RGB)[..., 1]
        assert spread.sum() == pytest.approx(100, abs=0.01)
        places = np.arange(41) - 20
        variances = [(spread.sum(axis=axis) * places**2).sum() / 100 for axis in (0, 1)]
        assert variances[0] == pytest.approx(variances[1], rel=1e-3)
        sigmas.append(variances[0] ** 0.5)
    assert min(sigmas) < 1 and 2 < max(sigmas) <= 3


def test_blur_keeps_the_colour_outside_up_to_the_edge():
    image, mask = np.tile(np.float32(PADDING_RGB), (8, 9, 1)), np.zeros((8, 9), np.uint8)
    blur = functools.partial(colors.random_blur, largest=5.0)  # its kernel exceeds the image
    for blurred, _ in each_transformed(blur, image, mask):
        np.testing.assert_allclose(blurred, image, atol=1e-3)


def test_noise_has_its_deviation_in_each_channel():
    image, mask = np.full((80, 90, 3), 128, np.float32), np.zeros((80, 90), np.uint8)
    deviations = []
    for noisy, _ in each_transformed(
        functools.partial(colors.random_noise, largest=0.1), image, mask
    ):
        noise = (noisy - 128).reshape(-1, 3)
        assert np.abs(np.corrcoef(noise.T) - np.eye(3)).max() < 0.1
        assert np.abs(noise.mean(axis=0)).max() < 2
        assert np.ptp(noise.std(axis=0)) < 0.1 * noise.std()
        deviations.append(noise.std() / 255)
    assert min(deviations) < 0.03 and 0.07 < max(deviations) < 0.103
    white = np.full((80, 90, 3), 255, np.float32)
    assert colors.random_noise(white, mask, tf.constant([0, 1]), 0.5)[0].numpy().max() == 255


def test_jpeg_is_that_of_pillow_at_a_quality_from_the_lowest_on():
    rows, columns = np.mgrid[:48, :64]
    image = np.stack([rows * 5, columns * 3, (rows * columns) % 255], axis=-1).astype(np.float32)
    mask = np.zeros((48, 64), np.uint8)

    def by_pillow(quality):
        file = io.BytesIO()
        Image.fromarray(image.astype(np.uint8)).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file)).astype(float)

    coded = {quality: by_pillow(quality) for quality in range(60, 101)}
    found = []
    for changed, _ in each_transformed(
        functools.partial(colors.random_jpeg, lowest=60), image, mask
    ):
        errors = {quality: np.abs(changed - other).mean() for quality, other in coded.items()}
        found.append(min(errors, key=errors.get))
        assert errors[found[-1]] < 2
    assert len(set(found)) > 6 and min(found) < 75 and max(found) > 85
