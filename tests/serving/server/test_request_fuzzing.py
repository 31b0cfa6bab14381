"""Any path, body and value: a result or a `RequestError`, nothing else."""

import base64
import gzip
import json
from types import SimpleNamespace
from unittest import mock

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from tensorflow.core.framework import types_pb2

from fcn_keras.serving.server import json_reader
from fcn_keras.serving.server.json_reader import Reader
from fcn_keras.serving.server.json_tensor import NUMPY_TYPES, RequestError, from_tensor, to_tensor
from fcn_keras.serving.server.request_body import RequestBody
from fcn_keras.serving.server.rest_api import Call, parse_path
from fcn_keras.serving.server.rest_codec import encode_error, encode_predict, parse_predict

INPUTS = {
    "one": {"image_bytes": SimpleNamespace(dtype=types_pb2.DT_STRING)},
    "pixels": {"images": SimpleNamespace(dtype=types_pb2.DT_UINT8)},
    "two": {
        "a": SimpleNamespace(dtype=types_pb2.DT_FLOAT),
        "b": SimpleNamespace(dtype=types_pb2.DT_INT64),
    },
    "odd": {"c": SimpleNamespace(dtype=types_pb2.DT_COMPLEX64)},
    "none": {},
}
INPUTS["serving_default"] = INPUTS["one"]
SIGNATURES = {name: SimpleNamespace(inputs=inputs) for name, inputs in INPUTS.items()}
TEXTS = st.text(st.characters(codec=None), max_size=9)  # including lone surrogates
NUMBERS = st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.booleans()
SCALARS = st.none() | NUMBERS | TEXTS
B64 = st.binary(max_size=9).map(lambda data: {"b64": base64.b64encode(data).decode()})
KEYS = st.sampled_from(["a", "b", "b64", "images", "x"]) | TEXTS
VALUES = st.recursive(
    SCALARS | B64 | st.fixed_dictionaries({"b64": SCALARS}),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(
            st.sampled_from(["a", "b", "b64", "images", "x"]) | TEXTS, values, max_size=3
        )
    ),
)
NAMES = st.sampled_from([*INPUTS, "", "absent"]) | VALUES


def attempt(function, *arguments):
    """The result, or `None` if it was refused with a reason that can be sent."""
    try:
        return function(*arguments)
    except RequestError as error:
        assert 400 <= error.code <= 501 and str(error)
        text = encode_error(str(error)).encode()  # it can be sent
        assert list(json.loads(text)) == ["error"]
        return None


@given(st.sampled_from(["GET", "POST", "PUT"]), st.text(max_size=40))
def test_paths(method, target):
    for prefix in ("", "/v1/models", "/v1/models/"):
        call = attempt(parse_path, method, prefix + target)
        assert call is None or isinstance(call, Call)


@given(
    st.sampled_from(["GET", "POST"]),
    st.lists(
        st.sampled_from(["/versions/", "/labels/", "/metadata", ":predict", ":", "/", "7", "%00"])
        | st.integers().map(str)
        | st.text(max_size=3),
        max_size=5,
    ),
)
def test_paths_of_their_parts(method, parts):
    call = attempt(parse_path, method, f"/v1/models/fcn{''.join(parts)}")
    assert call is None or call.version is None or 0 <= call.version < 10**19


@given(NAMES, st.sampled_from(["instances", "inputs", "x"]), VALUES)
@example("one", "instances", ["\ud800"])
@example("\ud800", "instances", [1])
@example("two", "instances", [{"a": 10**400, "b": 2**63}])
@example("two", "instances", [{"b64": ""}])  # was a ValueError
def test_requests(signature, key, value):
    body = json.dumps({"signature_name": signature, key: value}).encode()
    parsed = attempt(parse_predict, body, SIGNATURES)
    assert parsed is None or all(array.dtype != np.uint64 for array in parsed[1].values())


@given(st.binary(max_size=60))
@example(b'{"instances": ' + b"1" * 5000 + b"}")
@example(b"[" * 10**5)
@example('{"instances": [1]}'.encode("utf-16"))
def test_bodies(body):
    attempt(parse_predict, body, SIGNATURES)
    attempt(parse_predict, b'{"instances": [' + body + b"]}", SIGNATURES)


