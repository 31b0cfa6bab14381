"""Photographs as a server takes them, and pictures of its masks; needs only Pillow."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from fcn_keras.errors import UserError
from fcn_keras.files.images import (
    bad_files_named,
    encode_image,
    open_header,
    open_photograph,
    palette_image,
    upright_size,
)
from fcn_keras.files.painting import paint, painted_ids

SENT_AS_THEY_ARE = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")  # how JPEG and PNG files begin


def sendable_bytes(path: Path) -> bytes:
    """A photograph's file if it is a JPEG or PNG, else a PNG of it, upright and in RGB.

    Raises:
        UserError: If there is no such file, or it is not an image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "no such file or folder" if missing else error.strerror
        raise UserError(f"{path}: {reason}.") from error
    if data.startswith(SENT_AS_THEY_ARE):
        return data
    return encode_image(open_photograph(data, str(path)))


def colored_mask(mask_png: bytes, photograph: bytes, palette, name: str) -> Image.Image:
    """A server's mask as an image of mode `"P"` in the classes' colours.

    Args:
        mask_png: A grey PNG file of class ids.
        photograph: The file that it is the mask of.
        palette: A colour `(red, green, blue)` for each class.
        name: Whose mask it is, for error messages.

    Raises:
        UserError: If it is not such a file, differs in size from the upright photograph,
            or has ids of no class.
    """
    whose = f"{name}: the server's mask"
    mask, size = open_header(mask_png, whose, ("PNG",)), upright_size(photograph, name)
    if mask.mode != "L":
        raise UserError(f"{whose} is not grey but of mode {mask.mode}. Check the model's name.")
    if mask.size != size:
        raise UserError(_other_size(name, mask.size, size))
    with bad_files_named(whose):
        mask.load()
        highest = mask.getextrema()[1]
    if highest >= len(palette):
        raise UserError(
            f"{whose} has id {highest}, but there are {len(palette)} classes. Check the model's "
            "name."
        )
    mask.info.clear()  # a colour profile or a transparent colour would go into the result
    return palette_image(mask, palette)


def overlay(photograph: Image.Image, mask: Image.Image, names, palette, name: str) -> Image.Image:
    """Paints a mask over its photograph, as `files.painting` describes.

    Args:
        photograph: Of mode `"RGB"`.
        mask: Class ids, of mode `"P"`.
        names: A name for each class.
        palette: A colour `(red, green, blue)` for each class.
        name: The photograph's, for error messages.

    Raises:
        UserError: If their sizes differ.
    """
    if photograph.size != mask.size:
        raise UserError(_other_size(name, mask.size, photograph.size))
    return paint(photograph, mask, palette, painted_ids(names))


def _other_size(name: str, mask, photograph) -> str:
    return (
        f"{name}: the server's mask is {mask[0]}x{mask[1]}, but the upright photograph is "
        f"{photograph[0]}x{photograph[1]}. Check the model's name."
    )
