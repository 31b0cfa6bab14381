"""JSON <-> tensors, by examples of TF Serving's documentation and of its own tests."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from fcn_keras.serving.server import rest_codec
from fcn_keras.serving.server.json_tensor import RequestError
from fcn_keras.serving.server.rest_codec import encode_error, parse_predict


def inputs(**types):
    """Two signatures with these inputs, and one without."""
    infos = {name: TensorInfo(dtype=getattr(types_pb2, kind)) for name, kind in types.items()}
    signature = SimpleNamespace(inputs=infos)
    labels = SimpleNamespace(inputs={})
    return {"serving_default": signature, "s": signature, "labels": labels}


FLOAT = inputs(x="DT_FLOAT")
INT = inputs(x="DT_INT32")
BYTES = inputs(image_bytes="DT_STRING")
THREE = inputs(tag="DT_STRING", signal="DT_INT64", sensor="DT_INT32")


def parse(text, signatures):
    return parse_predict(text.encode(), signatures)


def refusal(text, signatures):
    with pytest.raises(RequestError) as caught:
        parse(text, signatures)
    return str(caught.value)


def encode_predict(outputs, rows):
    return "".join(rest_codec.encode_predict(outputs, rows))


def answer(text):
    return json.loads(text)


def test_half_plus_two():
    signature, tensors, rows = parse('{"instances": [1.0, 2.0, 5.0]}', FLOAT)
    assert signature == "serving_default" and rows and tensors["x"].dtype == np.float32
    text = encode_predict({"y": tensors["x"] / 2 + 2}, rows)
    assert answer(text) == {"predictions": [2.5, 3.0, 4.5]}


def test_rows_and_columns_of_several_tensors():
    rows = """{"instances": [
        {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
        {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}]}"""
    columns = """{"signature_name": "s", "inputs": {
        "tag": ["foo", "bar"],
        "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
        "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]}}"""
    by_row, by_column = parse(rows, THREE), parse(columns, THREE)
    assert by_row[2] and not by_column[2] and by_column[0] == "s"
    assert by_row[1]["tag"].tolist() == [b"foo", b"bar"]
    assert by_row[1]["sensor"].shape == (2, 2, 2)
    for name, tensor in by_row[1].items():
        np.testing.assert_array_equal(tensor, by_column[1][name])
        assert tensor.dtype == by_column[1][name].dtype


@pytest.mark.parametrize(
    "text",
    [
        '{"instances": [{"b64": "aGVsbG8="}, {"b64": "d29ybGQ="}]}',
        '{"instances": [{"image_bytes": {"b64": "aGVsbG8="}}, {"image_bytes": "world"}]}',
        '{"inputs": [{"b64": "aGVs\\nbG8"}, "world"]}',  # absl accepts both
        '{"inputs": {"image_bytes": ["hello", {"b64": "d29ybGQ="}]}}',
    ],
)
def test_bytes(text):
    assert parse(text, BYTES)[1]["image_bytes"].tolist() == [b"hello", b"world"]


def test_a_scalar_column():
    assert parse('{"inputs": {"b64": "aGVsbG8="}}', BYTES)[1]["image_bytes"].item() == b"hello"
    assert parse('{"inputs": 5}', INT)[1]["x"].shape == ()


def test_an_image_of_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.uint8)
    text = json.dumps({"signature_name": "s", "instances": pixels.tolist()})
    name, tensors, rows = parse(text, inputs(images="DT_UINT8"))
    assert name == "s" and tensors["images"].dtype == np.uint8
    np.testing.assert_array_equal(tensors["images"], pixels)
    assert answer(encode_predict({"mask": pixels[..., 0]}, rows)) == {
        "predictions": pixels[..., 0].tolist()
    }


def test_numbers_that_json_lacks():
    values = parse('{"instances": [1, NaN, Infinity, -Infinity, 1e-3]}', FLOAT)[1]["x"]
    np.testing.assert_array_equal(values, np.float32([1, np.nan, np.inf, -np.inf, 1e-3]))
    assert "[1.0, NaN, Infinity, -Infinity, 0.001]" in encode_predict({"y": values}, True)


def test_floats_are_rounded_to_their_type():
    """As TF Serving casts them; 2^24 + 1 has no float32, 2^53 + 1 no float64."""
    values = [2**24 + 1, -(2**24) - 1, 2**53 + 1, 1e39, -1e300, 10**30, 1e-50]
    text = json.dumps({"instances": values})
    rounded = [2**24, -(2**24), 2**53, np.inf, -np.inf, 1e30, 0]
    np.testing.assert_array_equal(parse(text, FLOAT)[1]["x"], np.float32(rounded))
    doubles = parse(text, inputs(x="DT_DOUBLE"))[1]["x"]
    np.testing.assert_array_equal(doubles, np.float64(values))
    assert doubles[2] == 2**53


def test_floats_have_as_many_digits_as_their_type():
    values = np.float32([0.2, 1 / 3, 9e6, 3e-5])
    text = encode_predict({"y": values}, False)
    assert "[0.2, 0.33333334, 9000000.0, 3e-05]" in text
    np.testing.assert_array_equal(np.float32(answer(text)["outputs"]), values)
    assert answer(encode_predict({"y": np.float64(1) / 3}, False))["outputs"] == 1 / 3


def test_answers_in_rows_and_columns():
    outputs = {
        "mask_png_bytes": np.array([b"\x89PNG", b"\xff"], object),
        "class_fractions": np.float32([[0.25, 0.75], [1, 0]]),
        "names": np.array(["ö".encode(), b"\xff"], object),
    }
    assert answer(encode_predict(outputs, True))["predictions"] == [
        {"class_fractions": [0.25, 0.75], "mask_png_bytes": {"b64": "iVBORw=="}, "names": "ö"},
        {"class_fractions": [1.0, 0.0], "mask_png_bytes": {"b64": "/w=="}, "names": "\ufffd"},
    ]
    assert answer(encode_predict(outputs, False))["outputs"] == {
        "class_fractions": [[0.25, 0.75], [1.0, 0.0]],
        "mask_png_bytes": [{"b64": "iVBORw=="}, {"b64": "/w=="}],
        "names": ["ö", "\ufffd"],
    }
    del outputs["names"], outputs["class_fractions"]
    assert answer(encode_predict(outputs, True))["predictions"][1] == {"b64": "/w=="}
    assert answer(encode_predict({"a": np.zeros((0, 2)), "b": np.zeros(0)}, True)) == {
        "predictions": []
    }


def test_rows_need_one_batch_size():
    outputs = {"mask": np.zeros((2, 3)), "names": np.zeros(21)}
    with pytest.raises(RequestError, match="differ in length"):
        encode_predict(outputs, True)
    with pytest.raises(RequestError, match="differ in length"):
        encode_predict({"json": np.array(b"{}", object)}, True)
    assert answer(encode_predict({"json": np.array(b"{}", object)}, False)) == {"outputs": "{}"}
    with pytest.raises(RequestError, match="x: complex64"):
        encode_predict({"x": np.zeros(2, np.complex64)}, True)


@pytest.mark.parametrize(
    ("text", "signatures", "problem"),
    [
        ("", INT, "not JSON: Expecting value"),
        ("instances = [1, 2]", INT, "not JSON: Expecting value"),
        ('{"instances": [1', INT, "not JSON: Expecting ',' delimiter"),
        ("[1, 2]", INT, "must be an object"),
        ("[" * 100_000, INT, "not JSON: maximum recursion depth"),
        ('{"instances": ' + "[" * 500 + "1" + "]" * 500 + "}", INT, "maximum recursion depth"),
        ('{"instances": ' + "[" * 100 + "1" + "]" * 100 + "}", INT, "x: lists of different"),
        ('{"instances": [' + "9" * 5000 + "]}", INT, "not JSON: Exceeds the limit"),
        ('{"signature_name": 5, "instances": [1]}', INT, "must be one of s, serving_default."),
        ('{"signature_name": null, "instances": [1]}', INT, "must be one of s, serving_default."),
        ('{"signature_name": "half", "instances": [1]}', INT, "Received: 'half'"),
        ('{"signature_name": "labels", "inputs": {}}', INT, "Received: 'labels'"),
        ("{}", INT, "either 'instances' or 'inputs'"),
        ('{"instances": [1], "inputs": [1]}', INT, "either 'instances' or 'inputs'"),
        ('{"instances": 1}', INT, "'instances' must be a list"),
        ('{"instances": []}', INT, "at least one item"),
        ('{"instances": [[1, 2], [3, 4], [5, 6, 7]]}', INT, "x: lists of different lengths"),
        ('{"instances": [[1, 2], [[5, 6]]]}', INT, "x: lists of different lengths or depths"),
        ('{"instances": [1, [1]]}', INT, "x: lists of different lengths or depths"),
        ('{"inputs": [[1, 2], [3]]}', INT, "x: lists of different lengths"),
        ('{"inputs": [1, [1]]}', INT, "x: lists of different lengths or depths"),
        ('{"inputs": [[1], 1]}', INT, "x: lists of different lengths or depths"),
        ('{"instances": ["a"]}', INT, "x[0]: 'a' is not of type int32"),
        ('{"instances": [[1, 2], [3, 4.0]]}', INT, "x[1][1]: 4.0 is not of type int32"),
        ('{"inputs": true}', INT, "x: True is not of type int32"),
        ('{"instances": [null]}', FLOAT, "x[0]: None is not of type float32"),
        ('{"instances": [2147483648]}', INT, "x[0]: 2147483648 is out of the range of int32"),
        ('{"instances": [1, 256]}', inputs(x="DT_UINT8"), "x[1]: 256 is out of the range"),
        ('{"instances": [1, -1]}', inputs(x="DT_UINT8"), "x[1]: -1 is out of the range"),
        ('{"instances": [1]}', inputs(x="DT_BOOL"), "x[0]: 1 is not of type bool"),
        ('{"instances": [1]}', inputs(x="DT_STRING"), "x[0]: 1 is neither a string nor"),
        ('{"instances": [1]}', inputs(x="DT_HALF"), "x: DT_HALF has no JSON form"),
        ('{"instances": [[0, -1e999]]}', FLOAT, "x[0][1]: -inf is out of the range of float64"),
        ('{"inputs": 1e999}', FLOAT, "x: inf is out of the range of float64"),
        ('{"instances": [1' + "0" * 400 + "]}", FLOAT, "out of the range of float64"),
        ('{"instances": [1, ' + "0." + "0" * 100_000 + "1]}", FLOAT, "number with too many digits"),
        ('{"instances": [{"b64": "a"}]}', BYTES, "image_bytes[0]: {'b64': 'a'} is not base64"),
        ('{"instances": ["", {"b64": "aGVsbG8*"}]}', BYTES, "image_bytes[1]: {'b64': 'aGVsbG8*'}"),
        ('{"instances": [{"b64": "aGVsb==="}]}', BYTES, "not base64"),
        ('{"inputs": [{"b65": "aGVsbG8="}]}', BYTES, "neither a string nor"),
        ('{"instances": ["a", {"x": 1}]}', BYTES, "image_bytes[1]: {'x': 1} is neither"),
        ('{"instances": [{"image_bytes": ""}, 1]}', BYTES, "instances[1] must be an object"),
        (
            '{"instances": [{"image": ""}]}',
            BYTES,
            "with the keys: image_bytes",
        ),
        (
            '{"instances": [1]}',
            THREE,
            "with the keys: sensor, signal, tag",
        ),
        ('{"inputs": [1]}', THREE, "'inputs' must be an object"),
        ('{"inputs": {"tag": "a"}}', THREE, "with the keys: sensor, signal, tag"),
    ],
)
def test_mistakes_are_named(text, signatures, problem):
    assert problem in refusal(text, signatures)


def test_messages_show_the_beginning_of_a_value():
    assert len(refusal(json.dumps({"instances": ["x" * 100_000]}), INT)) < 100
    assert len(refusal(json.dumps({"inputs": [{"y": list(range(100_000))}]}), INT)) < 100


def test_the_text_must_be_utf8():
    with pytest.raises(RequestError, match="utf-8"):
        parse_predict(b'{"instances": ["\xff\xfe"]}', BYTES)
    assert parse('{"instances": ["\\ud800"]}', BYTES)[1]["image_bytes"].size == 1


def test_errors_are_json():
    assert answer(encode_error('bad "key"\nö')) == {"error": 'bad "key"\nö'}
