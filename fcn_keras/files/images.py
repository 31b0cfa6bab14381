"""Image files <-> pictures, with Pillow alone: the one rule for photographs and for masks.

A bad file is reported by name. Of several frames or pages the first is used. Exported
models follow the same rule (`export.graph_decoding`), and masks are opened in the same way
(`data.decoding`).
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
import warnings
from typing import Any

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fcn_keras.errors import UserError, first_line

# What Pillow may open (JPEG includes MPO); each further decoder is one more way to attack.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
JPEGS = ("JPEG", "MPO")
LYING = (5, 6, 7, 8)  # orientations that swap the sides
# Where else Pillow looks for an orientation; exported models read EXIF data only.
OTHER_ORIENTATIONS = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")
UNLABELLED = (224, 224, 192)  # VOC's cream, for ids of no class
TIFF_SIZES = ((256, 322), (257, 323))  # tags: width and height, of the image and of a tile
MAX_PIXELS = 178_956_970  # more is a decompression bomb to Pillow
# Each scan of a JPEG passes over all pixels. Chromium and libtiff have this limit too; encoders
# write about 10 scans. A scan's header is shorter than 256 bytes, so its third byte is 0.
SCAN_START, MAX_SCANS = b"\xff\xda\0", 100
RLE_DELTA = 255  # rows that two bytes of a BMP can skip; Pillow fills them at once
MAX_EXIF_BYTES = 2**16  # Pillow may copy all of them for each of thousands of entries
MAX_HEADER_WORK = 5 * 10**10  # reads times bytes: a second or two
# The longer side that a network sees at most, in shorter sides. It bounds the memory for a
# photograph of 1×10,000.
LONGEST = 4
_LIFTING = threading.Lock()
_TOO_MUCH_EXIF = f"more than {MAX_EXIF_BYTES:,} bytes of EXIF data"
# Pillow's warnings name no file, and what cannot be read is an error here.
warnings.filterwarnings("ignore", module=r"PIL\.")


def open_photograph(source, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Opens a photograph, to be read as a whole or in parts.

    EXIF orientation is applied, grey is repeated, transparency is dropped, and
    16-bit samples keep their high byte. Damaged EXIF data are ignored.

    Args:
        source: A path, or the file's bytes.
        name: The file's name for error messages.
        max_pixels: The largest image to accept.

    Returns:
        An image of mode `"RGB"`.

    Raises:
        UserError: If it is not a complete image, or is too large.
    """
    with bad_files_named(name):
        with _pillow_accepting(max_pixels):
            image = _open(source, name, FORMATS, max_pixels)
            image.load()
        read_orientation(image)
        ImageOps.exif_transpose(image, in_place=True)
        return to_rgb(image, name)


def open_header(source, name: str, formats=FORMATS) -> Any:
    """Opens an image without reading its pixels; raises `UserError` like `open_photograph`."""
    with bad_files_named(name, formats):
        return _open(source, name, formats, MAX_PIXELS)


def upright_size(source, name: str) -> tuple[int, int]:
    """The width and height of `open_photograph`'s image; a JPEG is not decoded for this."""
    with bad_files_named(name):
        width, height = _open(source, name, FORMATS, MAX_PIXELS).size
        return (height, width) if orientation(source, name) in LYING else (width, height)


def orientation(source, name: str) -> int:
    """How `open_photograph` turns an image: EXIF's number, 1 if it does not."""
    with bad_files_named(name):
        image = _open(source, name, FORMATS, MAX_PIXELS)
        if image.format not in JPEGS:  # EXIF data may come after the pixels
            image.load()
        return read_orientation(image)


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """An image in mode `"RGB"`: grey repeated, alpha dropped, the high byte of 16 bits.

    Raises:
        UserError: If its samples are floats or 32-bit integers, whose range is unknown.
    """
    if image.mode in ("F", "I"):
        kind = "floats" if image.mode == "F" else "32-bit integers"
        raise UserError(f"{name}: an image of {kind}. Save it with 8 or 16 bits per channel.")
    if image.mode.startswith("I;16"):  # convert("L") would clip it at 255
        image = image.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")  # convert copies even RGB


