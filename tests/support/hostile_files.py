"""Broken, odd and malicious image files, each made in a few lines."""

import functools
import struct
import zlib

import numpy as np
from PIL import Image

from support.image_files import chunk, encoded, png, png_of

SIZE = (24, 32)  # height and width, unless the size is what is odd
PIXELS = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
IDS = np.random.default_rng(1).integers(0, 3, SIZE).astype(np.uint8)


def frames(format: str, first=PIXELS) -> bytes:
    """Three frames, of which the others are black."""
    black = [Image.fromarray(np.zeros_like(first))] * 2
    return encoded(first, format, save_all=True, append_images=black, lossless=True)


def grey_png(ids: np.ndarray, depth: int, color: int = 0, extra: bytes = b"") -> bytes:
    """Ids in `depth` bits per pixel: grey if `color` is 0, a palette if it is 3."""
    height, width = ids.shape
    bits = np.unpackbits(ids[..., None], axis=-1)[..., 8 - depth :]
    packed = np.packbits(bits.reshape(height, -1), axis=1)
    return png(
        width, height, depth, color, b"".join(b"\0" + row.tobytes() for row in packed), extra
    )


def interlaced_png(ids: np.ndarray) -> bytes:
    """Adam7 by hand, as Pillow cannot write it."""
    rows = b""
    for y, x, down, right in ADAM7:
        part = ids[y::down, x::right]
        if part.size:
            rows += b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in part)
    height, width = ids.shape[:2]
    return png(width, height, 8, 2 if ids.ndim == 3 else 0, rows, interlace=1)


# The first row and column of each pass, and the steps to the next ones (PNG's section 8.2).
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
ADAM7 = (*ADAM7, (1, 0, 2, 1))


@functools.cache
def bomb_png(side: int = 60_000) -> bytes:
    """3.6 gigapixels of one bit in less than a megabyte, compressed twice."""
    row = b"\0" * (1 + side // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return png_of([(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")])


def with_chunk(data: bytes, new: bytes) -> bytes:
    """A PNG file with a chunk after its header."""
    return data[:33] + new + data[33:]


def with_exif(data: bytes, exif: bytes) -> bytes:
    """A JPEG file with these EXIF data."""
    content = b"Exif\0\0" + exif
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


def orientation(value: int, kind: int = 3, count: int = 1) -> bytes:
    """EXIF data with one entry."""
    entry = struct.pack(">HHII", 0x0112, kind, count, value << 16)
    return struct.pack(">2sHIH", b"MM", 42, 8, 1) + entry + bytes(4)


def tiff(entries: list[tuple[int, int, int, int]], data: bytes = b"") -> bytes:
    """A TIFF of one page from its entries `(tag, kind, count, value)`."""
    directory = struct.pack("<H", len(entries))
    for tag, kind, count, value in entries:
        directory += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0) + data


def tile_bomb() -> bytes:
    """A TIFF of one pixel whose only tile has 1.6 billion."""
    one = [(tag, 3, 1, value) for tag, value in ((256, 1), (257, 1), (258, 8), (259, 8), (262, 1))]
    tile = [(322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 200), (325, 4, 1, 10)]
    return tiff([*one, (277, 3, 1, 1), *tile], bytes(500))


def wide_tiles() -> bytes:
    """A TIFF of 16×640 pixels whose 40 tiles, of 160 million each, are the same bytes."""
    one = [(tag, 3, 1, value) for tag, value in ((258, 8), (259, 8), (262, 1), (277, 1))]
    size = [(256, 4, 1, 16), (257, 4, 1, 640), (322, 4, 1, 10_000_000), (323, 4, 1, 16)]
    tables = struct.pack("<40I", *[520] * 40) + struct.pack("<40I", *[len(PACKED)] * 40)
    entries = sorted([*one, *size, (324, 4, 40, 200), (325, 4, 40, 360)])
    return tiff(entries).ljust(200, b"\0") + tables + PACKED


