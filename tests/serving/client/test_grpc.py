"""The gRPC client against real gRPC servers."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.tiny_server import LABELS, GrpcServicer, grpc_server, red_thirds, save_tiny_model
from tensorflow_serving.apis import predict_pb2

from fcn_keras.cli import main
from fcn_keras.errors import UserError
from fcn_keras.serving.client import connect, retrying
from fcn_keras.serving.client.retrying import RefusedError, TemporaryError

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    servicer = GrpcServicer(save_tiny_model(tmp_path_factory.mktemp("model")))
    with grpc_server(servicer) as url:
        yield servicer, url


@pytest.fixture
def server(running, monkeypatch):
    """A servicer that has been asked nothing yet, and its address."""
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.01)
    servicer, url = running
    servicer.script, servicer.requests = [], []
    return servicer, url


def photograph(size=(48, 64), seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return pixels, file.getvalue()


def check(client, *photograph_options):
    pixels, data = photograph(*photograph_options)
    result = client.segment(data)
    mask = np.asarray(Image.open(io.BytesIO(result.mask_png)))
    np.testing.assert_array_equal(mask, red_thirds(pixels))
    counts = np.bincount(mask.ravel(), minlength=3)
    np.testing.assert_allclose(result.class_fractions, counts / counts.sum(), rtol=1e-6)


def test_masks_shares_and_classes(server):
    _, url = server
    check(connect(url))
    assert connect(url).labels() == (LABELS.names, LABELS.palette)


def test_decoded_images(server):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3)).astype(np.uint8)
    mask = connect(server[1]).predict_images(images)
    np.testing.assert_array_equal(mask, red_thirds(images))
    assert mask.dtype == np.uint8


def test_classes_of_a_model_that_repeats_them_for_each_query(tmp_path):
    with grpc_server(GrpcServicer(save_tiny_model(tmp_path, batched=True))) as url:
        assert connect(url).labels() == (LABELS.names, LABELS.palette)


def test_one_client_for_many_threads(server):
    client = connect(server[1])
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda seed: check(client, (8 + seed, 9), seed), range(40)))


def test_versions_and_labels(server):
    servicer, url = server
    for options in ({}, {"version": 3}, {"label": "stable"}):
        connect(url, **options).segment(photograph()[1])
    plain, version, label = [request.model_spec for request in servicer.requests]
    assert not plain.HasField("version_choice") and plain.name == "fcn"
    assert version.version.value == 3 and label.version_label == "stable"


@pytest.mark.parametrize(
    "code", [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED]
)
def test_temporary_failures_are_tried_again(server, code):
    servicer, url = server
    servicer.script = [code, code]
    check(connect(url))
    assert len(servicer.requests) == 3
    servicer.script = [code, code]
    with pytest.raises(TemporaryError, match="grpc://127") as caught:
        connect(url, retries=1).segment(photograph()[1])
    assert len(servicer.requests) == 5 and "second line" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (Code.NOT_FOUND, r"no such model \(as scripted\). Check the model's name"),
        (Code.INVALID_ARGUMENT, "refused the request"),
        (Code.FAILED_PRECONDITION, "refused the request"),
        (Code.INTERNAL, r"failed \(INTERNAL: as scripted\). Look at the server's log"),
    ],
)
def test_other_failures_are_not(server, code, message):
    servicer, url = server
    servicer.script = [code]
    with pytest.raises(UserError, match=message) as caught:
        connect(url).segment(photograph()[1])
    assert url in str(caught.value) and "\n" not in str(caught.value)
    assert len(servicer.requests) == 1


def test_bad_images_and_unknown_models(server):
    with pytest.raises(RefusedError, match="refused the request .*assertion failed: .*JPEG"):
        connect(server[1]).segment(b"GIF89a")
    with pytest.raises(UserError, match=r"no such model \(Servable not found for request\)"):
        connect(server[1], model="other").labels()


def test_deadlines(server):
    servicer, url = server
    check(connect(url))
    servicer.script = [1.0]
    check(connect(url, timeout=0.6))
    servicer.script = [1.0, 1.0]
    with pytest.raises(TemporaryError, match="no answer in 0.6 s. Allow more time, or try later"):
        connect(url, timeout=0.6, retries=1).segment(photograph()[1])


def test_large_files_pass_and_too_large_ones_are_named(server):
    servicer, url = server
    check(connect(url), (1500, 2000))  # 9 MB; gRPC's own limit is 4 MB
    images = np.zeros((1, 2500, 2000, 3), np.uint8)
    assert connect(url).predict_images(images).shape == (1, 2500, 2000)  # an answer of 5 MB
    servicer.requests = []
    with pytest.raises(UserError, match="larger than max .*. Send a smaller file") as caught:
        connect(url).segment(bytes(65 * 2**20))
    assert not isinstance(caught.value, TemporaryError) and not servicer.requests


def test_other_answers_are_named():
    def answer(request, context):
        return predict_pb2.PredictResponse(outputs={"x": tf.make_tensor_proto([1])})

    with grpc_server(type("Other", (), {"__getattr__": lambda self, name: answer})()) as other:
        for ask in ("labels", "segment", "predict_images"):
            arguments = {"labels": (), "segment": (b"",), "predict_images": ([[0]],)}[ask]
            with pytest.raises(UserError, match=r"does not answer like .*\['x'\]"):
                getattr(connect(other), ask)(*arguments)


def test_other_services_are_named():
    with grpc_server(None) as url, pytest.raises(UserError, match="not as TensorFlow Serving does"):
        connect(url).labels()


def test_a_server_that_starts_late_is_waited_for(server):
    with grpc_server(None) as early:
        port = int(early.rpartition(":")[2])
    with pytest.raises(TemporaryError, match="no server answers there .*. Start it, or check"):
        connect(early, retries=0).labels()
    names = []
    client = connect(early, retries=10)
    thread = threading.Thread(target=lambda: names.extend(client.labels()[0]))
    thread.start()
    time.sleep(0.3)
    with grpc_server(server[0], port):
        thread.join(20)
    assert tuple(names) == LABELS.names


def test_the_command(server, tmp_path, capfd):
    pixels, data = photograph()
    (tmp_path / "x.png").write_bytes(data)
    code = main(
        ["request", "--url", server[1], "--output", str(tmp_path / "out"), str(tmp_path / "x.png")]
    )
    assert code == 0 and "1 of 1 images segmented, 0 failed." in capfd.readouterr().out
    mask = Image.open(tmp_path / "out" / "x.png")
    np.testing.assert_array_equal(np.asarray(mask), red_thirds(pixels))
