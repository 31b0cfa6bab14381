"""Requests to the page that its own browser never sends, and files that are no photographs."""

import http.client
import json
import os
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.image_files import encoded, png

pytest.importorskip("gradio")


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A file that the page must not send."""
    path = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    path.write_bytes(PHOTO)
    return path


@pytest.fixture(autouse=True)
def quiet(server):
    yield
    assert server.process.poll() is None
    assert "Traceback" not in server.log and "FOREIGN" not in server.log


NOISE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
PHOTO = encoded(Image.fromarray(NOISE))


def ask(server, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def upload(server, name, data):
    """Status, and the upload's path or what is said instead."""
    head = f'Content-Disposition: form-data; name="files"; filename="{name}"'
    body = b"--x\r\n" + head.encode() + b"\r\n\r\n" + data + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    status, said, _ = ask(server, "POST", "/gradio_api/upload", body, kind)
    return status, json.loads(said)[0] if status == 200 else said


def call(server, event, data, event_data=None):
    """Whether an event (0: a file, 1: a sample, 2: the slider) succeeds, and its output."""
    session = uuid.uuid4().hex
    body = {"data": data, "fn_index": event, "session_hash": session, "event_data": event_data}
    kind = {"Content-Type": "application/json"}
    status, said, _ = ask(server, "POST", "/gradio_api/queue/join", json.dumps(body), kind)
    if status != 200:
        return False, said.decode()
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.request("GET", f"/gradio_api/queue/data?session_hash={session}")
    for line in connection.getresponse():
        message = json.loads(line[5:]) if line.startswith(b"data:") else {}
        if message.get("msg") == "process_completed":
            connection.close()
            return message["success"], json.dumps(message["output"], ensure_ascii=False)
    raise AssertionError("no answer")


def file_data(path, **more):
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../evil.png", "evil.png"),
        ("/etc/cron.d/evil.png", "evil.png"),
        ("a b  c.png", "a b  c.png"),
        ("a\nb.png", "ab.png"),
        ("-rf.png", "-rf.png"),
        (f"{'a' * 300}.png", "aaaa.png"),
        ("<img src=x onerror=alert(1)>.png", "img src=x onerror=alert(1).png"),
        (".bashrc", ".bashrc"),
        ("", ""),
    ],
)
def test_names_of_uploads_stay_in_their_folder(server, name, kept):
    status, path = upload(server, name, PHOTO)
    assert status == 200 and path.endswith(kept) and os.path.normpath(path) == path
    assert Path(path).parent.parent.name.startswith("fcn_keras_demo_")
    done, output = call(server, 0, [file_data(path), 50])
    assert done and "30 × 20 pixels" in output and "<img" not in output


IMAGE = Image.fromarray(NOISE)
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a readable image"),
        (b"This is a text.", "not a readable image"),
        (PHOTO[:60], "not a readable image"),
        (png(60_000, 60_000, 8, 2, bytes(99)), "more than 1,000,000 pixels"),
        (SVG, "not a readable image"),
        (encoded(IMAGE, "EPS"), "not a readable image"),
        (encoded(IMAGE, "PDF"), "not a readable image"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "floats"),
    ],
)
def test_what_is_no_photograph_gets_a_reason(server, data, reason):
    done, output = call(server, 0, [file_data(upload(server, "x.png", data)[1]), 50])
    assert done and "role='alert'" in output and reason in output


@pytest.mark.parametrize(
    "data",
    [
        encoded(IMAGE, "GIF", save_all=True, append_images=[IMAGE.rotate(90)]),
        encoded(IMAGE.convert("CMYK"), "JPEG"),
        encoded(Image.new("RGB", (1, 1))),
        encoded(Image.new("RGB", (1, 20_000))),
    ],
)
def test_strange_photographs_are_segmented(server, data):
    done, output = call(server, 0, [file_data(upload(server, "x.png", data)[1]), 50])
    assert done and "role='status'" in output


def test_uploads_are_not_shown_as_pages(server):
    for name, data in (("x.html", b"<script>alert(1)</script>"), ("x.svg", SVG)):
        _, path = upload(server, name, data)
        _, _, headers = ask(server, "GET", f"/gradio_api/file={path}")
        assert headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=%2fetc%2fpasswd",
        "/gradio_api/file=../../etc/passwd",
        "/gradio_api/file=/proc/self/environ",
        "/gradio_api/file=file:///etc/passwd",
        "/gradio_api/file=setup.cfg",
        "/gradio_api/file={secret}",
        "/gradio_api/file={folder}/../../etc/passwd",
        "/gradio_api/file={folder}",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets/..%2f..%2f..%2f..%2fetc/passwd",
        "/gradio_api/proxy={url}/config",
    ],
)
def test_no_other_files_are_sent(server, secret, path):
    folder = Path(upload(server, "x.png", PHOTO)[1]).parent.parent
    path = path.format(secret=secret, folder=folder, url=server.url)
    status, said, _ = ask(server, "GET", path)
    assert 400 <= status < 500 and b"root:" not in said and PHOTO not in said


def test_no_other_files_are_segmented(server, secret):
    """Gradio would read any file that a request names."""
    own = upload(server, "x.png", PHOTO)[1]
    folder = str(Path(own).parent.parent)
    forged = [str(secret), "/etc/passwd", "/dev/zero", folder, "setup.cfg", "a\0b", "\ud800"]
    forged += [f"{folder}/../{secret}", "http://127.0.0.1:1/x.png", "http://example.com/", 5]
    for path in forged:
        for data in ([file_data(path), 50], [file_data(own), file_data(path)]):
            done, output = call(server, 0, data)
            assert not done and "Not a file that was uploaded here." in output, path
    done, output = call(server, 2, [None, file_data(str(secret)), []])
    assert not done and "Not a file that was uploaded here." in output
    assert call(server, 0, [file_data(own), 50])[0]


@pytest.mark.parametrize(
    ("event", "data", "event_data", "reason"),
    [
        (0, [None, 50], None, "No file."),
        (0, ["/etc/passwd", 50], None, "Malformed request."),
        (0, [[], 50], None, "Malformed request."),
        (0, [None, "a"], None, "Malformed request."),
        (0, [None, -1], None, "less than minimum"),
        (0, [None], None, "Malformed request."),
        (1, [50], None, "No such sample."),
        (1, [50], {"index": -1}, "No such sample."),
        (1, [50], {"index": 99}, "No such sample."),
        (1, [50], {"index": [0]}, "No such sample."),
        (1, [50], "x", "No such sample."),
        (2, [None, 50, [99]], None, "not in the list of choices"),
        (-1, [], None, "Malformed request."),
        (99, [], None, "Malformed request."),
        (0, 5, None, "should be a valid list"),
    ],
)
def test_malformed_events_get_a_reason(server, event, data, event_data, reason):
    done, output = call(server, event, data, event_data)
    assert not done and reason in output


@pytest.mark.parametrize("boundary", ["", f"; boundary={'a' * 999}"])
def test_malformed_uploads_get_a_reason(server, boundary):
    kind = f"multipart/form-data{boundary}"
    status, said, _ = ask(server, "POST", "/gradio_api/upload", b"x", {"Content-Type": kind})
    assert status == 400 and said


def test_json_that_is_none(server):
    kind = {"Content-Type": "application/json"}
    for body in (b"x", b"[]", b"\0", b"\xff", b"[" * 10**5):
        assert 400 <= ask(server, "POST", "/gradio_api/queue/join", body, kind)[0] < 500
