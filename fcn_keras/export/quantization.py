"""Model -> a file that computes in 8-bit integers, calibrated and measured on a data set."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
import tempfile
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from fcn_keras.data import load_split
from fcn_keras.data.split import LabelSet, Split
from fcn_keras.errors import UserError, first_line
from fcn_keras.evaluation.scores import evaluate, require_same_classes
from fcn_keras.export import CALIBRATION_IMAGES, LEAST_IMAGES, MAX_MIOU_DROP
from fcn_keras.export.formats import FORMATS, litert_converter
from fcn_keras.files.images import resized_size
from fcn_keras.inference.conversion import write_onnx
from fcn_keras.inference.runtimes import Network
from fcn_keras.inference.segmenter import Segmenter

CROP = 512  # height and width of a photograph's middle that calibrates, at most


@dataclasses.dataclass
class Int8:
    """How a model is quantised, and what that costs.

    Images of the training split set the ranges of the activations. The mean IoU of the file on
    the validation split is compared with that of the model in float32.

    Args:
        dataset: With the model's classes; as for `load_split`.
        images: Of the training split, evenly spread, to calibrate with.
        max_miou_drop: How much lower the file's mean IoU may be.
        progress: Wraps a sequence to show progress; takes `desc`, what is being done.
        mean_iou: Filled in by `export_file`: that of `"float32"` and of `"int8"`.
    """

    dataset: str
    images: int = CALIBRATION_IMAGES
    max_miou_drop: float = MAX_MIOU_DROP
    progress: Callable = lambda items, desc: items
    mean_iou: dict[str, float] = dataclasses.field(default_factory=dict)

    def splits(self, labels: LabelSet) -> tuple[Split, Split]:
        """The images to calibrate with, and the validation split.

        Raises:
            UserError: If one is missing or too small, or their classes are not the model's.
        """
        train, val = (load_split(self.dataset, name) for name in ("train", "val"))
        require_same_classes(labels, val.labels)
        if len(train) < LEAST_IMAGES:
            raise UserError(
                f"{self.dataset}: its training split has {len(train)} images, but calibration "
                f"needs at least {LEAST_IMAGES}. Choose another data set."
            )
        return train.spread(self.images), val


def write_int8(
    segmenter: Segmenter, model: keras.Model, int8: Int8, format: str, path: Path
) -> dict:
    """Writes a model without its texts, quantised and measured.

    Weights have a scale per channel, activations a scale and a zero point; input and output are
    float32. In LiteRT, all operators are quantised, in ONNX only convolutions. Weights in ONNX use
    7 of the 8 bits, as sums of 8-bit products overflow on x86 processors without VNNI.

    Args:
        segmenter: The model in float32, its labels and its short side.
        model: What the file is to compute, with batch normalisation folded.
        int8: The data, and the permitted loss.
        format: `"onnx"` or `"litert"`.
        path: The file.

    Returns:
        What the file's provenance records.

    Raises:
        UserError: If the data set does not suit, the network cannot be quantised, or the file
            loses too much.
    """
    side = segmenter.short_side or 0
    if side and format == "litert":
        raise UserError(
            f"LiteRT files in int8 cannot resize images, but the model has the short side {side}. "
            "Use --short-side 0 and resize images beforehand, or --format onnx."
        )
    train, val = int8.splits(segmenter.labels)
    try:
        WRITERS[format](model, _calibration(train, side, int8.progress), path)
    except UserError:
        raise
    except Exception as error:  # converters raise all kinds
        raise UserError(
            f"The network cannot be quantised for {format} ({first_line(error)}). Export it "
            "without --int8."
        ) from error
    _measure(segmenter, side, FORMATS[format].load(path), val, int8)
    dataset = os.path.basename(os.path.normpath(int8.dataset))
    calibration = {"dataset": dataset, "split": train.name, "images": len(train)}
    measured = {**int8.mean_iou, "split": val.name, "images": len(val)}
    return {"calibration": calibration, "mean_iou": measured}


def _measure(segmenter: Segmenter, side: int, network: Network, val: Split, int8: Int8) -> None:
    """Fills in `int8.mean_iou`; raises `UserError` if the file's network loses too much."""
    parts, tile = (segmenter.model, segmenter.labels), segmenter.tile
    plain = Segmenter(*parts, tile, short_side=side, runtime="tensorflow")
    # The file resizes by itself, so it needs whole photographs.
    quantized = Segmenter(*parts, sys.maxsize if side else tile, short_side=0)
    quantized._network = network
    for name, segment in (("float32", plain), ("int8", quantized)):
        scores = evaluate(segment, val, functools.partial(int8.progress, desc=name))
        int8.mean_iou[name] = scores.mean_iou
    if not scores.confusion.any():
        raise UserError(f"{int8.dataset}: no pixel of its validation split is labelled.")
    before, after = int8.mean_iou["float32"], int8.mean_iou["int8"]
    if not before - after <= int8.max_miou_drop:
        raise UserError(
            f"Nothing was written: the mean IoU on {int8.dataset} falls from {before:.4f} to "
            f"{after:.4f} in int8, by more than {int8.max_miou_drop:g} (--max-miou-drop). Use more "
            "--calibrate-images, or export without --int8."
        )


def _calibration(split: Split, side: int, progress) -> Iterator[np.ndarray]:
    """Float32 images `(1, H, W, 3)` of one size, which LiteRT needs: middles, mirrored beyond."""
    size = (side, side)
    if not side:
        size = tuple(min(CROP, length) for length in split.read(0)[0].shape[:2])
    for index in progress(range(len(split)), desc="calibration"):
        image, _ = split.read(index)
        if side:
            width, height = resized_size(image.shape[1], image.shape[0], side)
            resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
            image = np.asarray(resized)
        for axis, length in enumerate(size):
            surplus = image.shape[axis] - length
            before = abs(surplus) // 2
            if surplus > 0:
                image = image.take(range(before, before + length), axis)
            elif surplus < 0:
                edges = [(0, 0)] * 3
                edges[axis] = before, -surplus - before
                image = np.pad(image, edges, mode="symmetric")
        yield image[None].astype(np.float32)


def _write_onnx(model: keras.Model, images: Iterable[np.ndarray], path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_static

    feeds = ({"images": image} for image in images)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "model.onnx")
        write_onnx(model, {}, plain)
        quantize_static(
            plain,
            path,
            types.SimpleNamespace(get_next=lambda: next(feeds, None)),
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _write_litert(model: keras.Model, images: Iterable[np.ndarray], path: Path) -> None:
    converter = litert_converter(model)
    converter.representative_dataset = lambda: ({"images": image} for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    path.write_bytes(converter.convert())


WRITERS = {"onnx": _write_onnx, "litert": _write_litert}
