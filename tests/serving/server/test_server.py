"""`fcn-keras serve` as a separate process: real sockets, files and signals."""

import base64
import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.image_files import encoded
from support.processes import FCN_KERAS, ROOT
from support.toy_server import (
    HEAD,
    MASK,
    PHOTO,
    PIXELS,
    SECONDS,
    b64,
    resident_mib,
    save_version,
    send_raw,
    serving,
    wait_for,
)

from fcn_keras.cli import main
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.serving.server.saved_model import public_reason


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    save_version(base, 1)
    save_version(base, 2, 150.0)
    (base / "notes").mkdir()
    (base / "3").write_text("no folder")
    return base


@pytest.fixture(scope="module")
def server(base):
    with serving(base, "--version-label", "stable=1", "--max-body-mb", "1") as server:
        yield server


def test_status(server):
    assert server.states() == {2: "AVAILABLE", 1: "AVAILABLE"}
    one = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}
    one["status"]["error_message"] = ""
    for where in ("/versions/1", "/labels/stable"):
        code, content = server.ask("GET", f"/v1/models/fcn{where}")
        assert (code, content) == (200, {"model_version_status": [one]})
    assert server.ask("GET", "/ready") == (200, {"ready": True})


def test_metadata_is_the_saved_models_signatures(server):
    code, content = server.ask("GET", "/v1/models/fcn/metadata")
    assert code == 200
    assert content["model_spec"] == {"name": "fcn", "signature_name": "", "version": "2"}
    signatures = content["metadata"]["signature_def"]["signature_def"]
    assert "__saved_model_init_op" in signatures
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"
    assert signatures["predict_images"]["inputs"]["images"]["dtype"] == "DT_UINT8"
    sizes = signatures["predict_images"]["inputs"]["images"]["tensor_shape"]["dim"]
    assert [size["size"] for size in sizes] == ["-1", "-1", "-1", "3"]
    assert server.ask("GET", "/v1/models/fcn/labels/stable/metadata")[1]["model_spec"] == {
        **content["model_spec"],
        "version": "1",
    }


def test_predictions_in_rows_and_columns(server):
    instances = [b64(PHOTO), {"image_bytes": b64(encoded(PIXELS[:3]))}["image_bytes"]]
    code, rows = server.predict({"instances": instances}, "/versions/1")
    assert code == 200 and len(rows["predictions"]) == 2
    mask = base64.b64decode(rows["predictions"][0]["mask_png_bytes"]["b64"])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask))), MASK)
    fractions = rows["predictions"][0]["class_fractions"]
    np.testing.assert_allclose(fractions, [1 - MASK.mean(), MASK.mean(), 0], atol=1e-6)
    code, columns = server.predict({"inputs": {"image_bytes": instances}}, "/labels/stable")
    assert code == 200
    assert columns["outputs"]["class_fractions"][0] == fractions
    newest = server.predict({"instances": instances})[1]
    assert newest != rows and newest == server.predict({"instances": instances}, "/versions/2")[1]


def test_predictions_of_pixels(server):
    request = {"signature_name": "predict_images", "instances": [PIXELS.tolist()]}
    assert server.predict(request, "/versions/1") == (200, {"predictions": [MASK.tolist()]})
    request = json.dumps({**request, "instances": [PIXELS.tolist()] * 2})
    code, content = server.ask(
        "POST",
        "/v1/models/fcn/versions/1:predict",
        gzip.compress(request.encode()),
        {"Content-Encoding": "gzip"},
    )
    assert (code, content) == (200, {"predictions": [MASK.tolist()] * 2})


