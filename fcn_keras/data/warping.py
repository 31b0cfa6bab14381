"""Rotation, shear and elastic distortion, which resample the pixels of a crop once.

All are one map from the pixels of the crop to places in the image, float32 `(2, height, width)`
with rows first. Keras has layers for each of them, but they keep the size of the image, so they
transform all of it, and fill with one value for all channels. `map_coordinates` of `keras.ops`
takes one channel at a time and twice as long.
"""

from __future__ import annotations

import math

import tensorflow as tf

from fcn_keras.data.split import IGNORE_ID
from fcn_keras.data.transforms import PADDING_RGB

# Least distance of the nodes of an elastic distortion, in pixels and in displacements. With
# less, neighbouring pixels would change places.
LEAST_SPACING, LEAST_DISPLACEMENTS = 32, 4


def random_affine(seed, rotation: float, shear: float):
    """A rotation after a shear along the rows, by up to so many degrees to either side.

    Returns:
        float32 `(2, 2)`, which maps rows and columns of the result to those of the image.
    """
    turn, slant = tf.unstack(tf.random.stateless_uniform([2], seed, -1, 1) * math.pi / 180)
    turn, slant = turn * rotation, tf.tan(slant * shear)
    cosine, sine = tf.cos(turn), tf.sin(turn)
    return tf.stack([[cosine, -sine], [sine, cosine]]) @ tf.stack([[1.0, 0.0], [slant, 1.0]])


def random_displacement(seed, height: int, width: int, largest: float):
    """A smooth field of displacements of up to `largest` pixels along each axis.

    Simard et al. (2003, section 2) smooth the random displacements of all pixels; here they are
    drawn for the nodes of a coarse grid and interpolated with cubic polynomials, as
    Ronneberger et al. do (2015, section 3.1), which costs less.

    Returns:
        float32 `(2, height, width)`.
    """
    if not largest:
        return tf.zeros((2, height, width))
    spacing = max(LEAST_SPACING, LEAST_DISPLACEMENTS * largest)
    nodes = [max(2, int(size // spacing)) for size in (height, width)]
    coarse = tf.random.stateless_uniform([2, *nodes, 1], seed, -largest, largest)
    field = tf.image.resize(coarse, (height, width), "bicubic")[..., 0]
    return tf.clip_by_value(field, -largest, largest)  # cubic polynomials overshoot


def places_of(mask, start, matrix, displacement):
    """Where in the image the pixels of a crop come from.

    Args:
        mask: The image's, `(H, W)`.
        start: The top left pixel of the window that is transformed about its centre, or about
            that of the image if this is smaller; int32 `(2,)`.
        matrix: Of `random_affine`.
        displacement: Of `random_displacement`, of the crop's size.
    """
    height, width = displacement.shape[1:]
    pixels = tf.stack(tf.meshgrid(tf.range(height), tf.range(width), indexing="ij"))
    center = tf.cast(tf.minimum([height, width], tf.shape(mask)) - 1, tf.float32)[:, None] / 2
    offsets = matrix @ (tf.reshape(tf.cast(pixels, tf.float32), (2, -1)) - center)
    places = offsets + center + tf.cast(start, tf.float32)[:, None]
    return tf.reshape(places, (2, height, width)) + displacement


def moved_to(places, pixel):
    """Moves all places so that the closest to a pixel, int32 `(2,)`, is that pixel.

    If the pixel is negative, nothing moves.
    """
    pixel = tf.cast(pixel, tf.float32)[:, None, None]
    distances = tf.reduce_sum((places - pixel) ** 2, axis=0)
    closest = tf.argmin(tf.reshape(distances, [-1]))
    closest = tf.gather(tf.reshape(places, (2, -1)), closest, axis=1)[:, None, None]
    return places + tf.where(pixel < 0, 0.0, pixel - closest)


def sample(image, mask, places):
    """The image at some places, interpolated bilinearly, and the mask's nearest pixels.

    Returns:
        float32 `(height, width, 3)` and `(height, width)`, 255 outside the image.
    """
    image, mask, places = _surroundings(image, mask, places)
    columns = tf.shape(mask)[1]
    last = tf.cast(tf.shape(mask), tf.float32)[:, None, None] - 1
    places = tf.clip_by_value(places, 0, last)
    corners = tf.minimum(tf.floor(places), last - 1)
    down, right = tf.unstack(places - corners)
    row, column = tf.unstack(tf.cast(corners, tf.int32))
    index, colors = row * columns + column, tf.reshape(image, (-1, 3))
    four = [tf.gather(colors, index + step) for step in (0, 1, columns, columns + 1)]
    right, down = _three(right), _three(down)
    upper, lower = four[0] + right * (four[1] - four[0]), four[2] + right * (four[3] - four[2])
    row, column = tf.unstack(tf.cast(tf.floor(places + 0.5), tf.int32))
    nearest = tf.gather(tf.reshape(mask, [-1]), row * columns + column)
    return upper + down * (lower - upper), nearest


def _surroundings(image, mask, places):
    """The part of the image that has the places, in a frame of pixels that are outside."""
    size = tf.shape(mask)
    first = tf.cast(tf.floor(tf.reduce_min(places, (1, 2))), tf.int32)
    last = tf.cast(tf.floor(tf.reduce_max(places, (1, 2))), tf.int32) + 2
    (top, left), (bottom, right) = (
        tf.unstack(tf.clip_by_value(first, 0, size - 1)),
        tf.unstack(tf.clip_by_value(last, 1, size)),
    )
    outside = tf.constant(PADDING_RGB, tf.float32)
    image = tf.cast(image[top:bottom, left:right], tf.float32) - outside
    image = tf.pad(image, [[1, 1], [1, 1], [0, 0]]) + outside
    mask = tf.pad(mask[top:bottom, left:right], [[1, 1], [1, 1]], constant_values=IGNORE_ID)
    return image, mask, places - tf.cast(tf.stack([top, left]) - 1, tf.float32)[:, None, None]


def _three(weights):
    """The weights of pixels for three channels: `(h, w)` -> `(h, w, 3)`."""
    # A product, as TensorFlow broadcasts along the last axis at half the speed on CPUs.
    spread = tf.reshape(weights, (-1, 1)) @ tf.ones((1, 3))
    return tf.reshape(spread, (*weights.shape, 3))
