"""Augmentations of image and mask: size, crop, mirroring, and parts of other examples.

An image is `(H, W, 3)` RGB in 0..255, a mask `(H, W)` of class ids. The seed is
an integer tensor of shape `(2,)`: the same seed gives the same result, eagerly
and inside `tf.data`.
"""

from __future__ import annotations

import tensorflow as tf

from fcn_keras.data.split import IGNORE_ID

# ImageNet's mean colour, which the model normalises to 0, the value of its own padding.
PADDING_RGB = (124, 116, 104)


def random_scale(image, mask, seed, low: float, high: float):
    """Resizes both by one factor drawn uniformly from `low..high`.

    The image is interpolated bilinearly, the mask takes the nearest pixel.

    Returns:
        float32 `(h, w, 3)` and the mask `(h, w)`.
    """
    factor = tf.random.stateless_uniform([], seed, low, high)
    size = tf.shape(mask)
    size = tf.cast(tf.round(tf.cast(size, tf.float32) * factor), tf.int32)
    size = tf.maximum(size, 1)
    image = tf.image.resize(image, size)
    mask = tf.image.resize(mask[..., None], size, method="nearest")[..., 0]
    return image, mask


def halve(image, mask):
    """Halves both: each pixel is the mean of four, the mask keeps the first of each four.

    An odd last row or column is dropped. Unlike `random_scale`, this does not alias.

    Returns:
        float32 `(H // 2, W // 2, 3)` and the mask `(H // 2, W // 2)`.
    """
    image = tf.nn.avg_pool2d(tf.cast(image, tf.float32)[None], 2, 2, "VALID")[0]
    height, width = tf.unstack(tf.shape(image)[:2])
    return image, mask[::2, ::2][:height, :width]


def random_turn(image, mask, seed):
    """Turns both by 0, 90, 180 or 270 degrees, each in a quarter of the cases."""
    turns = tf.random.stateless_uniform([], seed, 0, 4, tf.int32)
    return tf.image.rot90(image, turns), tf.image.rot90(mask[..., None], turns)[..., 0]


def random_start(mask, seed, height: int, width: int):
    """The top left pixel of a random window of a mask, int32 `(2,)`; 0 where it is smaller."""
    room = tf.maximum(tf.shape(mask) - [height, width], 0)
    return _between(tf.zeros_like(room), room, seed)


