"""The one exception that the command line shows without a traceback, and what messages quote."""

from __future__ import annotations

import importlib
import importlib.util

SHOWN_CHARACTERS = 2000  # of a message
LINE_CHARACTERS = 500  # of what another's error says
SEARCHED_CHARACTERS = 2**20  # for that line


class UserError(ValueError):
    """A mistake that the user can mend: a bad file, value or combination of them.

    Its message is one or two lines that name the file or argument, the value
    received and a remedy. Each argument is a line.
    """

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


def first_line(error) -> str:
    """The first line of an exception's or another text that is not about a graph's internals.

    Of a long line only the beginning. An exception without a text is called by its type.
    """
    noise = ("Graph execution error", "Detected at node", "<stack traces", "[[", 'File "')
    text = getattr(error, "strerror", None) or getattr(error, "message", None) or error
    lines = (line.strip() for line in str(text)[:SEARCHED_CHARACTERS].splitlines())
    unnamed = type(error).__name__ if isinstance(error, BaseException) else ""
    line = next((line for line in lines if line and not line.startswith(noise)), unnamed)
    return line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]}..."


def require_packages(what: str, extra: str, *packages: str, load: bool = True) -> None:
    """Raises `missing_package` unless `what` finds the packages of an extra.

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


def missing_package(what: str, package: str, error: ImportError, extra: str = "") -> UserError:
    """The error that ends with the command that installs what is missing."""
    package = package.partition(".")[0]
    wanted = f"'fcn_keras[{extra}]'" if extra else "fcn_keras"
    return UserError(f"{what} needs the package {package} ({error}). Run: pip install {wanted}")


def few(names) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def printable(text: str) -> str:
    """The text in one line for a terminal, whatever names of files are in it.

    Control characters, line breaks and bytes that are not UTF-8 appear as `\\x1b`,
    `\\n` and `\\udcff`, and of a long text only the beginning and the end.
    """
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[: SHOWN_CHARACTERS // 2]}...{text[-SHOWN_CHARACTERS // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def reason_of(error: BaseException) -> str:
    """What failed, in a few words: TensorFlow's messages name an operation in front and behind."""
    line = first_line(error).split("}} ")[-1].split(" [Op:")[0]
    return line.rpartition("; ")[2].rstrip(".")
