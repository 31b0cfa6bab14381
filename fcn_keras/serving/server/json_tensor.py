"""One JSON value <-> one tensor, by the rules of TF Serving's `json_tensor.cc`.

Numbers are checked and converted by NumPy or by built-in functions: a request has millions.
"""

from __future__ import annotations

import base64
import reprlib
from typing import NoReturn

import numpy as np
from tensorflow.core.framework import types_pb2

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


def to_tensor(name: str, value, dtype: int) -> np.ndarray:
    """Reads a number, a string, an object `{"b64": ...}`, or nested lists of these.

    Args:
        name: The tensor's name, for error messages.
        value: As `json.loads` gives it.
        dtype: What it is to be, a TensorFlow `DataType`.

    Raises:
        RequestError: If the lists are ragged or hold something else.
    """
    if dtype not in NUMPY_TYPES:
        raise RequestError(f"{name}: {types_pb2.DataType.Name(dtype)} has no form in JSON.", 501)
    nested = np.array(value, object)
    leaves = nested.ravel().tolist()
    if list in set(map(type, leaves)):
        raise RequestError(f"{name}: lists of different lengths or depths, or nested too deeply.")

    def refuse(index: int, problem: str) -> NoReturn:
        place = "".join(f"[{i}]" for i in np.unravel_index(index, nested.shape))
        raise RequestError(f"{name}{place}: {reprlib.repr(leaves[index])} is {problem}.")

    read = _read_bytes if dtype == types_pb2.DT_STRING else _read_numbers
    return read(leaves, np.dtype(NUMPY_TYPES[dtype]), refuse).reshape(nested.shape)


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
        raise RequestError(f"{name}: {array.dtype} has no form in JSON.")
    texts = np.empty(array.size, object)
    if name.endswith("_bytes"):
        texts[:] = [{"b64": base64.b64encode(item).decode()} for item in array.ravel()]
    else:
        texts[:] = [item.decode("utf-8", "replace") for item in array.ravel()]
    return texts.reshape(array.shape).tolist()


def is_object(value) -> bool:
    """Whether a JSON value is an object that stands for named tensors, not for bytes."""
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get("b64"), str))


def _read_numbers(leaves: list, dtype: np.dtype, refuse) -> np.ndarray:
    allowed: set[type] = {bool} if dtype.kind == "b" else {int}
    if dtype.kind == "f":
        allowed.add(float)
    if not set(map(type, leaves)) <= allowed:
        wrong = next(i for i, leaf in enumerate(leaves) if type(leaf) not in allowed)
        refuse(wrong, f"no {dtype}" + ("; send integers" if dtype.kind in "iu" else ""))
    integers = [leaf for leaf in leaves if type(leaf) is int]
    if integers:
        low, high = _integer_range(dtype)
        for extreme in (min(integers), max(integers)):
            if not low <= extreme <= high:
                refuse(leaves.index(extreme), f"out of the range of {dtype}")
    with np.errstate(over="ignore"):
        array = np.array(leaves, dtype)
    if dtype.kind == "f":
        overflown = np.isinf(array) & np.isfinite(np.array(leaves, np.float64))
        if overflown.any():
            refuse(overflown.argmax(), f"out of the range of {dtype}")
    return array


def _integer_range(dtype: np.dtype) -> tuple[int, int]:
    if dtype.kind == "f":  # where each integer has a float of its own
        high = 2 ** (np.finfo(dtype).nmant + 1) - 1
        return -high, high
    limits = np.iinfo(dtype)
    return limits.min, limits.max


def _read_bytes(leaves: list, dtype: np.dtype, refuse) -> np.ndarray:
    array = np.empty(len(leaves), dtype)
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, str):
            array[index] = leaf.encode("utf-8", "surrogatepass")
        elif isinstance(leaf, dict) and not is_object(leaf):
            # Padding may be missing, and white space may stand anywhere.
            digits = "".join(leaf["b64"].split()).rstrip("=")
            try:
                array[index] = base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
            except ValueError:
                refuse(index, 'not base64 (A-Z, a-z, 0-9, + and /, without a "data:" prefix)')
        else:
            refuse(index, 'neither a text nor {"b64": "..."}')
    return array
