"""The signatures of an exported model: the requests that it answers."""

from __future__ import annotations

import keras
import tensorflow as tf

from fcn_keras.data.split import LabelSet
from fcn_keras.export.graph_decoding import decode_photograph, photograph_size
from fcn_keras.export.graph_resizing import network_size, resized, resized_masks
from fcn_keras.models.backbones import STRIDES

# Files and queries per request: each file is searched and segmented separately, and each query
# repeats the metadata, so a short request could take hours or gigabytes.
MAX_ROWS = 1024
MAX_REQUEST_PIXELS = 512_000_000  # a file of a few hundred bytes may have millions
STRIDE = max(STRIDES)  # the network rounds sides up: an image of 1×1 takes as much as 32×32
MAX_BATCH_PIXELS = 2**24


def add_signatures(
    archive: keras.export.ExportArchive,
    model: keras.Model,
    labels: LabelSet,
    metadata: str,
    max_side: int,
    max_pixels: int,
    short_side: int = 0,
) -> None:
    """Adds all signatures of a model to an archive.

    | signature | inputs | outputs |
    |---|---|---|
    | `serving_default` | `image_bytes`: string `(B,)`, `B` at most `MAX_ROWS`, JPEG or PNG files of any sizes | `mask_png_bytes`: string `(B,)`, grey PNGs of class ids at the upright photographs' sizes; `class_fractions`: float32 `(B, C)` |
    | `predict_images` | `images`: uint8 `(B, H, W, 3)`, `B` times the sides, rounded up to multiples of 32, at most `MAX_BATCH_PIXELS` | `mask`: uint8 `(B, H, W)` |
    | `predict_float_images` | `images`: float32, otherwise as above, in 0..255 | `mask`: uint8 `(B, H, W)` |
    | `predict_probabilities` | `images`: uint8, as above | `probabilities`: float32 `(B, H, W, C)` |
    | `labels` | none | `names`: string `(C,)`; `palette`: uint8 `(C, 3)` |
    | `about` | `query`: int32 `(B,)`, ignored, `B` at most `MAX_ROWS` | `names`: string `(B, C)`; `palette`: uint8 `(B, C, 3)`; `metadata`: string `(B,)`, JSON |

    TF Serving's REST API refuses signatures without inputs (`json_tensor.cc`), and
    its batching those whose outputs lack one row per input; hence `about`.

    The model's variables are found through the signatures; tracking the model too
    would write them twice.

    Args:
        archive: Where the signatures are added.
        model: Maps RGB images `(B, H, W, 3)` in 0..255 to logits `(B, H, W, C)`.
        labels: Its `C` classes.
        metadata: JSON that `about` returns.
        max_side: Photographs with a longer side are downscaled for the network;
            their masks are upscaled to their size with nearest neighbour.
        max_pixels: Photographs with more pixels are refused.
        short_side: If not 0, all images are resized for the network, the longer side to at
            most `max_side`, and logits back (see `models.short_side`). Batches count as the
            network sees them, too.
    """  # noqa: E501

    def logits_of(images):  # with a short side, at the size that the network sees
        images = resized(images, short_side, max_side) if short_side else images
        return model(tf.cast(images, tf.float32), training=False)

    def mask_of(images):
        if short_side:
            return resized_masks(logits_of(images), tf.shape(images)[1:3])
        return tf.cast(tf.argmax(logits_of(images), axis=-1), tf.uint8)

    def segment_file(index_and_data):
        index, data = index_and_data
        name = tf.strings.join(["image_bytes[", tf.strings.as_string(index), "]"])
        image = decode_photograph(data, name, max_pixels)
        mask = mask_of(image[None])[0] if short_side else _bounded(mask_of, image, max_side)
        counts = tf.math.bincount(tf.cast(mask, tf.int32), minlength=len(labels))
        fractions = tf.cast(counts / tf.size(mask), tf.float32)
        return tf.io.encode_png(mask[..., None]), fractions

    def segment_files(image_bytes):
        image_bytes = _limited(
            image_bytes, tf.size(image_bytes), MAX_ROWS, "image_bytes has", "files"
        )
        sizes = tf.map_fn(photograph_size, image_bytes, fn_output_signature=two_numbers)
        # A file that is too large by itself is refused with its number.
        each = tf.minimum(tf.reduce_prod(tf.cast(sizes, tf.float64), axis=1), max_pixels)
        if short_side:
            seen = network_size(*tf.unstack(tf.maximum(sizes, 1), axis=1), short_side, max_side)
            each = tf.maximum(each, tf.cast(seen[0] * seen[1], tf.float64))
        pixels = tf.cast(tf.reduce_sum(each), tf.int64)
        image_bytes = _limited(image_bytes, pixels, pixel_limit, "image_bytes have", "pixels")
        masks, fractions = tf.map_fn(
            segment_file,
            (tf.range(tf.size(image_bytes)), image_bytes),
            fn_output_signature=(
                tf.TensorSpec([], tf.string),
                tf.TensorSpec([len(labels)], tf.float32),
            ),
            parallel_iterations=1,  # one image in memory; the network uses all cores
        )
        return {"mask_png_bytes": masks, "class_fractions": fractions}

    def predict_images(images):
        return {"mask": mask_of(few(images))}

    def predict_probabilities(images):
        logits = logits_of(few(images))
        if short_side:
            logits = tf.image.resize(logits, tf.shape(images)[1:3])
        return {"probabilities": tf.nn.softmax(logits)}

    def few(images):
        """The images, if the network has the memory for them."""
        count, *sides = tf.unstack(tf.shape(images, tf.int64)[:3])
        pixels = count * _padded(*sides)
        if short_side:
            seen = network_size(*sides, short_side, max_side)
            pixels = tf.maximum(pixels, count * _padded(*seen))
        what = f"pixels with their sides rounded up to multiples of {STRIDE}"
        what += f" and images resized to {short_side}" if short_side else ""
        return _limited(images, pixels, MAX_BATCH_PIXELS, "images have", what)

    def label_set():
        palette = tf.constant(labels.palette, tf.uint8)
        return {"names": tf.constant(labels.names), "palette": palette}

    def about(query):
        query = _limited(query, tf.size(query), MAX_ROWS, "query has", "numbers")
        answer = {**label_set(), "metadata": tf.constant(metadata)}
        return {name: tf.repeat(value[None], tf.size(query), 0) for name, value in answer.items()}

    two_numbers = tf.TensorSpec([2], tf.int64)
    pixel_limit = max(MAX_REQUEST_PIXELS, max_pixels)
    files = tf.TensorSpec([None], tf.string, name="image_bytes")
    images = tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")
    floats = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
    archive.add_endpoint("serving_default", segment_files, [files])
    archive.add_endpoint("predict_images", predict_images, [images])
    archive.add_endpoint("predict_float_images", predict_images, [floats])
    archive.add_endpoint("predict_probabilities", predict_probabilities, [images])
    archive.add_endpoint("labels", label_set, [])
    archive.add_endpoint("about", about, [tf.TensorSpec([None], tf.int32, name="query")])


