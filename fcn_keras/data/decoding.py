"""Bytes of an image or mask file -> arrays, by the rules of `files.images`.

Pillow decodes masks too, so that palettes keep their indices (TensorFlow's PNG
decoder expands them to RGB).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from fcn_keras.data.split import IGNORE_ID, LabelSet, voc_palette
from fcn_keras.errors import UserError
from fcn_keras.files.images import bad_files_named, open_header, open_photograph

# Pillow scales grey values of a few bits to 0..255, in steps of this size.
GREY_STEPS = {"L;2": 85, "L;4": 17}


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decodes a photograph, as `open_photograph` does, to uint8 `(H, W, 3)` in RGB.

    Raises:
        UserError: If the bytes are not a complete image, or it is too large.
    """
    return np.asarray(open_photograph(data, name))


def decode_mask(data: bytes, labels: LabelSet, name: str, predicted: bool = False) -> np.ndarray:
    """Decodes a mask of palette indices, grey ids, or colours of the label set.

    Args:
        data: The bytes of a PNG file.
        labels: Gives the valid ids and, for RGB masks, their colours.
        name: The file's name for error messages.
        predicted: Whether every pixel must have a class.

    Returns:
        uint8 `(H, W)` of class ids, 255 where unlabelled.

    Raises:
        UserError: If the bytes are not a complete image or not a PNG (JPEG compression
            invents classes), or contain an id or colour that is not in the label set.
    """
    with bad_files_named(name):
        image = open_header(data, name)
        _require_ids_kept(image, name)
        step = GREY_STEPS.get(_raw_mode(image), 1)
        image.load()
        if image.mode in ("RGB", "RGBA"):
            return _ids_of_colors(np.asarray(image.convert("RGB")), labels, name, predicted)
        ids = np.asarray(image.getchannel("L") if image.mode == "LA" else image)
    ids = ids.astype(np.uint8) if ids.dtype == bool else ids // step
    void = [] if predicted else [labels.ignore_id]
    unknown = np.setdiff1d(ids, [*range(len(labels)), *void])
    if unknown.size:
        others = "".join(f", or {ignore_id} for unlabelled pixels" for ignore_id in void)
        raise UserError(
            f"{name}: the mask has id {unknown[0]}, but there are {len(labels)} classes: use "
            f"0 to {len(labels) - 1}{others}."
        )
    return ids.astype(np.uint8)


def _ids_of_colors(rgb: np.ndarray, labels: LabelSet, name: str, predicted: bool) -> np.ndarray:
    codes = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    void = voc_palette()[IGNORE_ID]
    colors = [*([] if predicted else [(IGNORE_ID, void)]), *enumerate(labels.palette)]
    known = {red << 16 | green << 8 | blue: class_id for class_id, (red, green, blue) in colors}
    mask = np.full(codes.shape, IGNORE_ID, np.uint8)
    for code in np.unique(codes):
        if int(code) not in known:
            color = (int(code) >> 16, int(code) >> 8 & 255, int(code) & 255)
            remedy = "Use the data set's colours."
            if not predicted:
                remedy = (
                    f"Add it to classes.txt as 'name<TAB>R G B', or paint it {void} for unlabelled."
                )
            raise UserError(
                f"{name}: the mask has the colour {color}, which is no class's. {remedy}"
            )
        mask[codes == code] = known[int(code)]
    return mask


def _require_ids_kept(image: Image.Image, name: str) -> None:
    """Raises `UserError` if a mask's file cannot hold ids, or Pillow would change them."""
    if image.format in ("JPEG", "MPO"):
        raise UserError(
            f"{name}: a mask must not be a JPEG, whose compression changes class ids. "
            "Save it as PNG from the original labels."
        )
    if image.format != "PNG":
        raise UserError(f"{name}: a mask must be a PNG, not {image.format}. Save it as PNG.")
    if _raw_mode(image) == "LA;16B":  # Pillow keeps the high byte only
        raise UserError(f"{name}: a 16-bit mask with transparency. Save it with 8 bits.")


def _raw_mode(image: Any) -> str:
    """Pillow's name for the pixel format of a PNG file; lost once the image is loaded."""
    return image.tile[0].args if image.tile else ""
