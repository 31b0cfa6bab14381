"""`UserError`, which the command line shows without a traceback, and helpers for messages."""

from __future__ import annotations

import importlib
import importlib.util

SHOWN_CHARACTERS = 2000  # per message
LINE_CHARACTERS = 500  # of another exception's text
SEARCHED_CHARACTERS = 2**20  # for that line


class UserError(ValueError):
    """A mistake that the user can fix: a bad file, value or combination of values.

    Its message is one or two lines that name the file or argument, the value
    received and a remedy. Each argument is one line.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def first_line(error) -> str:
    """The first line of an exception or text that is not about a graph's internals.

    A long line is cut. An exception without a message is represented by its type's name.
    """
    noise = ("Graph execution error", "Detected at node", "<stack traces", "[[", 'File "')
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or error
    lines = (line.strip() for line in str(text)[:SEARCHED_CHARACTERS].splitlines())
    unnamed = type(error).__name__ if isinstance(error, BaseException) else ""
    line = next((line for line in lines if line and not line.startswith(noise)), unnamed)
    return line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]}..."


def require_packages(what: str, extra: str | None, *packages: str, load: bool = True) -> None:
    """Raises `missing_package` unless the packages that `what` needs are installed.

    Imports them; with `load=False` only looks for them, since importing may take seconds.
    """
    for package in packages:
        try:
            if load:
                importlib.import_module(package)
            elif not importlib.util.find_spec(package):
                raise ModuleNotFoundError(f"No module named {package!r}")
        except ImportError as error:
            raise missing_package(what, package, error, extra) from error


def missing_package(
    what: str, package: str, error: ImportError, extra: str | None = ""
) -> UserError:
    """The error for a missing package; it ends with the command that installs it.

    That installs fcn_keras with an extra, without one (`""`), or the package alone (`None`).
    """
    package = package.partition(".")[0]
    wanted = {"": "fcn_keras", None: package}.get(extra, f"'fcn_keras[{extra}]'")
    return UserError(f"{what} needs the package {package} ({error}). Run: pip install {wanted}")


def few(names) -> str:
    """The first few names, for a message."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def printable(text: str) -> str:
    """The text as one line that is safe to print, whatever file names it contains.

    Control characters, line breaks and bytes that are not UTF-8 appear as `\\x1b`,
    `\\n` and `\\udcff`; a long text keeps only its beginning and end.
    """
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[: SHOWN_CHARACTERS // 2]}...{text[-SHOWN_CHARACTERS // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason_of(error: BaseException) -> str:
    """What failed, in a few words: TensorFlow's messages name operations before and after it."""
    line = first_line(error).split("}} ")[-1].split(" [Op:")[0]
    return line.rpartition("; ")[2].rstrip(".")
