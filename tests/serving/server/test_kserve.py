"""The REST client against KServe, another project's server, with an exported model."""

import io
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.fake_folder import CLASSES

from fcn_keras.cli import main
from fcn_keras.data.split import voc_palette
from fcn_keras.errors import UserError
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.serving.client.rest import RestClient
from fcn_keras.serving.client.retrying import RefusedError

pytestmark = pytest.mark.slow

# KServe does HTTP, routes, JSON and errors; this part is what it leaves to users.
SERVER = """
import base64, sys
import kserve
import numpy as np
import tensorflow as tf

class Exported(kserve.Model):
    def load(self):
        self.signatures = tf.saved_model.load(sys.argv[1]).signatures
        self.ready = True

    def predict(self, payload, headers=None):
        signature = self.signatures[payload.get("signature_name", "serving_default")]
        columns = payload.get("inputs")
        if "instances" in payload:
            rows = payload["instances"]
            columns = {name: [row[name] for row in rows] for name in rows[0]}
        inputs = {}
        for name, spec in signature.structured_input_signature[1].items():
            values = columns[name]
            if spec.dtype == tf.string:
                values = [base64.b64decode(value["b64"]) for value in values]
            inputs[name] = tf.constant(values, spec.dtype)
        try:
            outputs = signature(**inputs)
        except tf.errors.InvalidArgumentError as error:
            raise kserve.errors.InvalidInput(error.message.split("Error: ")[-1]) from error
        answer = {name: self.plain(name, value.numpy()) for name, value in outputs.items()}
        if "instances" not in payload:
            return {"outputs": answer}
        return {"predictions": [dict(zip(answer, row)) for row in zip(*answer.values())]}

    @staticmethod
    def plain(name, array):
        if array.dtype != object:
            return array.tolist()
        if name.endswith("_bytes"):
            return [{"b64": base64.b64encode(value).decode()} for value in array]
        return np.char.decode(array.astype(bytes)).tolist()

model = Exported("fcn")
model.load()
kserve.ModelServer(http_port=int(sys.argv[2]), enable_grpc=False, workers=1).start([model])
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter with KServe, and with TensorFlow from this environment."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "kserve==0.21.0"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"KServe cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
    [packages] = folder.glob("lib/python*/site-packages")
    # At the end of the path: KServe's own dependencies come first.
    (packages / "zz_tensorflow.pth").write_text(str(Path(tf.__file__).parents[1]) + "\n")
    return python


@pytest.fixture(scope="module")
def url(python, exported):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-c", SERVER, str(exported), str(port)]
    process = subprocess.Popen(command, stdout=sys.stderr, stderr=sys.stderr)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, f"{url}/v1/models/fcn")
        yield url
    finally:
        process.terminate()
        process.wait(60)


def _wait_until_ready(process, url):
    for _ in range(600):
        assert process.poll() is None, "the server has ended"
        try:
            if urllib.request.urlopen(url, timeout=5).status == 200:
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("the server does not get ready")


def photograph(seed, size):
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def test_classes(url):
    assert RestClient(url).labels() == (tuple(CLASSES), voc_palette(len(CLASSES)))


def test_masks_are_those_of_the_model(url, untrained_run):
    client, segmenter = RestClient(url), Segmenter.load(untrained_run)
    photographs = [photograph(seed, (64 + 8 * seed, 48)) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(client.segment, photographs))
    for data, result in zip(photographs, results):
        mask = np.asarray(Image.open(io.BytesIO(result.mask_png)))
        expected = segmenter(np.asarray(Image.open(io.BytesIO(data))))
        assert mask.shape == expected.shape and (mask == expected).mean() > 0.999
        counts = np.bincount(mask.ravel(), minlength=len(CLASSES))
        np.testing.assert_allclose(result.class_fractions, counts / counts.sum(), atol=1e-6)


def test_errors(url):
    with pytest.raises(UserError, match=r"no such model \(Model with name other does not exist"):
        RestClient(url, model="other").labels()
    with pytest.raises(UserError, match="no such model .*Not Found"):
        RestClient(url, version=1).labels()  # KServe has no versions
    with pytest.raises(RefusedError, match="refused the request"):
        RestClient(url).segment(b"no image")


def test_the_command(url, tmp_path, capfd):
    for seed in range(12):
        (tmp_path / f"{seed}.jpg").write_bytes(photograph(seed, (90, 60)))
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    command = ["request", "--url", url, "--output", str(tmp_path / "out"), "--overlay"]
    assert main([*command, str(tmp_path)]) == 1
    captured = capfd.readouterr()
    assert "12 of 13 images segmented, 1 failed." in captured.out
    assert f"bad.png: {url} refused the request" in captured.err
    assert len(list((tmp_path / "out").rglob("*.png"))) == 24