def _padded(height, width):
    """The pixels of an image whose sides are rounded up as by the network."""
    return (-(-height // STRIDE) * STRIDE) * (-(-width // STRIDE) * STRIDE)


def _limited(tensor, count, most: int, owner: str, what: str):
    """The tensor, or an error where there is more of something than `most`."""
    start, end = f"{owner} ", f" {what}; at most {most} in one request are accepted."
    message = tf.strings.join([start, tf.strings.as_string(count), end])
    with tf.control_dependencies([tf.debugging.Assert(count <= most, [message])]):
        return tf.identity(tensor)


def _bounded(mask_of, image, max_side: int):
    """The mask `(H, W)` of an image `(H, W, 3)`, predicted no larger than `max_side`."""
    size = tf.shape(image)[:2]
    longest = tf.reduce_max(size)

    def whole():
        return mask_of(image[None])[0]

    def reduced():
        ratio = max_side / tf.cast(longest, tf.float64)
        sides = tf.cast(tf.round(tf.cast(size, tf.float64) * ratio), tf.int32)
        smaller = tf.image.resize(image, tf.maximum(sides, 1), antialias=True)
        mask = mask_of(smaller[None])[0]
        return tf.image.resize(mask[..., None], size, method="nearest")[..., 0]

    return tf.cond(longest > max_side, reduced, whole)
