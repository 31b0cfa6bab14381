"""Results that are complete or absent: written under another name, then renamed."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from fcn_keras.errors import UserError
from fcn_keras.files import storage

PARTIAL = ".partial-"  # prefix of what is not finished


@contextlib.contextmanager
def atomic_path(path: Path, durable: bool = False):
    """Yields a path beside `path` that is renamed to it once the block has succeeded.

    Args:
        path: The file's path.
        durable: Whether to flush the content to disk first, in case the power fails; this
            takes a few milliseconds.
    """
    partial = path.with_name(f"{PARTIAL}{path.name}")
    try:
        yield partial
        if durable:
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def partial_folder(parent: Path):
    """Yields a path in `parent` for a new folder, to be renamed; removes it if it is not."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=parent) as temporary:
        yield Path(temporary, "folder")


@contextlib.contextmanager
def atomic_folder(path: Path):
    """Yields a path for a new folder that is renamed to `path` once the block has succeeded."""
    with partial_folder(path.parent) as partial:
        yield partial
        os.rename(partial, path)


def require_replaceable(option: str, path, mark: bytes) -> None:
    """Raises `UserError` if a file would replace something that is not of its kind.

    Args:
        option: The flag that names the file.
        path: Its path or address.
        mark: A pattern in the first or last mebibyte of every file of its kind.
    """
    if storage.is_address(path):
        data = storage.read(path) if storage.changed(path) else b""
    elif os.path.isdir(path):
        raise UserError(f"{option} {path}: a folder. Choose a file.")
    elif os.path.isfile(path):
        with open(path, "rb") as file:
            data = file.read(1 << 20)
            file.seek(max(file.tell(), os.fstat(file.fileno()).st_size - (1 << 20)))
            data += file.read()
    else:  # anything but a regular file has no mark
        data = b"?" if os.path.lexists(path) else b""
    if data and not re.search(mark, data):
        raise UserError(
            f"{option} {path}: exists, but was not written by this command. Choose another name "
            "or move that file."
        )


def write_file(path, write: Callable[[Path], object]) -> None:
    """Writes a file of the user's choice whole or not at all.

    Args:
        path: Its path, or its address in an object store.
        write: Writes to the path that it is given.

    Raises:
        UserError: If that fails.
    """
    if storage.is_address(path):
        storage.write(str(path), write)
        return
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            write(partial)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}). Choose another path."
        ) from error
