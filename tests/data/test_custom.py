import numpy as np
import pytest
import tensorflow as tf
from support.fake_folder import write_folder

from fcn_keras.data import pipeline
from fcn_keras.data.augmentation import Augmentation
from fcn_keras.data.custom import augmented
from fcn_keras.data.directory import directory_split
from fcn_keras.errors import UserError


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Images of 48×64 pixels with 3 classes."""
    return directory_split(write_folder(tmp_path_factory.mktemp("data")), "train")


def result_of(split, augment):
    return augmented(split, augment).read(1)


def test_it_gets_the_whole_photograph_and_may_change_its_size(split):
    def half(image, mask):
        assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)
        assert (mask.shape, mask.dtype) == ((48, 64), np.uint8)
        return image[::2, ::2], mask[::2, ::2]

    image, mask = result_of(split, half)
    np.testing.assert_array_equal(image, split.read(1)[0][::2, ::2])
    np.testing.assert_array_equal(mask, split.read(1)[1][::2, ::2])


def test_floats_are_rounded_and_wide_integers_are_taken(split):
    image, mask = result_of(split, lambda i, m: ((i * 0.5 + 0.3).tolist(), m.astype(np.int64)))
    assert image.dtype == mask.dtype == np.uint8
    np.testing.assert_array_equal(image, np.rint(split.read(1)[0] * 0.5 + 0.3))
    np.testing.assert_array_equal(mask, split.read(1)[1])


def test_what_it_writes_into_its_arguments_stays_out_of_the_cache(split):
    def blacken(image, mask):
        image[:], mask[:] = 0, 255
        return image, mask

    cached = pipeline.cached(split, 1 << 20)
    before = [array.copy() for array in cached.read(1)]
    image, mask = result_of(cached, blacken)
    assert not image.any() and (mask == 255).all()
    for array, kept in zip(cached.read(1), before):
        np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize(
    ("augment", "received"),
    [
        (lambda i, m: i, "ndarray"),
        (lambda i, m: None, "NoneType"),
        (lambda i, m: {"image": i, "mask": m}, "dict"),
        (lambda i, m: (i[:9], m), r"uint8 \(9, 64, 3\) and uint8 \(48, 64\)"),
        (lambda i, m: (i[..., 0], m), r"uint8 \(48, 64\) and"),
        (lambda i, m: (i[..., :2], m), r"uint8 \(48, 64, 2\) and"),
        (lambda i, m: (i, m[..., None]), r"and uint8 \(48, 64, 1\)"),
        (lambda i, m: (i[:0], m[:0]), r"uint8 \(0, 64, 3\)"),
        (lambda i, m: (i, m / 2), "and float64"),
        (lambda i, m: (i, m == 1), "and bool"),
        (lambda i, m: (i > 9, m), "bool"),
        (lambda i, m: (i - 300.0, m), "an image with values from -"),
        (lambda i, m: (i * 2.0, m), "an image with values from .* to "),
        (lambda i, m: (i * np.nan, m), "an image with values from nan"),
        (lambda i, m: (i / 255, m), r"an image in 0..0.* Multiply it by 255"),
        (lambda i, m: (i, m * 0 + 3), "a mask with 3, which is neither one of the 3 classes"),
        (lambda i, m: (i, m.astype(int) * 0 - 1), "a mask with -1"),
    ],
)
def test_a_wrong_result_is_named(split, augment, received):
    with pytest.raises(
        UserError, match=rf"^augment must return .* train_1: Received: .*{received}"
    ):
        result_of(split, augment)


def batches(split, augment):
    changed = augmented(split, augment)
    dataset = pipeline.training_batches(changed, Augmentation((8, 8)), 2, epochs=(0, 1), seed=0)
    with pipeline.bad_files_as_user_errors():
        return list(dataset.as_numpy_iterator())


def test_training_gets_what_it_returns(split):
    images, masks = batches(split, lambda i, m: (i * 0 + 7, m * 0 + 2))[0]
    assert (images == 7).all() and (masks == 2).all()
    with pytest.raises(UserError, match=r"^augment must return .*Received: float32 \(3,\)"):
        batches(split, lambda i, m: (np.float32([1, 2, 3]), m))


@pytest.mark.parametrize("error", [ValueError("no rain"), StopIteration("no rain"), KeyError(3)])
def test_an_exception_in_it_ends_training_with_its_text(split, error):
    def fail(image, mask):
        raise error

    with pytest.raises(tf.errors.OpError, match=r"no rain|KeyError: 3"):
        batches(split, fail)
    with pytest.raises(type(error)):
        augmented(split, fail).read(0)