def skipping_bmp() -> bytes:
    """A BMP of 30 million columns and one row that skips 255 rows."""
    header = struct.pack("<IiiHHIIiiII", 40, 30_000_000, 1, 1, 8, 1, 6, 0, 0, 256, 0)
    start = struct.pack("<2sIII", b"BM", 1084, 0, 1078)
    return start + header + bytes(1024) + b"\0\2\0\xff\0\1"


def jpeg_of_scans(count: int, size=(32, 24), **options) -> bytes:
    """A JPEG whose last scan is repeated until there are so many."""
    data = encoded(Image.fromarray(PIXELS).resize(size), "JPEG", **options)
    last = data[data.rindex(SOS) : -2]
    return data[:-2] + last * (count - data.count(SOS)) + data[-2:]


SOS = b"\xff\xda\0"
JPEG = encoded(PIXELS, "JPEG")
PNG = encoded(PIXELS)
GIF = encoded(PIXELS[..., 0], "GIF")
REPEATED = [(tag, 3, 1, 1) for tag in range(256, 260)] + [(262, 3, 1, 1), (277, 3, 1, 1)]
REPEATED += [(tag, 7, 999_000, 0) for tag in range(1000, 3000)]
HIGH = np.full(SIZE, 0x1234, np.uint16)
PACKED = zlib.compress(bytes(200_000_000), 9)
RGB = Image.fromarray(PIXELS)

# By the page's name: the file's extension and content, and the pixels if they are known.
PHOTOS = {
    "an empty file": (".jpg", b"", None),
    "a text file named .jpg": (".jpg", b"no picture\n" * 100, None),
    "a truncated JPEG": (".jpg", JPEG[:-40], None),
    "a JPEG that ends within its header": (".jpg", JPEG[:100], None),
    "a truncated PNG": (".png", PNG[:-200], None),
    "a PNG without its last chunk": (".png", PNG[:-12], PIXELS),
    "a PNG named .jpg": (".jpg", PNG, PIXELS),
    "a CMYK JPEG": (".jpg", encoded(RGB.convert("CMYK"), "JPEG"), None),
    "a PNG of 16 bits": (".png", encoded(HIGH), np.full((*SIZE, 3), 0x12, np.uint8)),
    "an interlaced PNG": (".png", interlaced_png(PIXELS), PIXELS),
    "an animated PNG": (".png", frames("PNG"), PIXELS),
    "an animated GIF": (".gif", frames("GIF", PIXELS[..., 0]), np.dstack([PIXELS[..., 0]] * 3)),
    "an animated WebP": (".webp", frames("WEBP"), PIXELS),
    "a TIFF of three pages": (".tif", frames("TIFF"), PIXELS),
    "an MPO of three frames": (".jpg", frames("MPO"), None),
    "a PNG with alpha": (".png", encoded(np.dstack([PIXELS, PIXELS[..., :1]])), PIXELS),
    "a PNG with a transparent colour": (".png", encoded(RGB, transparency=(1, 2, 3)), PIXELS),
    "a palette with transparency": (".png", encoded(RGB.quantize(), transparency=bytes(9)), None),
    "an image of 1×1": (".png", encoded(PIXELS[:1, :1]), PIXELS[:1, :1]),
    "an image of 1×20,000": (".png", encoded(np.zeros((1, 20_000, 3), np.uint8)), None),
    "an image of 20,000×1": (".png", encoded(np.zeros((20_000, 1, 3), np.uint8)), None),
    "EXIF that turns the image": (".jpg", with_exif(JPEG, orientation(6)), None),
    "EXIF with the orientation 99": (".jpg", with_exif(JPEG, orientation(99)), None),
    "damaged EXIF in a JPEG": (".jpg", with_exif(JPEG, b"MM\0*\xff\xff\xff\xff"), None),
    "damaged EXIF in a PNG": (".png", with_chunk(PNG, chunk(b"eXIf", b"no TIFF")), PIXELS),
    "a PNG of 3.6 gigapixels in 0.4 MB": (".png", bomb_png(), None),
    "a TIFF of one pixel in a tile of 1.6 gigapixels": (".tif", tile_bomb(), None),
    "200 MB of colour profile in 0.2 MB": (
        *(".png", with_chunk(PNG, chunk(b"iCCP", b"x\0\0" + PACKED)), None),
    ),
    "200 MB of text in 0.2 MB": (".png", with_chunk(PNG, chunk(b"zTXt", b"x\0\0" + PACKED)), None),
    "a JPEG of 100 scans": (".jpg", jpeg_of_scans(100, progressive=True), None),
    "a JPEG of 3,000 scans": (".jpg", jpeg_of_scans(3000, progressive=True), None),
    "100,000 pieces of EXIF data in a JPEG": (
        *(".jpg", JPEG[:2] + b"\xff\xe1\0\x0cExif\0\0MM\0*" * 100_000 + JPEG[2:], None),
    ),
    "1 MB of EXIF data": (".png", with_chunk(PNG, chunk(b"eXIf", bytes(1_000_000))), None),
    "a TIFF of 2,000 entries, each the whole file": (
        *(".tif", tiff(REPEATED).ljust(10**6, b"\0"), None),
    ),
    "a TIFF in 40 tiles of 160 megapixels, all the same": (".tif", wide_tiles(), None),
    "a GIF of 400,000 comments": (
        *(".gif", GIF[:781] + b"!\xfe\1c\0" * 400_000 + GIF[781:], None),  # after its palette
    ),
    "a BMP of one row that skips 255": (".bmp", skipping_bmp(), None),
    "a PostScript file": (".png", encoded(RGB, "EPS"), None),
    "an icon, a PPM or a Targa file": (".png", encoded(RGB, "PPM"), None),
    "a TIFF of floats": (".tif", encoded(np.ones(SIZE, np.float32), "TIFF"), None),
    "a TIFF of 32-bit integers": (".tif", encoded(np.ones(SIZE, np.int32), "TIFF"), None),
}

