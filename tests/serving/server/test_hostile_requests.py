"""Requests that are broken or malicious: each gets a reason, and the server is unharmed."""

import contextlib
import gzip
import json
import os
import socket
import time
import zlib

import pytest
from support.hostile_files import jpeg_of_scans
from support.toy_server import (
    HEAD,
    PHOTO,
    SECONDS,
    b64,
    resident_mib,
    save_version,
    send_raw,
    serving,
    wait_for,
)

PATIENCE = 1  # seconds; a minute and more by default
OPEN_FILES = 160
PRELUDE = (
    "from fcn_keras.serving.server import connection; "
    f"connection.HEAD_SECONDS = connection.ANSWER_SECONDS = {PATIENCE}"
)
GET = "GET /ready HTTP/1.1\r\nHost: x\r\n"
GOOD = json.dumps({"instances": [b64(PHOTO)]}).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    save_version(base, 1)
    with serving(base, "--max-body-mb", "1", prelude=PRELUDE) as server:
        yield server


def is_well(server):
    """It answers, and what was no HTTP has left no line each."""
    said = "".join(server.lines)
    return server.predict(GOOD)[0] == 200 and "Traceback" not in said and "HTTP req" not in said


@pytest.mark.parametrize(
    ("head", "body", "code"),
    [
        (HEAD + "Content-Length: -5", b"", 400),
        (HEAD + "Content-Length: +5", b"", 400),
        (HEAD + "Content-Length: five", b"", 400),
        (HEAD + f"Content-Length: {'9' * 5000}", b"", 400),
        (HEAD + "Content-Length: 2\r\nContent-Length: 3", b"{}}", 400),
        (HEAD + "Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n", 400),
        (HEAD + "Transfer-Encoding: gzip", b"{}", 400),
        (HEAD + "Transfer-Encoding: chunked", b"-2\r\n{}\r\n", 400),
        ("GET / HTTP/1.1", b"", 400),
        ("PRI * HTTP/2.0", b"SM\r\n\r\n", 404),
        ("GET /v1/models/f\0n HTTP/1.1\r\nHost: x", b"", 400),
        ("GET /v1/models/f\xffn HTTP/1.1\r\nHost: x", b"", 400),
        ("GET http://x/v1/models/fcn HTTP/1.1\r\nHost: x\r\nConnection: close", b"", 404),
        ("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close", b"", 404),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\nConnection: close", b"", 404),
        (GET + "A: \0", b"", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"", 400),  # TLS
    ],
)
def test_what_is_no_good_http(server, head, body, code):
    first, said = send_raw(server, head + "\r\n\r\n", [body])
    assert first.startswith(f"HTTP/1.1 {code} ") and said
    assert is_well(server)


@pytest.mark.parametrize("sent", ["A: " + "a" * 200_000, "A: b\r\n" * 30_000])
def test_headers_without_end_are_cut_off(server, sent):
    """A client that is still sending when the connection ends may lose the answer."""
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
        answer = b""
        with contextlib.suppress(ConnectionError):
            raw.sendall((GET + sent).encode())
            while chunk := raw.recv(65536):
                answer += chunk
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert is_well(server)


@pytest.mark.parametrize("size", [60_000, 70_000, 150_000])
@pytest.mark.parametrize(
    "header",
    [
        *("A: {}", "Cookie: a\r\nB: {}", "A: " + "b\r\nA: " * 1000 + "{}"),
        *("A:" + " " * 40_000 + "{}", "A: b" + "\r\n b" * 10_000 + "{}"),
    ],
)
def test_headers_have_one_limit(server, size, header):
    """Even if they come at once."""
    header = header.format("a" * (size - len(header)))
    first, _ = send_raw(server, f"{GET}Connection: close\r\n{header}\r\n\r\n", [])
    assert first.startswith("HTTP/1.1 200 " if size < 2**16 else "HTTP/1.1 400 ")
    assert is_well(server)


def test_paths_and_trailers_have_that_limit_too(server):
    first, _ = send_raw(server, f"GET /{'a' * 70_000} HTTP/1.1\r\nHost: x\r\n\r\n", [])
    assert first.startswith("HTTP/1.1 400 ")
    trailer = b"0\r\nA: " + b"a" * 70_000 + b"\r\n\r\n"
    first, _ = send_raw(server, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", [trailer])
    assert first.startswith("HTTP/1.1 400 ")
    assert is_well(server)


POST_1_0 = HEAD.replace("1.1", "1.0") + f"Content-Length: {len(GOOD)}\r\n"


def exchange(raw, request):
    """The head and the body of an answer on a connection that stays."""
    raw.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += (chunk := raw.recv(65536))
        assert chunk, answer
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split()[0])
    while len(body) < length:
        body += raw.recv(65536)
    return head.decode().lower(), body


