"""Results that are complete or absent: written under another name, then renamed."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
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


@contextlib.contextmanager
def new_version(path: Path):
    """Yields a path for a folder that takes the place of the folder `path` after the block.

    Where the file system can exchange two names (on Linux ext4, XFS, Btrfs, tmpfs and others),
    `path` is the old folder or the new one at every moment, however the process ends. Elsewhere
    it is absent for a moment; after a kill in that moment the next call restores the old one.

    Raises:
        UserError: If another call is at it, or the folder is a mount point.
        OSError: If the folder beside it cannot be written, and as the block raises.
    """
    path = Path(os.path.realpath(path))
    if os.path.ismount(path):
        raise UserError(
            f"{path}: a mount point, whose folder cannot be exchanged. Use a folder below it."
        )
    staging = path.with_name(f"{PARTIAL}{path.name}")
    staging.mkdir(exist_ok=True)
    before, after = staging / "before", staging / "after"
    with _locked(
        staging, f"{path}: another call is changing it. Run this again when it has ended."
    ):
        try:
            _restore(before, path)
            for left in staging.iterdir():  # by a killed process
                shutil.rmtree(left)
            yield after
            if not _exchange(after, path):
                os.rename(path, before)
                os.rename(after, path)
                os.rename(before, after)  # which is not restored
        finally:
            _restore(before, path)
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path, refusal: str):
    """Raises `UserError` if another process has locked a folder; a lock ends with its process."""
    with contextlib.ExitStack() as stack:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), os.stat(folder)):
                raise FileNotFoundError  # the other call has ended meanwhile
        except (BlockingIOError, FileNotFoundError) as error:
            raise UserError(refusal) from error
        yield


def _restore(before: Path, path: Path) -> None:
    if os.path.lexists(before) and not os.path.lexists(path):
        os.rename(before, path)


def _exchange(first: Path, second: Path) -> bool:
    """Exchanges two names at once; `False` if that is not possible here."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or an old C library
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


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
