"""Requests to `:predict` and their answers, as TF Serving's REST API has them.

The rules are those of TF Serving's `json_tensor.cc`: rows (`instances`) and columns
(`inputs`), `{"b64": ...}` for bytes, `NaN` and `Infinity` as numbers, names left out where
there is one tensor only, and its messages. Two differences: an integer that does not fit
its type is refused, where TF Serving wraps it; and messages show the beginning of a value.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import numpy as np

from fcn_keras.serving.rest_server.json_tensor import (
    RequestError,
    from_tensor,
    is_object,
    shown,
    to_tensor,
)


def parse_predict(
    body: bytes, inputs_of: Callable[[str], Mapping]
) -> tuple[str, dict[str, np.ndarray], bool]:
    """Reads a request.

    Args:
        body: The JSON text.
        inputs_of: Gives a signature's inputs by the signature's name: their names
            and `TensorInfo`s. The name is empty where the request has none.

    Returns:
        The signature's name, the tensors by their names, and whether the request
        is in row format.

    Raises:
        RequestError: If the request is malformed or does not fit the signature.
    """
    request = _parse_json(body)
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        raise RequestError(
            f"JSON Value: {shown(request)} not formatted correctly. "
            "'signature_name' key must be a string value."
        )
    inputs = dict(inputs_of(signature))
    if not inputs:
        raise RequestError(
            f"Failed to get input map for signature: {signature or 'DEFAULT'} "
            "(TF Serving answers signatures without inputs by gRPC only)"
        )
    if "instances" in request and "inputs" in request:
        raise RequestError(
            f"JSON Value: {shown(request)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in request:
        return signature, _parse_rows(request["instances"], inputs), True
    if "inputs" in request:
        return signature, _parse_columns(request["inputs"], inputs), False
    raise RequestError("Missing 'inputs' or 'instances' key")


def encode_predict(outputs: Mapping[str, np.ndarray], rows: bool) -> str:
    """Writes the answer to a request in row or column format.

    Args:
        outputs: The tensors by their names.
        rows: Whether the request was in row format.

    Returns:
        JSON text.

    Raises:
        RequestError: If rows are asked for and the tensors differ in their first
            dimension, or if a type has no JSON form.
    """
    if rows:
        _check_batch_sizes(outputs)
    values = {name: from_tensor(name, array) for name, array in sorted(outputs.items())}
    if len(values) == 1:
        [content] = values.values()
    elif rows:
        content = [dict(zip(values, row)) for row in zip(*values.values())]
    else:
        content = values
    return _encode("predictions" if rows else "outputs", content)


def encode_error(message: str) -> str:
    """Writes an error as TF Serving does; half characters, which no UTF-8 has, become `?`."""
    return _encode("error", message.encode(errors="replace").decode())


def _encode(key: str, content) -> str:
    return f'{{\n    "{key}": {json.dumps(content, ensure_ascii=False)}\n}}'


def _parse_json(body: bytes) -> dict:
    if not body:
        raise RequestError("JSON Parse error: The document is empty")
    try:
        value = json.loads(body)
    except json.JSONDecodeError as error:
        raise RequestError(f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    except RecursionError as error:
        raise RequestError("JSON Parse error: Nested too deeply") from error
    except UnicodeDecodeError as error:
        raise RequestError(f"JSON Parse error: {error}") from error
    except ValueError as error:  # an integer of thousands of digits
        raise RequestError("JSON Parse error: Number too big") from error
    if not isinstance(value, dict):
        raise RequestError(f"JSON Value: {shown(value)} Is not object")
    return value


def _parse_rows(rows, inputs: Mapping) -> dict[str, np.ndarray]:
    if not isinstance(rows, list):
        raise RequestError(f"JSON Value: {shown(rows)} Excepting 'instances' to be an list/array")
    if not rows:
        raise RequestError("JSON Value: [] No values in 'instances' array")
    named = is_object(rows[0])
    if not named and len(inputs) > 1:
        raise RequestError(
            "instances is a plain list, but expecting list of objects as multiple "
            "input tensors required as per tensorinfo_map"
        )
    for index, row in enumerate(rows):
        if is_object(row) != named:
            kinds = "object but got list" if named else "value/list but got object"
            raise RequestError(f"Expecting {kinds} at item {index} of input list")
        if named and row.keys() != inputs.keys():
            raise RequestError(
                f"Failed to process element: {index} of 'instances' list. JSON object: "
                f"{shown(row)} keys must be equal to: {','.join(sorted(inputs))}"
            )
    if named:
        return {
            name: _stack([row[name] for row in rows], info.dtype, f" key: {name}")
            for name, info in inputs.items()
        }
    [(name, info)] = inputs.items()
    return {name: _stack(rows, info.dtype, "")}


def _stack(items: list, dtype: int, key: str) -> np.ndarray:
    try:
        return to_tensor(items, dtype)
    except RequestError as error:
        _explain_as_rows(items, dtype, key)
        raise error


def _explain_as_rows(items: list, dtype: int, key: str) -> None:
    """Raises what TF Serving says, which looks at one item after another."""
    first = None
    for index, item in enumerate(items):
        code = 400
        try:
            array = to_tensor(item, dtype)
            first = array if first is None else first
            if array.shape == first.shape:
                continue
            problem = f"Expecting tensor size: {first.size} but got: {array.size}"
            if array.size == first.size:
                shapes = [",".join(map(str, each.shape)) for each in (first, array)]
                problem = f"Expecting shape [{shapes[0]}] but got: [{shapes[1]}]"
        except RequestError as error:
            problem, code = str(error), error.code
        place = f"Failed to process element: {index}{key} of 'instances' list."
        raise RequestError(f"{place} Error: INVALID_ARGUMENT: {problem}", code)


def _parse_columns(columns, inputs: Mapping) -> dict[str, np.ndarray]:
    if not is_object(columns):
        if len(inputs) > 1:
            raise RequestError(
                "inputs is a plain value/list, but expecting an object as multiple "
                "input tensors required as per tensorinfo_map"
            )
        columns = dict.fromkeys(inputs, columns)
    for name in inputs:
        if name not in columns:
            raise RequestError(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_tensor(columns[name], info.dtype) for name, info in inputs.items()}


def _check_batch_sizes(outputs: Mapping[str, np.ndarray]) -> None:
    expected = None
    for name, array in sorted(outputs.items()):
        if not array.shape:
            raise RequestError(f"Tensor name: {name} has no shape information ")
        if expected not in (None, len(array)):
            raise RequestError(
                f"Tensor name: {name} has inconsistent batch size: {len(array)} "
                f"expecting: {expected}"
            )
        expected = len(array)