@pytest.mark.parametrize("wish", ["Keep-Alive", "keep-alive, x"])
def test_http_1_0_keeps_a_connection_that_asks_for_it(server, wish):
    get = GET.replace("1.1", "1.0").encode()
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
        for _ in range(3):
            request = f"{POST_1_0}Connection: {wish}\r\n\r\n".encode() + GOOD
            head, body = exchange(raw, request)
            assert " 200 " in head and "connection: keep-alive" in head and json.loads(body)
            head, _ = exchange(raw, get + f"Connection: {wish}\r\n\r\n".encode())
            assert " 200 " in head and "connection: keep-alive" in head
        head, _ = exchange(raw, get + b"\r\n")  # without keep-alive
        assert "connection: close" in head and raw.recv(1) == b""
    for connection in ("", "Connection: close\r\n", "Connection: keep-alive, close\r\n"):
        with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
            head, _ = exchange(raw, get + f"{connection}\r\n".encode())
            assert "connection: close" in head and raw.recv(1) == b""


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_half_closed_connection_gets_its_answers(server, count, version):
    keep = "Connection: keep-alive\r\n\r\n"
    request = f"{POST_1_0.replace('1.0', version)}{keep}".encode() + GOOD
    ready = f"{GET.replace('1.1', version)}{keep}".encode()
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
        raw.sendall((request + ready) * count)
        raw.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := raw.recv(65536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 200 ") == 2 * count


@pytest.mark.parametrize("sent", [b"", GET.encode(), f"{GET}\r\n{GET}".encode()])
def test_a_half_closed_connection_is_closed_where_no_whole_request_is(server, sent):
    cut = f"{HEAD}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD[:-1]
    for request in (sent, sent + cut if sent.endswith(b"\r\n\r\n") else cut):
        with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
            raw.sendall(request)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65536):
                pass
    assert is_well(server)


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("/v1/models/../../etc/passwd", 400, "Malformed request: GET /v1/models/../../etc"),
        ("/v1/models/..%2f..%2fetc%2fpasswd/metadata", 404, "model ../../etc/passwd"),
        ("/../../etc/passwd", 404, "Not found: GET /../../etc/passwd"),
        ("/v1/models/%00", 404, "model \0"),
        ("/v1/models/%ff%ed%a0%80", 404, "model \ufffd"),
        ("/v1/models/fcn/labels/%0d%0aSet-Cookie%3ax", 400, "label \r\nSet-Cookie:x"),
        ("/v1/models/fcn/versions/-1", 400, "Malformed request"),
        ("/docs", 404, "Not found: GET /docs"),
        ("/openapi.json", 404, "Not found: GET /openapi.json"),
    ],
)
def test_paths_lead_nowhere(server, path, code, reason):
    found, answer = server.ask("GET", path)
    assert found == code and reason in answer["error"]
    assert is_well(server)


