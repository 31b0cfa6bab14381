"""`fcn-keras request` against servers that are broken or malicious."""

import base64
import contextlib
import gzip
import socket
import threading
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from support.image_files import encoded, png
from support.tiny_server import GrpcServicer, RestServer, grpc_server, replying
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import predict_pb2

from fcn_keras.cli import main
from fcn_keras.errors import LINE_CHARACTERS, SEARCHED_CHARACTERS, UserError
from fcn_keras.serving.client import pictures
from fcn_keras.serving.client import rest as client
from fcn_keras.serving.client.answers import (
    Segmentation,
    checked_fractions,
    checked_labels,
    one_line,
)
from fcn_keras.serving.client.grpc import GrpcClient
from fcn_keras.serving.client.rest import RestClient
from fcn_keras.serving.client.retrying import TemporaryError

PHOTO = encoded(Image.new("RGB", (8, 6), (200, 0, 0)))
MASK = encoded(Image.new("L", (8, 6), 2))
ABOUT = {"names": ["dark", "middle", "bright"], "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6]]}


def row(mask=MASK, fractions=(0, 0, 1)):
    b64 = {"b64": base64.b64encode(mask).decode()}
    return {"predictions": [{"mask_png_bytes": b64, "class_fractions": list(fractions)}]}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with RestServer(None) as server:
        yield server


@pytest.fixture
def server(running):
    running.script, running.paths = [], []
    return running


def packed(status, content):
    def reply(handler):
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return reply


OK = b"HTTP/1.1 200 OK\r\n"


def endless(pause, chunk, start=OK + b"\r\n"):
    def reply(handler):
        handler.close_connection = True
        end = time.monotonic() + 20
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(start)
            while time.monotonic() < end:
                handler.wfile.write(chunk)
                time.sleep(pause)

    return reply


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"


def raw(content):
    def reply(handler):
        handler.wfile.write(content)
        handler.close_connection = True

    return reply


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (replying(200, "[" * 10**5), "not as TensorFlow Serving does"),
        (replying(200, '{"a": ' * 10**5), "not as TensorFlow Serving does"),
        (replying(200, '{"predictions": ' + "1" * 5000 + "}"), "not as TensorFlow Serving does"),
        (replying(200, "{}"), "does not answer like"),
        (replying(200, {"predictions": {"mask_png_bytes": 1}}), "does not answer like"),
        (replying(200, row(fractions=[10**400])), "does not answer like"),
        (replying(200, row(fractions=[float("nan")])), "does not answer like"),
        (replying(200, row(fractions=["1"])), "does not answer like"),
        (replying(200, row(fractions=[-1, 2])), "does not answer like"),
        (replying(200, row(fractions=[-1, 1, 1])), "does not answer like"),
        (replying(200, row(fractions=[1, 1, 1])), "does not answer like"),
        (replying(200, row(fractions=[0.3, 0.3, 0.3])), "does not answer like"),
        (replying(200, row(fractions=[0, 0, 0])), "does not answer like"),
        (replying(200, row(fractions=[])), "does not answer like"),
        (replying(200, row(fractions=[0, 1, float("nan")])), "does not answer like"),
        (replying(302, "", Location="http://127.0.0.1:1/"), "not as TensorFlow Serving does"),
        (replying(307, row(), Location="/"), "not as TensorFlow Serving does"),
        (replying(302, "", Location="/\xff"), "not as TensorFlow Serving does"),
        (endless(0, bytes(2**16), OK.replace(b"200", b"302") + b"Location: /\r\n\r\n"), "1 MiB"),
        (
            replying(200, '{"predictions": [' + "[]," * 10**5 + "[]]}"),
            "not as TensorFlow Serving does",
        ),
        (
            replying(200, '{"predictions": [' + "{}," * 10**5 + "{}]}"),
            "not as TensorFlow Serving does",
        ),
        (
            replying(200, '{"predictions": [' + "0," * 10**5 + "0]}"),
            "not as TensorFlow Serving does",
        ),
        (replying(200, "", Retry_After="9" * 5000), "not as TensorFlow Serving does"),
        (replying(400, {"error": "\x1b[2J\x07 no"}), r"\(\\x1b\[2J\\x07 no\)"),
        (replying(400, {"error": {"a": ["\x1b"]}}), "refused the request"),
        (replying(404, {"error": "\ud800"}), r"no such model \(\\ud800\)"),
        (packed(200, gzip.compress(bytes(2**24))), "answers with more than 1 MiB"),
        (packed(200, b"no gzip"), "Check the address"),
        (endless(0, bytes(2**16)), "answers with more than 1 MiB"),
    ],
)
def test_bad_answers_have_a_reason(server, monkeypatch, step, message):
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 2**20)
    server.script = [step]
    with pytest.raises(UserError, match=message) as caught:
        RestClient(server.url, timeout=5, retries=0).segment(PHOTO)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (endless(0.05, b" "), "no answer in 1 s"),
        (endless(0.05, b"K", b"HTTP/1.1 200 O"), "no answer in 1 s"),
        (endless(0.2, b"A: b\r\n", OK), "no answer in 1 s"),
        (endless(0.05, b"b", OK + b"A: "), "no answer in 1 s"),
        (endless(0.05, b"HTTP/1.1 100 Continue\r\n\r\n", b""), "no answer in 1 s"),
        (endless(0, b"HTTP/1.1 100 Continue\r\n\r\n" * 99, b""), "no answer in 1 s"),
        (endless(0.05, b"0", OK + CHUNKED), "no answer in 1 s"),
        (endless(0.05, b"1\r\n \r\n", OK + CHUNKED), "no answer in 1 s"),
        (endless(0.05, b"A: b\r\n", OK + CHUNKED + b"0\r\n"), "no answer in 1 s"),
        (endless(0, b"A: b\r\n" * 99, OK + CHUNKED + b"0\r\n"), "no answer in 1 s"),
        (replying(503, {"error": "x"}, Retry_After="9" * 5000), "overloaded or not ready"),
        (replying(503, "", Retry_After="Fri, 01 Jan 99999999 00:00:00 GMT"), "overloaded"),
        (raw(b"\x1b[2J\r\n\r\n"), r"no server answers there .*BadStatusLine\('\\x1b"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n"), "no server answers there"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"), "no server answers there"),
    ],
)
def test_what_may_pass_is_temporary(server, step, message):
    server.script = [step]
    with pytest.raises(TemporaryError, match=message) as caught:
        RestClient(server.url, timeout=1, retries=0).segment(PHOTO)
    assert str(caught.value).isprintable()


