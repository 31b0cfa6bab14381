"""Bytes of an image or mask file -> arrays: the one decoding rule of the package.

Pillow decodes, so that palette masks keep their indices (TensorFlow's PNG
decoder expands them to RGB) and a bad file is reported with its name. Exported
models follow the same rule for photographs (`serving.graph_decoding`). Of several frames
or pages the first is taken.
"""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fcn_keras.datasets.base import IGNORE_ID, LabelSet, voc_palette
from fcn_keras.errors import UserError
from fcn_keras.files import FORMATS, OTHER_ORIENTATIONS

# Pillow spreads grey values of a few bits over 0..255; this much apart.
GREY_STEPS = {"L;2": 85, "L;4": 17}
TILEWIDTH, TILELENGTH = 322, 323  # tags of TIFF
# Its warnings name no file, and what cannot be read is an error here.
warnings.filterwarnings("ignore", module=r"PIL\.")


def allow_pixels(max_pixels: int | None) -> None:
    """Raises Pillow's limit for this process, for a user who trusts their images.

    Args:
        max_pixels: The largest image to accept. Left out, it stays at what Pillow
            takes for a decompression bomb, 179 million pixels.
    """
    if max_pixels is not None:
        if max_pixels < 1:
            raise UserError(f"--max-pixels must be at least 1. Received: {max_pixels}.")
        # Pillow refuses images of twice its limit, and warns from the limit on.
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)


def open_image(source, name: str) -> Image.Image:
    """Opens a photograph for reading in parts.

    EXIF orientation is applied, grey is repeated, transparency is dropped, and
    16-bit samples keep their high byte. EXIF data that are damaged say nothing.

    Args:
        source: A path, or a binary file.
        name: The file's name for error messages.

    Returns:
        An image of mode `"RGB"`.

    Raises:
        UserError: If it is no complete image, or too large.
    """
    with _bad_files_named(name):
        image = Image.open(source, formats=FORMATS)
        _refuse_large_tiles(image)
        image.load()
        for other in OTHER_ORIENTATIONS:
            image.info.pop(other, None)
        with contextlib.suppress(Exception):  # what could be read of damaged data is kept
            image.getexif()
        ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image, name)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """An image in mode `"RGB"`: grey repeated, alpha dropped, the high byte of 16 bits.

    Raises:
        UserError: If its samples are floats or 32-bit integers, whose range is unknown.
    """
    if image.mode in ("F", "I"):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise UserError(f"{name}: an image of {kind}. Save it with 8 or 16 bits.")
    if image.mode.startswith("I;16"):  # convert() would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")  # which copies even RGB


def decode_image(data: bytes, name: str) -> np.ndarray:
    """Decodes a photograph, as `open_image` does, to uint8 `(H, W, 3)` in RGB.

    Raises:
        UserError: If the bytes are no complete image, or it is too large.
    """
    return np.asarray(open_image(io.BytesIO(data), name))


def decode_mask(data: bytes, labels: LabelSet, name: str) -> np.ndarray:
    """Decodes a mask of palette indices, grey ids, or colours of the label set.

    Args:
        data: The bytes of a PNG file.
        labels: Gives the valid ids and, for RGB masks, their colours.
        name: The file's name for error messages.

    Returns:
        uint8 `(H, W)` of class ids, 255 where unlabelled.

    Raises:
        UserError: If the bytes are no complete image or no PNG (a JPEG's losses
            invent classes), or hold an id or colour that the label set lacks.
    """
    with _bad_files_named(name):
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        _require_ids_kept(image, name)
        step = GREY_STEPS.get(_raw_mode(image), 1)
        image.load()
        if image.mode in ("RGB", "RGBA"):
            return _ids_of_colors(np.asarray(image.convert("RGB")), labels, name)
        ids = np.asarray(image.getchannel("L") if image.mode == "LA" else image)
    ids = ids.astype(np.uint8) if ids.dtype == bool else ids // step
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


def _require_ids_kept(image: Image.Image, name: str) -> None:
    """Raises `UserError` if a mask's file cannot hold ids, or Pillow would change them."""
    if image.format in ("JPEG", "MPO"):
        raise UserError(
            f"{name}: a mask must not be a JPEG, whose losses change class ids. "
            "Save it as PNG from the original labels."
        )
    if image.format != "PNG":
        raise UserError(f"{name}: a mask must be a PNG, and this is a {image.format}. Save it so.")
    if _raw_mode(image) == "LA;16B":  # of which Pillow keeps the high byte
        raise UserError(f"{name}: a mask of 16 bits with transparency. Save it with 8 bits.")


def _raw_mode(image: Image.Image) -> str:
    """How the pixels of a PNG file are stored, as Pillow calls it; known until it is loaded."""
    return image.tile[0].args if image.tile else ""


def _refuse_large_tiles(image: Image.Image) -> None:
    """A TIFF of one pixel may have a tile of billions, of which Pillow's limit knows nothing."""
    if image.format == "TIFF" and Image.MAX_IMAGE_PIXELS:
        width, length = (image.tag_v2.get(tag, 0) for tag in (TILEWIDTH, TILELENGTH))
        if width * length > 2 * Image.MAX_IMAGE_PIXELS:
            raise Image.DecompressionBombError


@contextlib.contextmanager
def _bad_files_named(name: str):
    """Turns whatever Pillow raises into a `UserError` that names the file."""
    try:
        yield
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{name}: more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels. If you trust the file, "
            "allow as many by --max-pixels of predict, or make it smaller."
        ) from error
    except UnidentifiedImageError as error:  # its message shows a Python object
        raise UserError(
            f"{name}: not a readable image (of no known kind). Replace or remove it; what can be "
            f"read is {', '.join(FORMATS)}."
        ) from error
    except Exception as error:  # OSError, SyntaxError, struct.error, ...
        text = getattr(error, "strerror", None) or str(error)
        reason = (text.splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{name}: not a readable image ({reason}). Replace or remove it."
        ) from error
