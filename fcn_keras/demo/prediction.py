"""A photograph -> what the page shows for it."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from PIL import Image

from fcn_keras.errors import UserError
from fcn_keras.files.images import encode_image, open_photograph, palette_image
from fcn_keras.inference.segmenter import Segmenter

SHOWN_SIDE = 1600  # more than a screen shows, and quick enough to follow a slider
NAME = "The photograph"


class Answer(NamedTuple):
    """The prediction for one photograph.

    Args:
        size: Its width and height, upright.
        shown_size: Those of the picture on the page, at most `SHOWN_SIDE`.
        seconds: How long the model took.
        shares: The share of the area by class id, the largest first, without absent classes.
        picture: Red, green, blue and class id of each of its pixels, row by row.
        mask: What `fcn-keras predict` writes: class ids at full size, as a palette PNG.
    """

    size: tuple[int, int]
    shown_size: tuple[int, int]
    seconds: float
    shares: dict[int, float]
    picture: bytes
    mask: bytes


def segment(segmenter: Segmenter, source) -> Answer:
    """Predicts a photograph, as `fcn-keras predict` does.

    Args:
        segmenter: The model.
        source: A path, or the file's bytes.

    Raises:
        UserError: If the file is not a complete image, or too large. The message starts
            with the reason, as only the page knows the file's name.
    """
    try:
        image = open_photograph(source, NAME, segmenter.max_pixels)
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{NAME}: ")) from error
    start = time.perf_counter()
    mask = segmenter(image)
    seconds = time.perf_counter() - start
    ids, size = Image.fromarray(mask), image.size
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    small = ids.resize(image.size, Image.Resampling.NEAREST)
    image.putalpha(small)
    palette_mask = encode_image(palette_image(ids, segmenter.labels.palette))
    return Answer(size, small.size, seconds, class_shares(mask), image.tobytes(), palette_mask)


def class_shares(mask: np.ndarray) -> dict[int, float]:
    """The share of the area that each id of a mask `(H, W)` has, the largest first."""
    ids, counts = np.unique(mask, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {int(ids[i]): float(counts[i] / mask.size) for i in order}