SETTINGS, PING = b"\0\0\0\4\0\0\0\0\0", b"\0\0\x08\6\0\0\0\0\0" + bytes(8)  # of HTTP/2


@pytest.mark.parametrize("start", [b"", SETTINGS, OK])
@pytest.mark.parametrize("chunk", [b"", PING, b"A"])
def test_the_time_of_grpc_is_limited_too(start, chunk):
    def answer():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(start)
            while not done.wait(0.1):
                connection.sendall(chunk)

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, daemon=True).start()
        client = GrpcClient(f"127.0.0.1:{listener.getsockname()[1]}", timeout=1, retries=0)
        with pytest.raises(UserError, match=r"no answer in 1 s|no server answers|failed \(UNKNOWN"):
            client.segment(PHOTO)
        done.set()


def png_bomb(side):
    return png(side, side, 8, 0, bytes(10**6))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (row(encoded(Image.new("L", (8, 6)), "JPEG")), "mask: not a readable image"),
        (row(encoded(Image.new("L", (8, 6)), "GIF")), "mask: not a readable image"),
        (row(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n"), "mask: not a readable image"),
        (row(encoded(Image.new("RGB", (8, 6)))), "mask is not grey but of mode RGB"),
        (row(encoded(Image.new("L", (8, 7)))), "mask is 8x7, but the upright photograph is 8x6"),
        (row(png_bomb(9000)), "mask is 9000x9000, but the upright photograph is 8x6"),
        (row(encoded(Image.new("L", (6, 8)))), "mask is 6x8, but the upright photograph is 8x6"),
        (row(encoded(Image.new("L", (8, 6), 3))), "mask has id 3, but there are 3 classes"),
        (row(encoded(Image.new("L", (8, 6), 255))), "mask has id 255, but there are 3 classes"),
        (row(png_bomb(60_000)), "mask: more than 178,956,970 pixels"),
        (row(MASK[:50]), "mask: not a readable image"),
        (row(fractions=[1]), "now has different classes"),
    ],
)
def test_bad_masks_are_reported_and_not_written(server, tmp_path, capfd, answer, message):
    (tmp_path / "a.png").write_bytes(PHOTO)
    server.script = [replying(200, {"outputs": ABOUT}), replying(200, answer)]
    command = ["request", "--url", server.url, "--output", str(tmp_path / "out"), "--retries", "0"]
    assert main([*command, str(tmp_path / "a.png")]) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0]
    assert list((tmp_path / "out").glob("[!.]*")) == []  # except the list of results


