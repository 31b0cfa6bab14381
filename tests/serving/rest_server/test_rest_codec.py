"""JSON <-> tensors, against examples of TF Serving's documentation and of its own tests."""

import json

import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf.meta_graph_pb2 import TensorInfo

from fcn_keras.serving.rest_server.json_tensor import MAX_RANK, RequestError, to_tensor
from fcn_keras.serving.rest_server.rest_codec import encode_error, encode_predict, parse_predict


def inputs(**types):
    infos = {name: TensorInfo(dtype=getattr(types_pb2, kind)) for name, kind in types.items()}
    return lambda signature: infos


FLOAT = inputs(x="DT_FLOAT")
INT = inputs(x="DT_INT32")
BYTES = inputs(image_bytes="DT_STRING")
THREE = inputs(tag="DT_STRING", signal="DT_INT64", sensor="DT_INT32")


def parse(text, inputs_of):
    return parse_predict(text.encode(), inputs_of)


def refusal(text, inputs_of):
    with pytest.raises(RequestError) as caught:
        parse(text, inputs_of)
    return str(caught.value)


def answer(text):
    return json.loads(text)


def test_half_plus_two():
    signature, tensors, rows = parse('{"instances": [1.0, 2.0, 5.0]}', FLOAT)
    assert signature == "" and rows and tensors["x"].dtype == np.float32
    text = encode_predict({"y": tensors["x"] / 2 + 2}, rows)
    assert text == '{\n    "predictions": [2.5, 3.0, 4.5]\n}'


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
        '{"inputs": [{"b64": "aGVs\\nbG8"}, "world"]}',  # absl takes both
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
    text = json.dumps({"signature_name": "predict_images", "instances": pixels.tolist()})
    name, tensors, rows = parse(text, inputs(images="DT_UINT8"))
    assert name == "predict_images" and tensors["images"].dtype == np.uint8
    np.testing.assert_array_equal(tensors["images"], pixels)
    assert answer(encode_predict({"mask": pixels[..., 0]}, rows)) == {
        "predictions": pixels[..., 0].tolist()
    }


def test_numbers_that_json_lacks():
    values = parse('{"instances": [1, NaN, Infinity, -Infinity, 1e-3]}', FLOAT)[1]["x"]
    np.testing.assert_array_equal(values, np.float32([1, np.nan, np.inf, -np.inf, 1e-3]))
    assert "[1.0, NaN, Infinity, -Infinity, 0.001]" in encode_predict({"y": values}, True)


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
    with pytest.raises(RequestError, match="names has inconsistent batch size: 21 expecting: 2"):
        encode_predict(outputs, True)
    with pytest.raises(RequestError, match="json has no shape information"):
        encode_predict({"json": np.array(b"{}", object)}, True)
    assert answer(encode_predict({"json": np.array(b"{}", object)}, False)) == {"outputs": "{}"}
    with pytest.raises(RequestError, match="tensor type: complex64"):
        encode_predict({"x": np.zeros(2, np.complex64)}, True)