def class_start(mask, seed, height: int, width: int, share: float, start):
    """Where a window begins that has a pixel of a class chosen at random.

    Each class that occurs in the mask is equally likely, and each of its pixels. The window
    is a random one of those that have the pixel. Zhu et al. (2019) sample the classes of the
    whole data set uniformly; within an image, the order of the examples stays as it is.

    Args:
        mask: `(H, W)` of class ids.
        seed: Of all choices.
        height: Height of the window.
        width: Its width.
        share: How often to choose a class; otherwise, and if all is unlabelled, `start` stays.
        start: The top left pixel of the window without a class, int32 `(2,)`.

    Returns:
        The top left pixel and the chosen one, `[-1, -1]` for none: int32 `(2,)` each.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    counts = tf.math.bincount(tf.cast(tf.reshape(mask, [-1]), tf.int32), minlength=256)
    classes = tf.where(counts[:IGNORE_ID] > 0)[:, 0]

    def placed():
        chosen = tf.cast(_one_of(classes, seeds[1]), mask.dtype)
        place = _one_of(tf.where(tf.reshape(mask == chosen, [-1]))[:, 0], seeds[2])
        columns = tf.shape(mask, tf.int64)[1]
        pixel = tf.cast(tf.stack([place // columns, place % columns]), tf.int32)
        first = tf.maximum(pixel - [height - 1, width - 1], 0)
        last = tf.minimum(pixel, tf.maximum(tf.shape(mask) - [height, width], 0))
        return _between(first, last, seeds[3]), pixel

    wanted = (tf.random.stateless_uniform([], seeds[0]) < share) & (tf.size(classes) > 0)
    return tf.cond(wanted, placed, lambda: (start, tf.constant([-1, -1])))


def _between(first, last, seed):
    """Integers between two bounds, both included: int32 of their shape."""
    room = last - first
    choice = tf.random.stateless_uniform(room.shape, seed, 0, 1) * tf.cast(room + 1, tf.float32)
    return first + tf.minimum(tf.cast(choice, tf.int32), room)


def _one_of(values, seed):
    return values[tf.random.stateless_uniform([], seed, 0, tf.size(values), tf.int32)]


def crop(image, mask, start, height: int, width: int):
    """Cuts out a window; smaller images are padded, masks with 255.

    Returns:
        `(height, width, 3)` and `(height, width)`.
    """
    top, left = tf.unstack(start)
    image = image[top : top + height, left : left + width]
    mask = mask[top : top + height, left : left + width]
    image, mask = pad_to(image, mask, height, width)  # after the crop, which leaves less to pad
    return tf.ensure_shape(image, (height, width, 3)), tf.ensure_shape(mask, (height, width))


def pad_to(image, mask, height: int, width: int):
    """Pads at the bottom and right up to a minimum height and width."""
    missing = tf.maximum([height, width] - tf.shape(mask), 0)
    paddings = [[0, missing[0]], [0, missing[1]]]
    color = tf.cast(tf.constant(PADDING_RGB), image.dtype)
    # tf.pad knows no colours, so the image is shifted to make the colour 0.
    shifted = tf.cast(image, tf.float32) - tf.cast(color, tf.float32)
    image = tf.pad(shifted, [*paddings, [0, 0]]) + tf.cast(color, tf.float32)
    return image, tf.pad(mask, paddings, constant_values=IGNORE_ID)


def random_flip(image, mask, seed, axis: int = 1):
    """Mirrors both in half of the cases: left to right, or top to bottom along axis 0."""
    flip = tf.random.stateless_uniform([], seed) < 0.5
    image = tf.cond(flip, lambda: tf.reverse(image, [axis]), lambda: image)
    mask = tf.cond(flip, lambda: tf.reverse(mask, [axis]), lambda: mask)
    return image, mask


def random_cutout(image, mask, seed, largest: float):
    """Fills one rectangle with the colour outside of images (DeVries and Taylor, 2017).

    The mask keeps its classes there, as with Keras's `RandomErasing` and Albumentations'
    `CoarseDropout`: the network must infer what is hidden from what surrounds it.

    Args:
        image: `(H, W, 3)`, of a static height and width.
        mask: `(H, W)`.
        seed: Of size and place.
        largest: Largest height and width, as a share of the image's.
    """
    sides, places = tf.unstack(tf.random.stateless_uniform([2, 2], seed))
    sides *= largest
    centers = sides / 2 + places * (1 - sides)  # the rectangle is entirely inside
    rows, columns = map(_within, mask.shape, tf.unstack(centers), tf.unstack(sides))
    hidden = (rows[:, None] & columns)[..., None]
    return tf.where(hidden, tf.constant(PADDING_RGB, image.dtype), image), mask


def cutmix(images, masks, seed, probability: float):
    """Replaces a rectangle of an example by that of the next in the batch (Yun et al., 2019).

    Its share of the area is uniformly distributed, before what is outside is cut off. The
    examples of a batch are in random order, so any may follow.

    Args:
        images: `(B, H, W, 3)`, of a static shape.
        masks: `(B, H, W)`.
        seed: Of the batch.
        probability: How often an example gets a rectangle.

    Returns:
        The mixed images and masks.
    """
    count, height, width = masks.shape
    mixed, area, y, x = tf.unstack(tf.random.stateless_uniform([4, count, 1], seed))
    side = tf.where(mixed < probability, tf.sqrt(area), 0.0)
    rows, columns = _within(height, y, side), _within(width, x, side)
    inside = rows[:, :, None] & columns[:, None, :]
    masks = tf.where(inside, tf.roll(masks, -1, axis=0), masks)
    return tf.where(inside[..., None], tf.roll(images, -1, axis=0), images), masks


def _within(size: int, center, side):
    """Which of `size` pixels are in a section with this centre and length, as shares of all."""
    places = (tf.range(size, dtype=tf.float32) + 0.5) / size
    return tf.abs(places - center) < side / 2