PACKED = gzip.compress(GOOD)
IMAGES = '{"signature_name": "predict_images", "instances": '
BODIES = {
    "cut gzip": (PACKED[:-30], 400, "it is cut off"),
    "gzip without checksum": (PACKED[:-8], 400, "it is cut off"),
    "gzip of another checksum": (PACKED[:-8] + bytes(8), 400, "incorrect data check"),
    "two gzips": (gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]), 400, "follows its end"),
    "gzip and junk": (PACKED + b"junk", 400, "something follows its end"),
    "gzip bomb": (gzip.compress(bytes(2**28), 1), 413, "larger than 1 MiB"),
    "gzip in gzip": (gzip.compress(PACKED), 400, "not JSON"),
    "deflate": (zlib.compress(GOOD), 400, "Failed to uncompress the gzipped body"),
    "latin 1": (b'{"instances": ["\xe9"]}', 400, "not JSON: 'utf-8' codec"),
    "NUL": (b"\0", 400, "not JSON"),
    "half a character": (b'{"signature_name": "\\ud800", "instances": [1]}', 400, "'\\ud800'"),
    "half of it raw": (b'{"signature_name": "\xed\xa0\x80", "instances": [1]}', 400, "'\\ud800'"),
    "half in base64": (b'{"instances": [{"b64": "\\ud800"}]}', 400, "is not base64"),
    "control characters": (b'{"signature_name": "\\u001b[2J", "instances": [1]}', 400, "\\x1b[2J"),
    "deep lists": (b'{"instances": ' + b"[" * 100 + b"]" * 100 + b"}", 400, "nested too deeply"),
    "deeper lists": (b'{"instances": ' + b"[" * 900 + b"]" * 900 + b"}", 400, "recursion depth"),
    "endless lists": (b"[" * 10**6, 400, "maximum recursion depth"),
    "endless objects": (b'{"a": ' * 10**5, 400, "maximum recursion depth"),
    "deep objects": (
        b'{"instances": ' + b'{"a": ' * 100 + b"1" + b"}" * 101,
        400,
        "must be a list",
    ),
    "10,000 digits": (f"{IMAGES}[[[[{'1' * 10_000}, 1, 1]]]]}}".encode(), 400, "Exceeds the limit"),
    "4,000 digits": (
        f"{IMAGES}[[[[{'1' * 4000}, 1, 1]]]]}}".encode(),
        400,
        "out of the range of uint8",
    ),
    "infinity": (f"{IMAGES}[[[[1e999, 1, 1]]]]}}".encode(), 400, "images[0][0][0][0]: inf"),
    "null": (f"{IMAGES}[[[[null, 1, 1]]]]}}".encode(), 400, "images[0][0][0][0]: None"),
    "no pixels": (f"{IMAGES}[[]]}}".encode(), 400, "has shape [1, 0], but the signature has"),
    "two kinds of rows": (
        b'{"instances": [{"image_bytes": {"b64": ""}}, {"b64": ""}]}',
        400,
        "instances[1]",
    ),
    "base64 of a number": (b'{"instances": [{"b64": 5}]}', 400, "with the keys: image_bytes"),
    "100,000 texts": (json.dumps({"instances": ["x"] * 10**5}).encode(), 400, "image"),
    "a good one and a bad one": (
        json.dumps({"instances": [b64(PHOTO), "x"]}).encode(),
        400,
        "image",
    ),
}
SCANS = {count: jpeg_of_scans(count, progressive=True) for count in (100, 101)}
for rows in ([b64(SCANS[101])], [b64(PHOTO), b64(SCANS[101])]):
    reason = f"image_bytes[{len(rows) - 1}] is a JPEG of 101 scans; at most 100 are allowed"
    BODIES[f"scans {len(rows)}"] = (json.dumps({"instances": rows}).encode(), 400, reason)
COMPRESSED = {name for name in BODIES if "gzip" in name or name == "deflate"}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_get_a_reason(server, name):
    body, code, reason = BODIES[name]
    headers = {"Content-Encoding": "gzip"} if name in COMPRESSED else {}
    found, answer = server.ask("POST", "/v1/models/fcn:predict", body, headers)
    assert found == code and reason in answer["error"], answer
    assert is_well(server)


def test_a_hundred_scans_are_read(server):
    assert server.predict(json.dumps({"instances": [b64(SCANS[100])]}).encode())[0] == 200


@pytest.mark.parametrize("body", [GOOD.decode().encode("utf-16"), b"\xef\xbb\xbf" + GOOD])
def test_other_unicode_is_read(server, body):
    assert server.predict(body)[0] == 200


def test_memory_stays_flat(server):
    def all_bodies():
        for name, (body, _, _) in BODIES.items():
            headers = {"Content-Encoding": "gzip"} if name in COMPRESSED else {}
            server.ask("POST", "/v1/models/fcn:predict", body, headers)

    sizes = []
    for _ in range(8):
        all_bodies()
        sizes.append(resident_mib(server, "VmRSS"))
    limit = max(sizes[:4]) + 20  # buffers grow until they are large enough
    wait_for(lambda: resident_mib(server, "VmRSS") < limit)  # memory is given back each second


@pytest.mark.parametrize("head", [HEAD.replace(":predict", ""), GET])
def test_a_body_that_breaks_after_the_answer(server, head):
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
        raw.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n".encode())
        assert raw.recv(65536).startswith(b"HTTP/1.1 ")
        raw.sendall(b"zz\r\n")
        while raw.recv(65536):
            pass
    assert is_well(server)


