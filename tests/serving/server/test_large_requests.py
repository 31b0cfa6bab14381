"""Bodies and answers of millions of values: memory stays flat, and the server keeps answering."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from support.toy_server import PHOTO, b64, resident_mib, save_version, serving, wait_for
from tensorflow.core.framework import types_pb2

from fcn_keras.serving.server import answers, json_reader, json_tensor, rest_codec
from fcn_keras.serving.server import server as server_module
from fcn_keras.serving.server.json_reader import MAX_NUMBERS, MAX_VALUES, Reader, RequestError

MIB = 2**20
ROW = "[" + ", ".join(["[123, 45, 255]"] * 1000) + "]"
IMAGES = '{"signature_name": "predict_images", "instances": '
TOO_MANY = "The body has more than 4,194,304 numbers. Send an image as the bytes of a JPEG or PNG"
TOO_MANY_VALUES = "The body has more than 131,072 values"


def listed(item, mib):
    return "[" + ",".join([item] * (mib * MIB // (len(item) + 1))) + "]"


@pytest.fixture(scope="module")
def bodies():
    """Forms of 30 MiB, each with its answer."""
    return {
        "pixels": (f"{IMAGES}[{listed(ROW, 30)}]}}", 413, TOO_MANY),
        "pixels within the limit": (f"{IMAGES}[{listed(ROW, 20)}]}}", 200, None),
        "floats": (f"{IMAGES}{listed('0.123456789', 30)}}}", 400, "images[0]: 0.123456789 is no"),
        "short numbers": (f"{IMAGES}{listed('1', 30)}}}", 413, TOO_MANY),
        "empty lists": ('{"instances": ' + listed("[]", 30) + "}", 413, TOO_MANY_VALUES),
        "lists of one": ('{"instances": ' + listed("[[]]", 30) + "}", 413, TOO_MANY_VALUES),
        "objects": ('{"instances": ' + listed("{}", 30) + "}", 413, TOO_MANY_VALUES),
        "texts": ('{"instances": ' + listed('""', 30) + "}", 413, TOO_MANY_VALUES),
        "truths": ('{"instances": ' + listed("true", 30) + "}", 413, TOO_MANY_VALUES),
        "rows": (IMAGES + listed('{"images":[[1]]}', 30) + "}", 413, TOO_MANY_VALUES),
        "keys": (
            "{" + ",".join(f'"{i}":1' for i in range(2 * MIB)) + "}",
            413,
            TOO_MANY_VALUES,
        ),
        "a text behind numbers": (
            f'{IMAGES}[[{ROW}, "x"]]}}',
            400,
            "images[0][1]: 'x' is not of type",
        ),
        "one number": ('{"instances": [1.' + "1" * 30 * MIB + "]}", 400, "too many digits"),
        "one float": ('{"inputs": 1.' + "1" * 30 * MIB + "}", 400, "too many digits"),
        "an unread list": ('{"x": ' + listed("1", 30) + ', "instances": [1]}', 413, TOO_MANY),
        "base64": (json.dumps({"instances": [b64(bytes(22 * MIB))]}), 400, ""),
        "wide characters": (
            '{"instances": ["\U0001f600' + "A" * 30 * MIB + '"]}',
            413,
            "must be ASCII",
        ),
        "a wide text": (
            '{"instances": ["\\ud83d\\ude00' + "A" * 30 * MIB + '"]}',
            413,
            "must be ASCII",
        ),
        "escaped slashes": ('{"instances": [{"b64": "' + r"AA\/A" * 6 * MIB + '"}]}', 400, ""),
        "open lists": ('{"instances": ' + "[" * 30 * MIB, 400, "recursion depth"),
        "spaces": ('{"instances": [' + " " * 30 * MIB + "]}", 400, "at least one item"),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    save_version(base, 1)
    with serving(base, "--queue", "2") as server:
        assert server.predict({"instances": [b64(PHOTO)]})[0] == 200
        yield server
        assert server.stop() == 0


def test_memory_is_given_back_under_constant_load_too(monkeypatch):
    calls = []
    monkeypatch.setattr(server_module, "TRIM_SECONDS", 0.05)
    monkeypatch.setattr(server_module, "give_back_memory", lambda: calls.append(1))

    async def load():
        frontend = server_module.Frontend(
            SimpleNamespace(name="fcn"), server_module.Limits(1, 1, 1)
        )
        end = time.monotonic() + 0.9
        while time.monotonic() < end:  # a number of requests would take longer on a busy machine
            frontend._end_prediction()
            await asyncio.sleep(0.01)
        frontend.close()

    asyncio.run(load())
    assert 2 <= len(calls) <= 20  # not for each request: about 90 on an idle machine


def test_memory_is_bounded_and_given_back(server, bodies):
    """Two of each form at a time; `json.loads` took 5 GB."""
    for name, (body, code, reason) in bodies.items():
        found, answer = server.predict(body.encode())
        assert found == code and (reason is None or reason in answer["error"]), (name, answer)
    settled = wait_for(lambda: resident_mib(server, "VmRSS"))
    peak = resident_mib(server)
    for name in ("pixels", "pixels within the limit", "empty lists", "base64"):
        body, code, _ = bodies[name]
        with ThreadPoolExecutor(4) as threads:
            found = threads.map(server.predict, [body.encode()] * 4)
        assert [each for each, _ in found] == [code] * 4
    assert resident_mib(server) < peak + 700
    wait_for(lambda: resident_mib(server, "VmRSS") < settled + 150)
    assert not any("Traceback" in line for line in server.lines)


# In a separate process, whose interpreter nothing else uses.
PROBE = """
import http.client, sys
while True:
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
    connection.request("GET", "/ready")
    assert connection.getresponse().status == 200
    connection.close()
    print("answered", flush=True)