JPEG = encoded(np.zeros((64, 64, 3), np.uint8), "JPEG")
IMAGES = {"signature_name": "predict_images"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"instances": [b64(JPEG[:300])]}, "JPEG"),
        ({"instances": [b64(PHOTO), b64(b"This is a text.")]}, "image"),
        ({"instances": [b64(b"")]}, ""),
        ({"instances": ["no bytes"]}, "image"),
        ({"instances": [{"b64": "!"}]}, "image_bytes[0]: {'b64': '!'}"),
        (b'{"instances": [', "not JSON"),
        (b"\xff\xd8\xff", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 500_000, "not JSON"),
        (b'{"instances": [NaN]}', "image_bytes[0]: nan"),
        ({"signature_name": "nothing", "instances": [1]}, "Received: 'nothing'"),
        ({"signature_name": "labels", "inputs": {}}, "Received: 'labels'"),
        ({**IMAGES, "instances": [[[[0.5] * 3]]]}, "images[0][0][0][0]: 0.5"),
        ({**IMAGES, "instances": [[[[1, 2, 3]], [[1, 2]]]]}, "images: lists of different lengths"),
        ({**IMAGES, "instances": [[1, 2, 3]]}, "has shape [1, 3], but the signature has (None"),
        ({**IMAGES, "instances": [[[[1, 2]]]]}, "Input images has shape [1, 1, 1, 2]"),
        ({**IMAGES, "inputs": {"pictures": [[[[1, 2, 3]]]]}}, "with the keys: images"),
        ({"signature_name": "multiply", "inputs": -1}, ""),
    ],
)
def test_broken_requests_get_a_reason(server, content, reason):
    code, answer = server.predict(content)
    assert code == 400 and list(answer) == ["error"] and answer["error"], answer
    assert reason in answer["error"]
    assert "Traceback" not in answer["error"] and "\n" not in answer["error"]
    assert server.predict({"instances": [b64(PHOTO)]})[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "code", "reason"),
    [
        ("GET", "/", 404, "Not found: GET /"),
        ("GET", "/v1/foo", 400, "Malformed request: GET /v1/foo"),
        ("GET", "/v1/models", 400, "Malformed request"),
        ("GET", "/v1/models/half", 404, "model half"),
        ("GET", "/v1/models/fcn/versions/99", 404, "no version 99"),
        ("GET", "/v1/models/fcn/versions/99/metadata", 404, "Version 99 of model fcn"),
        ("GET", "/v1/models/fcn:predict", 400, "Malformed request"),
        ("GET", "/v1/models/fcn/labels/x", 400, "version label x"),
        ("GET", "/v1/models/fcn?x=1", 404, "model fcn?x=1"),
        ("POST", "/v1/models/fcn", 400, "Malformed request: POST /v1/models/fcn"),
        ("POST", "/v1/models/fcn/metadata", 400, "Malformed request"),
        ("POST", "/v1/models/fcn/versions/one:predict", 400, "Malformed request"),
        ("POST", "/v1/models/fcn/versions/1/labels/stable:predict", 400, "Malformed request"),
        ("POST", f"/v1/models/fcn/versions/{2**64}:predict", 400, "Malformed request"),
        ("POST", f"/v1/models/fcn/versions/{2**63}:predict", 400, "Malformed request"),
        ("POST", f"/v1/models/fcn/versions/{'9' * 5000}:predict", 400, "Malformed request"),
        ("POST", "/v1/models/half:predict", 404, "model half"),
        ("POST", "/v1/models/half/versions/5:predict", 404, "model half"),
        ("POST", "/v1/models/fcn/versions/99:predict", 404, "Version 99 of model fcn"),
        ("POST", "/v1/models/fcn/labels/x:predict", 400, "version label x"),
        ("POST", "/v1/models/fcn:classify", 400, ":classify is not served"),
        ("POST", "/v1/models/fcn:regress", 400, ":regress is not served"),
        ("PUT", "/v1/models/fcn", 400, "Malformed request"),
        ("OPTIONS", "/v1/models/fcn", 400, "Malformed request"),
        ("BREW", "/v1/models/fcn", 405, "Malformed request: BREW"),
    ],
)
def test_wrong_paths(server, method, path, code, reason):
    body = '{"instances": [1]}' if method == "POST" else None
    found, answer = server.ask(method, path, body)
    assert found == code and reason in answer["error"]


def test_names_are_percent_decoded_and_paths_are_of_any_case(server):
    assert server.ask("GET", "/V1/Models/f%63n")[0] == 200
    assert server.ask("HEAD", "/v1/models/fcn") == (400, "")


