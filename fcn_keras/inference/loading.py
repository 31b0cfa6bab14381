"""Saved models -> models in memory, with errors that name the file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import keras

from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError, first_line
from fcn_keras.files.reading import build, damage_as_user_errors, parse_json
from fcn_keras.models.untrusted import check_model_file
from fcn_keras.runs.folder import LABELS_FILE, RunFolder, model_file


def load_model(run_or_file) -> keras.Model:
    """Loads a run's best model or a `.keras` file, without running code stored in it.

    Raises:
        UserError: If it is missing, damaged, no model, or holds what a network does
            not need (`untrusted.check_model_file`).
    """
    path = model_file(run_or_file)
    try:
        check_model_file(path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except UserError:
        raise
    except Exception as error:  # of zipfile, h5py, json and Keras
        raise UserError(
            f"{path}: not a .keras model, or a damaged one ({first_line(error)}). Choose another "
            "file."
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
    """The classes of a `.keras` file: its own, or those of the run whose folder it is in.

    Raises:
        UserError: If they are damaged, or there are not `classes` of them.
    """
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
