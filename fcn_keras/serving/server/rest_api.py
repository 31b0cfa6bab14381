"""TF Serving's REST API, without HTTP: method, path and body -> JSON or `RequestError`.

Paths, forms and status codes are those of its `http_rest_api_handler.cc`. Differences:

- The status of a label is that of its version alone, and `:classify` and `:regress` are refused.
- Messages differ, and bodies have limits (`Limits`, `json_reader`).
- An integer that does not fit its type is refused, where TF Serving wraps it; `Inf` is not a
  number, `Infinity` is.
- If a key is given twice, the last value counts, not the first. UTF-16, UTF-32 and half
  characters are read; text that is not UTF-8 is refused.
- Long answers are sent in chunks, without `Content-Length`. There are no CORS headers, and
  requests are not batched.
"""

from __future__ import annotations

import dataclasses
import json
import re
import urllib.parse
from collections.abc import Iterator

import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from fcn_keras.serving.server.hints import text_hint, warn_of_range
from fcn_keras.serving.server.json_tensor import RequestError
from fcn_keras.serving.server.model_versions import MAX_VERSION, ModelVersions
from fcn_keras.serving.server.rest_codec import encode_predict, parse_predict
from fcn_keras.serving.server.saved_model import LoadedModel, public_reason

VERSION = r"(?:/versions/(?P<version>\d{1,19})|/labels/(?P<label>[^/:]+))?"
PREDICTION_PATH = re.compile(
    rf"(?i)/v1/models/(?P<name>[^/:]+){VERSION}:(?P<verb>classify|regress|predict)", re.ASCII
)
STATUS_PATH = re.compile(
    rf"(?i)/v1/models/(?P<name>[^/:]+){VERSION}(?:/(?P<verb>metadata))?", re.ASCII
)
HTTP_CODES = {
    error_codes_pb2.CANCELLED: 499,
    error_codes_pb2.INVALID_ARGUMENT: 400,
    error_codes_pb2.DEADLINE_EXCEEDED: 504,
    error_codes_pb2.NOT_FOUND: 404,
    error_codes_pb2.ALREADY_EXISTS: 409,
    error_codes_pb2.PERMISSION_DENIED: 403,
    error_codes_pb2.RESOURCE_EXHAUSTED: 429,
    error_codes_pb2.FAILED_PRECONDITION: 400,
    error_codes_pb2.ABORTED: 409,
    error_codes_pb2.OUT_OF_RANGE: 400,
    error_codes_pb2.UNIMPLEMENTED: 501,
    error_codes_pb2.UNAVAILABLE: 503,
    error_codes_pb2.UNAUTHENTICATED: 401,
}


@dataclasses.dataclass(frozen=True)
class Call:
    """What a request asks for.

    Args:
        verb: `status`, `metadata`, `predict`, `classify` or `regress`.
        name: The model's name.
        version: The model's version, if the request names one.
        label: The version's label, if the request names one.
    """

    verb: str
    name: str
    version: int | None
    label: str | None


def parse_path(method: str, target: str) -> Call:
    """Reads a request's first line.

    Args:
        method: `GET`, `POST` or another.
        target: The path as it was sent, with its query.

    Raises:
        RequestError: If TF Serving has no such path.
    """
    pattern = {"GET": STATUS_PATH, "POST": PREDICTION_PATH}.get(method)
    found = pattern and pattern.fullmatch(target)
    if not found:
        raise RequestError(f"Malformed request: {method} {target}")
    name, version, label, verb = found.group("name", "version", "label", "verb")
    if version and int(version) > MAX_VERSION:
        raise RequestError(f"Malformed request: version {version} is too large.")
    return Call(
        verb or "status",
        urllib.parse.unquote(name),
        int(version) if version else None,
        urllib.parse.unquote(label) if label else None,
    )


def answer(versions: ModelVersions, call: Call, body: bytes = b"") -> Iterator[str]:
    """Answers a request in JSON, piece by piece.

    Args:
        versions: The model that is served.
        call: What is asked for.
        body: For `predict`, the tensors.

    Raises:
        RequestError: If the request cannot be answered.
    """
    if call.name != versions.name:
        raise RequestError(f"There is no model {call.name}. Use {versions.name}.", 404)
    if call.label is not None and call.label not in versions.labels:
        raise RequestError(f"Model {call.name} has no version label {call.label}.")
    number = call.version if call.label is None else versions.labels[call.label]
    if call.verb == "status":
        return iter([_status(versions, number)])
    models = versions.models
    number = max(models) if number is None else number
    if number not in models:
        raise RequestError(f"Version {number} of model {call.name} is not served.", 404)
    if call.verb == "metadata":
        return iter([_metadata(call.name, number, models[number])])
    if call.verb == "predict":
        return _predict(models[number], body)
    raise RequestError(f":{call.verb} is not served. Use :predict.")


def _status(versions: ModelVersions, number: int | None) -> str:
    states = {key: state for key, state in versions.states.items() if number in (None, key)}
    if not states:
        raise RequestError(f"Model {versions.name} has no version {number}.", 404)
    response = get_model_status_pb2.GetModelStatusResponse()
    for version, state in sorted(states.items(), reverse=True):
        status = response.model_version_status.add(version=version, state=state.name)
        status.status.error_code = state.code
        status.status.error_message = state.error
    return json.dumps(_to_dict(response))


def _metadata(name: str, version: int, model: LoadedModel) -> str:
    spec = model_pb2.ModelSpec(name=name)
    spec.version.value = version
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for key, signature in model.signatures.items():
        signatures.signature_def[key].CopyFrom(signature)
    # As TF Serving builds it; an Any in between would add its type.
    metadata = {"signature_def": _to_dict(signatures)}
    return json.dumps({"model_spec": _to_dict(spec), "metadata": metadata})


def _predict(model: LoadedModel, body: bytes) -> Iterator[str]:
    signature, inputs, rows = parse_predict(body, model.signatures)
    try:
        outputs = model.run(signature, inputs)
    except tf.errors.OpError as error:
        message = f"{public_reason(error, model.folder)} {text_hint(inputs)}".rstrip()
        raise RequestError(message, HTTP_CODES.get(error.error_code, 500)) from error
    warn_of_range(signature, inputs)
    return encode_predict(outputs, rows)


def _to_dict(message) -> dict:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