@pytest.mark.parametrize(
    "outputs",
    [
        {**ABOUT, "names": ["\x1b[2J", "b", "c"]},
        {**ABOUT, "names": ["a\nb", "b", "c"]},
        {**ABOUT, "names": ["\u202egnp.exe", "b", "c"]},
        {**ABOUT, "names": ["a\u200b", "b", "c"]},
        {**ABOUT, "names": ["b", "b", "c"]},
        {**ABOUT, "names": ["b ", "b", "c"]},
        {**ABOUT, "names": ["", "b", "c"]},
        {**ABOUT, "names": [" ", "b", "c"]},
        {**ABOUT, "names": ["\u2066a", "b", "c"]},
        {**ABOUT, "names": ["a\u2028b", "b", "c"]},
        {**ABOUT, "names": ["\ud800", "b", "c"]},
        {**ABOUT, "names": ["a" * 201, "b", "c"]},
        {**ABOUT, "names": ["a" * 10**7, "b", "c"]},
        {**ABOUT, "palette": [[0, 0, 256]] * 3},
        {**ABOUT, "palette": [[0, 0, -1]] * 3},
        {**ABOUT, "palette": [[0, 0, 1e400]] * 3},
        {**ABOUT, "palette": [["1", "2", "3"]] * 3},
        {"names": ["a"] * 257, "palette": [[0, 0, 0]] * 257},
        {"names": {"a": 1}, "palette": [[0, 0, 0]]},
    ],
)
def test_bad_classes_are_named(server, outputs):
    server.script = [replying(200, {"outputs": outputs})]
    with pytest.raises(UserError, match="does not answer like a model that fcn-keras exported"):
        RestClient(server.url, retries=0).labels()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values),
)
COLOURS = st.lists(st.lists(st.integers(-1, 256) | st.floats(), max_size=4) | VALUES, max_size=3)


def test_whatever_fails_in_the_packages_below_is_one_line(server, monkeypatch):
    def fail(*_, **__):
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "\x1b[2J")

    monkeypatch.setattr(client._Session, "post", fail)
    with pytest.raises(UserError, match=r"can't decode .*\\x1b\[2J. Check the address") as caught:
        RestClient(server.url, retries=0).segment(PHOTO)
    assert str(caught.value).isprintable()


def test_cookies_are_not_kept(server):
    server.script = [replying(200, {"outputs": ABOUT}, Set_Cookie=f"a={'x' * 9999}")]
    asked = RestClient(server.url)
    asked.labels()
    assert not asked._threads.session.cookies


def test_nothing_but_pixels_is_taken_from_a_mask():
    options = {"icc_profile": b"profile", "transparency": 2, "dpi": (1, 1)}
    odd = encoded(Image.new("L", (8, 6), 2), "PNG", **options)
    mask = pictures.colored_mask(odd, PHOTO, ABOUT["palette"], "a.png")
    assert encoded(mask) == encoded(pictures.colored_mask(MASK, PHOTO, ABOUT["palette"], "a.png"))


