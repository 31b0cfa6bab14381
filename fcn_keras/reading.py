"""Small files that may be damaged or someone else's -> their content, or a `UserError`."""

from __future__ import annotations

import contextlib
import csv
import json
import unicodedata
from pathlib import Path
from typing import Any

from fcn_keras.errors import UserError, first_line

MAX_BYTES = 16 << 20


@contextlib.contextmanager
def damage_as_user_errors(what: str, remedy: str = "Restore it from a copy."):
    """Turns what parsing raises into a `UserError`: `what`, the reason and the remedy."""
    try:
        yield
    except KeyError as error:
        raise UserError(f"{what} (it lacks {error}). {remedy}") from error
    except RecursionError as error:
        raise UserError(f"{what} (nested too deeply). {remedy}") from error
    except (
        *(ArithmeticError, AttributeError, IndexError, OSError, RuntimeError, TypeError),
        *(ValueError, csv.Error),
    ) as error:
        reason = first_line(error).removesuffix(".")
        raise UserError(f"{what} ({reason}). {remedy}") from error


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8 -> its content; raises `ValueError` or `RecursionError`."""
    return json.loads(data.decode())


def read_text(path: Path) -> str:
    """The text of a small file; raises `OSError` or `ValueError`."""
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{size} bytes, more than the {MAX_BYTES >> 20} MiB that it may have")
    return path.read_bytes().decode()


def read_json(path: Path) -> Any:
    """The content of a small JSON file; raises as `read_text` and `parse_json`."""
    return json.loads(read_text(path))


def has_control_characters(text: str) -> bool:
    """Whether a text has what moves a terminal's cursor or ends a line or a C string."""
    return any(unicodedata.category(character) == "Cc" for character in text)
