"""Memory that is no longer needed, but that Python and the C library keep."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def leave_out_of_collections() -> None:
    """Makes later collections short: they skip what exists now, such as TensorFlow.

    No other thread runs during a collection.
    """
    gc.collect()
    gc.freeze()


def give_back_memory() -> None:
    """Frees cycles, as in graphs and exceptions, and has glibc return memory to the system."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
