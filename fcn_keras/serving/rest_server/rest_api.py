"""TF Serving's REST API, without HTTP: method, path and body -> status code and JSON text.

Paths, codes and messages are those of its `http_rest_api_handler.cc`. Two differences: the
status of a label is that of its version alone, and `:classify` and `:regress` are refused.
"""

from __future__ import annotations

import dataclasses
import re
import urllib.parse

import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
)

from fcn_keras.errors import first_line
from fcn_keras.serving.rest_server.json_tensor import RequestError
from fcn_keras.serving.rest_server.model_versions import MAX_VERSION, ModelVersions
from fcn_keras.serving.rest_server.rest_codec import encode_predict, parse_predict
from fcn_keras.serving.rest_server.saved_model import DEFAULT_SIGNATURE, LoadedModel

VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
PREDICTION_PATH = re.compile(
    rf"(?i)/v1/models/(?P<name>[^/:]+){VERSION}:(?P<verb>classify|regress|predict)", re.ASCII
)
STATUS_PATH = re.compile(
    rf"(?i)/v1/models(?:/(?P<name>[^/:]+))?{VERSION}(?:/(?P<verb>metadata))?", re.ASCII
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
    if method == "POST" and verb != verb.lower():
        raise RequestError(f"Malformed request: {method} {target}")
    if not name:
        raise RequestError("Missing model name in request.")
    if version and (len(version) > 19 or int(version) > MAX_VERSION):
        raise RequestError(f"Failed to convert version: {version} to numeric.")
    return Call(
        verb or "status",
        urllib.parse.unquote(name),
        int(version) if version else None,
        urllib.parse.unquote(label) if label else None,
    )


def answer(versions: ModelVersions, call: Call, body: bytes = b"") -> str:
    """Answers a request in JSON.

    Args:
        versions: The model that is served.
        call: What is asked for.
        body: For `predict`, the tensors.

    Raises:
        RequestError: If the request cannot be answered.
    """
    if call.verb == "status":
        return _status(versions, call)
    if call.verb == "metadata":
        return _metadata(versions, call)
    if call.verb == "predict":
        return _predict(versions, call, body)
    raise RequestError(f":{call.verb} is not served. Use :predict.")


def _predict(versions: ModelVersions, call: Call, body: bytes) -> str:
    found: list[LoadedModel] = []  # once the body has turned out to be JSON

    def inputs_of(signature: str):
        _, model = _find(versions, call)
        name = signature or DEFAULT_SIGNATURE
        if name not in model.signatures:
            raise RequestError(f'Serving signature name: "{name}" not found in signature def')
        found.append(model)
        return model.signatures[name].inputs

    signature, inputs, rows = parse_predict(body, inputs_of)
    try:
        outputs = found[0].run(signature or DEFAULT_SIGNATURE, inputs)
    except tf.errors.OpError as error:
        raise RequestError(first_line(error), HTTP_CODES.get(error.error_code, 500)) from error
    return encode_predict(outputs, rows)


def _status(versions: ModelVersions, call: Call) -> str:
    states = dict(versions.states) if call.name == versions.name else {}
    version = _labelled(versions, call) if call.label and states else call.version
    if version is not None:
        states = {key: state for key, state in states.items() if key == version}
    if not states:
        what = "any versions" if version is None else f"version {version}"
        raise RequestError(f"Could not find {what} of model {call.name}", 404)
    response = get_model_status_pb2.GetModelStatusResponse()
    for version, state in sorted(states.items(), reverse=True):
        status = response.model_version_status.add(version=version, state=state.name)
        status.status.error_code = state.code
        status.status.error_message = state.error
    return _to_json(response) + "\n"


def _metadata(versions: ModelVersions, call: Call) -> str:
    version, model = _find(versions, call)
    spec = model_pb2.ModelSpec(name=call.name)
    spec.version.value = version
    signatures = get_model_metadata_pb2.SignatureDefMap()
    for name, signature in model.signatures.items():
        signatures.signature_def[name].CopyFrom(signature)
    # As TF Serving puts it together; an Any in between would add its type to the text.
    return (
        f'{{\n"model_spec":{_to_json(spec)}\n,\n'
        f'"metadata": {{"signature_def": {_to_json(signatures)}\n}}\n}}\n'
    )


def _find(versions: ModelVersions, call: Call) -> tuple[int, LoadedModel]:
    version = _labelled(versions, call) if call.label else call.version
    models = versions.models if call.name == versions.name else {}
    found = max(models, default=None) if version is None else version
    if found not in models:
        wanted = f"Latest({call.name})"
        if version is not None:
            wanted = f"Specific({call.name}, {version})"
        raise RequestError(f"Servable not found for request: {wanted}", 404)
    return found, models[found]


def _labelled(versions: ModelVersions, call: Call) -> int:
    if call.name != versions.name or call.label not in versions.labels:
        raise RequestError(f"Unrecognized servable version label: {call.label}")
    return versions.labels[call.label]


def _to_json(message) -> str:
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=1,
    )