@pytest.mark.parametrize(
    ("text", "inputs_of", "message"),
    [
        ("", INT, "JSON Parse error: The document is empty"),
        ("instances = [1, 2]", INT, "JSON Parse error: Expecting value at offset: 0"),
        ('{"instances": [1', INT, "JSON Parse error"),
        ("[1, 2]", INT, "Is not object"),
        ("[" * 100_000, INT, "Nested too deeply"),
        ('{"instances": ' + "[" * 500 + "1" + "]" * 500 + "}", INT, "unexpected level: 32"),
        ('{"instances": [' + "9" * 5000 + "]}", INT, "JSON Parse error"),
        ('{"signature_name": 5, "instances": [1]}', INT, "must be a string value"),
        ("{}", INT, "Missing 'inputs' or 'instances' key"),
        ('{"instances": [1], "inputs": [1]}', INT, "expecting only one of"),
        ('{"instances": 1}', INT, "to be an list/array"),
        ('{"instances": []}', INT, "No values in 'instances' array"),
        ('{"instances": [[1, 2], [3, 4], [5, 6, 7]]}', INT, "element: 2 of 'instances' list"),
        ('{"instances": [[1, 2], [3, 4], [5, 6, 7]]}', INT, "tensor size: 2 but got: 3"),
        ('{"instances": [[1, 2], [[5, 6]]]}', INT, "Expecting shape [2] but got: [1,2]"),
        ('{"instances": [1, [1]]}', INT, "Expecting shape [] but got: [1]"),
        ('{"inputs": [[1, 2], [3]]}', INT, "list at unexpected size: 1 at level: 1 expected size"),
        ('{"inputs": [1, [1]]}', INT, "Encountered list at unexpected level: 1"),
        ('{"inputs": [[1], 1]}', INT, "found at incorrect level: 2"),
        ('{"instances": ["a"]}', INT, 'Value: "a" Type: String is not of expected type: int32'),
        ('{"instances": [1.0]}', INT, "Type: Number is not of expected type: int32"),
        ('{"instances": [true]}', INT, "Type: True is not of expected type: int32"),
        ('{"instances": [null]}', FLOAT, "Type: Null is not of expected type: float"),
        ('{"instances": [2147483648]}', INT, "not of expected type: int32"),
        ('{"instances": [1, 256]}', inputs(x="DT_UINT8"), "not of expected type: uint8"),
        ('{"instances": [1]}', inputs(x="DT_BOOL"), "not of expected type: bool"),
        ('{"instances": [1]}', inputs(x="DT_STRING"), "not of expected type: string"),
        ('{"instances": [1]}', inputs(x="DT_HALF"), "to type: half"),
        ('{"instances": [16777217]}', FLOAT, "16777217 to float without loss of precision"),
        ('{"instances": [1e39]}', FLOAT, "to float without loss of precision"),
        ('{"instances": [9007199254740993]}', inputs(x="DT_DOUBLE"), "without loss of precision"),
        ('{"instances": [1' + "0" * 400 + "]}", FLOAT, "without loss of precision"),
        ('{"instances": [{"b64": "a"}]}', BYTES, "Unable to base64 decode"),
        ('{"instances": [{"b64": "aGVsbG8*"}]}', BYTES, "Unable to base64 decode"),
        ('{"instances": [{"b64": "aGVsb==="}]}', BYTES, "Unable to base64 decode"),
        ('{"inputs": [{"b65": "aGVsbG8="}]}', BYTES, "not formatted correctly for base64"),
        ('{"instances": ["a", {"x": 1}]}', BYTES, "Expecting value/list but got object at item 1"),
        ('{"instances": [{"image_bytes": ""}, 1]}', BYTES, "Expecting object but got list at item"),
        ('{"instances": [{"image": ""}]}', BYTES, "keys must be equal to: image_bytes"),
        ('{"instances": [1]}', THREE, "instances is a plain list, but expecting list of objects"),
        ('{"inputs": [1]}', THREE, "inputs is a plain value/list, but expecting an object"),
        ('{"inputs": {"tag": "a"}}', THREE, "Missing named input: signal in 'inputs' object."),
        ('{"signature_name": "labels"}', inputs(), "to get input map for signature: labels"),
    ],
)
def test_mistakes_get_tf_servings_messages(text, inputs_of, message):
    assert message in refusal(text, inputs_of)


def test_messages_show_the_beginning_of_a_value():
    assert len(refusal(json.dumps(list(range(100_000))), INT)) < 200
    assert len(refusal(json.dumps({"instances": ["x" * 100_000]}), INT)) < 300


def test_the_text_must_be_utf8():
    with pytest.raises(RequestError, match="utf-8"):
        parse_predict(b'{"instances": ["\xff\xfe"]}', BYTES)
    assert parse('{"instances": ["\\ud800"]}', BYTES)[1]["image_bytes"].size == 1


def test_ranks_have_a_limit():
    value = 1
    for _ in range(MAX_RANK):
        value = [value]
    assert to_tensor(value, types_pb2.DT_INT32).ndim == MAX_RANK
    with pytest.raises(RequestError):
        to_tensor([value], types_pb2.DT_INT32)


def test_errors_are_json():
    assert answer(encode_error('bad "key"\nö')) == {"error": 'bad "key"\nö'}
