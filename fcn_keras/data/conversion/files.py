"""What readers of folders share: the files below them, pairs by name, masks of numbers."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import ExifTags

from fcn_keras.data.conversion.source import Findings
from fcn_keras.data.decoding import GREY_STEPS
from fcn_keras.data.directory import CLASSES_FILE, LIST_FOLDER, read_file
from fcn_keras.errors import UserError, few
from fcn_keras.files.finding import IMAGE_SUFFIXES
from fcn_keras.files.images import bad_files_named, open_header, orientation

IMAGE_ENDINGS = IMAGE_SUFFIXES | {".jfif"}  # of what is read, in lower case
HEAD_BYTES, HEADS = 1 << 18, 20


def files_below(folder: Path, suffixes: Collection[str] = ()) -> Iterator[Path]:
    """The files in a folder and below it, sorted, none of them hidden, perhaps of these suffixes.

    Of links to the same folder, the first is followed. Pipes and devices are no files; links to
    nothing are, so that reading them tells. Data sets that this program made are left out, as
    they may have been made of the rest.

    Raises:
        UserError: If it is no folder, or one cannot be read.
    """

    def fail(error: OSError):
        raise UserError(f"{error.filename}: cannot be read ({error.strerror}).") from error

    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(
            name
            for name in folders
            if name[0] != "." and name != "__MACOSX" and not is_data_set(Path(place, name))
        )
        for name in sorted(names):
            path = Path(place, name)
            if name[0] != "." and (not suffixes or path.suffix.lower() in suffixes):
                if path.is_file() or not path.exists():
                    yield path


def is_data_set(folder: Path) -> bool:
    """Whether a folder is a data set that this program made."""
    return (folder / LIST_FOLDER).is_dir() and (folder / CLASSES_FILE).is_file()


def json_files(place: Path) -> Iterator[Path]:
    """A file itself, or the JSON files below a folder."""
    yield from files_below(place, {".json"}) if place.is_dir() else [place]


def head(path: Path) -> bytes:
    """The beginning of a regular file; empty if that cannot be read."""
    with contextlib.suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(HEAD_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()
    return b""


def json_heads(place: Path) -> Iterator[bytes]:
    """The beginnings of a few JSON files, to recognize a format."""
    with contextlib.suppress(UserError):  # a folder that cannot be read is told by the reader
        yield from map(head, itertools.islice(json_files(place), HEADS))


def named_files(
    folder: Path, findings: Findings, ending: str = "", suffixes=IMAGE_ENDINGS
) -> dict[str, Path]:
    """The images in a folder and below it, sorted, by their names.

    Args:
        folder: The folder to search.
        findings: Gets a problem for each file whose name another one has.
        ending: What stems must end with. Names lack it, as they lack the suffix.
        suffixes: The suffixes of images, in lower case.

    Raises:
        UserError: As `files_below`.
    """
    files: dict[str, Path] = {}
    for path in files_below(folder, suffixes):
        if not path.stem.endswith(ending) or path.stem == ending:
            continue
        stem = path.stem.removesuffix(ending)
        name = path.relative_to(folder).with_name(stem).as_posix()
        if name in files:
            findings.problems.append(
                f"{path}: {files[name].name} has the same name. Remove or rename one."
            )
        files.setdefault(name, path)
    return files


def paired(
    images: dict[str, Path], masks: dict[str, Path], findings: Findings
) -> list[tuple[str, Path, Path]]:
    """Name, image and mask, by name; what has no partner is left out."""
    for name, path in {**images, **masks}.items():
        if name not in masks:
            findings.leave_out("as it has no mask", path)
        elif name not in images:
            findings.leave_out("as it has no photograph", path)
    return [(name, images[name], masks[name]) for name in sorted({*images} & {*masks})]


def names_by_path(names: Iterable[str]) -> dict[str, str]:
    """Names by themselves, and by what is behind their last "/"."""
    names = [*names]
    return {f"/{name.rpartition('/')[2]}": name for name in names} | {name: name for name in names}


def listed_name(line: str, names: Mapping[str, str]) -> str | None:
    """Which of `names_by_path` a line of a list means: itself, or the first of its paths."""
    line = line.replace("\\", "/").strip()
    for text in (line, re.split(r"[\s,;]", line)[0]):
        root, ending = os.path.splitext(text)
        text = root if ending.lower() in IMAGE_ENDINGS else text
        if found := names.get(text) or names.get(f"/{text.rpartition('/')[2]}"):
            return found
    return None


def drawing(read: Callable[..., np.ndarray], *values) -> Callable[[int, int], np.ndarray]:
    """A function that draws a mask, at whatever size, by reading its file."""
    return lambda height, width: read(*values)


def turn_of(source, name: str) -> int:
    """How EXIF turns a photograph: its number, 1 if it does not. Pillow's TIFFs are turned."""
    with bad_files_named(name):
        image = open_header(source, name)
        if image.format == "TIFF":
            return image.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation(source, name)


def read_numbers(path: Path, table: np.ndarray, remedy: str = "") -> np.ndarray:
    """Reads a mask of numbers that are not class ids.

    Args:
        path: A PNG of one channel, of up to 16 bits.
        table: The id of each number, below 0 for those that mean nothing.
        remedy: What to do about other numbers, or a mask in colours.

    Returns:
        uint8 `(H, W)` of class ids.

    Raises:
        UserError: If it is no such PNG, or has a number without an id.
    """
    with bad_files_named(str(path)):
        image = open_header(read_file(path), str(path))
        if image.format != "PNG" or image.mode not in ("1", "L", "P", "I", "I;16"):
            raise UserError(
                f"{path}: a mask must be a PNG of numbers, not {image.format} of mode "
                f"{image.mode}. {remedy}"
            )
        step = GREY_STEPS.get(image.tile[0].args, 1) if image.tile else 1
        numbers = np.asarray(image).astype(np.int64) // step
    counts = np.bincount(numbers.ravel())
    unknown = [str(n) for n in np.flatnonzero(counts) if n >= len(table) or table[n] < 0]
    if unknown:
        raise UserError(f"{path}: the mask has {few(unknown)}, which is no class's. {remedy}")
    return table[numbers].astype(np.uint8)
