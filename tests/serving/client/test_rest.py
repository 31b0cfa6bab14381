"""The REST client against real HTTP servers."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from support.tiny_server import (
    LABELS,
    RestServer,
    breaking_off,
    red_thirds,
    replying,
    save_tiny_model,
)

from fcn_keras.errors import UserError
from fcn_keras.serving.client import connect, retrying
from fcn_keras.serving.client.rest import RestClient
from fcn_keras.serving.client.retrying import RefusedError, TemporaryError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def running(model):
    with RestServer(model) as server:
        yield server


@pytest.fixture
def server(running):
    """A server that has been asked nothing yet."""
    running.script, running.paths = [], []
    return running


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.01)


def photograph(seed=0, size=(48, 64)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return pixels, file.getvalue()


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_masks_shares_and_classes(server):
    client = connect(server.url + "/")
    pixels, data = photograph()
    result = client.segment(data)
    np.testing.assert_array_equal(opened(result.mask_png), red_thirds(pixels))
    counts = np.bincount(red_thirds(pixels).ravel(), minlength=3)
    np.testing.assert_allclose(result.class_fractions, counts / counts.sum(), rtol=1e-6)
    assert client.labels() == (LABELS.names, LABELS.palette)


def test_classes_of_a_model_that_repeats_them_for_each_query(tmp_path):
    with RestServer(save_tiny_model(tmp_path, batched=True)) as server:
        assert connect(server.url).labels() == (LABELS.names, LABELS.palette)


def test_one_client_for_many_threads(server):
    client = RestClient(server.url)
    photographs = [photograph(seed, (8 + seed, 9)) for seed in range(40)]
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda pair: client.segment(pair[1]), photographs))
    for (pixels, _), result in zip(photographs, results):
        np.testing.assert_array_equal(opened(result.mask_png), red_thirds(pixels))


def test_addresses_of_models_versions_and_labels(server):
    _, data = photograph()
    for options in ({}, {"version": 3}, {"label": "stable"}, {"model": "a b/c"}):
        RestClient(server.url, **options).segment(data)
    assert server.paths == [
        "/v1/models/fcn:predict",
        "/v1/models/fcn/versions/3:predict",
        "/v1/models/fcn/labels/stable:predict",
        "/v1/models/a%20b%2Fc:predict",
    ]


@pytest.mark.parametrize("status", [429, 503, 504])
def test_temporary_failures_are_tried_again(server, quick, status):
    server.script = [replying(status, {"error": "busy"}), replying(status, "", "text/html")]
    assert len(RestClient(server.url).segment(photograph()[1]).class_fractions) == 3
    assert len(server.paths) == 3
    server.script = [replying(status, {"error": "busy"})] * 3
    with pytest.raises(TemporaryError, match=r"http://127.* is overloaded or not ready \(busy\)"):
        RestClient(server.url, retries=1).segment(photograph()[1])
    assert len(server.paths) == 5


def test_retry_after_is_honoured(server, quick):
    server.script = [replying(503, {"error": "busy"}, Retry_After=1)]
    start = time.monotonic()
    RestClient(server.url).segment(photograph()[1])
    assert time.monotonic() - start >= 1
    for value in ("3600", "Fri, 01 Jan 2999 00:00:00 GMT"):
        server.script = [replying(503, {"error": "busy"}, Retry_After=value)]
        with pytest.raises(TemporaryError, match="busy"):  # at once, not in an hour
            RestClient(server.url).segment(photograph()[1])
        assert not server.script
    server.script = [replying(503, {"error": "busy"}, Retry_After="soon")]
    RestClient(server.url).segment(photograph()[1])


class Stopped:
    """Records how long it was waited for."""

    def __init__(self, at=None):
        self.waits, self.at = [], at

    def wait(self, seconds):
        self.waits.append(seconds)
        return len(self.waits) == self.at


def test_waits_grow():
    def fail():
        raise TemporaryError("away")

    stopped = Stopped()
    with pytest.raises(TemporaryError):
        retrying.retrying(fail, 9, stopped)
    waits = stopped.waits
    bounds = [(0.25 * 2**n * 0.5, 0.25 * 2**n * 1.5) for n in range(8)] + [(30, 90)]
    assert all(low <= wait <= high for wait, (low, high) in zip(waits, bounds, strict=True))
    stopped = Stopped(at=2)
    with pytest.raises(TemporaryError, match="away"):
        retrying.retrying(fail, 9, stopped)
    assert len(stopped.waits) == 2


def test_a_connection_that_breaks_is_made_again(server, quick):
    server.script = [breaking_off, breaking_off]
    RestClient(server.url).segment(photograph()[1])
    server.script = [breaking_off] * 2
    with pytest.raises(TemporaryError, match="no server answers there"):
        RestClient(server.url, retries=1).segment(photograph()[1])


def test_timeouts_are_tried_again(server, quick):
    RestClient(server.url).segment(photograph()[1])  # the first call takes longer
    server.script = [lambda handler: time.sleep(0.6)]
    RestClient(server.url, timeout=0.5).segment(photograph()[1])
    server.script = [lambda handler: time.sleep(0.6)] * 2
    with pytest.raises(TemporaryError, match=r"http://127.*: no answer in 0.5 s. Allow more time"):
        RestClient(server.url, timeout=0.5, retries=1).segment(photograph()[1])
    assert len(server.paths) == 5


def test_a_server_that_starts_late_is_waited_for(model):
    with RestServer(model) as early:
        port = early.server_port
    client = RestClient(f"http://127.0.0.1:{port}", retries=0)
    with pytest.raises(TemporaryError, match=r"no server answers there \(\[Errno 111\] Connection"):
        client.labels()
    names = []
    waiting = RestClient(f"http://127.0.0.1:{port}", retries=6)
    thread = threading.Thread(target=lambda: names.extend(waiting.labels()[0]))
    thread.start()
    time.sleep(0.3)
    with RestServer(model, port):
        thread.join(20)
    assert tuple(names) == LABELS.names


def test_a_bad_image_is_refused_once(server):
    with pytest.raises(
        RefusedError, match="http://127.* refused the request .*assertion failed: .*JPEG"
    ):
        RestClient(server.url).segment(b"GIF89a")
    assert len(server.paths) == 1


MASK = {"b64": "aGVsbG8="}
BAD_ANSWERS = {
    "html": (replying(200, "<html>", "text/html; charset=utf-8"), "not as TensorFlow Serving does"),
    "html 404": (replying(404, "<html>", "text/html"), r"\(status 404, text/html\)"),
    "no model": (replying(404, {"error": "Servable not found"}), r"no such model \(Servable not"),
    "no page": (replying(404, {"detail": "Not Found"}), "no such model .*Not Found"),
    "a bug": (replying(500, {"error": "oh\nno"}), r"failed \(status 500, oh\). Look at"),
    "a gateway": (replying(502, "", "text/html"), "not as TensorFlow Serving does"),
    "an error": (replying(200, {"error": "strange"}), "strange"),
    "number": (replying(200, 5), "not as TensorFlow Serving does"),
    "list": (replying(200, [5]), "not as TensorFlow Serving does"),
    "other": (replying(200, {"predictions": [[1, 2]]}), "does not answer like"),
    "two": (replying(200, {"predictions": [{}, {}]}), "does not answer like"),
    "no base64": (
        replying(200, {"predictions": [{"mask_png_bytes": {"b64": "?"}, "class_fractions": [1]}]}),
        "does not answer like",
    ),
    "no numbers": (
        replying(200, {"predictions": [{"mask_png_bytes": MASK, "class_fractions": ["x"]}]}),
        "does not answer like",
    ),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answers_are_named_and_not_asked_for_again(server, name):
    step, message = BAD_ANSWERS[name]
    server.script = [step]
    with pytest.raises(UserError, match=message) as caught:
        RestClient(server.url).segment(photograph()[1])
    assert server.url in str(caught.value) and "\n" not in str(caught.value)
    assert not isinstance(caught.value, TemporaryError) and len(server.paths) == 1


@pytest.mark.parametrize(
    "outputs", [[], {"names": [], "palette": []}, {"names": ["a"], "palette": [[1, 2]]}]
)
def test_bad_labels_are_named(server, outputs):
    server.script = [replying(200, {"outputs": outputs})]
    with pytest.raises(UserError, match="does not answer like a model that fcn-keras exported"):
        RestClient(server.url).labels()


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("localhost:8501", {}, "localhost:8501: not a server's address. Use http://"),
        ("ftp://localhost", {}, "not a server's address"),
        ("http://", {}, "not a server's address"),
        ("http://x", {"version": 1, "label": "a"}, "Give a version or a label, not both"),
        (
            "http://x",
            {"timeout": 0},
            "timeout must be more than 0 and at most 86400 seconds. Received: 0",
        ),
        ("http://x", {"retries": -1}, "retries must be 0 or more. Received: -1"),
    ],
)
def test_mistakes_are_named(url, options, message):
    with pytest.raises(UserError, match=message):
        connect(url, **options)


def test_an_impossible_address_is_named():
    with pytest.raises(UserError, match="http://127.0.0.1:port.* Check the address"):
        RestClient("http://127.0.0.1:port").labels()
