"""The short side in the model, and resizing in Keras layers, against Pillow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from fcn_keras.errors import UserError
from fcn_keras.files.images import resized_size
from fcn_keras.inference.folding import fold_batchnorm
from fcn_keras.inference.loading import load_model
from fcn_keras.models.block_upsampling import upsample_by_blocks
from fcn_keras.models.fcn import build_fcn
from fcn_keras.models.short_side import (
    ResizeToShortSide,
    ShortSide,
    at_short_side,
    short_side_of,
    with_short_side,
)

SIZES = [(1, 1), (1, 3000), (300, 1), (31, 33), (520, 521), (375, 500), (1400, 700)]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((375, 500), (520, 693)),  # 520 * 500 / 375 = 693.3
        ((500, 333), (780, 520)),  # 780.8, which torchvision's Resize(520) rounds down
        ((520, 700), (520, 700)),
        ((1, 1), (520, 520)),
        ((100, 400), (520, 2080)),
        ((100, 500), (416, 2080)),  # at most 4 * 520
        ((3000, 1), (2080, 1)),
    ],
)
def test_sizes(size, expected):
    assert resized_size(*size, 520) == expected
    assert resized_size(*size[::-1], 520) == expected[::-1]


def test_the_longest_side_can_be_limited():
    assert resized_size(500, 1000, 520, longest=600) == (300, 600)
    assert resized_size(500, 1000, 520, longest=9999) == (520, 1040)


@pytest.mark.parametrize("size", SIZES)
def test_images_are_resized_as_by_pillow(size):
    image = np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)
    height, width = resized_size(*size, 130)
    planes = [Image.fromarray(np.ascontiguousarray(image[..., i])) for i in range(3)]
    expected = [np.asarray(p.resize((width, height), Image.Resampling.BILINEAR)) for p in planes]
    actual = ResizeToShortSide(130)(image[None]).numpy()
    assert np.ptp(actual) > 30 or size == (1, 1)
    np.testing.assert_allclose(actual[0], np.stack(expected, axis=-1), atol=0.05)  # of 255


def test_logits_come_back_at_the_images_size():
    model = build_fcn("tiny", 2, 8, weights=None, short_side=40)
    images = np.random.default_rng(0).uniform(0, 255, (2, 25, 30, 3)).astype(np.float32)
    seen = model(ResizeToShortSide(40)(images))
    assert seen.shape[1:3] == (40, 48)
    expected = tf.image.resize(seen, (25, 30)).numpy()
    np.testing.assert_allclose(at_short_side(model, 40)(images), expected, atol=1e-5)


def test_the_model_stores_it_and_does_not_resize(tmp_path):
    keras.utils.set_random_seed(0)
    plain = build_fcn("tiny", 2, 8, weights=None)
    model = build_fcn("tiny", 2, 8, weights=None, short_side=40, dtype="mixed_bfloat16")
    model = model.from_config(model.get_config())
    assert (short_side_of(plain), short_side_of(model)) == (0, 40)
    model = with_short_side(plain, 50)  # and it shares its weights
    model.save(tmp_path / "m.keras")
    images = np.random.default_rng(0).uniform(0, 255, (1, 33, 47, 3)).astype(np.float32)
    expected = plain(images).numpy()
    loaded = load_model(tmp_path / "m.keras")
    folded = upsample_by_blocks(fold_batchnorm(loaded))
    for each in (model, loaded, folded, with_short_side(loaded, 60)):
        np.testing.assert_allclose(each(images), expected, atol=1e-5)
    assert [short_side_of(each) for each in (loaded, folded)] == [50, 50]
    assert [short_side_of(with_short_side(loaded, side)) for side in (0, 50, 60)] == [0, 50, 60]
    assert with_short_side(loaded, 50) is loaded
    kinds = [type(layer) for layer in with_short_side(loaded, 60).layers]
    assert kinds.count(ShortSide) == 1


@pytest.mark.parametrize("pixels", [-1, 1.5, "40", None])
def test_what_is_no_number_of_pixels_is_refused(pixels):
    with pytest.raises(UserError, match="short_side must be 0 or more"):
        ShortSide(pixels)
