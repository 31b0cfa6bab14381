"""Common mistakes of callers, explained to them or to whoever reads the log."""

from __future__ import annotations

import base64
import re
import sys
import time
from collections.abc import Mapping

import numpy as np

IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*")
ADDRESS = re.compile(rb"(?i)[a-z0-9]+://|.*\.(bmp|gif|jpe?g|png|tiff?|webp)\s*\Z", re.DOTALL)
LONGEST_ADDRESS = 2000
URL_SAFE = bytes.maketrans(b"-_", b"+/")
QUIET_SECONDS = 10  # between warnings about a signature
REMEDY = 'Send a file\'s bytes as {"b64": "..."}, in base64.'

_warned: dict[str, float] = {}


def text_hint(inputs: Mapping[str, np.ndarray]) -> str:
    """What is wrong with the first text that was sent instead of a file; empty if nothing is."""
    for name, array in sorted(inputs.items()):
        for index, value in np.ndenumerate(array) if array.dtype == object else ():
            if kind := _kind_of_text(value):
                place = name + "".join(f"[{i}]" for i in index)
                return f"{place} is {kind}. {REMEDY}"
    return ""


def warn_of_range(signature: str, inputs: Mapping[str, np.ndarray]) -> None:
    """Prints a warning if pixels seem not to be in 0..255; they are processed all the same.

    That is if an image's largest value is at most 1 but not 0, or if values are below 0 or
    above 255. There is at most one line per `QUIET_SECONDS`.
    """
    images = inputs.get("images")  # as `export.signatures` calls them
    if images is None or images.ndim != 4 or images.dtype.kind not in "iuf" or not images.size:
        return
    low, high = images.min(axis=(1, 2, 3)), images.max(axis=(1, 2, 3))
    odd = np.flatnonzero((low < 0) | (high > 255) | ((high > 0) & (high <= 1)))
    now = time.monotonic()
    if not len(odd) or now - _warned.get(signature, -np.inf) < QUIET_SECONDS:
        return
    _warned[signature] = now
    print(
        f"Warning: {signature} got pixels in {low[odd[0]]:g}..{high[odd[0]]:g}; the model takes "
        "RGB in 0..255. Multiply values in 0..1 by 255.",
        file=sys.stderr,
        flush=True,
    )


def _kind_of_text(value: bytes) -> str | None:
    if value.startswith(IMAGES):
        return None
    if value[:5].lower() == b"data:":
        return "a data URL, of which only what follows the comma is base64"
    if len(value) < LONGEST_ADDRESS and ADDRESS.match(value):
        return "a path or an address, which the server does not open"
    if _from_base64(value).startswith(IMAGES):
        return "base64 without its key"
    with_latin_1 = value[:8].decode(errors="ignore").encode("latin-1", "ignore")
    return "a file's bytes as characters" if with_latin_1.startswith(IMAGES[:2]) else None


def _from_base64(value: bytes) -> bytes:
    """The first bytes that a base64 text encodes, also in the alphabet for URLs."""
    value = value.removeprefix(b"b'")  # Python's way to write bytes
    digits = b"".join(value[:100].split())[:16].translate(URL_SAFE)
    try:
        return base64.b64decode(digits, validate=True)
    except ValueError:
        return b""
