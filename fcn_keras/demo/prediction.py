"""A photograph -> what the page shows of it, kept so that it can be drawn again."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.overlay import overlay
from fcn_keras.data.split import LabelSet
from fcn_keras.files.images import open_photograph, palette_image
from fcn_keras.inference.segmenter import Segmenter

SHOWN_SIDE = 1600  # more than a screen shows, and quick enough to follow a slider


@dataclasses.dataclass
class Answer:
    """The prediction for one photograph.

    Args:
        name: The photograph's file name.
        size: Its width and height, upright.
        seconds: How long the network took.
        shares: The share of the area by class id, the largest first, without absent classes.
        mask_file: What `fcn-keras predict` writes: class ids at full size, as palette PNG.
        image: As shown: uint8 `(h, w, 3)`, no side above `SHOWN_SIDE`.
        mask: Its class ids: uint8 `(h, w)`.
        drawings: Overlays that are on disk; two, as a browser may still ask for the last but one.
    """

    name: str
    size: tuple[int, int]
    seconds: float
    shares: dict[int, float]
    mask_file: Path
    image: np.ndarray
    mask: np.ndarray
    drawings: list[Path] = dataclasses.field(default_factory=list)

    def draw(self, labels: LabelSet, opacity: float, shown: Iterable[int]) -> Path:
        """Draws the overlay anew, without the network; returns the PNG."""
        picture = Image.fromarray(overlay(self.image, self.mask, labels, opacity, shown))
        with tempfile.NamedTemporaryFile(
            prefix="overlay_", suffix=".png", dir=self.mask_file.parent, delete=False
        ) as file:
            picture.save(file, compress_level=1)  # the usual 6 takes five times as long
        self.drawings.append(Path(file.name))
        while len(self.drawings) > 2:
            self.drawings.pop(0).unlink(missing_ok=True)
        return self.drawings[-1]


def segment(segmenter: Segmenter, photograph: Path, folder: Path) -> Answer:
    """Predicts a photograph, as `fcn-keras predict` does.

    Args:
        segmenter: The model.
        photograph: The file.
        folder: Gets a new folder with the answer's files.

    Raises:
        UserError: If the file is no complete image, or too large.
    """
    image = open_photograph(photograph, photograph.name, segmenter.max_pixels)
    start = time.perf_counter()
    mask = segmenter(image)
    seconds = time.perf_counter() - start
    mask_file = Path(tempfile.mkdtemp(dir=folder)) / f"{photograph.stem}_mask.png"
    palette_image(Image.fromarray(mask), segmenter.labels.palette).save(mask_file)
    size = image.size
    image.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    small = Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST)
    return Answer(
        photograph.name,
        size,
        seconds,
        class_shares(mask),
        mask_file,
        np.asarray(image),
        np.asarray(small),
    )


def class_shares(mask: np.ndarray) -> dict[int, float]:
    """The share of the area that each id of a mask `(H, W)` has, the largest first."""
    ids, counts = np.unique(mask, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {int(ids[i]): float(counts[i] / mask.size) for i in order}
