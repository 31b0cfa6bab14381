"""Augmentations: pure functions of (image, mask, seed) -> (image, mask).

An image is `(H, W, 3)` RGB in 0..255, a mask `(H, W)` of class ids. The seed is
an integer tensor of shape `(2,)`: the same seed gives the same result, eagerly
and inside `tf.data`.
"""

from __future__ import annotations

import math

import tensorflow as tf

from fcn_keras.data.split import IGNORE_ID

# ImageNet's mean colour, which the model normalises to 0, the value of its own padding.
PADDING_RGB = (124, 116, 104)
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


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


def random_crop(image, mask, seed, height: int, width: int):
    """Crops a random window; smaller images are padded, masks with 255.

    Returns:
        `(height, width, 3)` and `(height, width)`.
    """
    room = tf.maximum(tf.shape(mask) - [height, width], 0)
    start = tf.random.stateless_uniform([2], seed, 0, 1) * tf.cast(room + 1, tf.float32)
    top, left = tf.unstack(tf.minimum(tf.cast(start, tf.int32), room))
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


def random_flip(image, mask, seed):
    """Mirrors both left to right in half of the cases."""
    flip = tf.random.stateless_uniform([], seed) < 0.5
    image = tf.cond(flip, lambda: image[:, ::-1], lambda: image)
    mask = tf.cond(flip, lambda: mask[:, ::-1], lambda: mask)
    return image, mask


def random_color(image, mask, seed, brightness: float, contrast: float):
    """Changes brightness by up to `±brightness` of 255, contrast by up to `±contrast`.

    Returns:
        A float32 image, clipped to 0..255, and the unchanged mask.
    """
    image = tf.cast(image, tf.float32)
    shift, stretch = tf.unstack(tf.random.stateless_uniform([2], seed, -1, 1))
    mean = tf.reduce_mean(image)
    image = (image - mean) * (1 + contrast * stretch) + mean + 255 * brightness * shift
    return tf.clip_by_value(image, 0, 255), mask


def random_tint(image, mask, seed, saturation: float, hue: float):
    """Changes saturation by up to `±saturation`, rotates hues by up to `±hue` of the circle.

    Both act on the colour difference from grey (Rec. 601 luma), which is unchanged: a
    rotation in the plane of YIQ's I and Q, as cheap as one matrix product.

    Returns:
        A float32 image, clipped to 0..255, and the unchanged mask.
    """
    image = tf.cast(image, tf.float32)
    stretch, turn = tf.unstack(tf.random.stateless_uniform([2], seed, -1, 1))
    to_yiq = tf.constant(RGB_TO_YIQ, tf.float32)
    angle, factor = 2 * math.pi * hue * turn, 1 + saturation * stretch
    cosine, sine = factor * tf.cos(angle), factor * tf.sin(angle)
    change = tf.stack([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])
    matrix = tf.linalg.inv(to_yiq) @ change @ to_yiq
    image = tf.reshape(tf.reshape(image, (-1, 3)) @ tf.transpose(matrix), tf.shape(image))
    return tf.clip_by_value(image, 0, 255), mask
