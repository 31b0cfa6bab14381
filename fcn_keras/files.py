"""Files in and out: which images are meant, and results that are whole or not there.

Needs the standard library only, so that the client of a server can use it alone.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fcn_keras.errors import UserError

# Where Pillow looks for an orientation beside EXIF data, which alone exported models read.
OTHER_ORIENTATIONS = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@contextlib.contextmanager
def atomic_path(path: Path):
    """Yields a path beside `path` that takes its name once the block has succeeded."""
    partial = path.with_name(f".partial-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_file(path, write: Callable[[Path], object]) -> None:
    """Writes a file of the user's choice whole or not at all.

    Args:
        path: Its path.
        write: Writes to the path that it is given.

    Raises:
        UserError: If that fails.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as partial:
            write(partial)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}). Choose another place."
        ) from error


def named_images(paths: Iterable[str], output, reserved=()) -> Iterator[tuple[Path, str]]:
    """The images that files, folders and patterns stand for, each with a name of its own.

    A file's result has its name, a folder's images keep their subfolders. Where
    two would share a name, the later ones get `_2`, `_3` and so on.

    Args:
        paths: Files, folders (searched through) and glob patterns.
        output: The output folder; folders are searched without it.
        reserved: Folders in the output folder that hold something else; an
            image's own folder of such a name gets `_2`.

    Yields:
        The image's path and its result's path below the output folder, without
        ending. Missing files are among them; whoever opens them will notice.
    """
    taken: set[str] = set()
    for path, name in _expand(paths, Path(output).absolute()):
        first, *rest = Path(name).parts
        if rest and first in reserved:
            name = str(Path(f"{first}_2", *rest))
        unique = name
        for number in itertools.count(2):
            if unique not in taken:
                break
            unique = f"{name}_{number}"
        taken.add(unique)
        yield path, unique


def _expand(paths: Iterable[str], output: Path) -> Iterator[tuple[Path, str]]:
    """Image files with the names that their results get."""
    for given in paths:
        path = Path(given)
        if path.is_dir():
            for inner in sorted(path.rglob("*")):
                hidden = inner.name.startswith(".") or output in inner.absolute().parents
                if inner.suffix.lower() in IMAGE_SUFFIXES and not hidden and inner.is_file():
                    yield inner, str(inner.relative_to(path).with_suffix(""))
        elif path.exists() or not glob.has_magic(given):
            yield path, path.stem
        else:
            matches = sorted(glob.glob(given, recursive=True))
            if not matches:
                yield path, path.stem  # reported as missing
            yield from ((Path(match), Path(match).stem) for match in matches)
