import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from support.fake_folder import write_folder

from fcn_keras.data import pipeline
from fcn_keras.data.augmentation import Augmentation
from fcn_keras.data.directory import directory_split
from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError

PLAIN = Augmentation(crop=(8, 8))


def numbered_split(count, size=(8, 8)):
    """Image i and its mask have the value i everywhere."""

    def read(index):
        return np.full((*size, 3), index, np.uint8), np.full(size, index, np.uint8)

    labels = LabelSet(tuple(map(str, range(count))))
    return Split("train", labels, labels.names, read)


def numbers(dataset):
    return [mask[:, 0, 0].tolist() for _, mask in dataset.as_numpy_iterator()]


def test_an_epoch_has_each_example_once_and_full_batches_only():
    batches = numbers(
        pipeline.training_batches(numbered_split(11), PLAIN, 4, epochs=(0, 1), seed=0)
    )
    assert [len(batch) for batch in batches] == [4, 4]
    seen = [number for batch in batches for number in batch]
    assert len(set(seen)) == 8 and seen != sorted(seen)
    assert pipeline.steps_per_epoch(numbered_split(11), 4) == 2


def test_batches_have_the_contracts_types():
    dataset = pipeline.training_batches(numbered_split(4), PLAIN, 2, epochs=(0, 1), seed=0)
    image, mask = dataset.element_spec
    assert image == tf.TensorSpec((2, 8, 8, 3), tf.float32)
    assert mask == tf.TensorSpec((2, 8, 8), tf.uint8)


def test_epochs_differ_and_a_later_start_repeats_them():
    def run(*epochs, seed=0):
        return numbers(
            pipeline.training_batches(numbered_split(8), PLAIN, 4, epochs=epochs, seed=seed)
        )

    whole = run(0, 3)
    assert whole[:2] != whole[2:4] != whole[4:]
    assert run(2, 3) == whole[4:] and run(0, 3) == whole
    assert run(0, 3, seed=1) != whole


def test_workers_read_their_shares_of_the_same_batches():
    def run(share, epochs=(0, 2)):
        split = numbered_split(11)
        return numbers(
            pipeline.training_batches(split, PLAIN, 4, epochs=epochs, seed=0, share=share)
        )

    shares = zip(run((0, 2)), run((1, 2)))
    assert [[*first, *second] for first, second in shares] == run((0, 1))


@pytest.mark.parametrize("count", [1, 7, 8])
def test_workers_validate_each_image_once_in_as_many_batches(count):
    split = numbered_split(count)
    shares = [numbers(pipeline.evaluation_share(split, worker, 2, 2)) for worker in (0, 1)]
    assert len(shares[0]) == len(shares[1]) and len(shares[0]) % 2 == 0
    seen = sorted(number for share in shares for batch in share for number in batch)
    assert [number for number in seen if number != 255] == list(range(count))


def test_pixels_repeat_with_the_seed(tmp_path):
    split = directory_split(write_folder(tmp_path), "train")
    augment = Augmentation((32, 32), (0.5, 2.0), flip=True, brightness=0.2, contrast=0.2)

    def first(seed, epoch):
        dataset = pipeline.training_batches(split, augment, 6, epochs=(epoch, epoch + 1), seed=seed)
        return next(dataset.as_numpy_iterator())

    np.testing.assert_array_equal(first(3, 0)[0], first(3, 0)[0])
    np.testing.assert_array_equal(first(3, 0)[1], first(3, 0)[1])
    assert (first(3, 0)[0] != first(3, 1)[0]).mean() > 0.5
    assert (first(3, 0)[0] != first(4, 0)[0]).mean() > 0.5


ALL = {
    **dict.fromkeys(("flip", "vertical_flip", "quarter_turns"), True),
    **dict.fromkeys(("brightness", "contrast", "saturation", "hue", "noise"), 0.2),
    **dict.fromkeys(("class_crops", "grey", "cutout", "cutmix"), 0.5),
    **{"rotation": 20.0, "shear": 10.0, "elastic": 3.0, "blur": 2.0, "jpeg": 30},
}


