"""Saved models -> models in memory, with errors that name the file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import keras

from fcn_keras.data.split import LabelSet
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.errors import UserError, few, first_line, printable
from fcn_keras.files.published import SUFFIXES, alone, is_cached, published_file
from fcn_keras.files.reading import build, damage_as_user_errors, parse_json
from fcn_keras.files.writing import atomic_path
from fcn_keras.models.fcn import without_auxiliary_head
from fcn_keras.models.pretrained import load_torch_fcn
from fcn_keras.models.untrusted import check_model_file
from fcn_keras.runs.folder import LABELS_FILE, RunFolder, model_file, replacement


def load_model(run_or_file, auxiliary_head: bool = False) -> keras.Model:
    """Loads a model, without running code stored in its file.

    Args:
        run_or_file: A run's folder, a `.keras` file, a `.pth` file with an FCN of torchvision, or
            the name of a published one, such as `"torchvision/fcn_resnet50"`, which is downloaded
            when it is first needed.
        auxiliary_head: Whether a dilated FCN keeps its auxiliary head, if it has one.

    Raises:
        UserError: If it is missing, damaged, no model, cannot be downloaded, or holds what a
            network does not need (`untrusted.check_model_file`).
    """
    path = model_file(run_or_file)
    if path.suffix not in SUFFIXES:
        model = _load_keras(path)
    elif is_cached(path) and published_file(path):
        model = _convert(path)
    else:
        model = load_torch_fcn(path)
    return model if auxiliary_head else without_auxiliary_head(model)


def _convert(path: Path) -> keras.Model:
    """The FCN in a `.pth` file of the cache, which a `.keras` file replaces if it is writable."""
    converted = path.with_suffix(".keras")
    with alone(path.parent):
        if converted.is_file():
            return _load_keras(converted)
        model = load_torch_fcn(path)
        with contextlib.suppress(OSError):
            with atomic_path(converted, durable=True) as partial:
                model.save(partial)
                add_members(partial, {LABELS_FILE: json.dumps(dataclasses.asdict(VOC_LABELS))})
            path.unlink()
    return model


def add_members(path: Path, texts: dict[str, str]) -> None:
    """Adds texts by file name to an archive, or to a file that need not be one."""
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in texts.items():
            archive.writestr(name, text)


def _load_keras(path: Path) -> keras.Model:
    try:
        check_model_file(path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except UserError:
        raise
    except Exception as error:  # of zipfile, h5py, json and Keras
        raise UserError(
            f"{path}: not a .keras model, or a damaged one ({first_line(error)}). "
            f"{replacement(path)}"
        ) from error


def restore(model: keras.Model, path) -> None:
    """Restores a compiled model's weights and optimizer state from a `.keras` file.

    Raises:
        UserError: If the file is damaged or another model's, or as for `load_model`.
    """
    try:
        check_model_file(path)
        model.load_weights(path)
    except UserError:
        raise
    except Exception as error:  # of zipfile, h5py, json and Keras
        raise UserError(
            f"{path}: damaged, or saved with settings other than config.json's "
            f"({first_line(error)}). Start a new run with --init-from {Path(path).parent}."
        ) from error


def read_labels(path: Path, classes: int) -> LabelSet | None:
    """The classes of a model file: its own, or those of the run whose folder it is in.

    A `.pth` file does not name its classes. Those of published ones are VOC's; 21 of another file
    are taken to be VOC's, and a note says so.

    Raises:
        UserError: If they are damaged, or there are not `classes` of them.
    """
    if path.suffix in SUFFIXES:
        if classes != len(VOC_LABELS):
            return None
        if not published_file(path):
            print(
                f"Note: {printable(str(path))} does not name its classes; they are taken to be "
                f"VOC's ({few(VOC_LABELS.names)}).",
                file=sys.stderr,
            )
        return VOC_LABELS
    run = RunFolder(path.parent)
    labels, place = _labels_within(path), f"its {LABELS_FILE}"
    if labels is None and run.config.is_file():
        labels, place = run.read_labels(), "the config.json beside it"
    if labels and len(labels) != classes:
        raise UserError(f"{path}: it has {classes} classes, but {place} has {len(labels)}.")
    return labels


def _labels_within(path: Path) -> LabelSet | None:
    with zipfile.ZipFile(path) as archive:
        if LABELS_FILE not in archive.namelist():
            return None
        with damage_as_user_errors(f"{path}: its {LABELS_FILE} is damaged", "Choose another file."):
            return build(LabelSet, parse_json(archive.read(LABELS_FILE)))


def require_network(model: keras.Model, path: Path) -> None:
    """Raises `UserError` for a model that does not map images to logits."""
    shapes: list[Any] = [getattr(model, name, None) for name in ("input_shape", "output_shape")]
    maps = all(isinstance(shape, tuple) and len(shape) == 4 for shape in shapes)
    if not maps or shapes[0][-1] != 3 or not shapes[1][-1]:
        raise UserError(
            f"{path}: a model must map images (B, H, W, 3) to logits (B, H, W, C). Received: one "
            f"that maps {shapes[0]} to {shapes[1]}."
        )
