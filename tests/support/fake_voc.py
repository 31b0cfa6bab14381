"""Writes small data sets in the layouts of VOC 2012 and of SBD."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.split import voc_palette

VOC_IDS = {
    "train": ("2007_000032", "2007_000039", "2007_000063"),
    "val": ("2007_000033", "2007_000042"),
}
SBD_IDS = {"train": ("2008_000002", "2007_000032"), "val": ("2007_000033", "2008_000007")}


def fake_image(image_id: str) -> np.ndarray:
    """A different smooth picture for each id: uint8 `(H, W, 3)`."""
    rng = _rng(image_id)
    height, width = rng.integers(20, 40, 2)
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 4 + columns * 2 + rng.integers(0, 60) for _ in range(3)]
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def fake_mask(image_id: str, void: bool = True) -> np.ndarray:
    """A box of one class on background, with a border of 255 if `void`: uint8 `(H, W)`."""
    mask = np.zeros(fake_image(image_id).shape[:2], np.uint8)
    mask[4:16, 5:18] = 255 if void else 0
    mask[5:15, 6:17] = _rng(image_id + "mask").integers(1, 21)
    return mask


def write_voc_devkit(root, train=VOC_IDS["train"], val=VOC_IDS["val"]) -> Path:
    """Writes `root/VOCdevkit/VOC2012` and returns it."""
    voc = Path(root, "VOCdevkit", "VOC2012")
    lists = voc / "ImageSets" / "Segmentation"
    for folder in (voc / "JPEGImages", voc / "SegmentationClass", lists):
        folder.mkdir(parents=True, exist_ok=True)
    for image_id in (*train, *val):
        Image.fromarray(fake_image(image_id)).save(voc / "JPEGImages" / f"{image_id}.jpg")
        mask = Image.fromarray(fake_mask(image_id)).convert("P")
        mask.putpalette(np.array(voc_palette(), np.uint8).tobytes())
        mask.save(voc / "SegmentationClass" / f"{image_id}.png")
    _write_list(lists / "train.txt", train)
    _write_list(lists / "val.txt", val)
    _write_list(lists / "trainval.txt", sorted([*train, *val]))
    return voc


def write_sbd(root, train=SBD_IDS["train"], val=SBD_IDS["val"]) -> Path:
    """Writes `root/benchmark_RELEASE/dataset`, whose masks have no void, and returns it."""
    from scipy.io import savemat

    sbd = Path(root, "benchmark_RELEASE", "dataset")
    for folder in (sbd / "img", sbd / "cls"):
        folder.mkdir(parents=True, exist_ok=True)
    for image_id in (*train, *val):
        Image.fromarray(fake_image(image_id)).save(sbd / "img" / f"{image_id}.jpg")
        fields = {
            "Boundaries": np.zeros((20, 1)),
            "Segmentation": fake_mask(image_id, void=False),
            "CategoriesPresent": np.array([[1]], np.uint8),
        }
        savemat(sbd / "cls" / f"{image_id}.mat", {"GTcls": fields}, do_compression=True)
    _write_list(sbd / "train.txt", train)
    _write_list(sbd / "val.txt", val)
    return sbd


def _rng(image_id: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(image_id.encode()))


def _write_list(path: Path, ids) -> None:
    path.write_text("".join(f"{image_id}\n" for image_id in ids))