@pytest.mark.parametrize("sent", ["", "POST /v1/mod", GET + "\r\n" + GET])
def test_headers_must_come_in_time(server, sent):
    """A byte now and then does not keep a connection open."""
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
        raw.sendall(sent.encode())
        raw.settimeout(0.2)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - start < SECONDS:
                with contextlib.suppress(TimeoutError):
                    if raw.recv(65536) == b"":
                        break
                if sent:
                    raw.sendall(b"A")
    assert PATIENCE - 0.3 < time.monotonic() - start < PATIENCE + 5
    assert is_well(server)


@pytest.mark.slow
def test_answers_must_be_taken_in_time(server):
    asked, answered = 4000, 4000
    for pause in (1, 5, 20):  # a busy machine fills the system's buffers late
        if answered == asked:
            answered = answers_taken_late(server, asked, PATIENCE + pause)
    assert 0 < answered < asked
    assert is_well(server)


def answers_taken_late(server, asked: int, pause: float) -> int:
    request = (GET.replace("/ready", "/v1/models/fcn/metadata") + "\r\n").encode()
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.settimeout(pause)
        with contextlib.suppress(ConnectionError, TimeoutError):
            raw.sendall(request * asked)
        time.sleep(pause)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)  # all that is there, at once
        answers = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            while chunk := raw.recv(2**20):
                answers += chunk
    return answers.count(b"HTTP/1.1 200")


HOG = """
import os, threading, time; from pathlib import Path
def hog(signal=Path({signal!r}), held=[]):
    while True:
        time.sleep(0.05)
        try:
            while signal.exists():
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            continue
        while held:
            os.close(held.pop())
threading.Thread(target=hog, daemon=True).start()
""".strip()


@pytest.fixture(scope="module")
def small_server(tmp_path_factory):
    """A server that may open few files, and opens them all itself while `signal` exists.

    It warns once, and asyncio's pause, after a connection that cannot be accepted, is short.
    """
    base = tmp_path_factory.mktemp("models")
    save_version(base, 1)
    signal = tmp_path_factory.mktemp("signal") / "hog"
    prelude = (
        f"import asyncio, resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({OPEN_FILES},) * 2)"
        "; asyncio.constants.ACCEPT_RETRY_DELAY = 0.05"
        f"; from fcn_keras.serving import http; http.QUIET_SECONDS = {SECONDS}"
        f"; exec({HOG.format(signal=str(signal))!r})"
    )
    with serving(base, prelude=prelude) as server, contextlib.ExitStack() as stack:

        def connect():
            address = ("127.0.0.1", server.port)
            return stack.enter_context(socket.create_connection(address, SECONDS))

        server.connect_raw, server.signal = connect, signal
        yield server


def test_no_file_descriptors_left(small_server):
    """The process itself has used them up: one line, and everything works once they are free."""
    server, connect = small_server, small_server.connect_raw
    first = [connect() for _ in range(3)]
    busy = connect()
    busy.sendall(f"{HEAD}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD[:-1])
    assert server.predict(GOOD)[0] == 200
    server.signal.touch()
    wait_for(lambda: len(os.listdir(f"/proc/{server.process.pid}/fd")) == OPEN_FILES)
    connect()
    for raw in first:
        assert raw.recv(1) == b""  # closed in favour of new ones
    waiting = [connect() for _ in range(50)]
    wait_for(lambda: server.line("Warning: no connection can be accepted (Too many open"))
    server.signal.unlink()
    assert server.ask("GET", "/ready")[0] == 200 and server.predict(GOOD)[0] == 200
    busy.sendall(GOOD[-1:])
    assert busy.recv(12) == b"HTTP/1.1 200"
    for raw in waiting[-20:]:
        raw.sendall(f"{GET}\r\n".encode())
        assert raw.recv(12) == b"HTTP/1.1 200"
    assert len([line for line in server.lines if "accept" in line]) == 1
    assert not any("Traceback" in line for line in server.lines)


def test_more_connections_than_open_files(small_server):
    """Idle ones go first, the oldest before others."""
    server, connect = small_server, small_server.connect_raw
    busy = connect()
    busy.sendall(f"{HEAD}Content-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD[:-1])
    idle = [connect() for _ in range(4 * OPEN_FILES)]
    for raw in idle[:9]:
        assert raw.recv(1) == b""
    assert server.predict(GOOD)[0] == 200  # at once, as no timeout passes here
    idle[-1].sendall(f"{GET}\r\n".encode())
    assert idle[-1].recv(12) == b"HTTP/1.1 200"
    busy.sendall(GOOD[-1:])
    assert busy.recv(12) == b"HTTP/1.1 200"
    assert len([line for line in server.lines if "Warning" in line]) <= 1
    assert not any("Traceback" in line for line in server.lines)
