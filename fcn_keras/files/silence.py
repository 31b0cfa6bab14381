"""Silence for packages that write to the terminal from C++, which bypasses `sys.stderr`."""

from __future__ import annotations

import contextlib
import os
import sys


@contextlib.contextmanager
def silenced(*descriptors: int):
    """Drops what is written to file descriptors: 1 is stdout, 2 is stderr."""
    with contextlib.ExitStack() as stack:
        null = stack.enter_context(open(os.devnull, "w"))
        sys.stdout.flush()
        for descriptor in descriptors:
            original = os.dup(descriptor)
            stack.callback(os.close, original)
            stack.callback(os.dup2, original, descriptor)
            os.dup2(null.fileno(), descriptor)
        stack.callback(sys.stdout.flush)
        yield
