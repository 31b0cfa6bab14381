"""One JSON value <-> one tensor, by the rules of TF Serving's `json_tensor.cc`.

Numbers are checked and converted by NumPy or by built-in functions: a request has millions.
"""

from __future__ import annotations

import base64
import json
import math
import reprlib
from collections.abc import Iterator
from typing import NoReturn

import numpy as np
from tensorflow.core.framework import types_pb2

from fcn_keras.serving.server.json_reader import Constant, Numbers, RequestError, not_json

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
BLOCK = 2**13  # numbers that are written together; other threads run in between
TEXTS = 2**6  # the same for texts
PART = 2**20  # the same for digits of base64 that are read


def to_tensor(name: str, value, dtype: int) -> np.ndarray:
    """Reads a number, a string, an object `{"b64": ...}`, or nested lists of these.

    Args:
        name: The tensor's name, for error messages.
        value: As `json_reader` gives it.
        dtype: The tensor's type, a TensorFlow `DataType`.

    Raises:
        RequestError: If the lists are ragged or hold something else.
    """
    if dtype not in NUMPY_TYPES:
        raise RequestError(f"{name}: {types_pb2.DataType.Name(dtype)} has no JSON form.", 501)
    if isinstance(value, Numbers):
        return _from_numbers(name, value, dtype)
    nested = np.array(value, object)
    leaves = nested.ravel().tolist()
    kinds = set(map(type, leaves))
    if isinstance(value, list) and Numbers in kinds.union(map(type, value)):
        parts = [to_tensor(f"{name}[{i}]", item, dtype) for i, item in enumerate(value)]
        if len({part.shape for part in parts}) > 1:
            raise _ragged(name)
        return np.stack(parts)
    if list in kinds:
        raise _ragged(name)
    refuse = _refusal(name, nested.shape, 0, leaves)
    return _reader(dtype)(leaves, np.dtype(NUMPY_TYPES[dtype]), refuse).reshape(nested.shape)


def from_tensor(name: str, array: np.ndarray) -> Iterator[str]:
    """Writes a tensor as nested lists in JSON, piece by piece.

    Args:
        name: Its name. Strings become base64 if it ends in `_bytes`.
        array: Its content; strings as `bytes`.

    Raises:
        RequestError: If the type has no JSON form.
    """
    if array.dtype.kind not in "biufOS":
        raise RequestError(f"{name}: {array.dtype} has no JSON form.")
    if array.ndim == 0 or not array.size:
        yield _dumps(name, array)
        return
    step = (TEXTS if array.dtype.kind in "OS" else BLOCK) // (array.size // len(array))
    yield "["
    for start in range(0, len(array), step or 1):
        yield ", " if start else ""
        if step:
            yield _dumps(name, array[start : start + step])[1:-1]
        else:
            yield from from_tensor(name, array[start])
    yield "]"


def is_object(value) -> bool:
    """Whether a JSON value is an object that stands for named tensors, not for bytes."""
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get("b64"), str))


def _from_numbers(name: str, numbers: Numbers, dtype: int) -> np.ndarray:
    if numbers.shape is None:
        raise _ragged(name)
    array = np.empty(math.prod(numbers.shape), np.dtype(NUMPY_TYPES[dtype]))
    start = 0
    try:
        for leaves in numbers.blocks():
            refuse = _refusal(name, numbers.shape, start, leaves)
            array[start : start + len(leaves)] = _reader(dtype)(leaves, array.dtype, refuse)
            start += len(leaves)
    except RequestError:
        raise
    except ValueError as error:
        raise not_json(error) from error
    return array.reshape(numbers.shape)


def _reader(dtype: int):
    return _read_bytes if dtype == types_pb2.DT_STRING else _read_numbers


def _refusal(name: str, shape: tuple[int, ...], start: int, leaves: list):
    """A function that says what is wrong with one of `leaves`, from the `start`th value on."""

    def refuse(index: int, problem: str) -> NoReturn:
        place = "".join(f"[{i}]" for i in np.unravel_index(start + index, shape))
        raise RequestError(f"{name}{place}: {reprlib.repr(leaves[index])} is {problem}.")

    return refuse


def _ragged(name: str) -> RequestError:
    return RequestError(f"{name}: lists of different lengths or depths, or nested too deeply.")


def _dumps(name: str, array: np.ndarray) -> str:
    if array.dtype.kind == "f" and array.dtype != np.float64:
        # As many digits as the type has: 0.2, not 0.20000000298023224.
        digits = np.fromiter(map(float, map(str, array.ravel())), np.float64, array.size)
        array = digits.reshape(array.shape)
    if array.dtype.kind in "OS":
        texts = np.empty(array.size, object)
        if name.endswith("_bytes"):
            texts[:] = [{"b64": base64.b64encode(item).decode()} for item in array.ravel()]
        else:
            texts[:] = [item.decode("utf-8", "replace") for item in array.ravel()]
        array = texts.reshape(array.shape)
    return json.dumps(array.tolist(), ensure_ascii=False)


def _read_numbers(leaves: list, dtype: np.dtype, refuse) -> np.ndarray:
    allowed: set[type] = {bool} if dtype.kind == "b" else {int}
    if dtype.kind == "f":
        allowed |= {float, Constant}
    kinds = set(map(type, leaves))
    if not kinds <= allowed:
        wrong = next(i for i, leaf in enumerate(leaves) if type(leaf) not in allowed)
        refuse(wrong, f"not of type {dtype}" + ("; send integers" if dtype.kind in "iu" else ""))
    integers = leaves if kinds == {int} else [leaf for leaf in leaves if type(leaf) is int]
    if integers:
        limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(np.float64)
        for extreme in (min(integers), max(integers)):
            if not int(limits.min) <= extreme <= int(limits.max):
                refuse(leaves.index(extreme), f"out of the range of {limits.dtype}")
    if dtype.kind != "f":
        return np.array(leaves, dtype)
    array = np.array(leaves, np.float64)
    for index in np.flatnonzero(np.isinf(array)):
        if type(leaves[index]) is not Constant:
            refuse(index, "out of the range of float64")
    with np.errstate(over="ignore"):
        return array.astype(dtype)  # rounded, as TF Serving does


def _read_bytes(leaves: list, dtype: np.dtype, refuse) -> np.ndarray:
    array = np.empty(len(leaves), dtype)
    for index, leaf in enumerate(leaves):
        if isinstance(leaf, str):
            array[index] = leaf.encode("utf-8", "surrogatepass")
        elif isinstance(leaf, dict) and not is_object(leaf):
            try:
                array[index] = _from_base64(leaf["b64"].encode("ascii"))
            except ValueError:
                refuse(index, 'not base64 (A-Z, a-z, 0-9, + and /, without a "data:" prefix)')
        else:
            refuse(index, 'neither a string nor {"b64": "..."}')
    return array


def _from_base64(text: bytes) -> bytes:
    """The bytes of base64, in which padding may be missing and white space may be anywhere."""
    parts, rest = [], b""
    for start in range(0, len(text), PART):
        digits = rest + text[start : start + PART].translate(None, b" \t\n\v\f\r")
        if start + PART >= len(text):
            digits = digits.rstrip(b"=")
            digits += b"=" * (-len(digits) % 4)
        whole = len(digits) // 4 * 4
        parts.append(base64.b64decode(digits[:whole], validate=True))
        rest = digits[whole:]
    return b"".join(parts)
