"""The formats that a model is exported to: how its file is written and run."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from fcn_keras.inference.conversion import set_texts, with_constants, write_onnx
from fcn_keras.inference.loading import LABELS_FILE, add_members, load_model
from fcn_keras.inference.runtimes import Network, onnx_network
from fcn_keras.models.graph import copied


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        precision: That of its weights, a key of `agreement.TOLERANCES`.
        write: Takes a model, texts by name and the file's path.
        load: Takes the path; returns a function from float32 images `(B, H, W, 3)` to logits.
        add_texts: Takes the path and texts by name, which it adds to the file.
    """

    precision: str
    write: Callable[[keras.Model, dict[str, str], Path], None]
    load: Callable[[Path], Network]
    add_texts: Callable[[Path, dict[str, str]], None]


def _add_onnx_texts(path: Path, texts: dict[str, str]) -> None:
    import onnx

    model = onnx.load(path)
    set_texts(model, texts)
    onnx.save(model, path)


def litert_converter(model: keras.Model):
    """A converter that may change the weights' precision."""
    module = tf.Module()  # without one, the file has no signature
    module.function = with_constants(model)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.function.get_concrete_function()], module
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter


def _write_litert(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    converter = litert_converter(model)
    converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    _add_litert_texts(path, texts)


def _add_litert_texts(path: Path, texts: dict[str, str]) -> None:
    names = json.loads(texts[LABELS_FILE])["names"]
    # A flatbuffer is read from its start, a zip archive from its end; TensorFlow Lite's metadata
    # convention stores associated files in the same way.
    add_members(path, {**texts, "labels.txt": "".join(f"{name}\n" for name in names)})


def _load_litert(path: Path) -> Network:
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(path), num_threads=os.cpu_count()).get_signature_runner()
    return lambda images: run(images=images)["logits"]


def _write_keras(model: keras.Model, texts: dict[str, str], path: Path) -> None:
    (copied(model) if model.compiled else model).save(path)
    add_members(path, texts)


def _load_keras(path: Path) -> Network:
    return functools.partial(logits_of, load_model(path))


def logits_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """A model's logits of float32 images, on the CPU."""
    with tf.device("CPU"):  # GPUs round the factors of products
        return model(images, training=False).numpy()


FORMATS = {
    "onnx": Format("float32", write_onnx, onnx_network, _add_onnx_texts),
    "litert": Format("float16 weights", _write_litert, _load_litert, _add_litert_texts),
    "keras": Format("float32", _write_keras, _load_keras, add_members),
}
