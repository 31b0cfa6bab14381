"""Draws what each augmentation of `train` does to an example of the sample data.

python docs/augmentations.py docs/images/augmentations.png
"""

from __future__ import annotations

import io
import sys

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from PIL import Image

from fcn_keras import load_split
from fcn_keras.data.augmentation import Augmentation
from fcn_keras.data.overlay import color_mask

EXAMPLE, OTHER = 248, 203  # the other is what cutmix takes its rectangle from
CROP = (160, 240)  # the whole image, so that all begin with the same pixels
# Titles, settings and a seed with which the effect is easily seen.
CELLS = [
    ("example", {}, 0),
    ("--scale 0.5 2", {"scale": (0.5, 2.0)}, 5),
    ("--flip", {"flip": True}, 0),
    ("--vertical-flip", {"vertical_flip": True}, 3),
    ("--quarter-turns", {"quarter_turns": True}, 0),
    ("--rotation 30", {"rotation": 30.0}, 4),
    ("--shear 20", {"shear": 20.0}, 1),
    ("--elastic 12", {"elastic": 12.0}, 0),
    ("--brightness 0.3", {"brightness": 0.3}, 5),
    ("--contrast 0.6", {"contrast": 0.6}, 4),
    ("--saturation 0.9", {"saturation": 0.9}, 1),
    ("--hue 0.2", {"hue": 0.2}, 0),
    ("--grey 1", {"grey": 1.0}, 0),
    ("--blur 3", {"blur": 3.0}, 1),
    ("--noise 0.2", {"noise": 0.2}, 2),
    ("--jpeg 5", {"jpeg": 5}, 8),
    ("--cutout 0.6", {"cutout": 0.6}, 10),
    ("--cutmix 1", {"cutmix": 1.0}, 2),
]


def example(settings: dict, seed: int):
    """An augmented crop and its mask, uint8 `(*CROP, 3)` and `(*CROP)`."""
    split, augment = load_split("sample", "train"), Augmentation(CROP, **settings)
    seeds = tf.constant([[seed, 0], [seed, 1]], tf.int64)
    pairs = [augment(*split.read(i), own) for i, own in zip((EXAMPLE, OTHER), seeds)]
    images, masks = augment.mix(*map(tf.stack, zip(*pairs)), seeds[0])
    return np.rint(images[0]).astype(np.uint8), masks[0].numpy()


def draw(path: str, columns: int = 6) -> None:
    labels = load_split("sample", "train").labels
    rows = -(-len(CELLS) // columns)
    size = (1.5 * columns, 2.25 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, settings, seed) in zip(axes.flat, CELLS):
        image, mask = example(settings, seed)
        axis.imshow(np.concatenate([image, color_mask(mask, labels)]))
        axis.set_title(title, fontsize=7)
    file = io.BytesIO()
    figure.savefig(file, dpi=120)
    # With 256 colours, the file has a third of the size.
    Image.open(file).convert("RGB").quantize(256).save(path)


if __name__ == "__main__":
    draw(sys.argv[1])
