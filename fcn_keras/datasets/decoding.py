"""Bytes of an image or mask file -> arrays: the one decoding rule of the package.

Pillow decodes, so that palette masks keep their indices (TensorFlow's PNG
decoder expands them to RGB) and a bad file is reported with its name.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps

from fcn_keras.datasets.base import IGNORE_ID, LabelSet, voc_palette
from fcn_keras.errors import UserError


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decodes a photograph.

    EXIF orientation is applied, grey is repeated, transparency is dropped, and
    16-bit samples keep their high byte.

    Args:
        data: The bytes of a JPEG, PNG, or other file that Pillow reads.
        name: The file's name for error messages.

    Returns:
        uint8 `(H, W, 3)` in RGB.

    Raises:
        UserError: If the bytes are no complete image.
    """
    image = _open(data, name)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # convert() would clip 16 bits at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return np.asarray(image.convert("RGB"))


def decode_mask(data: bytes, labels: LabelSet, name: str) -> np.ndarray:
    """Decodes a mask of palette indices, grey ids, or colours of the label set.

    Args:
        data: The bytes of a PNG or another lossless file.
        labels: Gives the valid ids and, for RGB masks, their colours.
        name: The file's name for error messages.

    Returns:
        uint8 `(H, W)` of class ids, 255 where unlabelled.

    Raises:
        UserError: If the bytes are no complete image, are a JPEG (its losses
            invent classes), or hold an id or colour that the label set lacks.
    """
    image = _open(data, name)
    if image.format == "JPEG":
        raise UserError(
            f"{name}: a mask must not be a JPEG, whose losses change class ids. "
            "Save it as PNG from the original labels."
        )
    if image.mode in ("RGB", "RGBA"):
        return _ids_of_colors(np.asarray(image.convert("RGB")), labels, name)
    if image.mode == "LA":
        image = image.getchannel("L")
    ids = np.asarray(image).astype(np.int32)
    unknown = np.setdiff1d(ids, [*range(len(labels)), labels.ignore_id])
    if unknown.size:
        raise UserError(
            f"{name}: the mask has id {unknown[0]}, but there are {len(labels)} classes: use "
            f"0 to {len(labels) - 1}, or {labels.ignore_id} for unlabelled pixels."
        )
    return ids.astype(np.uint8)


def _ids_of_colors(rgb: np.ndarray, labels: LabelSet, name: str) -> np.ndarray:
    codes = rgb.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    void = voc_palette()[IGNORE_ID]
    known = {red << 16 | green << 8 | blue: IGNORE_ID for red, green, blue in [void]}
    known |= {
        red << 16 | green << 8 | blue: class_id
        for class_id, (red, green, blue) in enumerate(labels.palette)
    }
    mask = np.full(codes.shape, IGNORE_ID, np.uint8)
    for code in np.unique(codes):
        if int(code) not in known:
            color = (int(code) >> 16, int(code) >> 8 & 255, int(code) & 255)
            raise UserError(
                f"{name}: the mask has the colour {color}, which is no class's. Add it to "
                f"classes.txt as 'name<TAB>R G B', or paint it {void} for unlabelled."
            )
        mask[codes == code] = known[int(code)]
    return mask


def _open(data: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except Image.DecompressionBombError as error:
        raise UserError(f"{name}: too large an image ({error}).") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, struct.error, ...
        raise UserError(
            f"{name}: not a readable image ({_first_line(error)}). Replace or remove it."
        ) from error
    return image


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