def resized_size(height, width, short_side: int, longest: int | None = None, low=min, high=max):
    """The height and width at which a network sees a photograph.

    The shorter side becomes `short_side`, and the longer one is rounded down, as by torchvision's
    `Resize`. But if the longer side exceeds `LONGEST` shorter ones, or `longest` pixels, it
    becomes that, and the shorter one follows, so that proportions are kept.

    Args:
        height: Of the photograph, an integer; or a tensor, with `low` and `high` for tensors.
        width: Likewise.
        short_side: At least 1.
        longest: Most pixels of the longer side.
        low: The smaller of two numbers.
        high: The larger of two numbers.
    """
    most = min(LONGEST * short_side, longest or LONGEST * short_side)
    short, long = low(height, width), high(height, width)

    def resized(side):
        return high(low(short_side * side // short, most * side // long), 1)

    return resized(height), resized(width)


def palette_image(ids: Image.Image, palette) -> Image.Image:
    """Class ids, of mode `"L"`, as an image of mode `"P"` in the classes' colours; in place."""
    colors = [*palette, *[UNLABELLED] * (256 - len(palette))]
    ids.putpalette([level for color in colors for level in color])
    return ids


def encode_image(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    """An image as the bytes of a file; for the options see Pillow."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@contextlib.contextmanager
def bad_files_named(name: str, formats=FORMATS):
    """Turns whatever Pillow raises into a `UserError` that names the file."""
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:  # its message shows a Python object
        raise UserError(
            f"{name}: not a readable image (unknown format). Replace or remove it; the supported "
            f"formats are {', '.join(formats)}."
        ) from error
    except Exception as error:  # OSError, SyntaxError, struct.error, ...
        raise UserError(
            f"{name}: not a readable image ({first_line(error)}). Replace or remove it."
        ) from error


def read_orientation(image: Image.Image) -> int:
    """The orientation in a loaded image's EXIF data; everything else in them is dropped."""
    for other in OTHER_ORIENTATIONS:
        image.info.pop(other, None)
    if len(image.info.get("exif", b"")) > MAX_EXIF_BYTES:
        raise ValueError(_TOO_MUCH_EXIF)
    with contextlib.suppress(Exception):  # what is readable in damaged data is kept
        exif = image.getexif()
        for tag in set(exif) - {ExifTags.Base.Orientation}:  # exif_transpose would write them again
            del exif[tag]
    return image.getexif().get(ExifTags.Base.Orientation, 1)


def _open(source, name: str, formats, max_pixels: int) -> Any:
    in_memory = isinstance(source, bytes)
    try:
        with _HeaderReader(io.BytesIO(source) if in_memory else io.FileIO(source)) as file:
            image: Any = Image.open(file, formats=formats)
            if _decoded_pixels(image) > max_pixels:
                raise Image.DecompressionBombError
            if image.format in JPEGS and (scans := file.count(SCAN_START)) > MAX_SCANS:
                raise UserError(
                    f"{name}: a JPEG of {scans:,} scans; at most {MAX_SCANS} are allowed. Save "
                    "it as a baseline JPEG."
                )
        return Image.open(io.BytesIO(source) if in_memory else source, formats=formats)
    except Image.DecompressionBombError as error:
        raise UserError(
            f"{name}: more than {max_pixels:,} pixels. Make it smaller; predict and demo also read "
            "it with a larger --max-pixels, if you trust it."
        ) from error


def _decoded_pixels(image: Any) -> int:
    """How many pixels Pillow may allocate to decode an image."""
    width, height = image.size
    if image.format == "TIFF":  # a one-pixel TIFF may have a tile of billions, or many
        tags = image.tag_v2
        sides = ((tags[side], tags.get(tile) or 1) for side, tile in TIFF_SIZES)
        return math.prod(-(-side // tile) * tile for side, tile in sides)
    if image.tile and image.tile[0][0] == "bmp_rle":
        height = max(height, RLE_DELTA)
    return width * height


class _HeaderReader(io.BufferedReader):
    """A file to open an image from, which raises `ValueError` if that would take too long.

    At some reads Pillow copies all it has, so the time grows with reads times bytes.
    """

    _reads = _bytes = _exif = 0

    def read(self, size=-1):
        data = super().read(size)
        self._reads, self._bytes = self._reads + 1, self._bytes + len(data)
        if self._reads * self._bytes > MAX_HEADER_WORK:
            raise ValueError("too much metadata")
        if data.startswith(b"Exif\0\0"):  # Pillow joins all those of a JPEG
            self._exif += len(data)
            if self._exif > MAX_EXIF_BYTES:
                raise ValueError(_TOO_MUCH_EXIF)
        return data

    def count(self, pattern: bytes) -> int:
        """How often a pattern that cannot overlap itself occurs in the whole file."""
        self.seek(0)
        found, rest = 0, b""
        while block := self.read1(2**20):
            found += (rest + block).count(pattern)
            rest = (rest + block)[1 - len(pattern) :]
        return found


@contextlib.contextmanager
def _pillow_accepting(max_pixels: int):
    """Lifts Pillow's own limit, a global, for the block, and only if more pixels are accepted."""
    if max_pixels <= MAX_PIXELS:
        yield
        return
    with _LIFTING:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
