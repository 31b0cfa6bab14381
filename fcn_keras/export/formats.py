"""The formats that a model is exported to: how its file is written and run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fcn_keras.inference.conversion import with_constants, write_onnx
from fcn_keras.inference.loading import LABELS_FILE, add_members, load_model
from fcn_keras.models.graph import copied


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        precision: That of its weights, a key of `agreement.TOLERANCES`.
        write: Takes a model, texts by name and the file's path.
        run: Takes the path and float32 images `(B, H, W, 3)`; returns logits.
    """

    precision: str
    write: Callable[[keras.Model, dict[str, str], Path], None]
    run: Callable[[Path, np.ndarray], np.ndarray]


def _run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def _write_litert(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    module = tf.Module()  # without one, the file has no signature
    module.function = with_constants(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.function.get_concrete_function()], module
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    names = json.loads(texts[LABELS_FILE])["names"]
    # A flatbuffer is read from its start, a zip archive from its end; TensorFlow Lite's metadata
    # convention stores associated files in the same way.
    add_members(path, {**texts, "labels.txt": "".join(f"{name}\n" for name in names)})


def _run_litert(path: Path, images: np.ndarray) -> np.ndarray:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path)).get_signature_runner()(images=images)["logits"]


def _write_keras(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    (copied(model) if model.compiled else model).save(path)
    add_members(path, texts)


def _run_keras(path: Path, images: np.ndarray) -> np.ndarray:
    return logits_of(load_model(path), images)


def logits_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """A model's logits of float32 images, on the CPU."""
    with tf.device("CPU"):  # GPUs round the factors of products
        return model(images, training=False).numpy()


FORMATS = {
    "onnx": Format("float32", write_onnx, _run_onnx),
    "litert": Format("float16 weights", _write_litert, _run_litert),
    "keras": Format("float32", _write_keras, _run_keras),
}
