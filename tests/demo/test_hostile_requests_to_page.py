"""Requests that the page itself never sends, and files that are not photographs."""

import contextlib
import email
import http.client
import io
import json
import os
import re
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import demo_model
from support.image_files import encoded, png

pytest.importorskip("uvicorn")

SECONDS = demo_model.SECONDS
MIB = 2**20


@pytest.fixture(autouse=True)
def quiet(server):
    """Nothing of a request is printed; after it the page answers."""
    yield
    assert server.process.poll() is None
    assert ask(server, "POST", "/predict?sample=0")[0] == 200
    printed = server.log[server.log.index("Showing") :]
    assert not re.search("Traceback|WARNING|raised|FOREIGN|[^\n -~]", printed)


NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
PHOTO = encoded(Image.fromarray(NOISE))


def connect(server):
    return http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=SECONDS)


def ask(server, method, path, body=None, headers=None):
    with contextlib.closing(connect(server)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def predict(server, data):
    """The status, and the answer's parts or its text."""
    status, said, headers = ask(server, "POST", "/predict", data)
    if status != 200:
        return status, said.decode()
    head = f"Content-Type: {headers['Content-Type']}\n\n".encode()
    parts = email.message_from_bytes(head + said).get_payload()
    return status, {part.get_filename(): part.get_payload(decode=True) for part in parts}


def memory(server, kind="VmRSS"):
    """Memory of the server's process, in MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"{kind}:\s+(\d+) kB", status)[1]) / 1024


IMAGE = Image.fromarray(NOISE)
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable image"),
        (b"This is a text.", "not a readable image"),
        (b"\x1b[31m\r\n\x00", "not a readable image"),
        (PLAYLIST, "not a readable image"),
        (PHOTO[:60], "not a readable image"),
        (png(60_000, 60_000, 8, 2, bytes(99)), "more than 1,000,000 pixels"),
        (SVG, "not a readable image"),
        (encoded(IMAGE, "EPS"), "not a readable image"),
        (encoded(IMAGE, "PDF"), "not a readable image"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floats"),
    ],
)
def test_what_is_no_photograph_gets_a_reason(server, data, reason):
    status, said = predict(server, data)
    assert status == 400 and said.startswith((reason, f"an image of {reason}"))


@pytest.mark.parametrize(
    "data",
    [
        encoded(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(90)]),
        encoded(IMAGE.convert("CMYK"), "JPEG"),
        encoded(Image.new("RGB", (1, 1))),
        encoded(Image.new("RGB", (1, 20_000))),
        encoded(IMAGE, "PNG", transparency=(0, 0, 0)),
    ],
)
def test_strange_photographs_are_segmented(server, data):
    status, parts = predict(server, data)
    assert status == 200
    facts = json.loads(parts["facts"])
    assert facts["size"] == list(Image.open(io.BytesIO(data)).size)
    assert len(parts["picture"]) == 4 * np.prod(facts["shown"])
    assert list(Image.open(io.BytesIO(parts["mask"])).size) == facts["size"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=http://127.0.0.1:1/config",
        "/file=http://example.com/x.png",
        "/samples/..%2f..%2f..%2fetc/passwd",
        "/samples/-1.jpg",
        "/samples/8.jpg",
        "/samples/0",
        "/../server.py",
        "/server.py",
        "/page.html",
        "/page.js/",
        "//etc/passwd",
        "//",
        "/%1b%5d0;title%07",
        "/%00",
        "/%ff%0d%0a",
        "http://example.com/",
        "*",
    ],
)
def test_nothing_else_is_sent(server, path):
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        status, said, _ = ask(server, method, path, b"x", {"Host": "localhost"})
        assert (status, said) == (404, b"Not found.")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/process_recording",
        "/gradio_api/upload",
        "/gradio_api/queue/join",
        "/gradio_api/run/predict_file",
        "/run/predict",
    ],
)
def test_what_gradio_would_have_run_is_gone(server, path):
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
    body, kind = form + PLAYLIST + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    status, said, _ = ask(server, "POST", path, body, {"Content-Type": kind})
    assert (status, said) == (404, b"Not found.")


def test_methods_are_those_of_the_page(server):
    for path in ("/", "/page.js", "/style.css", "/model.json", "/samples/0.jpg"):
        status, content, headers = ask(server, "GET", path)
        assert status == 200 and content
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        status, none, other = ask(server, "HEAD", path)
        assert (status, none) == (200, b"") and other["Content-Length"] == str(len(content))
        status, said, headers = ask(server, "POST", path, b"x")
        assert (status, said, headers["Allow"]) == (405, b"Method not allowed.", "GET, HEAD")
    for method in ("GET", "HEAD", "PUT", "XYZ"):
        status, _, headers = ask(server, method, "/predict")
        assert (status, headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "query", ["sample=8", "sample=-1", "sample=", "sample=00", "sample=0&sample=1", "x", "%1b"]
)
def test_samples_that_there_are_not(server, query):
    assert ask(server, "POST", f"/predict?{query}")[:2] == (400, b"No such sample.")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://localhost"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_web_pages_may_not_ask(server, headers):
    body = {"Content-Type": "multipart/form-data; boundary=x"}
    for method, path in (("POST", "/predict"), ("POST", "/predict?sample=0"), ("GET", "/page.js")):
        status, said, _ = ask(server, method, path, PHOTO, {**headers, **body})
        assert (status, said) == (403, b"Only this page may ask for that.")
    assert ask(server, "GET", "/", None, headers)[0] == 200  # a link
    own = {"Origin": server.url}
    assert ask(server, "POST", "/predict", PHOTO, own)[0] == 200
    # As browsers send it behind a proxy with another name.
    other = {"Origin": "https://example.com", "Sec-Fetch-Site": "same-origin"}
    assert ask(server, "POST", "/predict", PHOTO, other)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["example.com", "example.com:80", "127.0.0.1.example.com", "localhost.example.com", "", "["]
    + ["[::1", "localhost.", "127.1.nip.io", "[::1].example.com", "example.com[::1]"]
    + ["x@localhost", "localhost/x", "localhost:x", "127.0.0.1:80:80"],
)
def test_names_of_others_are_refused(server, host):
    """An attacker's name that resolves to this machine would make its pages the page's own."""
    for method, path in (("GET", "/"), ("POST", "/predict")):
        headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        status, said, _ = ask(server, method, path, PHOTO, headers)
        assert (status, said) == (403, b"Open this page at an IP address, or as localhost.")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9", "127.0.0.1", "192.168.1.2:80", "[::1]:80", None]
)
def test_names_of_this_machine_are_accepted(server, host):
    host = host or f"{socket.gethostname()}:7860"
    own = {"Host": host, "Origin": f"http://{host}"}
    assert ask(server, "POST", "/predict", PHOTO, own)[0] == 200


def raw(server, head, *chunks, end=b"."):
    """The answer to these bytes until it ends so; no more is sent than the server reads."""
    host, port = server.url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        with contextlib.suppress(ConnectionError):
            for chunk in (head, *chunks):
                connection.sendall(chunk)
        with contextlib.suppress(ConnectionError):
            while not (end and answer.endswith(end)) and (more := connection.recv(4096)):
                answer += more
    return answer


@pytest.mark.parametrize("name", ["Origin", "Sec-Fetch-Site"])
def test_a_header_that_stands_twice_is_not_the_pages_own(server, name):
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}[name]
    host = server.url.removeprefix("http://")
    head = f"POST /predict?sample=0 HTTP/1.1\r\nHost: {host}\r\n{name}: cross-site\r\n{name}: {own}"
    assert b" 403 " in raw(server, f"{head}\r\n\r\n".encode()).split(b"\r\n")[0]


UPGRADE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: "


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"\x1b]0;title\x07\r\n\r\n", 400),
        (b"GET /\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\x1b: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"A" * 70_000 + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (UPGRADE + b"websocket\r\n\r\n", 200),
        (UPGRADE + b"h2c, \x1b[31m\r\n\r\n", 200),
    ],
)
def test_what_is_no_plain_request_prints_nothing_either(server, head, status):
    assert f" {status} ".encode() in raw(server, head, end=None).split(b"\r\n")[0]


def test_tiny_chunks_do_not_keep_the_page_from_others(server):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = raw(server, head, b"1\r\nx\r\n" * 1100, end=None)
    assert b" 400 " in answer.split(b"\r\n")[0] and b"Invalid HTTP" in answer
    enough = (b"100\r\n" + PHOTO[:1] * 256 + b"\r\n") * 3000 + b"1\r\nx\r\n" * 999
    answer = raw(server, head, enough + b"0\r\n\r\n", end=b"WEBP.")
    assert b"not a readable image" in answer


def test_a_file_that_is_too_large_is_refused_at_once(server):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048576000\r\n\r\n"
    assert b" 413 " in raw(server, head).split(b"\r\n")[0]
    assert b"larger than 256 MiB" in raw(server, head)
    before = memory(server)
    assert b" 413 " in raw(server, head, *[bytes(MIB)] * 1000)[:20]
    assert memory(server) < before + 20


def test_a_file_of_no_known_length_is_read_to_its_limit_only(server):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
    before = memory(server)
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the high-water mark
    answer = raw(server, head, *[chunk] * 300, b"0\r\n\r\n")
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert memory(server, "VmHWM") < before + 600  # 256 MiB, and a copy when it grows
    assert memory(server) < before + 20


def test_a_body_whose_end_a_proxy_may_see_elsewhere(server):
    framing = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\n{framing}GET / HTTP/1.1\r\n\r\n"
    answer = raw(server, head.encode(), end=None)
    assert b" 400 " in answer.split(b"\r\n")[0] and answer.count(b"HTTP/1.1") == 1


def test_uploads_that_break_off_leave_nothing(server):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n"
    host, port = server.url.removeprefix("http://").split(":")

    def upload():
        connection = socket.create_connection((host, int(port)))
        connection.sendall(head + bytes(50 * MIB))
        return connection

    before = memory(server)
    connections = [upload() for _ in range(6)]
    wait_until(lambda: memory(server) > before + 250)
    for connection in connections:
        connection.close()
    wait_until(lambda: memory(server) < before + 20)
    deleted = [os.readlink(file) for file in Path(f"/proc/{server.process.pid}/fd").iterdir()]
    assert not any("(deleted)" in name for name in deleted)


def test_all_photographs_together_are_bounded(server):
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 262144000\r\n\r\n"
    host, port = server.url.removeprefix("http://").split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(head + bytes(249 * MIB))
        assert b" 503 " in raw(server, head, bytes(100 * MIB))[:20]
        assert predict(server, PHOTO)[0] == 200


def wait_until(condition):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture(scope="module")
def slow(run, tmp_path_factory):
    """A page whose second sample takes seconds, a tile at a time."""
    folder = tmp_path_factory.mktemp("large")
    IMAGE.save(folder / "a.png")
    IMAGE.resize((4000, 3000)).save(folder / "b.png")
    flags = ("--model", run, "--tile", 64, "--examples", folder)
    with demo_model.serving(*flags) as server:
        yield server
        assert "Traceback" not in server.log


def test_one_prediction_runs_at_a_time_and_those_of_clients_that_left_do_not(slow):
    done, order = [], []

    def small():
        done.append(ask(slow, "POST", "/predict?sample=0")[0])
        order.append("small")

    def begin(path):
        connection = connect(slow)
        connection.request("POST", path)
        return connection

    def wait_for_prediction(number):
        wait_until(lambda: slow.log.count("PREDICTION") == before + number)

    before = slow.log.count("PREDICTION")
    start = time.monotonic()
    first = begin("/predict?sample=1")
    wait_for_prediction(1)
    left = [begin("/predict?sample=1") for _ in range(20)]
    waiting = threading.Thread(target=small)
    waiting.start()
    time.sleep(0.3)
    for connection in left:
        connection.close()
    assert slow.log.count("PREDICTION") == before + 1
    assert first.getresponse().status == 200
    whole = time.monotonic() - start
    order.append("large")
    waiting.join(SECONDS)
    assert done == [200] and order[0] == "large"
    wait_for_prediction(2)

    running = begin("/predict?sample=1")
    wait_for_prediction(3)
    running.send(b"GET ")  # after which it could not be seen that the client leaves
    running.close()  # a running one is given up, too
    start = time.monotonic()
    assert ask(slow, "POST", "/predict?sample=0")[0] == 200
    assert time.monotonic() - start < whole / 2


def test_the_line_has_an_end(slow):
    with contextlib.ExitStack() as stack:
        for _ in range(65):
            connection = stack.enter_context(contextlib.closing(connect(slow)))
            connection.request("POST", "/predict?sample=1")
        time.sleep(0.5)
        status, said, _ = ask(slow, "POST", "/predict?sample=0")
        assert status == 503 and said.startswith(b"Too many photographs are waiting.")
    wait_until(lambda: ask(slow, "POST", "/predict?sample=0")[0] == 200)
