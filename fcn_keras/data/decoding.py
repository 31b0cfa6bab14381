"""Bytes of an image or mask file -> arrays, by the rules of `files.images`.

Pillow decodes masks too, so that palettes keep their indices (TensorFlow's PNG
decoder expands them to RGB).
"""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcn_keras.data.layout import MASK_FOLDER, folder_command
from fcn_keras.data.split import IGNORE_ID, LabelSet, voc_palette
from fcn_keras.errors import UserError
from fcn_keras.files.images import (
    JPEGS,
    bad_files_named,
    open_header,
    open_photograph,
    read_orientation,
)

# Pillow scales grey values of a few bits to 0..255, in steps of this size.
GREY_STEPS = {"L;2": 85, "L;4": 17}
MANY = 256  # colours in one mask: more are not classes
MASK_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "WEBP")  # which keep what is drawn, WebP if lossless
WEBP_HEAD = 1 << 16  # bytes, in which a lossy one says so


@dataclasses.dataclass(frozen=True)
class MaskValues:
    """What a mask's file holds, before it is known what that means.

    Args:
        pixels: Palette indices or grey values `(H, W)`, or colours uint8 `(H, W, 3)`.
        step: The step between the grey values of a file with a few bits per pixel.
        palette: The colours of palette indices, uint8 `(256, 3)`.
    """

    pixels: np.ndarray
    step: int = 1
    palette: np.ndarray | None = None

    def ids(self) -> np.ndarray | None:
        """Integers `(H, W)`; `None` for colours, unless channels are equal or but one are 0."""
        if self.pixels.ndim == 2:
            return self.pixels if self.step == 1 else self.pixels // self.step
        if (self.pixels == self.pixels[..., :1]).all():
            return self.pixels[..., 0]
        used = [i for i in range(3) if self.pixels[..., i].any()]
        return self.pixels[..., used[0]] if len(used) == 1 else None

    def colors(self) -> np.ndarray:
        """int32 `(H, W)` of colours, see `color_code`."""
        if self.pixels.ndim == 3:
            red, green, blue = (self.pixels[..., i].astype(np.int32) for i in range(3))
            return red << 16 | green << 8 | blue
        if self.palette is None:
            return self.pixels.astype(np.int32) * color_code((1, 1, 1))
        return MaskValues(self.palette[None]).colors()[0][self.pixels]


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
    return class_ids(mask_values(data, name), labels, name, predicted)


def class_ids(
    values: MaskValues, labels: LabelSet, name: str, predicted: bool = False
) -> np.ndarray:
    """The second half of `decode_mask`, for a mask that is open already."""
    if values.pixels.ndim == 3 or (ids := values.ids()) is None:
        return _ids_of_colors(values, labels, name, predicted)
    void = [] if predicted else [labels.ignore_id]
    unknown = np.setdiff1d(ids, [*range(len(labels)), *void])
    if unknown.size:
        others = "".join(f", or {ignore_id} for unlabelled pixels" for ignore_id in void)
        hint = "" if predicted else f" To see all values: {_convert(name)}"
        if not predicted and unknown.tolist() == [len(labels)]:
            flags = ["--ids-from", "1", *(["--unlabelled", "0"] if 0 in ids else [])]
            hint = f" If the first class is 1: {_convert(name, *flags)}"
        raise UserError(
            f"{name}: the mask has id {unknown[0]}, but there are {len(labels)} classes: use "
            f"0 to {len(labels) - 1}{others}.{hint}"
        )
    return ids.astype(np.uint8)


def mask_values(data: bytes, name: str, formats=("PNG",)) -> MaskValues:
    """Opens a mask of one of these formats; raises `UserError` like `decode_mask`."""
    with bad_files_named(name):
        image = open_header(data, name)
        _require_ids_kept(image, data, name, formats)
        step = GREY_STEPS.get(_raw_mode(image), 1)
        image.load()
        if read_orientation(image) in range(2, 9):
            raise UserError(
                f"{name}: EXIF data turn the mask. Save it upright, without them, as a mask is "
                "read as it is stored."
            )
        if image.mode in ("LA", "RGBA"):
            _require_opacity_without_meaning(image, name)
        if image.mode in ("RGB", "RGBA"):
            return MaskValues(np.asarray(image.convert("RGB")))
        if image.mode == "F":
            return MaskValues(_whole_numbers(np.asarray(image), name))
        if image.mode not in ("1", "L", "LA", "P", "I") and not image.mode.startswith("I;16"):
            raise UserError(f"{name}: a mask must hold ids or RGB, not {image.mode}.")
        if image.mode == "1":
            image, step = image.convert("L"), 255
        pixels = np.asarray(image.getchannel("L") if image.mode == "LA" else image)
        if image.mode != "P":
            return MaskValues(pixels, step)
        palette = np.zeros((256, 3), np.uint8)
        colors = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        palette[: len(colors)] = colors
        return MaskValues(pixels, palette=palette)


def _require_opacity_without_meaning(image: Image.Image, name: str) -> None:
    """Raises `UserError` if a colour is transparent in places: then it alone tells no class."""
    alpha = np.asarray(image.getchannel("A"))
    if alpha.any() and not alpha.all():
        codes = MaskValues(np.asarray(image.convert("RGB"))).colors()
        if np.intersect1d(codes[alpha > 0], codes[alpha == 0]).size:
            raise UserError(
                f"{name}: the mask has a colour that is transparent in places. Save it without "
                "transparency, on a background of another colour."
            )


