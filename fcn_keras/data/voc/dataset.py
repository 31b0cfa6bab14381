"""PASCAL VOC 2012 segmentation, alone or with SBD's masks, as a `Split`."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import shutil
import sys
from pathlib import Path

import numpy as np

from fcn_keras.data.decoding import decode_image, decode_mask
from fcn_keras.data.split import Split
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.errors import UserError, first_line, printable

HOME = "~/tensorflow_datasets"
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
            What is missing is downloaded into it, and the records are kept there;
            if it cannot be written, in `voc2012_records` in `$TFDS_DATA_DIR` or
            `~/tensorflow_datasets`. Default: one of these two folders.
        augmented: Adds SBD's training and validation images to `"train"`, except
            those in VOC's val: 10,582 images.

    Returns:
        A `Split` whose ids are VOC's (`"2007_000032"`) and whose `read` may be
        called from several threads at once.

    Raises:
        UserError: If there is no such split; if the data can neither be found
            nor downloaded, or are damaged; or if no folder can be written.
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
    given = data_dir or os.environ.get("TFDS_DATA_DIR") or HOME
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
    config = "voc2012_aug" if augmented else "voc2012"
    places = _places(root)
    for place in places:
        with contextlib.suppress(UserError):  # raised below if they are where one can write
            builder = _builder(root, place, config)
            if _is_current(builder):
                return builder
    failures = []
    for place in places:
        try:
            return _prepare(root, place, config)
        except OSError as error:
            failures.append(f"{place} ({first_line(error)})")
    remedy = "Set TFDS_DATA_DIR to" if len(places) > 1 else "Choose as --data-dir"
    raise UserError(
        f"VOC cannot be prepared in {' or '.join(failures)}. {remedy} a writable folder with a "
        "few GB free."
    )


def _places(root: Path) -> list[Path]:
    """Folders for the records: the data's own, then those for data that cannot be written."""
    places = [root]
    if os.path.isdir(root / "VOCdevkit"):  # else it is to be downloaded into root
        for base in filter(None, (os.environ.get("TFDS_DATA_DIR"), HOME)):
            with contextlib.suppress(RuntimeError):  # a user without a home
                records = Path(base).expanduser().absolute() / "voc2012_records"
                places.append(records.joinpath(*root.resolve().parts[1:]))
    return list(dict.fromkeys(places))


def _builder(root: Path, place: Path, config: str):
    from fcn_keras.data.voc.builder import Voc2012Segmentation

    try:
        return Voc2012Segmentation(
            root=root, data_dir=os.fspath(place), config=config, file_format="array_record"
        )
    except ValueError as error:  # another format, or metadata that are not JSON
        raise UserError(
            f"{place / Voc2012Segmentation.name / config}: records that cannot be used "
            f"({error}). Delete this folder to create them again."
        ) from error


def _is_current(builder) -> bool:
    if not builder.data_path.exists():
        return False
    if not builder.is_prepared():  # TFDS would take any folder for a finished data set
        raise UserError(
            f"{builder.data_dir}: an incomplete data set. Delete this folder to create it again."
        )
    return not builder.changed_file()


def _prepare(root: Path, place: Path, config: str):
    import tensorflow_datasets as tfds

    place.mkdir(parents=True, exist_ok=True)
    with alone(place):
        builder = _builder(root, place, config)
        if _is_current(builder):  # by another run, meanwhile
            return builder
        _remove_unfinished(place)
        records = builder.data_path
        note = f"{root} cannot be written. Its records go to {place}" if place != root else ""
        if records.exists():
            note = f"{builder.changed_file()} has changed. The records in {place} are made again."
            shutil.rmtree(records.rename(records.with_name("incomplete.outdated")))
            builder = _builder(root, place, config)
        if note:
            print("Note:", printable(note), file=sys.stderr)
        with contextlib.redirect_stdout(io.StringIO()):  # its bars, on stderr, say enough
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
    return builder


@contextlib.contextmanager
def alone(root: Path):
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
            if example["image_id"] != ids[index].encode():
                raise ValueError("another run has replaced it")
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"{builder.data_dir}: the record of {ids[index]} cannot be read ({error}). "
                "Run again. If that fails, too, delete this folder to create the records again."
            ) from error
        name = f"{ids[index]} in {builder.data_dir}"
        return decode_image(example["image"], name), decode_mask(example["mask"], VOC_LABELS, name)

    return read
