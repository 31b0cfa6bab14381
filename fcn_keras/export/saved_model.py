"""Model -> versioned SavedModel for TF Serving: photograph files in, mask files out."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from fcn_keras.data.decoding import decode_image
from fcn_keras.data.sample.scenes import draw_scene
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError, reason_of
from fcn_keras.export import MAX_PIXELS, MAX_SIDE, require_limits
from fcn_keras.export.signatures import add_signatures
from fcn_keras.files.images import encode_image, resized_size
from fcn_keras.files.writing import PARTIAL, partial_folder
from fcn_keras.inference.agreement import deviation
from fcn_keras.inference.conversion import fast_copy, in_float32
from fcn_keras.inference.segmenter import Segmenter

ABANDONED_SECONDS = 3600


def export_saved_model(
    segmenter: Segmenter,
    directory,
    metadata: dict | None = None,
    *,
    max_side: int = MAX_SIDE,
    max_pixels: int = MAX_PIXELS,
) -> Path:
    """Writes a model as `<directory>/<version>/`, which TF Serving loads.

    The model computes in float32, whatever it was trained in. The version is the
    next free number. The folder gets that name once it is complete and its model has
    agreed with `Segmenter.load`'s, so that a server that watches the directory
    sees a whole model or none. The folder contains:

    - the signatures of `export.signatures.add_signatures`
    - `assets/labels.json`: class names, palette and ignore id
    - `assets.extra/tf_serving_warmup_requests`: a request for each signature
    - `assets.extra/metadata.json`: the metadata that `about` returns

    Args:
        segmenter: The model, its labels and its short side. Its options for tiles, scales
            and flipping are not part of the export.
        directory: The folder of all versions of this model; created if missing.
        metadata: What else `about` returns, such as `runs.folder.provenance`.
        max_side: Photographs with a longer side, after they were resized to the short side,
            are downscaled for the network, which bounds its memory; their masks have the
            photographs' size.
        max_pixels: Photographs with more pixels are refused.

    Returns:
        The version's folder.

    Raises:
        UserError: If a limit is not positive or the folder cannot be written.
    """
    require_limits(max_side, max_pixels)
    directory, short_side = Path(directory), segmenter.short_side or 0
    metadata = {
        "model": segmenter.keras_model.name,
        "classes": len(segmenter.labels),
        "max_side": max_side,
        "max_pixels": max_pixels,
        **({"short_side": short_side} if short_side else {}),
        "exported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **(metadata or {}),
    }
    try:
        _remove_abandoned(directory)
        with partial_folder(directory) as partial:
            model = fast_copy(in_float32(segmenter.model))  # what `Segmenter.load` runs
            limits = max_side, max_pixels, short_side
            _write(model, segmenter.labels, partial, json.dumps(metadata), *limits)
            _verify(model, partial, max_side, short_side)
            return _publish(partial, directory)
    except (OSError, tf.errors.OpError) as error:
        raise UserError(
            f"{directory}: the model cannot be written there ({reason_of(error)}). Choose another "
            "--output."
        ) from error


def _write(model: keras.Model, labels: LabelSet, folder: Path, metadata: str, *limits: int) -> None:
    archive = keras.export.ExportArchive()
    add_signatures(archive, model, labels, metadata, *limits)
    archive.write_out(str(folder), verbose=False)
    labels_text = json.dumps(dataclasses.asdict(labels), indent=2)
    extra = folder / "assets.extra"
    extra.mkdir()
    (folder / "assets" / "labels.json").write_text(labels_text + "\n")
    (extra / "metadata.json").write_text(metadata + "\n")
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for request in _warmup_requests():
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())


def _warmup_requests() -> list[predict_pb2.PredictRequest]:
    """A synthetic photograph for each signature, as a client would send it."""
    image, _ = draw_scene(np.random.default_rng(0))
    jpeg, batch = encode_image(Image.fromarray(image), "JPEG"), image[None]
    inputs = {
        "serving_default": {"image_bytes": np.array([jpeg], object)},
        "predict_images": {"images": batch},
        "predict_float_images": {"images": batch.astype(np.float32)},
        "predict_probabilities": {"images": batch},
        "labels": {},
        "about": {"query": np.zeros(1, np.int32)},
    }
    requests = []
    for signature, tensors in inputs.items():
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "fcn"
        request.model_spec.signature_name = signature
        for name, value in tensors.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        requests.append(request)
    return requests


def _verify(model: keras.Model, folder: Path, max_side: int, short_side: int = 0) -> None:
    """Loads the folder and compares a photograph's mask with the model's."""
    image, _ = draw_scene(np.random.default_rng(1))
    data = encode_image(Image.fromarray(image), "JPEG")
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answer = signature(image_bytes=tf.constant([data]))["mask_png_bytes"][0].numpy()
    mask = np.asarray(Image.open(io.BytesIO(answer)))
    height, width = image.shape[:2]
    size = resized_size(height, width, short_side) if short_side else (height, width)
    if max(size) > max_side:
        return  # the exported model downscales it
    photo = Image.fromarray(decode_image(data, ""))
    if short_side:
        photo = photo.resize(size[::-1], Image.Resampling.BILINEAR)
    expected = model.predict_on_batch(np.asarray(photo, np.float32)[None])
    if short_side:
        expected = tf.image.resize(expected, (height, width)).numpy()
    found = deviation("resized" if short_side else "float32", mask[None], expected)
    if found:
        raise UserError(
            f"{folder.parent.parent}: not written, as the exported model deviates from the model: "
            f"{found}. Try other versions of tensorflow and keras."
        )


def _publish(partial: Path, directory: Path) -> Path:
    versions = [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]
    version = max(versions, default=0) + 1
    while True:
        folder = directory / str(version)
        try:
            os.rename(partial, folder)
            return folder
        except OSError:
            if not folder.exists():  # otherwise another export has just taken the number
                raise
            version += 1


def _remove_abandoned(directory: Path) -> None:
    """Removes what killed exports left behind."""
    for path in directory.glob(PARTIAL + "*"):
        if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
