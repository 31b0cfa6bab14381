"""Saved models -> models in memory, with errors that name the file."""

from __future__ import annotations

from pathlib import Path

import keras

from fcn_keras.errors import UserError, first_line
from fcn_keras.models.untrusted import check_model_file
from fcn_keras.runs.folder import model_file

LABELS_FILE = "labels.json"  # in .keras files that were exported


def load_model(run_or_file) -> keras.Model:
    """Loads a run's best model or a `.keras` file, without running code that it brings along.

    Raises:
        UserError: If it is missing, damaged, of another kind, or holds what a network
            does not need (`untrusted.check_model_file`).
    """
    path = model_file(run_or_file)
    try:
        check_model_file(path)
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except UserError:
        raise
    except Exception as error:  # of zipfile, h5py, json and Keras
        raise UserError(
            f"{path}: no .keras model, or a damaged one ({first_line(error)}). Give another."
        ) from error


def restore(model: keras.Model, path) -> None:
    """Gives a compiled model the weights and optimizer state of a `.keras` file.

    Raises:
        UserError: If the file is damaged, another model's, or as `load_model`.
    """
    try:
        check_model_file(path)
        model.load_weights(path)
    except UserError:
        raise
    except Exception as error:  # of zipfile, h5py, json and Keras
        raise UserError(
            f"{path}: damaged, or of other settings than config.json ({first_line(error)}). The "
            f"run cannot go on; start a new one with --init-from {Path(path).parent}."
        ) from error