def as_arrays(read, dtype):
    """What a text's value is as a tensor, or that it is refused."""
    try:
        return to_tensor("x", read(), dtype).tolist()
    except (ValueError, RecursionError):
        return None


NESTED_NUMBERS = st.recursive(
    st.integers(-300, 300)
    | st.floats(allow_nan=False)
    | st.sampled_from([10**30, "a", True, None]),
    lambda values: st.lists(values, max_size=3) | values.map(lambda value: [value] * 3),
)
TOKENS = st.sampled_from(
    [*"[[[]]],,,", " ", "1", "-2.5", "0", "01", "1e5", "-", '"["', "NaN", "{}"]
)


@given(
    NESTED_NUMBERS.map(json.dumps) | st.lists(TOKENS, max_size=12).map("".join),
    st.sampled_from([1, 2, 7, 2**16]),
    st.sampled_from([types_pb2.DT_FLOAT, types_pb2.DT_INT32, types_pb2.DT_STRING]),
)
@example("[[1,2],[3,4]]", 1, types_pb2.DT_INT32)
@example("[[1,2],[3]]", 2, types_pb2.DT_INT32)
@example("[[1],2]", 2, types_pb2.DT_INT32)
@example("[1[,]2]", 1, types_pb2.DT_INT32)
@example("[1-2]", 7, types_pb2.DT_INT32)
@example("[[1, 2], [3, 4.5], [5]]", 2, types_pb2.DT_FLOAT)
def test_lists_of_numbers_are_read_as_by_json(text, block, dtype):
    def read():
        reader = Reader(text.encode())
        reader.check_the_rest()
        return reader.value

    with mock.patch.multiple(json_reader, BLOCK=max(block, 40), FIRST_BLOCK=block):
        found = as_arrays(read, dtype)
    expected = as_arrays(lambda: json.loads(text, parse_constant=json_reader.Constant), dtype)
    np.testing.assert_equal(found, expected)


@given(VALUES, st.sampled_from([*NUMPY_TYPES, types_pb2.DT_HALF, types_pb2.DT_COMPLEX64]))
def test_values(value, dtype):
    array = attempt(to_tensor, "x", value, dtype)
    assert array is None or array.dtype == NUMPY_TYPES[dtype]


@st.composite
def arrays(draw):
    dtype = draw(st.sampled_from(sorted(set(NUMPY_TYPES) - {types_pb2.DT_STRING})))
    shape = draw(st.lists(st.integers(1, 3), max_size=4))
    size = int(np.prod(shape, dtype=int)) * np.dtype(NUMPY_TYPES[dtype]).itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if dtype == types_pb2.DT_BOOL:
        data = bytes(byte & 1 for byte in data)
    return dtype, np.frombuffer(data, NUMPY_TYPES[dtype]).reshape(shape)


@given(arrays())
def test_numbers_come_back(dtype_and_array):
    dtype, array = dtype_and_array
    text = "".join(encode_predict({"x": array}, rows=False))
    back = to_tensor("x", Reader(text.encode()).value["outputs"], dtype)
    np.testing.assert_array_equal(back, array)


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_bytes_come_back(items):
    array = np.empty(len(items), object)
    array[:] = items
    text = "".join(from_tensor("x_bytes", array))
    assert to_tensor("x", json.loads(text), types_pb2.DT_STRING).tolist() == items
    "".join(from_tensor("x", array)).encode()  # texts can be sent


def decompressed(content, limit=100, encoding="gzip"):
    request = SimpleNamespace(receive=None, headers={"content-encoding": encoding})
    return RequestBody(request, limit).decompressed(content)


@given(st.binary(max_size=150), st.integers(0, 200), st.integers(-30, 30), st.binary(max_size=3))
def test_gzip(content, position, cut, junk):
    packed = gzip.compress(content)
    plain = attempt(decompressed, packed)
    assert plain == content if len(content) <= 100 else plain is None
    position %= len(packed)
    assert attempt(decompressed, packed[:position]) in (None, b"")
    attempt(decompressed, packed[:position] + junk + packed[position + max(cut, 0) :])
    attempt(decompressed, junk + content)
