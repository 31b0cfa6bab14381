"""One JSON value <-> one tensor, by the rules and with the messages of TF Serving.

Lists are taken apart a level at a time, so that the work for each number is done in C.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json

import numpy as np
from tensorflow.core.framework import types_pb2

MAX_RANK = 32
SHOWN_CHARACTERS = 100  # of a value that a message quotes
NUMPY_TYPES = {
    types_pb2.DT_FLOAT: np.float32,
    types_pb2.DT_DOUBLE: np.float64,
    types_pb2.DT_INT8: np.int8,
    types_pb2.DT_INT16: np.int16,
    types_pb2.DT_INT32: np.int32,
    types_pb2.DT_INT64: np.int64,
    types_pb2.DT_UINT8: np.uint8,
    types_pb2.DT_UINT32: np.uint32,
    types_pb2.DT_UINT64: np.uint64,
    types_pb2.DT_BOOL: np.bool_,
    types_pb2.DT_STRING: np.object_,
}


class RequestError(ValueError):
    """What a request gets instead of an answer.

    Attributes:
        code: The HTTP status code.
    """

    def __init__(self, message: str, code: int = 400):
        super().__init__(message)
        self.code = code


def to_tensor(value, dtype: int) -> np.ndarray:
    """Reads a number, a string, an object `{"b64": ...}`, or nested lists of these.

    Args:
        value: As `json.loads` gives it.
        dtype: What it is to be, a TensorFlow `DataType`.

    Raises:
        RequestError: If the lists are ragged or hold something else.
    """
    shape, leaves = _flatten(value)
    if dtype not in NUMPY_TYPES:
        raise RequestError(
            f"Conversion of JSON Value: {shown(value)} to type: {_type_name(dtype)}", 501
        )
    if dtype == types_pb2.DT_STRING:
        array = np.empty(len(leaves), object)
        array[:] = [_to_bytes(leaf) for leaf in leaves]
    else:
        _check_numbers(leaves, dtype)
        array = np.array(leaves, NUMPY_TYPES[dtype])
    return array.reshape(shape)


def from_tensor(name: str, array: np.ndarray):
    """Writes a tensor as nested lists for `json.dumps`.

    Args:
        name: Its name. Strings become base64 if it ends in `_bytes`.
        array: Its content; strings as `bytes`.

    Raises:
        RequestError: If the type has no JSON form.
    """
    if array.dtype.kind in "biu" or array.dtype == np.float64:
        return array.tolist()
    if array.dtype.kind == "f":
        # As many digits as the type has: 0.2, not 0.20000000298023224.
        digits = np.fromiter(map(float, map(str, array.ravel())), np.float64, array.size)
        return digits.reshape(array.shape).tolist()
    if array.dtype.kind not in "OS":
        raise RequestError(f"Failed to write JSON value for tensor type: {array.dtype}")
    texts = np.empty(array.size, object)
    if name.endswith("_bytes"):
        texts[:] = [{"b64": base64.b64encode(item).decode()} for item in array.ravel()]
    else:
        texts[:] = [item.decode("utf-8", "replace") for item in array.ravel()]
    return texts.reshape(array.shape).tolist()


def is_object(value) -> bool:
    """Whether a JSON value is an object that stands for named tensors, not for bytes."""
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get("b64"), str))


def shown(value) -> str:
    """The beginning of a JSON value, for a message."""
    chunks = itertools.islice(json.JSONEncoder().iterencode(value), SHOWN_CHARACTERS)
    text = "".join(chunks)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _flatten(value) -> tuple[list[int], list]:
    """Shape and elements of nested lists."""
    shape: list[int] = []
    items = [value]
    while items and type(items[0]) is list:
        level, size = len(shape), len(items[0])
        if set(map(type, items)) != {list}:
            odd = next(item for item in items if type(item) is not list)
            raise RequestError(
                f"JSON Value: {shown(odd)} found at incorrect level: {level + 1} in the JSON DOM."
            )
        if set(map(len, items)) != {size}:
            odd = next(len(item) for item in items if len(item) != size)
            raise RequestError(
                f"Encountered list at unexpected size: {odd} at level: {level} "
                f"expected size: {size}"
            )
        if level == MAX_RANK:
            raise RequestError(f"Encountered list at unexpected level: {level} expected < {level}")
        shape.append(size)
        items = list(itertools.chain.from_iterable(items))
    if list in set(map(type, items)):
        level = len(shape)
        raise RequestError(f"Encountered list at unexpected level: {level} expected < {level}")
    return shape, items


def _check_numbers(leaves: list, dtype: int) -> None:
    numpy_type = NUMPY_TYPES[dtype]
    is_float = issubclass(numpy_type, np.floating)
    allowed = {bool} if numpy_type is np.bool_ else {int, float} if is_float else {int}
    if not set(map(type, leaves)) <= allowed:
        raise _type_error(next(leaf for leaf in leaves if type(leaf) not in allowed), dtype)
    if is_float:
        _check_lossless(leaves, dtype)
    elif leaves and numpy_type is not np.bool_:
        limits = np.iinfo(numpy_type)
        for extreme in (min(leaves), max(leaves)):
            if not limits.min <= extreme <= limits.max:
                raise _type_error(extreme, dtype)


def _check_lossless(leaves: list, dtype: int) -> None:
    limits = np.finfo(NUMPY_TYPES[dtype])
    exact = 2 ** (limits.nmant + 1) - 1
    try:
        large = np.flatnonzero(np.abs(np.array(leaves, np.float64)) > exact).tolist()
    except OverflowError:  # an integer beyond any float
        large = [*range(len(leaves))]
    for leaf in (leaves[index] for index in large):
        limit = exact if type(leaf) is int else float(limits.max)
        if abs(leaf) > limit and leaf not in (float("inf"), float("-inf")):
            raise RequestError(
                f"Cannot convert JSON value: {shown(leaf)} to {_type_name(dtype)} "
                "without loss of precision."
            )


def _to_bytes(leaf) -> bytes:
    if isinstance(leaf, str):
        return leaf.encode("utf-8", "surrogatepass")
    if not isinstance(leaf, dict):
        raise _type_error(leaf, types_pb2.DT_STRING)
    if is_object(leaf):
        raise RequestError(f"JSON Value: {shown(leaf)} not formatted correctly for base64 data")
    # Padding may be missing, and white space may stand anywhere.
    text = "".join(leaf["b64"].split())
    digits = text.rstrip("=")
    padding = "=" * (-len(digits) % 4)
    try:
        if text not in (digits, digits + padding):
            raise ValueError("wrong padding")
        return base64.b64decode(digits + padding, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError("Unable to base64 decode") from error


def _type_error(value, dtype: int) -> RequestError:
    kinds = {dict: "Object", list: "Array", str: "String", type(None): "Null"}
    kind = str(value) if isinstance(value, bool) else kinds.get(type(value), "Number")
    return RequestError(
        f"JSON Value: {shown(value)} Type: {kind} is not of expected type: {_type_name(dtype)}"
    )


def _type_name(dtype: int) -> str:
    return types_pb2.DataType.Name(dtype).removeprefix("DT_").lower()
