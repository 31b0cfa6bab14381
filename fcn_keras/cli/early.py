"""Mistakes that can be found before TensorFlow is imported, which takes seconds.

Most are found by the same functions that would find them later. Those need NumPy at most,
and not even that if the command does without.
"""

from __future__ import annotations

import errno
import glob
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path

from fcn_keras.errors import UserError
from fcn_keras.files import storage
from fcn_keras.files.finding import NO_IMAGES, found_images
from fcn_keras.files.published import SUFFIXES, fetched, published, require_flags, require_kind

# Where KerasHub lists its presets, and the URL schemes of other presets.
PRESETS = Path("src", "models", "resnet", "resnet_presets.py")
SCHEMES = ("hf", "kaggle", "modelscope", "gs")


def check_inputs(paths: Iterable[str], output) -> None:
    """Raises `UserError` if no image, folder or pattern exists, or none leads to an image."""
    paths = list(paths)
    if any(map(storage.is_address, paths)):
        return  # looking there takes seconds, too
    if not any(os.path.lexists(path) or glob.glob(path) for path in paths):
        more = f" None of the {len(paths)} paths exists." if len(paths) > 1 else ""
        raise UserError(f"{paths[0]}: no such file or folder.{more}")
    if not any(found_images(paths, output)):
        raise UserError(f"{paths[0]}: {NO_IMAGES}")


def check_place(path, folder: bool = False) -> None:
    """Raises `UserError` if no file, or no folder, can be created at this path."""
    if storage.is_address(path):
        return
    place = Path(path).absolute()
    code = 0
    if not folder and place.is_dir():
        code = errno.EISDIR
    else:
        place = place if folder else place.parent
        place = next(each for each in (place, *place.parents) if os.path.lexists(each))
        if not place.is_dir():
            code = errno.ENOTDIR
        elif not os.access(place, os.W_OK | os.X_OK):
            code = errno.EACCES
    if code:
        raise UserError(f"{path}: cannot be written ({os.strerror(code)}). Choose another path.")


def check_local_place(path, folder: bool = False) -> None:
    """`check_place` for a command that cannot write to an object store."""
    if storage.is_address(path):
        raise UserError(
            f"{path}: only predict --output, evaluate --json and --confusion, report --output and "
            "request --fractions can write to addresses. Give a local path."
        )
    check_place(path, folder)


def check_model(arguments, max_pixels: int | None = None) -> None:
    """Checks the flags of `add_model_flags` and, if present, `add_runtime_flags`."""
    from fcn_keras.files.images import MAX_PIXELS
    from fcn_keras.files.onnx_files import is_onnx
    from fcn_keras.inference.options import default_runtime, require_options, require_runtime
    from fcn_keras.inference.tiling import OVERLAP, TILE
    from fcn_keras.runs.folder import require_model

    tile = TILE if arguments.tile is None else arguments.tile
    overlap = OVERLAP if arguments.overlap is None else arguments.overlap
    pixels = MAX_PIXELS if max_pixels is None else max_pixels
    if pixels < 1:
        raise UserError(f"--max-pixels must be at least 1. Received: {pixels}.")
    require_options(
        *(tile, arguments.blend, overlap, tuple(arguments.scales), pixels),
        *(arguments.short_side, getattr(arguments, "min_confidence", 0.0)),
    )
    onnx = is_onnx(arguments.model)
    runtime = getattr(arguments, "runtime", None) or default_runtime(onnx)
    require_runtime(runtime, getattr(arguments, "precision", None), load=False, onnx_file=onnx)
    require_model(arguments.model, onnx=True)


def require_limit(limit: int | None) -> None:
    if limit is not None and limit < 1:
        raise UserError(f"--limit must be at least 1. Received: {limit}.")


def check_data(arguments) -> None:
    """Checks `--dataset` and the flags of `add_split_flags`."""
    from fcn_keras.data import labels_of

    require_limit(arguments.limit)
    labels_of(arguments.dataset, arguments.split or "val", arguments.data_dir)


def check_run_dir(run_dir: str | None) -> None:
    """Checks where a new run will be written."""
    from fcn_keras.runs.folder import require_free
    from fcn_keras.training.cluster import Cluster

    if storage.is_address(run_dir) or not Cluster.from_environment():
        # With several workers, the chief checks the rest once all have met.
        check_local_place(run_dir or "runs", folder=True)
        require_free(run_dir)


def check_training(config) -> None:
    """Checks the settings of a new run, or of a search's runs."""
    from fcn_keras.data import labels_of
    from fcn_keras.runs.config import require_class_weights
    from fcn_keras.runs.folder import require_model

    for part in ("train", "val"):
        labels = labels_of(config.dataset, part, config.data_dir)
    require_class_weights(config, len(labels))
    # Last, as they may be downloaded.
    if config.init_from:
        if published(config.init_from):
            known = require_kind(config.init_from, is_fcn=True)
            require_flags(config.init_from, known.backbone, config.backbone, config.dilated)
        require_model(config.init_from)
    _check_weights(config)


def check_resumed(run_dir, changes: dict) -> None:
    """Checks that a run can be resumed with some settings changed."""
    from fcn_keras.data import labels_of
    from fcn_keras.runs.additions import require_additions
    from fcn_keras.runs.folder import RunFolder
    from fcn_keras.runs.paths import require_relative

    run = RunFolder(run_dir)
    run.require_known_settings()
    saved = run.read_config()
    config = saved.resumed(**changes)
    run.read_labels()
    if not run.is_finished(saved, config):  # a finished run needs no data
        require_additions(run, {})
        require_relative(config, run.config, {"dataset", "data_dir"} - {*changes})
        for part in ("train", "val"):
            labels_of(config.dataset, part, config.data_dir)


def _check_weights(config) -> None:
    weights = config.weights
    if weights in ("none", "imagenet", "auto") or os.path.isdir(weights):
        return
    if published(weights):
        backbone = require_kind(weights, is_fcn=False).backbone
        if config.backbone != backbone:
            raise UserError(f"--weights {weights}: needs --backbone {backbone}.")
        fetched(weights)
        return
    if weights.endswith(SUFFIXES):
        from fcn_keras.files.torch_networks import read_backbone

        read_backbone(Path(weights))
        return
    scheme, separator, _ = weights.partition("://")
    if separator and scheme in SCHEMES:
        return
    hub = importlib.util.find_spec("keras_hub")
    presets = Path(hub.origin).parent / PRESETS if hub and hub.origin else PRESETS
    is_preset = not presets.is_file() or f'"{weights}"' in presets.read_text()
    if separator or os.sep in weights or not is_preset:
        raise UserError(
            "--weights must be imagenet, none, auto, a directory with a preset, a .pth file, a "
            "name that fcn-keras weights list prints, or a KerasHub handle. Received: "
            f"{weights!r}, which is none of these."
        )
