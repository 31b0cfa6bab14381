"""Files by path or address: on this machine, or in an object store through pyarrow.

An address has a scheme (`s3://bucket/photos`); everything else is a path on this machine.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fcn_keras.errors import UserError, first_line, require_packages

SCHEMES = ("s3", "gs")  # where an object appears only when it is complete


class Entry(NamedTuple):
    """A file or folder within a folder; `changed` is in seconds since 1970."""

    name: str
    is_folder: bool
    changed: float


def is_address(path) -> bool:
    return "://" in str(path)


def join(folder: str, *names: str) -> str:
    """The path or address of something in a folder; empty names are left out."""
    return "/".join([str(folder).rstrip("/"), *filter(None, names)])


def is_folder(path: str) -> bool:
    if not is_address(path):
        return os.path.isdir(path)
    with _opened(path) as (filesystem, place):
        return _entry(filesystem.get_file_info(place)).is_folder


def changed(path: str) -> float:
    """When a file was last changed; 0 if it does not exist."""
    if not is_address(path):
        with contextlib.suppress(OSError):
            return os.stat(path).st_mtime
        return 0.0
    with _opened(path) as (filesystem, place):
        return _entry(filesystem.get_file_info(place)).changed


def list_folder(folder: str) -> list[Entry]:
    """A folder's entries, sorted by name; none if there is no such folder.

    Links to folders are left out, as they may form a loop; the folder itself may be a
    link. Everything else counts as a file, so that opening it reports what is wrong.

    Raises:
        UserError: If it cannot be read.
    """
    if not is_address(folder):
        return sorted(_list_local(folder))
    with _opened(folder) as (filesystem, place):
        from pyarrow.fs import FileSelector

        selector = FileSelector(place, allow_not_found=True)
        return sorted(map(_entry, filesystem.get_file_info(selector)))


def read(address: str) -> bytes:
    """The content of a file at an address.

    Raises:
        UserError: If it cannot be read.
    """
    with _opened(address) as (filesystem, place):
        with filesystem.open_input_stream(place) as stream:
            return stream.read()


def write(address: str, write_local: Callable[[Path], object]) -> None:
    """Writes a file at an address, through a temporary local file.

    Raises:
        UserError: If that fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, address.rpartition("/")[2])
        write_local(local)
        with _opened(address, "written") as (filesystem, place):
            with filesystem.open_output_stream(place) as stream:
                stream.write(local.read_bytes())


def _list_local(folder: str) -> list[Entry]:
    entries = []
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    entries.append(Entry(entry.name, True, 0.0))
                elif not _leads_to_folder(entry):
                    entries.append(Entry(entry.name, False, changed(entry.path)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be read ({error.strerror}). Make it readable or leave it out."
        ) from error
    return entries


def _leads_to_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _entry(info) -> Entry:
    return Entry(info.base_name, info.type.name == "Directory", (info.mtime_ns or 0) / 1e9)


@contextlib.contextmanager
def _opened(address: str, verb: str = "read"):
    """Yields pyarrow's file system and the path in it; errors in the block name the address."""
    scheme, _, place = address.partition("://")
    bucket = place.partition("/")[0]
    try:
        yield _filesystem(f"{scheme}://{bucket}"), place.rstrip("/")
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{address}: no such file or folder.") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{address}: cannot be {verb} ({first_line(error)}). Check the address and the "
            "credentials."
        ) from error


@functools.cache
def _filesystem(root: str):
    if root.partition("://")[0] not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UserError(f"{root}: unknown kind of address. Use one of {known}.")
    require_packages(root, "cluster", "pyarrow")
    from pyarrow.fs import FileSystem

    return FileSystem.from_uri(root)[0]
