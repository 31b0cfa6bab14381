"""What the REST and gRPC clients have in common: requests, answers and errors."""

from __future__ import annotations

import dataclasses
import math

from fcn_keras.errors import UserError, first_line, printable
from fcn_keras.serving.client.retrying import RefusedError, TemporaryError


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """A server's answer for a photograph.

    Args:
        mask_png: A grey PNG file of class ids, at the upright photograph's size.
        class_fractions: Each class's share of the pixels; together 1.
    """

    mask_png: bytes
    class_fractions: tuple[float, ...]


LONGEST_TIMEOUT = 86_400
MAX_CLASSES = 256
LONGEST_NAME = 200  # as in classes.txt
ROUNDING = 1e-3  # how far the sum of shares, float32 numbers, may be from 1
# The signature that returns the classes has an input without a meaning, since TensorFlow
# Serving's REST interface refuses signatures without inputs.
ABOUT, ABOUT_INPUTS = "about", {"query": [0]}


def check_options(model, version, label, timeout, retries) -> None:
    """Raises `UserError` if a client's options are invalid or contradict each other."""
    if version is not None and label is not None:
        raise UserError(f"Give a version or a label, not both. Received: {version}, {label}.")
    if version is not None and version < 0:
        raise UserError(f"version must be 0 or more. Received: {version}.")
    if not model or label == "":
        raise UserError(f"Names must not be empty. Received: model {model!r}, label {label!r}.")
    if not 0 < timeout <= LONGEST_TIMEOUT:
        raise UserError(
            f"timeout must be more than 0 and at most {LONGEST_TIMEOUT} seconds. Received: "
            f"{timeout}."
        )
    if retries < 0:
        raise UserError(f"retries must be 0 or more. Received: {retries}.")


def checked_labels(names: list, palette: list):
    """Names `(C,)` or `(1, C)`, and colours, as tuples; raises `ValueError` if they are not."""
    if names and isinstance(names[0], list):
        [names], [palette] = names, palette
    colors = tuple((red, green, blue) for red, green, blue in palette)
    if not 0 < len(names) == len(colors) <= MAX_CLASSES:
        raise ValueError("not one name and colour per class")
    if not all(type(level) is int and 0 <= level <= 255 for color in colors for level in color):
        raise ValueError("not colours")
    if not all(isinstance(name, str) and len(name) <= LONGEST_NAME for name in names):
        raise ValueError("not names")
    if len(set(map(str.strip, names)) - {""}) < len(names):
        raise ValueError("names are empty or duplicate")
    if not all(map(str.isprintable, names)):  # nor are bidirectional controls
        raise ValueError("not names that can be printed")
    return tuple(names), colors


def checked_fractions(fractions: list) -> tuple[float, ...]:
    """Shares, `(C,)`, as a tuple; raises `ValueError` or `TypeError` if they are not."""
    if not all(0 <= share <= 1 for share in fractions) or abs(math.fsum(fractions) - 1) > ROUNDING:
        raise ValueError("not shares of a whole")
    return tuple(map(float, fractions))


def unreachable(url: str, reason: str) -> TemporaryError:
    return TemporaryError(
        f"{url}: no server answers there ({reason}). Start it, or check the address."
    )


def too_slow(url: str, timeout: float) -> TemporaryError:
    return TemporaryError(f"{url}: no answer in {timeout:g} s. Allow more time, or try later.")


def refused(url: str, said: str) -> RefusedError:
    remedy = "Send complete JPEG or PNG files to a model that fcn-keras exported."
    if "pixels; at most" in said:
        remedy = "Send a smaller image, or export with a larger --max-pixels."
    elif "Malformed request" in said or "version label" in said:
        remedy = "Check the server's address, and the model's name, version and label."
    return RefusedError(f"{url} refused the request ({said}). {remedy}")


def no_model(url: str, said: str) -> UserError:
    return UserError(f"{url}: no such model ({said}). Check the model's name, version and label.")


def wrong_answer(url: str, answer) -> UserError:
    return UserError(
        f"{url} does not answer like a model that fcn-keras exported ({one_line(answer)}). "
        "Check the model's name."
    )


def one_line(text) -> str:
    """The first line of a server's message, without anything that controls a terminal."""
    return printable(first_line(text))
