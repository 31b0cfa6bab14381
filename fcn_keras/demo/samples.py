"""Sample pictures for the page: a folder's, or some that the sample data set's code draws."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.datasets.decoding import open_image
from fcn_keras.datasets.sample_scenes import draw_scene
from fcn_keras.errors import UserError
from fcn_keras.files import named_images

COUNT = 24  # of a folder
SEEDS = (13, 6, 11, 4, 12, 3, 20, 22)  # with every class among them
THUMBNAIL = (240, 160)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture to try.

    Args:
        path: The file.
        thumbnail: A small upright JPEG of it.
    """

    path: Path
    thumbnail: Path


def folder_samples(given: str, folder: Path) -> list[Sample]:
    """The first images of a folder, or one file; unreadable ones are named on stderr.

    Args:
        given: The folder's path.
        folder: Where the thumbnails go.

    Raises:
        UserError: If there is none.
    """
    samples = []
    for path, _ in named_images([given], folder):
        try:
            image = open_image(path, str(path))
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        samples.append(Sample(path, _thumbnail(image, folder, len(samples))))
        if len(samples) == COUNT:
            break
    if not samples:
        raise UserError(f"--examples {given}: no images there. Give a folder of JPEGs or PNGs.")
    return samples


def drawn_samples(folder: Path) -> list[Sample]:
    """Scenes like those of the sample data set, but in neither of its parts."""
    samples = []
    for number, seed in enumerate(SEEDS, 1):
        image, _ = draw_scene(np.random.default_rng([seed, 2, 0]))
        path = folder / f"scene_{number}.jpg"
        Image.fromarray(image).save(path, quality=92)
        samples.append(Sample(path, _thumbnail(Image.fromarray(image), folder, number)))
    return samples


def _thumbnail(image: Image.Image, folder: Path, number: int) -> Path:
    path = folder / f"thumbnail_{number}.jpg"
    image.thumbnail(THUMBNAIL)
    image.save(path, quality=85)
    return path