def test_all_transforms_together_are_repeated_by_a_later_start(tmp_path):
    names = {field.name for field in dataclasses.fields(Augmentation)}
    assert names == {"crop", "scale", "halve", *ALL}
    split = directory_split(write_folder(tmp_path), "train")
    augment = Augmentation((32, 48), (0.5, 2.0), **ALL)

    def run(*epochs, share=(0, 1)):
        dataset = pipeline.training_batches(split, augment, 2, epochs=epochs, seed=5, share=share)
        return list(dataset.as_numpy_iterator())

    whole = run(0, 3)
    for start in (1, 2):
        for (images, masks), (again, masks_again) in zip(whole[3 * start :], run(start, 3)):
            np.testing.assert_array_equal(images, again)
            np.testing.assert_array_equal(masks, masks_again)
    assert images.dtype == np.float32 and masks.dtype == np.uint8
    assert 0 <= min(images.min() for images, _ in whole)
    assert max(images.max() for images, _ in whole) <= 255


def test_cutmix_stays_within_a_workers_part_of_the_batch():
    augment = Augmentation((8, 8), cutmix=1.0)

    def pairs(share, epochs=(0, 3)):
        """Each example's own number, and what else is in it."""
        dataset = pipeline.training_batches(
            numbered_split(8), augment, 8, epochs=epochs, seed=1, share=share
        )
        for images, masks in dataset.as_numpy_iterator():
            np.testing.assert_array_equal(images, masks[..., None] * np.ones(3))
            yield [set(np.unique(mask)) for mask in masks]

    plain = numbers(pipeline.training_batches(numbered_split(8), PLAIN, 8, epochs=(0, 3), seed=1))
    for worker in (0, 1):
        for batch, order in zip(pairs((worker, 2)), plain):
            order = order[4 * worker : 4 * worker + 4]
            for own, other, seen in zip(order, [*order[1:], order[0]], batch):
                assert seen <= {own, other}
            assert any(len(seen) == 2 for seen in batch)
    assert list(pairs((0, 2), epochs=(2, 3))) == list(pairs((0, 2)))[2:]


def test_a_split_smaller_than_a_batch_repeats():
    split = numbered_split(3)
    assert pipeline.steps_per_epoch(split, 8) == 1
    [batch] = numbers(pipeline.training_batches(split, PLAIN, 8, epochs=(0, 1), seed=0))
    assert sorted(batch.count(i) for i in range(3)) == [2, 3, 3]


def test_evaluation_pads_to_the_largest_and_fills_the_last_batch():
    sizes = [(4, 6), (5, 3), (2, 2)]
    split = Split(
        "val",
        LabelSet(("a",)),
        ("x", "y", "z"),
        lambda i: (np.full((*sizes[i], 3), 9, np.uint8), np.zeros(sizes[i], np.uint8)),
    )
    batches = list(pipeline.evaluation_batches(split, 2).as_numpy_iterator())
    assert [images.shape for images, _ in batches] == [(2, 5, 6, 3), (2, 2, 2, 3)]
    labelled = [[int((mask == 0).sum()) for mask in masks] for _, masks in batches]
    assert labelled == [[24, 15], [4, 0]]
    assert (batches[1][1][1] == 255).all()


def test_cache_reads_once_within_its_budget():
    reads = []
    split = numbered_split(4)

    def read(index):
        reads.append(index)
        return split.read(index)

    # An example has 8 * 8 * 4 bytes: two of them fit.
    kept = pipeline.cached(dataclasses.replace(split, read=read), 8 * 8 * 4 * 2)
    for _ in range(2):
        for index in range(4):
            assert kept.read(index)[1][0, 0] == index
    assert reads == [0, 1, 2, 3, 2, 3]


def test_bad_file_surfaces_with_its_name(tmp_path):
    folder = write_folder(tmp_path)
    path = folder / "JPEGImages" / "train_3.jpg"
    path.write_bytes(path.read_bytes()[:400])
    split = directory_split(folder, "train")
    with pytest.raises(UserError, match=r"train_3.jpg: not a readable image"):
        with pipeline.bad_files_as_user_errors():
            numbers(pipeline.training_batches(split, PLAIN, 6, epochs=(0, 1), seed=0))


def test_other_errors_pass_unchanged():
    with pytest.raises(tf.errors.InvalidArgumentError), pipeline.bad_files_as_user_errors():
        raise tf.errors.InvalidArgumentError(None, None, "something else")


def test_a_halved_augmentation_sees_the_same_scene_at_a_quarter_of_the_pixels():
    image = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
    mask = np.arange(16 * 24, dtype=np.uint8).reshape(16, 24) % 5
    halved, half_mask = Augmentation((16, 24)).halved()(image, mask, tf.constant([0, 1]))
    np.testing.assert_allclose(halved, image.reshape(8, 2, 12, 2, 3).mean(axis=(1, 3)))
    np.testing.assert_array_equal(half_mask, mask[::2, ::2])