def _whole_numbers(pixels: np.ndarray, name: str) -> np.ndarray:
    """Floats as int32; raises `UserError` unless they are whole."""
    whole = np.nan_to_num(pixels).clip(-1, 1 << 16).astype(np.int32)
    if (whole != pixels).any():
        raise UserError(f"{name}: the mask has fractions, not ids. Save ids as whole numbers.")
    return whole


def color_code(color) -> int:
    """A colour as one integer, red in the highest bits."""
    red, green, blue = color
    return red << 16 | green << 8 | blue


def color_of(code: int) -> tuple[int, int, int]:
    """The colour of a `color_code`."""
    return int(code) >> 16, int(code) >> 8 & 255, int(code) & 255


def ids_of_color(color) -> set[int]:
    """The id that a colour is if it holds one in three equal channels, or in one of them."""
    levels = {*color}
    return levels if len(levels) == 1 else levels - {0} if [*color].count(0) == 2 else set()


def class_colors(labels: LabelSet) -> dict[int, int]:
    """The id of each class's `color_code`, and of VOC's cream, which is unlabelled."""
    void = {color_code(voc_palette()[IGNORE_ID]): IGNORE_ID}
    return void | {color_code(color): id for id, color in enumerate(labels.palette)}


def _ids_of_colors(values: MaskValues, labels: LabelSet, name: str, predicted: bool) -> np.ndarray:
    codes, known = values.colors(), class_colors(labels)
    if predicted:
        known = {code: id for code, id in known.items() if id != IGNORE_ID}
    mask = np.full(codes.shape, IGNORE_ID, np.uint8)
    found = np.unique(codes).tolist()
    unknown = [code for code in found if code not in known]
    if unknown:
        more = f", and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        remedy = (
            "Use the data set's colours." if predicted else _remedy(found, unknown, labels, name)
        )
        raise UserError(
            f"{name}: the mask has the colour {color_of(unknown[0])}, which is no class's{more}. "
            f"{remedy}"
        )
    for code in found:
        mask[codes == code] = known[code]
    return mask


def _convert(name: str, *flags: str) -> str:
    """The command, or its flags, that read the masks of a mask's folder in another way."""
    words = ["--format", "folders", *flags]
    for folder in Path(name).parents:
        if folder.name == MASK_FOLDER:
            return folder_command(folder.parent, *words)
    return f"add {shlex.join(words)}"


def _remedy(found: list[int], unknown: list[int], labels: LabelSet, name: str) -> str:
    """What to do about a mask's colours, of which some are no class's."""
    if len(unknown) > MANY:
        return "So many are in a photograph or after lossy compression, not in a mask."
    greys = [red for red, green, blue in map(color_of, found) if red == green == blue]
    if len(greys) == len(found) and {*greys} <= {0, 255}:
        return f"If white is a class: {_convert(name, '--binary', 'NAME')}"
    if all(ids_of_color(color_of(code)) & {*range(len(labels)), IGNORE_ID} for code in found):
        return (
            f"If its channels, or one of them, hold ids: {_convert(name, '--mask-values', 'ids')}"
        )
    return (
        f"Add it to classes.txt as 'name<TAB>R G B', or paint it {voc_palette()[IGNORE_ID]} for "
        f"unlabelled. To list all colours: {_convert(name)}"
    )


def _require_ids_kept(image: Image.Image, data: bytes, name: str, formats) -> None:
    """Raises `UserError` if a mask's file cannot hold ids, or Pillow would change them."""
    lossy_webp = image.format == "WEBP" and b"VP8 " in data[:WEBP_HEAD]
    if (image.format in JPEGS or lossy_webp) and "JPEG" not in formats:
        kind = "a lossy WebP" if lossy_webp else "a JPEG"
        raise UserError(
            f"{name}: a mask must not be {kind}, whose compression changes class ids. "
            "Save it as PNG from the original labels. If there are none: "
            f"{_convert(name, '--nearest')} (and --binary NAME if it is black and white)"
        )
    if image.format not in (*formats, *JPEGS):
        other = f", or: {_convert(name)}" if image.format in MASK_FORMATS else "."
        remedy = f"Save it as PNG{other}"
        raise UserError(f"{name}: a mask must be a {formats[0]}, not {image.format}. {remedy}")
    raw = _raw_mode(image)
    if raw == "LA;16B":  # Pillow keeps the high byte only
        raise UserError(f"{name}: a 16-bit mask with transparency. Save it with 8 bits.")
    if raw in ("L;I", "L;2I", "L;4I"):
        raise UserError(f"{name}: its grey values are stored inverted. Save it as PNG.")
    if getattr(image, "n_frames", 1) > 1:
        raise UserError(
            f"{name}: a {image.format} of several pages. Save the mask as a file of one."
        )


def _raw_mode(image: Any) -> str:
    """Pillow's name for the pixel format of a file; lost once the image is loaded."""
    arguments = image.tile[0].args if image.tile else ""
    return arguments[0] if isinstance(arguments, tuple) else arguments