def test_large_bodies_are_refused_and_never_in_memory(server):
    before = resident_mib(server)
    large = [bytes(2**20)] * 200
    line, body = send_raw(server, f"{HEAD}Content-Length: {200 * 2**20}\r\n\r\n", large)
    assert "413" in line and "larger than 1 MiB" in json.loads(body)["error"]
    announced = {"Content-Length": str(10**12)}
    assert server.ask("POST", "/v1/models/fcn:predict", b"", announced)[0] == 413
    chunks = [b"100000\r\n" + chunk + b"\r\n" for chunk in large]
    line, body = send_raw(server, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n", chunks)
    assert "413" in line and "larger than 1 MiB" in json.loads(body)["error"]
    bomb = gzip.compress(bytes(50 * 2**20))
    headers = {"Content-Encoding": "gzip"}
    assert server.ask("POST", "/v1/models/fcn:predict", bomb, headers)[0] == 413
    assert server.ask("POST", "/v1/models/fcn:predict", b"no gzip", headers)[0] == 400
    assert resident_mib(server) - before < 50


def test_metrics(server):
    assert server.predict({"instances": [b64(PHOTO)]})[0] == 200
    code, text = server.ask("GET", "/monitoring/prometheus/metrics")
    values = dict(line.split(" ") for line in text.splitlines() if not line.startswith("#"))
    counted = {name: float(value) for name, value in values.items()}
    of_model = '{model_name="fcn"}'
    by_code = [v for name, v in counted.items() if name.startswith(":tensorflow:serving:request_c")]
    assert (
        code == 200
        and sum(by_code) == counted[f":tensorflow:serving:request_latency_count{of_model}"]
    )
    assert counted[':tensorflow:serving:request_count{model_name="fcn",status="200"}'] >= 1
    assert counted[f":tensorflow:serving:request_latency_sum{of_model}"] > 0
    assert counted[f":tensorflow:serving:request_bytes_received{of_model}"] > len(PHOTO)


def test_it_listens_at_the_loopback_address_only(server):
    table = [line.split()[1:4] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [local.split(":") for local, _, state in table if state == "0A"]
    assert [ip for ip, port in listening if int(port, 16) == server.port] == ["0100007F"]


@pytest.mark.slow
def test_new_versions_are_loaded_while_old_ones_answer(tmp_path):
    save_version(tmp_path, 1, 100.0)
    with serving(tmp_path) as server:
        done = threading.Event()
        with ThreadPoolExecutor(1) as threads:
            client = threads.submit(ask_until, server, done)
            try:
                save_version(tmp_path, 2, 150.0, [("predict_images", "images", PIXELS[None])])
                wait_for(lambda: server.states() == {2: "AVAILABLE", 1: "AVAILABLE"})
            finally:
                done.set()
        answers = client.result()
        masks = [answer["predictions"] for code, answer in answers if code == 200]
        changes = [masks.index(mask) for mask in masks]
        assert len(masks) == len(answers) and changes == sorted(changes) and len(set(changes)) <= 2
        assert predict_mask(server) == mask_at(150)

        (tmp_path / "3").mkdir()
        (tmp_path / "3" / "saved_model.pb").write_text("no model")
        save_version(tmp_path, 4, warmup=[("predict_images", "pictures", PIXELS[None])])
        wait_for(lambda: server.states().get(3) == server.states().get(4) == "END")
        assert predict_mask(server) == mask_at(150)
        status = server.ask("GET", "/v1/models/fcn/versions/4")[1]["model_version_status"][0]
        assert status["status"] == {
            "error_code": "INVALID_ARGUMENT",
            "error_message": "warm-up: The inputs must be images. Received: pictures.",
        }
        for version in (3, 4):
            assert len([line for line in server.lines if f"/{version} cannot be" in line]) == 1
        assert not any("Traceback" in line for line in server.lines)

        shutil.rmtree(tmp_path / "3")
        save_version(tmp_path, 3, 200.0)
        wait_for(lambda: server.states()[1] == "END")
        assert server.states() == {4: "END", 3: "AVAILABLE", 2: "AVAILABLE", 1: "END"}
        assert predict_mask(server) == mask_at(200)
        code, answer = server.predict(pixels_request(), "/versions/1")
        assert code == 404 and "Version 1 of" in answer["error"]
        shutil.rmtree(tmp_path)
        wait_for(lambda: server.line("error: [Errno 2]"))
        assert predict_mask(server) == mask_at(200) and server.ask("GET", "/ready")[0] == 200
        tmp_path.mkdir()
        save_version(tmp_path, 5, warmup=[("multiply", "size", 1000)] * 20)
        wait_for(lambda: server.states().get(5) == "LOADING")
        assert server.stop() == 0


def pixels_request():
    return {"signature_name": "predict_images", "instances": [PIXELS.tolist()]}


def mask_at(threshold):
    return [(PIXELS[..., 0] >= threshold).astype(int).tolist()]


def predict_mask(server):
    return server.predict(pixels_request())[1]["predictions"]


def ask_until(server, done):
    answers = []
    while not done.is_set():
        answers.append(server.predict(pixels_request()))
    return answers


def test_sigterm_under_load_answers_every_request(base):
    with serving(base) as server:
        answers = []
        slow = json.dumps({"signature_name": "multiply", "inputs": 700})

        def keep_asking(*request):
            with contextlib.closing(server.connect()) as connection:
                while True:
                    connection.request(*request)
                    response = connection.getresponse()
                    answers.append((response.status, response.read()))
                    if response.will_close:
                        return

        requests = [("POST", "/v1/models/fcn:predict", slow), ("GET", "/v1/models/fcn")] * 4
        with ThreadPoolExecutor(len(requests)) as threads:
            clients = [threads.submit(keep_asking, *request) for request in requests]
            try:
                wait_for(lambda: len(answers) >= 200)
                assert server.stop() == 0
            finally:
                server.process.kill()
        for client in clients:
            client.result()
        assert {code for code, _ in answers} == {200}
        wait_for(lambda: server.line("Stopped:"))
        assert server.lines[-1] == f"Stopped: {len(answers)} requests answered.\n"


@pytest.mark.slow
def test_too_many_requests_get_503_at_once(base):
    with serving(base, "--concurrency", "1", "--queue", "1") as server:
        request = json.dumps({"instances": [b64(PHOTO)]}).encode()
        waiting = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        for raw in waiting:  # a request takes its place when it begins
            raw.sendall(f"{HEAD}Content-Length: {len(request)}\r\n\r\n".encode() + request[:9])
        code, answer = wait_for(lambda: refused(server, request))
        assert code == 503 and answer["error"].startswith("Overloaded: 2 requests run or wait.")
        with contextlib.closing(server.connect()) as connection:
            connection.request("POST", "/v1/models/fcn:predict", request)
            assert connection.getresponse().getheader("Retry-After") == "1"
        assert server.ask("GET", "/ready")[0] == 200
        waiting[0].sendall(request[9:])
        assert waiting[0].recv(12) == b"HTTP/1.1 200"
        waiting[1].close()  # a client that leaves gives up its place
        wait_for(lambda: server.predict(request)[0] == 200)
        server.process.send_signal(signal.SIGHUP)
        assert server.process.wait(SECONDS) == 0


def refused(server, request):
    code, answer = server.predict(request)
    return None if code == 200 else (code, answer)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model-base-path", "{base}/nothing"], "nothing: no such folder."),
        (["--model-base-path", "{base}/notes"], "notes contains no version (a folder named"),
        (["--model-base-path", "{base}/1"], "is a single version. Give the folder that it is in"),
        (["--version-label", "stable=7"], "no version 7 for the label 'stable'. There are: 1, 2."),
        (
            ["--version-label", "stable"],
            "--version-label must look like stable=1. Received: stable.",
        ),
        (["--keep-versions", "0"], "--keep-versions must be at least 1. Received: 0."),
        (["--queue", "-1"], "--queue must be at least 0. Received: -1."),
        (["--poll-seconds", "nan"], "--poll-seconds must be positive. Received: nan."),
        (["--port", "70000"], "--port must be 0 to 65535. Received: 70000."),
        (["--port", "{taken}"], "Address already in use. Choose another port, or 0 for any."),
        (["--host", "192.0.2.1"], "Cannot assign requested address."),
        (["--host", "no host"], "Give an address of this machine."),
    ],
)
def test_mistakes_are_named(base, flags, message, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        names = {"base": base, "taken": taken.getsockname()[1]}
        flags = ["--model-base-path", str(base), *(flag.format(**names) for flag in flags)]
        assert main(["serve", *flags]) == 1
    stderr = capfd.readouterr().err
    assert message in stderr and stderr.count("\n") == 1


def test_missing_packages_are_named(base, capfd, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else 1)
    assert main(["serve", "--model-base-path", str(base)]) == 1
    assert capfd.readouterr().err.endswith("uvicorn'). Run: pip install 'fcn_keras[serve]'\n")


def test_no_route_tells_where_the_models_are(tmp_path):
    base = tmp_path / "a secret place \xfc" / "inner"
    base.mkdir(parents=True)
    save_version(base, 1)
    for version in range(2, 8):
        shutil.copytree(base / "1", base / str(version))
    shutil.rmtree(base / "2/variables")
    for place in (
        "3/saved_model.pb",
        "4/assets.extra/tf_serving_warmup_requests",
        "5/variables/variables.index",
        "6/variables/variables.data-00000-of-00001",
    ):
        (base / place).write_bytes(b"damaged" * 9)
    (base / "7/saved_model.pb").write_bytes(b"")
    (base / "8").mkdir()
    link = tmp_path / "a secret link"
    link.symlink_to(base)
    with serving(link, "--keep-versions", "9") as server:
        answers = [server.ask("GET", f"/v1/models/fcn{path}") for path in ("", "/metadata")]
        for version in range(1, 9):
            path = f"/v1/models/fcn/versions/{version}"
            answers += [server.ask("GET", path), server.ask("GET", f"{path}/metadata")]
            answers.append(server.ask("POST", f"{path}:predict", b"{}"))
        for path in ("/", "/ready", "/monitoring/prometheus/metrics", "/docs"):
            answers += [server.ask("GET", path), server.ask("POST", path, b"{}")]
        failed = [version for version, state in server.states().items() if state == "END"]
        assert sorted(failed) == [2, 3, 4, 5, 6, 7, 8]
    said = json.dumps(answers)
    assert "SavedModel file does not exist at: " in said and "warm-up: " in said
    for folder in ("secret", "inner", tmp_path.name, "link", str(Path.home()), str(ROOT)):
        assert folder not in said, said


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("No file /srv/\xe4 b/3/assets/x.txt; No such", "No file assets/x.txt; No such"),
        ("b'/srv/\\xc3\\xa4 b/3/x.pb': bad", "b'x.pb': bad"),
        ("b'/home/me/x.pb': bad", "b'x.pb': bad"),
        ("file:/home/me/x.pb", "file:x.pb"),
        ("see https://a.org/b/c, map/while/Assert", "see https://a.org/b/c, map/while/Assert"),
        ("{{node a/b}} image/png, 3 / 4", "{{node a/b}} image/png, 3 / 4"),
        ("/srv/\xe4 b/3 is gone", "3 is gone"),
    ],
)
def test_reasons_name_files_without_folders(said, expected):
    assert public_reason(ValueError(said), Path("/srv/\xe4 b/3")) == expected


