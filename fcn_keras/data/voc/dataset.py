"""PASCAL VOC 2012 segmentation, alone or with SBD's masks, as a `Split`."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
from pathlib import Path

import numpy as np

from fcn_keras.data.decoding import decode_image, decode_mask
from fcn_keras.data.split import Split
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.errors import UserError

# Unfinished downloads, archives and records, as TFDS names them.
UNFINISHED = (
    "downloads/*/*.tmp.*",
    "downloads/extracted/incomplete*",
    "voc2012_segmentation/*/incomplete.*",
)
_PARTS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val")}


def voc_split(
    split: str, data_dir: str | os.PathLike | None = None, augmented: bool = False
) -> Split:
    """One split of VOC 2012, prepared as TFDS records on first use.

    Args:
        split: `"train"` (1,464 images), `"val"` (1,449) or `"trainval"` (train,
            then val).
        data_dir: The folder that holds `VOCdevkit` (and `benchmark_RELEASE`).
            What is missing is downloaded into it, and the records are kept there.
            Default: `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`.
        augmented: Adds SBD's training and validation images to `"train"`, except
            those in VOC's val: 10,582 images.

    Returns:
        A `Split` whose ids are VOC's (`"2007_000032"`) and whose `read` may be
        called from several threads at once.

    Raises:
        UserError: If there is no such split; if the data can neither be found
            nor downloaded, or are damaged; if the folder cannot be written; or
            if the split lists changed since the records were made.
    """
    require_part(split)
    builder = _prepared_builder(data_root(data_dir), augmented)
    parts = _PARTS[split]
    ids = tuple(name for part in parts for name in builder.info.metadata["ids"][part])
    return Split(split, VOC_LABELS, ids, _reader(builder, parts, ids))


def require_part(split: str) -> None:
    """Raises `UserError` if VOC has no such split."""
    if split not in _PARTS:
        raise UserError(f"VOC has the splits {', '.join(_PARTS)}. Received: {split!r}.")


def data_root(data_dir: str | os.PathLike | None) -> Path:
    """The folder that holds `VOCdevkit`; raises `UserError` if it is missing or the wrong one."""
    given = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    root = Path(given).expanduser().absolute()
    if data_dir and not root.is_dir():
        raise UserError(
            f"--data-dir {root}: no such folder. Choose the one that contains VOCdevkit, or "
            "create an empty one to download VOC into it."
        )
    if root.name == "VOCdevkit" or (root / "JPEGImages").is_dir():
        raise UserError(
            f"{root}: choose the folder that contains VOCdevkit, not one inside it: "
            f"{root.parent if root.name == 'VOCdevkit' else root.parent.parent}."
        )
    return root


def _prepared_builder(root: Path, augmented: bool):
    from fcn_keras.data.voc.builder import Voc2012Segmentation

    config = "voc2012_aug" if augmented else "voc2012"
    try:
        builder = Voc2012Segmentation(
            data_dir=os.fspath(root), config=config, file_format="array_record"
        )
    except ValueError as error:  # another format, or metadata that are not JSON
        raise UserError(
            f"{root / Voc2012Segmentation.name / config}: records that cannot be used "
            f"({error}). Delete this folder to create them again."
        ) from error
    if not builder.data_path.exists():
        _prepare(builder)
    if not builder.is_prepared():  # TFDS would take any folder for a finished data set
        raise UserError(
            f"{builder.data_dir}: an incomplete data set. Delete this folder to create it again."
        )
    changed = builder.changed_lists()
    if changed:
        raise UserError(
            f"{changed[0]}: changed since the records in {builder.data_dir} were made. "
            "Delete that folder of records to create them again."
        )
    return builder


def _prepare(builder) -> None:
    import tensorflow_datasets as tfds

    root = builder.data_dir_root
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Its progress bars, on stderr, say enough.
        with _alone(root), contextlib.redirect_stdout(io.StringIO()):
            _remove_unfinished(root)
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    except OSError as error:
        raise UserError(
            f"{root}: VOC cannot be prepared there ({error}). "
            "Choose a writable folder with a few GB free as --data-dir."
        ) from error


@contextlib.contextmanager
def _alone(root: Path):
    """Lets one process at a time download and prepare; others wait."""
    with Path(root, ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process, however that ends
        yield


def _remove_unfinished(root: Path) -> None:
    """Removes what a killed process left: TFDS starts over and would keep it."""
    for pattern in UNFINISHED:
        for folder in root.glob(pattern):
            shutil.rmtree(folder)


def _reader(builder, parts: tuple[str, ...], ids: tuple[str, ...]):
    import tensorflow_datasets as tfds

    # One source serves all threads: it opens its files under a lock, and reads
    # by position, as Grain's reader threads do.
    skip = tfds.decode.SkipDecoding()
    source = builder.as_data_source("+".join(parts), decoders={"image": skip, "mask": skip})

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        index = range(len(ids))[index]
        try:
            example = source[index]
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"{builder.data_dir}: the record of {ids[index]} cannot be read ({error}). "
                "Delete this folder to create the records again."
            ) from error
        name = f"{ids[index]} in {builder.data_dir}"
        return decode_image(example["image"], name), decode_mask(example["mask"], VOC_LABELS, name)

    return read
