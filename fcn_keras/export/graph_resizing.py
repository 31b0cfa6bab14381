"""Photographs -> the size that the network sees -> masks at theirs, inside a TensorFlow graph.

A server has no Pillow, so the way of `Segmenter` is written a second time here.
"""

from __future__ import annotations

import tensorflow as tf

from fcn_keras.files.images import resized_size

# Whose logits are in memory at once: all of a large photograph's take gigabytes.
MOST_ROWS, MOST_PIXELS = 64, 2**18


def network_size(height, width, short_side: int, longest: int):
    """`resized_size` for int64 tensors."""
    return resized_size(height, width, short_side, longest, tf.minimum, tf.maximum)


def resized(images, short_side: int, longest: int) -> tf.Tensor:
    """Images `(B, H, W, 3)` in float32, as the network sees them: resized like Pillow does."""
    height, width = tf.unstack(tf.shape(images, tf.int64)[1:3])
    rows, columns = network_size(height, width, short_side, longest)
    for size in ((height, columns), (rows, columns)):  # Pillow rounds after each axis
        size = tf.cast(tf.stack(size), tf.int32)
        images = tf.floor(tf.image.resize(images, size, antialias=True) + 0.5)
    return images


def resized_masks(logits, size) -> tf.Tensor:
    """Masks, uint8 `(B, H, W)`, by logits `(B, h, w, C)` that are resized bilinearly."""
    (height, width), rows = tf.unstack(size), tf.shape(logits)[1]
    scale = tf.cast(rows, tf.float32) / tf.cast(height, tf.float32)
    step = tf.clip_by_value(MOST_PIXELS // width, 1, tf.minimum(height, MOST_ROWS))

    def strip(top):
        places = (tf.cast(top + tf.range(step), tf.float32) + 0.5) * scale - 0.5
        places = tf.clip_by_value(places, 0.0, tf.cast(rows - 1, tf.float32))
        above = tf.cast(places, tf.int32)
        share = (places - tf.cast(above, tf.float32))[:, None, None]
        below = tf.gather(logits, tf.minimum(above + 1, rows - 1), axis=1)
        some = tf.gather(logits, above, axis=1) * (1 - share) + below * share
        wide = tf.image.resize(some, (step, width))  # (B, step, W, C)
        return tf.cast(tf.argmax(wide, axis=-1, output_type=tf.int32), tf.uint8)

    strips = tf.map_fn(
        strip,
        tf.range(0, height, step),
        fn_output_signature=tf.TensorSpec([None, None, None], tf.uint8),
        parallel_iterations=1,
    )
    whole = tf.transpose(strips, (1, 0, 2, 3))
    return tf.reshape(whole, (tf.shape(logits)[0], -1, width))[:, :height]
