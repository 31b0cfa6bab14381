"""Sample pictures for the page: a folder's, or synthetic ones like the sample data's."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.sample.scenes import draw_scene
from fcn_keras.errors import UserError, printable
from fcn_keras.files import storage
from fcn_keras.files.finding import named_images
from fcn_keras.files.images import MAX_PIXELS, encode_image, open_photograph

COUNT = 24  # at most, from a folder
SEEDS = (13, 6, 11, 4, 12, 3, 20, 22)  # every class is among them
THUMBNAIL = (240, 160)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture to try.

    Args:
        name: Its file name.
        source: The file, or its bytes.
        thumbnail: The bytes of a small upright JPEG of it.
    """

    name: str
    source: Path | bytes
    thumbnail: bytes


def folder_samples(given: str, max_pixels: int = MAX_PIXELS) -> list[Sample]:
    """A folder's first images; unreadable ones are named on stderr and left out.

    Args:
        given: The folder.
        max_pixels: The largest image to accept.

    Raises:
        UserError: If there are none.
    """
    if not storage.is_address(given) and not os.path.isdir(given):
        raise UserError(f"--examples {given}: no such folder. Give a folder of JPEGs or PNGs.")
    samples = []
    for found in named_images([given], os.devnull):  # as nothing is written there
        path = Path(found.path)
        try:
            image = open_photograph(path, str(path), max_pixels)
            samples.append(Sample(path.name, path, _thumbnail(image)))
        except UserError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
        if len(samples) == COUNT:
            break
    if not samples:
        raise UserError(f"--examples {given}: no images there. Give a folder of JPEGs or PNGs.")
    return samples


def drawn_samples() -> list[Sample]:
    """Scenes like those of the sample data set, but in neither of its splits."""
    samples = []
    for number, seed in enumerate(SEEDS, 1):
        image = Image.fromarray(draw_scene(np.random.default_rng([seed, 2, 0]))[0])
        photograph = encode_image(image, "JPEG", quality=92)
        samples.append(Sample(f"scene_{number}.jpg", photograph, _thumbnail(image)))
    return samples


def _thumbnail(image: Image.Image) -> bytes:
    image.thumbnail(THUMBNAIL)
    return encode_image(image, "JPEG", quality=85)
