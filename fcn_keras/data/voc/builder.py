"""TFDS builder of VOC 2012's segmentation task, alone or with SBD's masks."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from fcn_keras.data.decoding import decode_image, decode_mask
from fcn_keras.data.voc.download import SBD, VOC, find_or_download
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.errors import UserError, require_packages
from fcn_keras.files.images import encode_image


class Voc2012Segmentation(tfds.core.GeneratorBasedBuilder):
    """VOC 2012 segmentation: image, mask of class ids (255 = void) and VOC's image id.

    Examples keep the order of `info.metadata["ids"][split]`, so that the ids
    of a split are known without reading its records.
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

    def changed_lists(self) -> list[Path]:
        """Split lists in the data folder that differ from those the records were made from."""
        made_of = self.info.metadata["lists"]
        paths = {Path(self.data_dir_root) / name: digest for name, digest in made_of.items()}
        return [
            path
            for path, digest in paths.items()
            if path.exists() and _digest(_read_list(path)) != digest
        ]

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        archives = (VOC, SBD) if self.builder_config.name == "voc2012_aug" else (VOC,)
        if SBD in archives:
            _loadmat()  # fails before the long download
        folders = [find_or_download(self.data_dir_root, one, dl_manager) for one in archives]
        lists = {
            f"{archive.folder}/{name}": _read_list(folder / name)
            for archive, folder in zip(archives, folders)
            for name in archive.lists
        }
        voc_train, voc_val, *sbd_lists = lists.values()
        # SBD's lists share images with VOC's val, which must stay unseen.
        train = dict.fromkeys(sum(sbd_lists, start=voc_train))
        ids = {"train": [name for name in train if name not in set(voc_val)], "val": voc_val}
        self.info.metadata["ids"] = ids
        self.info.metadata["lists"] = {name: _digest(names) for name, names in lists.items()}
        voc_ids = {*voc_train, *voc_val}
        return {part: self._generate_examples(ids[part], voc_ids, *folders) for part in ids}

    def _generate_examples(
        self, ids: list[str], voc_ids: set[str], voc: Path, sbd: Path | None = None
    ) -> Iterator[tuple[int, dict]]:
        for key, image_id in enumerate(ids):
            image_path = voc / "JPEGImages" / f"{image_id}.jpg"
            if sbd and not image_path.exists():
                image_path = sbd / "img" / f"{image_id}.jpg"
            image = _read_bytes(image_path)
            if image_id in voc_ids:
                mask_path = voc / "SegmentationClass" / f"{image_id}.png"
                mask = decode_mask(_read_bytes(mask_path), VOC_LABELS, str(mask_path))
            else:
                mask_path = Path(sbd or "", "cls", f"{image_id}.mat")
                mask = _decode_sbd_mask(_read_bytes(mask_path), str(mask_path))
            size = decode_image(image, str(image_path)).shape[:2]
            if size != mask.shape:
                raise UserError(
                    f"{mask_path}: height and width {mask.shape}, but {image_path} has {size}. "
                    "Unpack the archive again."
                )
            mask_png = encode_image(Image.fromarray(mask))
            yield key, {"image": image, "mask": mask_png, "image_id": image_id}


def _read_list(path: Path) -> list[str]:
    names = list(dict.fromkeys(_read_bytes(path).decode("utf-8", "replace").split()))
    if not names:
        raise UserError(f"{path}: lists no images. Unpack the archive again.")
    return names


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}). Unpack its archive again."
        ) from error


def _decode_sbd_mask(data: bytes, name: str) -> np.ndarray:
    try:
        mask = np.asarray(_loadmat()(io.BytesIO(data))["GTcls"][0]["Segmentation"][0])
    except UserError:
        raise
    except Exception as error:  # SciPy raises its own, zlib's, KeyError, ...
        raise UserError(
            f"{name}: not an SBD mask ({type(error).__name__}). Unpack {SBD.file} again."
        ) from error
    # By decode_mask, which checks the ids.
    return decode_mask(encode_image(Image.fromarray(mask.astype(np.uint8))), VOC_LABELS, name)


def _loadmat():
    require_packages("An SBD mask, a MATLAB file,", "sbd", "scipy.io")
    from scipy.io import loadmat

    return loadmat
