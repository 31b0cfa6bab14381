"""A data set of TensorFlow Datasets (TFDS), with one image and one mask, as a `Split`."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fcn_keras.data.catalog.known import KNOWN
from fcn_keras.data.catalog.preparing import failures, find_builder, prepare
from fcn_keras.data.catalog.records import Records
from fcn_keras.data.decoding import decode_mask
from fcn_keras.data.directory import CLASSES_FILE, read_class_list, require_same_size
from fcn_keras.data.split import MAX_CLASSES, LabelSet, Split, placeholder_names
from fcn_keras.data.voc.dataset import HOME
from fcn_keras.errors import UserError, first_line, printable
from fcn_keras.files import storage
from fcn_keras.files.images import bad_files_named, open_header, to_rgb

TRAIN, VAL = ("train", "training"), ("validation", "val", "valid", "dev", "test", "testing")
ANY_IDS = LabelSet(placeholder_names(MAX_CLASSES))


class _Meaning(NamedTuple):
    """Which features are image and mask, the classes, and the id of each value of the mask."""

    image: str
    mask: str
    labels: LabelSet
    ids: np.ndarray | None = None  # int64 (256,), -1 where no value is allowed; None: as it is


def catalog_split(name: str, split: str, data_dir: str | os.PathLike | None = None) -> Split:
    """One split of a data set of TFDS, prepared on first use.

    Its own names of splits are valid, too. `"val"` is its validation split, else its test
    split, else the last fifth of its training examples, which `"train"` lacks then.

    Args:
        name: As TFDS has it, such as `"oxford_iiit_pet"` or `"cityscapes/semantic_segmentation"`,
            also with a version: `"my_data:1.0.0"`.
        split: `"train"`, `"val"`, or one that the data set has.
        data_dir: TFDS's folder. Default: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`. If TFDS
            does not name the classes, they are in `NAME/classes.txt` there.

    Returns:
        A `Split` whose `read` may be called from several threads at once. Photographs are not
        turned by EXIF, as TFDS does not do so.

    Raises:
        UserError: If there is no such data set or split, it has not one image and one mask, its
            classes are not known, or it cannot be downloaded or read.
    """
    given = data_dir or os.environ.get("TFDS_DATA_DIR") or HOME
    if storage.is_address(given):
        raise UserError(f"{given}: --data-dir must be a folder. Copy the data set to this machine.")
    root = Path(given).expanduser().absolute()
    builder = find_builder(name, root)
    meaning = _meaning(builder, root)  # before anything is downloaded in vain
    prepare(builder, name, root)
    part, chosen = _part(split, builder)
    source = _source(builder, part)
    ids = tuple(f"{part}_{index:06d}" for index in chosen)

    def read(index: int) -> tuple[np.ndarray, np.ndarray]:
        title = f"{ids[index]} in {builder.data_dir}"
        try:
            example = source(chosen[index])
            image, mask = example[meaning.image], example[meaning.mask]
            if not image or not mask:
                raise ValueError("it lacks the image or the mask")
        except UserError:
            raise
        except Exception as error:  # of TFDS, protobuf or ArrayRecord
            raise UserError(
                f"{title}: cannot be read ({first_line(error)}). Delete this folder to prepare it "
                "again."
            ) from error
        photograph = _decode(image, title)
        ids_of_mask = _decode_mask(mask, meaning, title)
        require_same_size(photograph, ids_of_mask, Path(title))
        return photograph, ids_of_mask

    return Split(split, meaning.labels, ids, read)


def _meaning(builder, root: Path) -> _Meaning:
    from tensorflow_datasets.core import features

    kinds: dict[str, Any] = dict(sorted((builder.info.features or {}).items()))
    known = KNOWN.get(builder.name)
    if known and {known.image, known.mask} <= kinds.keys():
        ids = np.full(256, -1)
        ids[list(known.ids)] = list(known.ids.values())
        if known.note:
            _note(known.note)
        return _Meaning(known.image, known.mask, known.labels, ids)
    pictures = {name: kind for name, kind in kinds.items() if isinstance(kind, features.Image)}
    masks = [name for name, kind in pictures.items() if isinstance(kind, features.LabeledImage)]
    masks = masks or [name for name, kind in pictures.items() if kind.shape[-1] == 1]
    images = [name for name in pictures if name not in masks]
    if len(images) != 1 or len(masks) != 1:
        raise UserError(
            f"tfds:{builder.name} needs one image and one mask, an image of one channel, among "
            f"its features. Found: {', '.join(images) or 'no image'}; "
            f"{', '.join(masks) or 'no mask'}. Another configuration may have them."
        )
    [image], [mask] = images, masks
    return _Meaning(image, mask, _labels(pictures[mask], builder.name, root))


def _labels(mask, name: str, root: Path) -> LabelSet:
    path = root / name / CLASSES_FILE
    if path.exists():
        return read_class_list(path)
    count = getattr(mask, "num_classes", None)
    if not count:
        raise UserError(
            f"TFDS does not name the classes of {name}. List them in {path}, one name per line, "
            "the first for id 0."
        )
    numbered = list(mask.names) == [str(number) for number in range(count)]
    return LabelSet(placeholder_names(count) if numbered else tuple(mask.names))


def _part(split: str, builder) -> tuple[str, range]:
    """TFDS's split that stands for one of ours, and which of its examples."""
    sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
    train = next((name for name in TRAIN if name in sizes), None)
    val = next((name for name in VAL if name in sizes), None)
    if split == "val" and val and split not in sizes and val.startswith("test"):
        _note(f"tfds:{builder.name} has no validation split: its split {val} is used.")
    if train and not val and split in (train, "train", "val") and sizes[train] > 1:
        first = max(1, sizes[train] * 4 // 5)
        _note(f"tfds:{builder.name} has no validation split: the last fifth of {train} is used.")
        chosen = range(first, sizes[train]) if split == "val" else range(first)
        return train, chosen
    found = split if split in sizes else {"train": train, "val": val}.get(split)
    if not found or not sizes[found]:
        raise UserError(
            f"tfds:{builder.name} has the splits {', '.join(sizes) or '(none)'}. "
            f"Received: {split!r}."
        )
    return found, range(sizes[found])


def _source(builder, part: str) -> Callable[[int], Mapping[str, Any]]:
    """Reads an example of a split by its index, with images as they are encoded."""
    import tensorflow_datasets as tfds

    kinds = builder.info.features
    encoded = {
        name: tfds.decode.SkipDecoding()
        for name, kind in kinds.items()
        if isinstance(kind, tfds.features.Image)
    }
    info = builder.info.splits[part]
    if builder.info.file_format == tfds.core.FileFormat.TFRECORD:
        records = Records([os.fspath(path) for path in info.filepaths])
        count = len(records)

        def source(index):
            return kinds.deserialize_example_np(records[index], decoders=encoded)

    else:
        with failures(builder.name, builder.data_path):
            source = builder.as_data_source(part, decoders=encoded).__getitem__
        count = info.num_examples
    if count != info.num_examples:
        raise UserError(
            f"{builder.data_dir}: {part} has {count} records, not {info.num_examples}. Delete this "
            "folder to prepare it again."
        )
    return source


def _decode(data: bytes, name: str) -> np.ndarray:
    with bad_files_named(name):
        image = open_header(data, name)
        image.load()
        return np.asarray(to_rgb(image, name))


def _decode_mask(data: bytes, meaning: _Meaning, name: str) -> np.ndarray:
    if meaning.ids is None:
        return decode_mask(data, meaning.labels, name)
    with bad_files_named(name):
        in_colours = open_header(data, name).mode in ("RGB", "RGBA")
    values = _decode(data, name)[..., 0] if in_colours else decode_mask(data, ANY_IDS, name)
    ids = meaning.ids[values]
    if (ids < 0).any():
        raise UserError(
            f"{name}: the mask has the value {values[ids < 0][0]}; known are "
            f"{', '.join(map(str, np.flatnonzero(meaning.ids >= 0)))}."
        )
    return ids.astype(np.uint8)


@functools.cache
def _note(text: str) -> None:
    """Prints a note, once."""
    print("Note:", printable(text), file=sys.stderr)
