"""Small files, perhaps damaged or from someone else -> their content, or a `UserError`."""

from __future__ import annotations

import contextlib
import csv
import inspect
import json
import stat
import unicodedata
from pathlib import Path
from typing import Any, TypeVar

from fcn_keras.errors import UserError, first_line

MAX_BYTES = 16 << 20
T = TypeVar("T")


@contextlib.contextmanager
def damage_as_user_errors(what: str, remedy: str = "Restore it from a copy."):
    """Turns what parsing raises into a `UserError`: `what`, the reason and the remedy.

    Callers check types first (`as_object`, `build`): a `TypeError` or
    `AttributeError` is a bug in the program, not damage to the file.
    """
    try:
        yield
    except KeyError as error:
        raise UserError(f"{what} (it lacks {error}). {remedy}") from error
    except RecursionError as error:
        raise UserError(f"{what} (nested too deeply). {remedy}") from error
    except (ArithmeticError, IndexError, OSError, ValueError, csv.Error) as error:
        reason = first_line(error).removesuffix(".")
        raise UserError(f"{what} ({reason}). {remedy}") from error


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8 -> its content; raises `ValueError` or `RecursionError`."""
    return json.loads(data.decode())


def read_text(path: Path, limit: int = MAX_BYTES) -> str:
    """The text of a small file; raises `OSError` or `ValueError`."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        raise ValueError("not a regular file")
    if (size := found.st_size) > limit:
        raise ValueError(f"{size} bytes, more than the limit of {limit >> 20} MiB")
    return path.read_bytes().decode()


def read_json(path: Path) -> Any:
    """The content of a small JSON file; raises as `read_text` and `parse_json`."""
    return json.loads(read_text(path))


def read_object(path: Path) -> dict:
    """The content of a small JSON file that must be an object; raises as `read_json`."""
    return as_object(read_json(path), "the content")


def as_object(value, what: str) -> dict:
    """A value from a file that must be a JSON object; raises `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not an object")
    return value


def build(kind: type[T], values) -> T:
    """Builds a dataclass from a file's fields; raises `ValueError` if they do not match."""
    try:
        inspect.signature(kind).bind(**as_object(values, kind.__name__))
    except TypeError as error:
        raise ValueError(str(error)) from error
    return kind(**values)


def has_control_characters(text: str) -> bool:
    """Whether a text has characters that move a terminal's cursor or end a line or a C string."""
    return any(unicodedata.category(character) == "Cc" for character in text)
