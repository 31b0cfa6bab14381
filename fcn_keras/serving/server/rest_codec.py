"""Requests to `:predict` and their answers, in the forms of TF Serving's REST API.

The forms are those of TF Serving's `json_tensor.cc`: rows (`instances`) and columns
(`inputs`), `{"b64": ...}` for bytes, `NaN` and `Infinity` as numbers, names left out where
there is one tensor only. An integer that does not fit its type is refused, where TF Serving
wraps it, and so are more than `MAX_NUMBERS` numbers and `MAX_VALUES` other values.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterator, Mapping, Set

import numpy as np

from fcn_keras.serving.server.json_reader import Numbers, Reader
from fcn_keras.serving.server.json_tensor import RequestError, from_tensor, is_object, to_tensor
from fcn_keras.serving.server.saved_model import DEFAULT_SIGNATURE


def parse_predict(body: bytes, signatures: Mapping) -> tuple[str, dict[str, np.ndarray], bool]:
    """Reads a request.

    Args:
        body: The JSON text.
        signatures: The model's `SignatureDef`s by their names.

    Returns:
        The signature's name, the tensors by their names, and whether the request
        is in row format.

    Raises:
        RequestError: If the request is malformed or does not fit the signature.
    """
    try:
        reader = Reader(body)
    except RequestError as error:
        problem = str(error)
        if body[:100].lstrip()[:1] not in (b"{", b"["):  # a file, or a form
            problem += ' Send {"instances": [{"b64": "..."}]}, with a file\'s bytes in base64.'
        raise RequestError(problem, error.code) from error
    request = reader.value
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise RequestError("The body must be an object with either 'instances' or 'inputs'.")
    # TF Serving answers signatures without inputs over gRPC only.
    inputs = {name: dict(each.inputs) for name, each in signatures.items() if each.inputs}
    signature = request.get("signature_name", "")
    signature = DEFAULT_SIGNATURE if signature == "" else signature
    if not isinstance(signature, str) or signature not in inputs:
        raise RequestError(
            f"'signature_name' must be one of {', '.join(sorted(inputs))}. Received: "
            f"{reprlib.repr(signature)}."
        )
    rows = "instances" in request
    parse = _parse_rows if rows else _parse_columns
    values = parse(request["instances" if rows else "inputs"], inputs[signature].keys())
    tensors = {
        name: to_tensor(name, values[name], info.dtype) for name, info in inputs[signature].items()
    }
    reader.check_the_rest()
    return signature, tensors, rows


def encode_predict(outputs: Mapping[str, np.ndarray], rows: bool) -> Iterator[str]:
    """Writes the answer to a request in row or column format, piece by piece.

    Args:
        outputs: The tensors by their names.
        rows: Whether the request was in row format.

    Yields:
        JSON text.

    Raises:
        RequestError: If rows are asked for and the tensors differ in their first
            dimension, or if a type has no JSON form.
    """
    lengths = {array.shape[:1] for array in outputs.values()}
    if rows and (len(lengths) > 1 or () in lengths):
        raise RequestError("The outputs differ in length. Use 'inputs', not 'instances'.")
    for name, array in outputs.items():
        next(from_tensor(name, array))  # before anything is sent
    yield f'{{"{"predictions" if rows else "outputs"}": '
    if len(outputs) == 1:
        [(name, array)] = outputs.items()
        yield from from_tensor(name, array)
    elif rows:
        [[length]] = lengths
        for row in range(length):
            yield ", " if row else "["
            # With `...` the result is an array, even for one string.
            yield from _object({name: array[row, ...] for name, array in outputs.items()})
        yield "]" if length else "[]"
    else:
        yield from _object(outputs)
    yield "}"


def encode_error(message: str) -> str:
    """Writes an error; lone surrogates, which UTF-8 lacks, become `?`."""
    text = message.encode(errors="replace").decode()
    return json.dumps({"error": text}, ensure_ascii=False)


def _object(values: Mapping[str, np.ndarray]) -> Iterator[str]:
    yield "{"
    for index, (name, array) in enumerate(sorted(values.items())):
        yield (", " if index else "") + json.dumps(name, ensure_ascii=False) + ": "
        yield from from_tensor(name, array)
    yield "}"


def _parse_rows(rows, names: Set[str]) -> dict:
    if not isinstance(rows, list | Numbers) or not rows:
        raise RequestError("'instances' must be a list of at least one item.")
    if len(names) == 1 and (isinstance(rows, Numbers) or not is_object(rows[0])):
        return dict.fromkeys(names, rows)
    rows = [None] if isinstance(rows, Numbers) else rows
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != names:
            raise RequestError(
                f"instances[{index}] must be an object with the keys: {', '.join(sorted(names))}."
            )
    return {name: [row[name] for row in rows] for name in names}


def _parse_columns(columns, names: Set[str]) -> dict:
    if len(names) == 1 and not is_object(columns):
        return dict.fromkeys(names, columns)
    if not isinstance(columns, dict) or not names <= columns.keys():
        raise RequestError(f"'inputs' must be an object with the keys: {', '.join(sorted(names))}.")
    return columns