"""


@pytest.mark.parametrize("name", ["pixels within the limit", "empty lists", "base64"])
def test_others_are_answered_meanwhile(server, bodies, name, tmp_path):
    body, log = bodies[name][0].encode(), tmp_path / "log"
    with log.open("w") as file:
        prober = subprocess.Popen([sys.executable, "-c", PROBE, str(server.port)], stdout=file)

    def answered():
        assert prober.poll() is None
        return log.read_text().count("answered")

    try:
        wait_for(lambda: answered() > 5)
        before = answered()
        assert server.predict(body)[0] == bodies[name][1]
        assert answered() > before + 5
    finally:
        prober.kill()
        prober.wait()


def test_no_step_is_long():
    """No call that keeps other threads waiting has more than a few thousand numbers."""
    ranks = [bool(json_reader.NUMBERS_FOLLOW.match("[ " * rank + "1")) for rank in range(12)]
    assert ranks == [1 <= rank <= json_reader.MAX_RANK for rank in range(12)]
    reader = Reader(f"[{listed(ROW, 1)}]".encode())
    assert reader.value.shape[2:] == (1000, 3)
    sizes = [len(block) for block in reader.value.blocks()]
    assert sum(sizes) == np.prod(reader.value.shape) and max(sizes) <= json_reader.BLOCK / 2
    shares = np.random.default_rng(0).random((1, 100, 200, 21), np.float32)
    pieces = list(rest_codec.encode_predict({"probabilities": shares}, rows=True))
    assert max(map(len, pieces)) < 25 * json_tensor.BLOCK
    wide = list(rest_codec.encode_predict({"x": np.zeros((2, 10**6), np.uint8)}, rows=True))
    assert max(map(len, wide)) < 5 * json_tensor.BLOCK
    found = np.float32(json.loads("".join(pieces))["predictions"])
    np.testing.assert_array_equal(found, shares)
    parts = list(answers.in_parts(iter(pieces)))
    assert b"".join(parts).decode() == "".join(pieces)
    assert 2 < len(parts) and max(map(len, parts)) < answers.PART + 25 * json_tensor.BLOCK


@pytest.mark.parametrize("text", ["[1, 2]", '["a"]', '[{"a": [1, 2]}]', "[[1], []]"])
def test_limits_count(text, monkeypatch):
    def fits(numbers, values):
        monkeypatch.setattr(json_reader, "MAX_NUMBERS", numbers)
        monkeypatch.setattr(json_reader, "MAX_VALUES", values)
        with contextlib.suppress(RequestError):
            return bool(Reader(text.encode()))
        return False

    value = json.loads(text)
    numbers, others = {"[1, 2]": (2, 0), '["a"]': (0, 1), "[[1], []]": (1, 2)}.get(text, (2, 2))
    assert value and fits(numbers, others)
    assert not numbers or not fits(numbers - 1, others)
    assert not others or not fits(numbers, others - 1)


def test_the_limits_are_those_of_the_documentation():
    assert (MAX_NUMBERS, MAX_VALUES) == (4_194_304, 131_072)
    reader = Reader(json.dumps([[[1, 2], [3, 4], [5, 6]]] * 2).encode())
    array = json_tensor.to_tensor("x", reader.value, types_pb2.DT_INT32)
    np.testing.assert_array_equal(array, [[[1, 2], [3, 4], [5, 6]]] * 2)


def test_long_answers_are_whole(server):
    """In parts, which some clients take slowly and others only in part."""
    image = np.random.default_rng(0).integers(0, 256, (1000, 1300, 3))
    body = json.dumps({"signature_name": "predict_images", "instances": [image.tolist()]})
    for _ in range(3):
        with contextlib.closing(server.connect()) as connection:
            connection.request("POST", "/v1/models/fcn:predict", body)
            response = connection.getresponse()
            assert response.status == 200 and response.read(10)
    with contextlib.closing(server.connect()) as connection:
        for _ in range(2):  # the connection stays
            connection.request("POST", "/v1/models/fcn:predict", body)
            answer = json.loads(connection.getresponse().read())
    np.testing.assert_array_equal(answer["predictions"], (image[None, ..., 0] >= 100))


def test_gone_clients_give_their_places_back(server):
    image = np.zeros((1000, 1300, 3), int).tolist()
    body = json.dumps({"signature_name": "predict_images", "instances": [image]})
    for _ in range(4):  # as many as there are places
        with contextlib.closing(server.connect()) as connection:
            connection.request("POST", "/v1/models/fcn:predict", body)
            connection.getresponse()
        wait_for(lambda: server.predict({"instances": [b64(PHOTO)]})[0] == 200)
