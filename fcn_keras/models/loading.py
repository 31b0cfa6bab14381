"""Saved models -> models in memory, with errors that name the file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import keras

from fcn_keras.errors import UserError

LABELS_FILE = "labels.json"  # in .keras files that were exported


def load_model(path) -> keras.Model:
    """Loads a `.keras` file for inference.

    Raises:
        UserError: If it is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such model. Give a run's folder or a .keras file.")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise UserError(
            f"{path}: no .keras model, or a damaged one (not a zip archive). Give another."
        )
    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # of zipfile, h5py, json and Keras
        raise UserError(
            f"{path}: no .keras model, or a damaged one ({_reason(error)}). Give another."
        ) from error


def restore(model: keras.Model, path) -> None:
    """Gives a compiled model the weights and optimizer state of a `.keras` file.

    Raises:
        UserError: If the file is damaged or another model's.
    """
    try:
        model.load_weights(path)
    except Exception as error:  # of zipfile, h5py, json and Keras
        raise UserError(
            f"{path}: damaged, or of other settings than config.json ({_reason(error)}). The run "
            f"cannot go on; start a new one with --init-from {Path(path).parent}."
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