def test_a_model_that_cannot_be_loaded_ends_the_server(tmp_path):
    (tmp_path / "1").mkdir()
    command = [*FCN_KERAS, "serve", "--model-base-path", str(tmp_path), "--port", "0"]
    silent = {key: value for key, value in os.environ.items() if key != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(command, cwd=ROOT, env=silent, capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout == ""
    loading, error = result.stderr.splitlines()
    assert loading == f"Loading {tmp_path} ..."
    assert error.startswith(f"error: {tmp_path}/1 cannot be loaded (SavedModel file does not")


@pytest.mark.slow
def test_an_export_gives_the_segmenters_masks(exported, untrained_run, tmp_path):
    shutil.copytree(exported, tmp_path / "1")
    photo = encoded(np.random.default_rng(1).integers(0, 256, (50, 70, 3)).astype(np.uint8), "JPEG")
    (tmp_path / "photo.jpg").write_bytes(photo)
    expected = Segmenter.load(untrained_run)(tmp_path / "photo.jpg")
    with serving(tmp_path) as server:
        code, answer = server.predict({"instances": [b64(photo)]})
        mask = base64.b64decode(answer["predictions"][0]["mask_png_bytes"]["b64"])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(mask))), expected)
        code, answer = server.predict({"instances": [b64(photo[:400])]})
        assert code == 400 and "JPEG" in answer["error"]
