"""Memory that nothing needs, but that Python and the C library keep."""

from __future__ import annotations

import contextlib
import ctypes
import gc


def leave_out_of_collections() -> None:
    """Makes later collections short: they pass over what there is now, such as TensorFlow.

    While they run no other thread does.
    """
    gc.collect()
    gc.freeze()


def give_back_memory() -> None:
    """Frees cycles, as graphs and exceptions make, and has glibc return memory to the system."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
