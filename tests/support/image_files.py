"""The bytes of image files, also of kinds that Pillow cannot write."""

import io
import struct
import zlib

from PIL import Image


def encoded(image, format="PNG", **options) -> bytes:
    """The file of a Pillow image or of an array."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(chunks) -> bytes:
    """A PNG of chunks `(kind, data)`."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def png(width, height, depth, color, rows: bytes, before=b"", behind=b"", interlace=0) -> bytes:
    """A PNG of the rows as they are stored, each with its filter's byte.

    Args:
        before: Chunks before the pixels.
        behind: Chunks after them.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return png_of([(b"IHDR", header)]) + before + pixels + behind + chunk(b"IEND", b"")
