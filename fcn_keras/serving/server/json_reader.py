"""JSON in which lists of numbers stay text until they are read straight into an array.

`json.loads` makes an object of each number and list: gigabytes for a body of 30 MiB, while no
other thread runs. Here NumPy finds nested lists of numbers, and `json.loads` reads a few
thousand of them at a time; everything else may have `MAX_VALUES` values.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json.decoder import JSONArray, JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
from typing import Any

import numpy as np

MAX_NUMBERS = 2**22  # in lists: an image of 1,182×1,182 pixels in RGB
MAX_VALUES = 2**17  # others, and lists of others
MAX_WIDE_BYTES = 2**22  # of a body that is not ASCII, where each character may take 4 bytes
MAX_RANK = 8  # of a tensor
BLOCK = 2**16  # characters that are scanned together
FIRST_BLOCK = 2**9
TOO_LONG = "a number with too many digits"

# No more than a tensor's lists are looked through, which would take long for each of thousands.
NUMBERS_FOLLOW = re.compile(rf"(?:\[[ \t\n\r]*+){{1,{MAX_RANK}}}+[-0-9NI]")
FEW_NUMBERS = re.compile(  # faster than NumPy
    r"\[(?:[ \t\n\r]*+-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[Ee][-+]?[0-9]++)?+[ \t\n\r]*+,?)"
    r"{1,50}+(?<!,)\]"
)
SPACE, NUMBER, OPEN, CLOSE, COMMA = range(1, 6)
CODES = np.zeros(128, np.uint8)  # 0 is for characters that are in no list of numbers
for _code, _characters in enumerate((b" \t\n\r", b"+-.0123456789EeINafinty", b"[", b"]", b","), 1):
    CODES[list(_characters)] = _code
STEPS = np.array([0, 0, 0, 1, -1, 0], np.int8)
NEXT = np.zeros((6, 6), bool)  # what may follow what
NEXT[[OPEN, OPEN, COMMA, COMMA], [NUMBER, OPEN, NUMBER, OPEN]] = True
NEXT[[NUMBER, NUMBER, NUMBER, CLOSE, CLOSE], [NUMBER, CLOSE, COMMA, CLOSE, COMMA]] = True


class RequestError(ValueError):
    """What a request gets instead of an answer.

    Attributes:
        code: The HTTP status code.
    """

    def __init__(self, message: str, code: int = 400):
        super().__init__(message)
        self.code = code


class Constant(float):
    """`NaN`, `Infinity` or `-Infinity`, unlike a number that is too large for a float."""


class Numbers:
    """A nested list of numbers, as text.

    Args:
        text: Where it is.
        start: Its first character.
        end: The character after its last.
        shape: The lists' lengths; `None` if they differ.
    """

    def __init__(self, text: str, start: int, end: int, shape: tuple[int, ...] | None):
        self.shape, self._text, self._start, self._end = shape, text, start, end
        self.checked = False

    def __repr__(self) -> str:
        return self._text[self._start : min(self._end, self._start + 100)]

    def blocks(self) -> Iterator[list]:
        """The numbers, some at a time, without the lists' nesting.

        Raises:
            json.JSONDecodeError: If something is not a number.
        """
        start = self._start
        while start < self._end:
            end = self._end
            if start + BLOCK < end:
                end = self._text.rfind(",", start, start + BLOCK)
                if end < 0:
                    raise ValueError(TOO_LONG)
            plain = self._text[start:end].replace("[", "").replace("]", "")
            try:
                yield json.loads(f"[{plain}]", parse_constant=Constant)
            except json.JSONDecodeError as error:
                places = [i for i in range(start, end) if self._text[i] not in "[]"]
                place = places[min(error.pos - 1, len(places) - 1)]
                raise json.JSONDecodeError(error.msg, self._text, place) from error
            start = end + 1
        self.checked = True


class Reader(json.JSONDecoder):
    """Reads one JSON text as `json.loads` does, with `Numbers` in place of lists of numbers.

    Args:
        body: The text in UTF-8, UTF-16 or UTF-32.

    Raises:
        RequestError: If it is not JSON, or has too many values.

    Attributes:
        value: Its content.
    """

    def __init__(self, body: bytes):
        super().__init__(parse_constant=Constant, parse_float=_short_float)
        self.parse_array, self.parse_object = self._list, self._object
        self.scan_once = py_make_scanner(self)
        self._numbers, self._values = MAX_NUMBERS, MAX_VALUES
        self._found: list[Numbers] = []
        if len(body) > MAX_WIDE_BYTES and (not body.isascii() or b"\\u" in body):
            raise RequestError(
                f"A body of more than {MAX_WIDE_BYTES // 2**20} MiB must be ASCII without \\u "
                'escapes. Send bytes as {"b64": "..."}.',
                413,
            )
        try:
            text = body.decode(json.detect_encoding(body), "surrogatepass")
            self.value = self.decode(text.removeprefix("\ufeff"))
        except RequestError:
            raise
        except (ValueError, RecursionError) as error:
            raise not_json(error) from error

    def check_the_rest(self) -> None:
        """Raises `RequestError` if lists that have not been read are not JSON."""
        for numbers in self._found:
            try:
                for _ in () if numbers.checked else numbers.blocks():
                    pass
            except ValueError as error:
                raise not_json(error) from error

    def _one(self, scan_once):
        """Counts values, so as to stop before they fill the memory."""

        def counted(text: str, start: int):
            self._values -= 1
            if self._values < 0:
                raise RequestError(
                    f"The body has more than {MAX_VALUES:,} values that are not lists of numbers.",
                    413,
                )
            return scan_once(text, start)

        return counted

    def _object(self, text_and_start, strict, scan_once, *options):
        return JSONObject(text_and_start, strict, self._one(scan_once), *options)

    def _list(self, text_and_start, scan_once) -> tuple[Any, int]:
        text, start = text_and_start
        found = self._find_numbers(text, start - 1)
        if not found:
            return JSONArray(text_and_start, self._one(scan_once))
        self._found.append(found)
        return found, found._end

    def _find_numbers(self, text: str, start: int) -> Numbers | None:
        """The list that begins at `start`, if it has nothing but numbers and lists of numbers."""
        if not NUMBERS_FOLLOW.match(text, start):
            return None
        if few := FEW_NUMBERS.match(text, start):
            count = few[0].count(",") + 1
            self._take(count)
            return Numbers(text, start, few.end(), (count,))
        position, size, depth, last, count = start, FIRST_BLOCK, 0, COMMA, 1
        shape = _Shape()
        while block := text[position : position + size]:
            codes = CODES[np.frombuffer(block.encode("ascii", "replace"), np.uint8)]
            depths = depth + np.cumsum(STEPS[codes], dtype=np.int32)
            [ends] = np.nonzero(depths == 0)
            if len(ends):
                codes, depths = codes[: ends[0] + 1], depths[: ends[0] + 1]
            if not codes.all() or depths.max() > MAX_RANK:
                return None
            depth, position, size = int(depths[-1]), position + len(codes), min(8 * size, BLOCK)
            tokens = codes != SPACE
            codes, depths = codes[tokens], depths[tokens]
            if not NEXT[np.concatenate([[last], codes[:-1]])[: len(codes)], codes].all():
                return None  # an empty list, or not JSON
            count += int(np.count_nonzero(codes == COMMA))
            shape.add(codes, depths)
            last = codes[-1] if len(codes) else last
            if len(ends) or count > self._numbers:
                self._take(count)
                return Numbers(text, start, position, shape.result())
        return None

    def _take(self, count: int) -> None:
        self._numbers -= count
        if self._numbers < 0:
            raise RequestError(
                f"The body has more than {MAX_NUMBERS:,} numbers. Send an image as the bytes of "
                'a JPEG or PNG file, {"b64": "..."}.',
                413,
            )


class _Shape:
    """The lengths of nested lists, from their text block by block."""

    def __init__(self):
        self._lengths = [0] * (MAX_RANK + 1)  # by depth; 0 if not known yet
        self._commas = [0] * (MAX_RANK + 1)  # of the lists that are open
        self._rank, self._ragged = 0, False

    def add(self, codes: np.ndarray, depths: np.ndarray) -> None:
        of_numbers = depths[codes == NUMBER]
        if len(of_numbers):
            self._rank = self._rank or of_numbers[0]
            self._ragged |= bool((of_numbers != self._rank).any())
        ends = codes >= CLOSE  # of values
        codes, depths = codes[ends], depths[ends] + (codes[ends] == CLOSE)
        for depth in range(1, depths.max(initial=0) + 1):
            [closing] = np.nonzero(codes[depths == depth] == CLOSE)
            count = np.count_nonzero(depths == depth)
            lengths = np.diff(closing, prepend=-1 - self._commas[depth])
            if len(lengths):
                self._lengths[depth] = self._lengths[depth] or lengths[0]
                self._ragged |= bool((lengths != self._lengths[depth]).any())
                count -= closing[-1] + 1 + self._commas[depth]
            self._commas[depth] += count

    def result(self) -> tuple[int, ...] | None:
        return None if self._ragged else tuple(map(int, self._lengths[1 : self._rank + 1]))


def _short_float(text: str) -> float:
    if len(text) > BLOCK:
        raise ValueError(TOO_LONG)
    return float(text)


def not_json(error: Exception) -> RequestError:
    return RequestError(f"The body is not JSON: {error}.")
