"""The synthetic sample data set: scenes drawn by code, so that training needs no download.

They show seven classes of things on patterned backgrounds. The colours of things
and backgrounds follow the same rule, so a model must learn shapes and parts. The
scenes are written once, as a folder in PASCAL VOC's layout:

    JPEGImages/<id>.jpg                        classes.txt
    SegmentationClass/<id>.png                 ImageSets/Segmentation/<split>.txt
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from fcn_keras.data.directory import directory_split
from fcn_keras.data.sample.scenes import IMAGE_SIZE, SAMPLE_LABELS, draw_scene
from fcn_keras.data.split import Split
from fcn_keras.errors import UserError
from fcn_keras.files.images import palette_image
from fcn_keras.files.writing import atomic_folder

SAMPLE_VERSION = 1  # raise it when the pictures change, so that old caches are not used
TRAIN_IMAGES, VAL_IMAGES = 256, 64

_SPLITS = ("train", "val")
_JPEG_QUALITY = 92


def sample_split(split: str, cache_dir: str | Path | None = None) -> Split:
    """The train or val split of the sample data set, drawn on first use (about 10 s).

    Args:
        split: `"train"` (256 images) or `"val"` (64), each of 160x240 pixels.
        cache_dir: The folder that holds the set's folder `sample-v1`. Default:
            `$XDG_CACHE_HOME/fcn_keras`, or `~/.cache/fcn_keras`.

    Returns:
        The `Split`; its labels are `SAMPLE_LABELS`.

    Raises:
        UserError: If there is no such split, or the cache cannot be written.
    """
    if split not in _SPLITS:
        raise UserError(f"split must be one of {', '.join(_SPLITS)}. Received: {split!r}.")
    return directory_split(_cached_sample(cache_dir), split)


def write_sample(
    root: str | Path,
    train: int = TRAIN_IMAGES,
    val: int = VAL_IMAGES,
    seed: int = 0,
    size: tuple[int, int] = IMAGE_SIZE,
) -> None:
    """Draws the data set into a folder in VOC's layout.

    Image i of a split depends only on `seed`, `size`, the split and i, not on the
    number of images. `classes.txt` is written last: it marks a complete set.

    Args:
        root: The folder, created if needed. Files of the same names are replaced.
        train: Number of training images.
        val: Number of validation images.
        seed: A number >= 0. The same seed gives the same files.
        size: Height and width in pixels, each at least 32.

    Raises:
        UserError: If a size is too small, or a count or the seed is negative.
        OSError: If the folder cannot be written.
    """
    if min(size) < 32:
        raise UserError(f"size must be at least 32 x 32 pixels. Received: {size}.")
    if min(train, val, seed) < 0:
        raise UserError(
            f"train, val and seed must be 0 or more. Received: train={train}, val={val}, "
            f"seed={seed}."
        )
    root = Path(root)
    (root / "classes.txt").unlink(missing_ok=True)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    ids = {
        split: [f"{split}_{i:04d}" for i in range(count)]
        for split, count in zip(_SPLITS, (train, val), strict=True)
    }
    # disable=None: no bar unless stderr is a terminal.
    with tqdm(total=train + val, desc="Drawing the sample data set", disable=None) as bar:
        for number, split in enumerate(_SPLITS):
            for i, name in enumerate(ids[split]):
                rng = np.random.default_rng([seed, number, i])
                _save(root, name, *draw_scene(rng, size))
                bar.update()
            listing = "".join(f"{name}\n" for name in ids[split])
            (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(listing)
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in SAMPLE_LABELS.names))


def _save(root: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    path = root / "JPEGImages" / f"{name}.jpg"
    Image.fromarray(image).save(path, quality=_JPEG_QUALITY)
    ids = palette_image(Image.fromarray(mask), SAMPLE_LABELS.palette)
    ids.save(root / "SegmentationClass" / f"{name}.png")


def _cached_sample(cache_dir: str | Path | None) -> Path:
    """The set's folder, created first if needed.

    A killed run leaves no partial set there, and of two runs that draw it at the same
    time the later one uses the earlier one's.
    """
    root = (Path(cache_dir) if cache_dir else _default_cache()) / f"sample-v{SAMPLE_VERSION}"
    if _is_whole(root):
        return root
    try:
        with atomic_folder(root) as drawn:
            write_sample(drawn)
    except OSError as error:
        if not _is_whole(root):
            raise UserError(
                f"{root}: cannot write the sample data set there ({error}). Make the folder "
                "writable, delete what is there, or set XDG_CACHE_HOME to another folder."
            ) from error
    return root


def _default_cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fcn_keras"
    except RuntimeError as error:  # a container's user may have no home
        raise UserError(f"No cache folder ({error}). Set XDG_CACHE_HOME to one.") from error


def _is_whole(root: Path) -> bool:
    return (root / "classes.txt").is_file()
