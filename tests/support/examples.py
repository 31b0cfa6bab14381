"""Pictures whose transforms are known, and transforms run in both ways."""

import numpy as np
import tensorflow as tf

from fcn_keras.data.transforms import PADDING_RGB

SEEDS = [(1, seed) for seed in range(12)]


def example(height=20, width=30):
    """An image whose red and green are row and column, and a mask that follows the column."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.float32)
    return image, (columns % 7).astype(np.uint8)


def transformed(transform, image, mask, seed):
    """The result for one seed; see `each_transformed`."""
    [result] = each_transformed(transform, image, mask, [seed])
    return result


def each_transformed(transform, image, mask, seeds=SEEDS):
    """The results for some seeds, after checking that tf.data gives the same as eager execution."""
    image, mask = tf.constant(image), tf.constant(mask)
    dataset = tf.data.Dataset.from_tensor_slices(tf.constant(seeds, tf.int64))
    in_graph = dataset.map(lambda seed: transform(image, mask, seed)).as_numpy_iterator()
    for seed, (graph_image, graph_mask) in zip(seeds, in_graph, strict=True):
        own_image, own_mask = transform(image, mask, tf.constant(seed, tf.int64))
        # Places of pixels differ by their rounding error.
        np.testing.assert_allclose(own_image, graph_image, rtol=1e-6, atol=2e-3)
        assert np.mean(own_mask != graph_mask) < 0.002
        yield np.asarray(own_image), np.asarray(own_mask)


def blocks(height=90, width=120, size=30):
    """A mask of squares of different classes 1..7, and an image whose channels are 20 times that.

    The square at the top left is unlabelled, and has the colour outside of images.
    """
    rows, columns = np.mgrid[:height, :width] // size
    mask = (1 + (rows * 4 + columns * 3) % 7).astype(np.uint8)
    mask[:size, :size] = 255
    return _drawn(mask).astype(np.uint8), mask


def require_agreement(image, mask):
    """Checks an image of `blocks` and its mask after a transform, away from edges of both.

    Returns:
        The share of pixels that were checked.
    """
    assert set(np.unique(mask)) <= {*range(1, 8), 255}
    framed = np.pad(mask, 2, constant_values=254)  # what is beyond the crop is not known
    around = np.lib.stride_tricks.sliding_window_view(framed, (5, 5))
    inner = (around == mask[..., None, None]).all(axis=(2, 3))
    np.testing.assert_allclose(image[inner], _drawn(mask)[inner], atol=0.01)
    return inner.mean()


def _drawn(mask):
    return np.where((mask == 255)[..., None], PADDING_RGB, mask[..., None] * 20)
