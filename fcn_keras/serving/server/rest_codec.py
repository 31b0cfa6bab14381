"""Requests to `:predict` and their answers, in the forms of TF Serving's REST API.

The forms are those of TF Serving's `json_tensor.cc`: rows (`instances`) and columns
(`inputs`), `{"b64": ...}` for bytes, `NaN` and `Infinity` as numbers, names left out where
there is one tensor only. An integer that does not fit its type is refused, where TF Serving
wraps it.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping, Set

import numpy as np

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
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        problem = f"The body is not JSON: {error}."
        if body[:100].lstrip()[:1] not in (b"{", b"["):  # a file, or a form
            problem += ' Send {"instances": [{"b64": "..."}]}, with a file\'s bytes in base64.'
        raise RequestError(problem) from error
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise RequestError("The body must be an object with either 'instances' or 'inputs'.")
    # TF Serving answers signatures without inputs by gRPC only.
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
    return signature, tensors, rows


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
    lengths = {array.shape[:1] for array in outputs.values()}
    if rows and (len(lengths) > 1 or () in lengths):
        raise RequestError("The outputs differ in length: ask with 'inputs', not 'instances'.")
    values = {name: from_tensor(name, array) for name, array in sorted(outputs.items())}
    if len(values) == 1:
        [content] = values.values()
    elif rows:
        content = [dict(zip(values, row)) for row in zip(*values.values())]
    else:
        content = values
    return json.dumps({"predictions" if rows else "outputs": content}, ensure_ascii=False)


def encode_error(message: str) -> str:
    """Writes an error; half characters, which no UTF-8 has, become `?`."""
    text = message.encode(errors="replace").decode()
    return json.dumps({"error": text}, ensure_ascii=False)


def _parse_rows(rows, names: Set[str]) -> dict[str, list]:
    if not isinstance(rows, list) or not rows:
        raise RequestError("'instances' must be a list of at least one item.")
    if len(names) == 1 and not is_object(rows[0]):
        return dict.fromkeys(names, rows)
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
