"""Model -> versioned SavedModel: photograph bytes in, mask bytes out."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fcn_keras.datasets.base import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.graph_decoding import decode_photograph
from fcn_keras.prediction import Segmenter

MAX_SIDE = 2048
MAX_PIXELS = 64_000_000


def add_endpoints(archive, model, labels: LabelSet, metadata: str, max_side, max_pixels) -> None:
    def logits_of(images):
        return model(tf.cast(images, tf.float32), training=False)

    def mask_of(images):
        return tf.cast(tf.argmax(logits_of(images), axis=-1), tf.uint8)

    def segment_file(index_and_data):
        index, data = index_and_data
        name = tf.strings.join(["image_bytes[", tf.strings.as_string(index), "]"])
        image = decode_photograph(data, name, max_pixels)
        size = tf.shape(image)[:2]
        longest = tf.reduce_max(size)

        def direct():
            return mask_of(image[None])[0]

        def reduced():
            small = tf.cast(
                tf.round(tf.cast(size, tf.float64) * max_side / tf.cast(longest, tf.float64)),
                tf.int32,
            )
            smaller = tf.image.resize(image, tf.maximum(small, 1), antialias=True)
            mask = mask_of(smaller[None])[0]
            return tf.image.resize(mask[..., None], size, method="nearest")[..., 0]

        mask = tf.cond(longest > max_side, reduced, direct)
        counts = tf.math.bincount(tf.cast(mask, tf.int32), minlength=len(labels))
        fractions = counts / tf.size(mask)
        return tf.io.encode_png(mask[..., None]), tf.cast(fractions, tf.float32)

    def segment_files(image_bytes):
        indices = tf.range(tf.size(image_bytes))
        masks, fractions = tf.map_fn(
            segment_file,
            (indices, image_bytes),
            fn_output_signature=(
                tf.TensorSpec([], tf.string),
                tf.TensorSpec([len(labels)], tf.float32),
            ),
            parallel_iterations=1,
        )
        return {"mask_png_bytes": masks, "class_fractions": fractions}

    def images_spec(dtype):
        return [tf.TensorSpec([None, None, None, 3], dtype, name="images")]

    archive.track(model)
    archive.add_endpoint(
        "serving_default", segment_files, [tf.TensorSpec([None], tf.string, name="image_bytes")]
    )
    archive.add_endpoint(
        "predict_images", lambda images: {"mask": mask_of(images)}, images_spec(tf.uint8)
    )
    archive.add_endpoint(
        "predict_float_images", lambda images: {"mask": mask_of(images)}, images_spec(tf.float32)
    )
    archive.add_endpoint(
        "predict_probabilities",
        lambda images: {"probabilities": tf.nn.softmax(logits_of(images))},
        images_spec(tf.uint8),
    )
    archive.add_endpoint(
        "labels",
        lambda: {"names": tf.constant(labels.names), "palette": tf.constant(labels.palette, tf.uint8)},
        [],
    )
    archive.add_endpoint("metadata", lambda: {"json": tf.constant(metadata)}, [])
