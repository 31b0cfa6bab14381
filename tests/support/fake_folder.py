"""Writes small data sets in the layout of a user's folder."""

from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.split import voc_palette

CLASSES = ("ground", "box", "bar")


def write_folder(root, train=6, val=2, size=(48, 64), void=True, seed=0) -> Path:
    """A folder of noisy pictures, each with one bright box and one dark bar."""
    root = Path(root)
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val)):
        ids = [f"{split}_{index}" for index in range(count)]
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text("\n".join(ids) + "\n")
        for name in ids:
            image, mask = draw_example(rng, size, void)
            Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            save_palette_png(mask, root / "SegmentationClass" / f"{name}.png")
    return root


def draw_example(rng, size, void):
    """uint8 `(H, W, 3)` and `(H, W)`."""
    height, width = size
    image = rng.integers(90, 130, (height, width, 3)).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    top, left = rng.integers(0, height // 2), rng.integers(0, width // 3)
    box = np.s_[top : top + height // 2, left : left + width // 3]
    bar = np.s_[:, width - width // 4 :]
    if void:
        mask[max(0, top - 1) : top + height // 2 + 1, max(0, left - 1) : left + width // 3 + 1] = (
            255
        )
    image[box], mask[box] = (220, 200, 60), 1
    image[bar], mask[bar] = (20, 30, 90), 2
    return image, mask


def save_palette_png(mask, path):
    picture = Image.fromarray(mask)
    picture.putpalette([channel for color in voc_palette() for channel in color])
    picture.save(path)
