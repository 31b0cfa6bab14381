"""Augmentations of the image alone: colour, focus, noise and compression.

Like those in `transforms`, they are functions of image, mask and seed; the mask stays as it is.
"""

from __future__ import annotations

import math

import tensorflow as tf

from fcn_keras.data.transforms import PADDING_RGB

RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
RADIUS = 3  # of the blur's kernel, in standard deviations: the rest is 0.3 %


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


def random_grey(image, mask, seed, probability: float):
    """Makes the image grey, with its luma (Rec. 601) in each channel, with a probability."""
    grey = tf.random.stateless_uniform([], seed) < probability
    weights = tf.constant([[weight] * 3 for weight in RGB_TO_YIQ[0]], image.dtype)
    return tf.cond(grey, lambda: tf.tensordot(image, weights, 1), lambda: image), mask


def random_blur(image, mask, seed, largest: float):
    """Blurs with a Gaussian whose standard deviation is up to `largest` pixels.

    Two passes in one dimension each take time proportional to the radius; Keras's
    `gaussian_blur` takes one in two dimensions. Outside is the colour outside of images.
    """
    radius = math.ceil(RADIUS * largest)
    sigma = tf.maximum(tf.random.stateless_uniform([], seed, 0, largest), 1e-3)
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernel = tf.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = tf.tile((kernel / tf.reduce_sum(kernel))[:, None, None, None], (1, 1, 3, 1))
    outside = tf.constant(PADDING_RGB, image.dtype)
    blurred = (image - outside)[None]
    for one in (kernel, tf.transpose(kernel, (1, 0, 2, 3))):
        blurred = tf.nn.depthwise_conv2d(blurred, one, (1, 1, 1, 1), "SAME")
    return blurred[0] + outside, mask


def random_noise(image, mask, seed, largest: float):
    """Adds Gaussian noise with a standard deviation of up to `largest` of 255.

    Each pixel and channel gets its own. The result is clipped to 0..255.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    deviation = 255 * tf.random.stateless_uniform([], seeds[0], 0, largest)
    noise = tf.random.stateless_normal(tf.shape(image), seeds[1], stddev=deviation)
    return tf.clip_by_value(image + noise, 0, 255), mask


def random_jpeg(image, mask, seed, lowest: int):
    """Compresses as a JPEG of a random quality of `lowest` to 100, and decodes it again."""
    quality = tf.random.stateless_uniform([], seed, lowest, 101, tf.int32)
    levels = tf.cast(tf.round(image), tf.uint8)
    return tf.cast(tf.image.adjust_jpeg_quality(levels, quality), tf.float32), mask