# The mask's content, and what its ids are if not `IDS`.
TWO = IDS % 2
_EXIF = Image.Exif()
_EXIF[0x0112] = 6
TURNED_EXIF = _EXIF.tobytes().removeprefix(b"Exif\0\0")
MASKS = {
    "a palette, grey values or 16 bits": (encoded(IDS.astype(np.uint16)), IDS),
    "grey of 1 bit": (grey_png(TWO, 1), TWO),
    "grey of 2 bits": (grey_png(IDS, 2), IDS),
    "grey of 4 bits": (grey_png(IDS, 4), IDS),
    "a palette of 2 bits": (grey_png(IDS, 2, 3, chunk(b"PLTE", bytes(12))), IDS),
    "interlaced": (interlaced_png(IDS), IDS),
    "animated": (frames("PNG", IDS), IDS),
    "grey with alpha": (encoded(Image.merge("LA", [Image.fromarray(IDS)] * 2)), IDS),
    "a transparent id": (with_chunk(encoded(IDS), chunk(b"tRNS", b"\0\1")), IDS),
    "the id 3 of three classes": (grey_png(IDS + 1, 8), None),
    "the id 300": (encoded(HIGH // HIGH * 300), None),
    "16 bits and alpha": (
        png(1, 1, 16, 4, b"\0" + struct.pack(">HH", 1, 1)),
        None,
    ),
    "a colour that is no class's": (encoded(np.full((*SIZE, 3), 7, np.uint8)), None),
    "turned by EXIF data": (with_chunk(encoded(IDS), chunk(b"eXIf", TURNED_EXIF)), None),
    "of another size": (encoded(IDS[1:]), None),
    "a JPEG named .png": (encoded(IDS, "JPEG"), None),
    "an MPO named .png": (frames("MPO"), None),
    "a WebP, GIF, TIFF or BMP named .png": (frames("WEBP"), None),
    "an empty mask": (b"", None),
    "a truncated mask": (encoded(IDS)[:-40], None),
    "a mask of 3.6 gigapixels": (bomb_png(), None),
}