@given(VALUES | st.lists(VALUES), VALUES | COLOURS, VALUES | st.lists(st.floats()))
@example(["a"], [[0, 0, float("inf")]], [10**400])
def test_checks_pass_or_raise_what_the_clients_expect(names, palette, fractions):
    problems = (KeyError, TypeError, ValueError)
    try:
        names, palette = checked_labels(names, palette)
    except problems:
        pass
    else:
        assert all(map(str.isprintable, names))
        if len(palette) > 2:
            assert pictures.colored_mask(MASK, PHOTO, palette, "a.png").mode == "P"
    try:
        assert sum(checked_fractions(fractions)) == pytest.approx(1, abs=2e-3)
    except problems:
        pass


@given(st.text(st.characters(codec=None)))
def test_one_line_is_one(text):
    assert one_line("\n" * SEARCHED_CHARACTERS + text) == ""  # lines of which each takes memory
    assert one_line(text).isprintable() and len(one_line(text)) <= 10 * LINE_CHARACTERS + 3


@given(st.integers(0, len(MASK) - 1), st.binary(max_size=4), st.integers(0, 4))
def test_damaged_masks(position, new, cut):
    damaged = MASK[:position] + new + MASK[position + cut :]
    try:
        mask = pictures.colored_mask(damaged, PHOTO, [(1, 2, 3)] * 3, "a.png")
    except UserError as error:
        assert str(error).startswith("a.png: the server's mask")
    else:
        assert mask.mode == "P" and mask.size == (8, 6) and mask.getextrema()[1] < 3


class ScriptedServicer(GrpcServicer):
    def __init__(self):
        self.answers = []

    def Predict(self, request, context):
        return predict_pb2.PredictResponse(outputs=self.answers.pop(0))


@pytest.fixture(scope="module")
def grpc_client():
    servicer = ScriptedServicer()
    with grpc_server(servicer) as url:
        found = GrpcClient(url.removeprefix("grpc://"), retries=0)
        found.servicer = servicer
        yield found


def tensor(dtype, shape, **values):
    found = tensor_pb2.TensorProto(dtype=dtype, **values)
    for size in shape:
        found.tensor_shape.dim.add(size=size)
    return found


TEXTS = tensor(types_pb2.DT_STRING, [1], string_val=[MASK])


@pytest.mark.parametrize(
    "fractions",
    [
        tensor(types_pb2.DT_FLOAT, [1, 2**40], float_val=[0]),
        tensor(types_pb2.DT_FLOAT, [2**31, 2**31, 2**31], float_val=[0]),
        tensor(types_pb2.DT_FLOAT, [-1, -3], float_val=[0]),
        tensor(types_pb2.DT_FLOAT, [1, 3], tensor_content=b"123"),
        tensor(types_pb2.DT_STRING, [1, 1], string_val=[b"1"]),
        tensor(types_pb2.DT_COMPLEX64, [1, 1], scomplex_val=[0, 1]),
        tensor(types_pb2.DT_RESOURCE, [1, 1]),
        tensor(99, [1, 1]),
        tensor(types_pb2.DT_FLOAT, [], float_val=[1]),
    ],
)
def test_bad_tensors_are_named(grpc_client, fractions):
    outputs = {"mask_png_bytes": TEXTS, "class_fractions": fractions}
    palette = {"names": TEXTS, "palette": fractions}
    mask = {"mask": fractions}
    grpc_client.servicer.answers = [outputs, palette, mask]
    message = "does not answer like a model that fcn-keras exported"
    with pytest.raises(UserError, match=message):
        grpc_client.segment(PHOTO)
    with pytest.raises(UserError, match=message):
        grpc_client.labels()
    with pytest.raises(UserError, match=message):
        grpc_client.predict_images(np.zeros((1, 2, 2, 3), np.uint8))


def test_good_answers_pass(server, grpc_client):
    server.script = [replying(200, row())]
    expected = Segmentation(MASK, (0.0, 0.0, 1.0))
    assert RestClient(server.url).segment(PHOTO) == expected
    fractions = tensor(types_pb2.DT_FLOAT, [1, 3], float_val=[0, 0, 1])
    grpc_client.servicer.answers = [{"mask_png_bytes": TEXTS, "class_fractions": fractions}]
    assert grpc_client.segment(PHOTO) == expected
