"""TFDS builder of VOC 2012's segmentation task, alone or with SBD's masks."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from fcn_keras.data.decoding import decode_image, decode_mask
from fcn_keras.data.split import LabelSet
from fcn_keras.data.voc.download import SBD, VOC, find_or_download
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.errors import UserError, require_packages
from fcn_keras.files.images import encode_image


class Voc2012Segmentation(tfds.core.GeneratorBasedBuilder):
    """VOC 2012 segmentation: image, mask of class ids (255 = void) and VOC's image id.

    Examples keep the order of `info.metadata["ids"][split]`, so that the ids
    of a split are known without reading its records.

    Args:
        root: The folder that holds `VOCdevkit`. Default: the records' own.
    """

    VERSION = tfds.core.Version("1.0.0")
    # TFDS 4.9.10 would look itself up with importlib_resources, which it does not require.
    code_path = Path(__file__)
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name="voc2012", description="VOC's own train and val."),
        tfds.core.BuilderConfig(
            name="voc2012_aug", description="Train with SBD's images, less VOC's val; VOC's val."
        ),
    ]

    def __init__(self, *, root: str | os.PathLike | None = None, **kwargs):
        super().__init__(**kwargs)
        self.root = Path(root or self.data_dir_root)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="PASCAL VOC 2012, semantic segmentation of 20 classes and background.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "image_id": tfds.features.Text(),
                }
            ),
            homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
            metadata=tfds.core.MetadataDict(),
            disable_shuffling=True,  # keeps the lists' order
        )

    def changed_file(self) -> Path | None:
        """The first list, photograph or mask that has changed since the records were made.

        Files that are gone do not count, as the records are enough.
        """
        # Older records have digests of their lists, which equal no stamp.
        made_of = self.info.metadata.get("files") or self.info.metadata["lists"]
        stamps = ((self.root / name, stamp) for name, stamp in made_of.items())
        return next((path for path, stamp in stamps if _stamp(path) not in (None, stamp)), None)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        archives = (VOC, SBD) if self.builder_config.name == "voc2012_aug" else (VOC,)
        if SBD in archives:
            _loadmat()  # fails before the long download
        folders = [find_or_download(self.root, one, dl_manager) for one in archives]
        files = [
            folder / name for archive, folder in zip(archives, folders) for name in archive.lists
        ]
        voc_train, voc_val, *sbd_lists = map(_read_list, files)
        # SBD's lists share images with VOC's val, which must stay unseen.
        train = dict.fromkeys(sum(sbd_lists, start=voc_train))
        ids = {"train": [name for name in train if name not in set(voc_val)], "val": voc_val}
        self.info.metadata["ids"] = ids
        voc_ids = {*voc_train, *voc_val}
        pairs = {name: _pair(name, voc_ids, *folders) for part in ids for name in ids[part]}
        files += [path for pair in pairs.values() for path in pair]
        # Before they are read: a change meanwhile is noticed by the next run.
        stamps = {os.path.relpath(path, self.root): _stamp(path) for path in files}
        self.info.metadata["files"] = stamps
        return {part: self._generate_examples(ids[part], pairs) for part in ids}

    def _generate_examples(
        self, ids: list[str], pairs: dict[str, tuple[Path, Path]]
    ) -> Iterator[tuple[int, dict]]:
        for key, image_id in enumerate(ids):
            image_path, mask_path = pairs[image_id]
            image = _read_bytes(image_path)
            decode = _decode_sbd_mask if mask_path.suffix == ".mat" else decode_mask
            mask = decode(_read_bytes(mask_path), VOC_LABELS, str(mask_path))
            size = decode_image(image, str(image_path)).shape[:2]
            if size != mask.shape:
                raise UserError(
                    f"{mask_path}: height and width {mask.shape}, but {image_path} has {size}. "
                    "Unpack the archive again."
                )
            mask_png = encode_image(Image.fromarray(mask))
            yield key, {"image": image, "mask": mask_png, "image_id": image_id}


def _pair(
    image_id: str, voc_ids: set[str], voc: Path, sbd: Path | None = None
) -> tuple[Path, Path]:
    """The paths of a photograph and of its mask, VOC's if there is one."""
    image_path = voc / "JPEGImages" / f"{image_id}.jpg"
    if sbd and not image_path.exists():
        image_path = sbd / "img" / f"{image_id}.jpg"
    if image_id in voc_ids:
        return image_path, voc / "SegmentationClass" / f"{image_id}.png"
    return image_path, Path(sbd or "", "cls", f"{image_id}.mat")


def _stamp(path: Path) -> list[int] | None:
    """A file's size and modification time, as JSON returns them; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _read_list(path: Path) -> list[str]:
    names = list(dict.fromkeys(_read_bytes(path).decode("utf-8", "replace").split()))
    if not names:
        raise UserError(f"{path}: lists no images. Unpack the archive again.")
    return names


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). Unpack its archive again."
        ) from error


def _decode_sbd_mask(data: bytes, labels: LabelSet, name: str) -> np.ndarray:
    try:
        mask = np.asarray(_loadmat()(io.BytesIO(data))["GTcls"][0]["Segmentation"][0])
    except UserError:
        raise
    except Exception as error:  # SciPy raises its own, zlib's, KeyError, ...
        raise UserError(
            f"{name}: not an SBD mask ({type(error).__name__}). Unpack {SBD.file} again."
        ) from error
    # By decode_mask, which checks the ids.
    return decode_mask(encode_image(Image.fromarray(mask.astype(np.uint8))), labels, name)


def _loadmat():
    require_packages("An SBD mask, a MATLAB file,", "sbd", "scipy.io")
    from scipy.io import loadmat

    return loadmat
