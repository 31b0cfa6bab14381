"""Memory that is free, but that the C library keeps."""

from __future__ import annotations

import contextlib
import ctypes


def give_back_memory() -> None:
    """Has the C library return what is free to the system, where it is glibc."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
