"""Examples -> pictures as data URIs, which together stay below a budget."""

from __future__ import annotations

import base64
import dataclasses

import numpy as np
from PIL import Image

from fcn_keras.data.overlay import at_most
from fcn_keras.data.split import LabelSet
from fcn_keras.evaluation.report.contents import MAX_SIDE, Example
from fcn_keras.files.images import encode_image, palette_image

BUDGET = 2_000_000  # characters of all pictures
SIDES = (MAX_SIDE, 360, 240, 160)
NAMED = 3  # classes in a picture's description


@dataclasses.dataclass(frozen=True)
class Row:
    """One image on the page, with `(title, URI, description)` for each of its pictures."""

    id: str
    mean_iou: float
    pixel_accuracy: float
    pictures: list[tuple[str, str, str]]


def picture_rows(groups: list[list[Example]], labels: LabelSet) -> list[list[Row]]:
    """The rows of several groups of examples, in the largest of `SIDES` that the budget allows."""
    for side in SIDES:
        rows = [[_row(example, labels, side) for example in group] for group in groups]
        uris = [uri for group in rows for row in group for _, uri, _ in row.pictures]
        if sum(map(len, uris)) <= BUDGET:
            break
    return rows


def _row(example: Example, labels: LabelSet, side: int) -> Row:
    score = example.score
    photo = at_most(example.image, side, Image.Resampling.LANCZOS)
    pictures = [("photo", _jpeg(photo), f"Photograph {score.id}")]
    for title, mask in example.masks.items():
        alt = f"{title[0].upper()}{title[1:]} for {score.id}: {_shares(mask, labels)}"
        pictures.append((title, _png(at_most(mask, side), labels), alt))
    return Row(score.id, score.mean_iou, score.pixel_accuracy, pictures)


def _shares(mask: np.ndarray, labels: LabelSet) -> str:
    """The most frequent classes of a mask, in words."""
    counts = np.bincount(mask.ravel(), minlength=256)
    names = [*labels.names, *["unlabelled"] * (256 - len(labels))]
    largest = np.argsort(-counts, kind="stable")[:NAMED]
    return ", ".join(f"{names[i]} {counts[i] / mask.size:.0%}" for i in largest if counts[i])


def _jpeg(picture: np.ndarray) -> str:
    return _uri(Image.fromarray(picture), "jpeg", quality=82, optimize=True)


def _png(mask: np.ndarray, labels: LabelSet) -> str:
    return _uri(palette_image(Image.fromarray(mask), labels.palette), "png", optimize=True)


def _uri(picture: Image.Image, kind: str, **options) -> str:
    data = base64.b64encode(encode_image(picture, kind, **options)).decode()
    return f"data:image/{kind};base64,{data}"
