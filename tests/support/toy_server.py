"""`fcn-keras serve` as a separate process, with a model that costs nothing."""

import base64
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from support import processes
from support.image_files import encoded
from support.processes import ROOT

CLASSES = 3
SECONDS = 300  # to wait for what must happen, even on a busy machine


class Toy(tf.Module):
    """The signatures of an export; class 1 is where an image's red is at least `threshold`."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = tf.Variable(threshold, dtype=tf.float32)

    def mask_of(self, images):
        return tf.cast(tf.cast(images[..., 0], tf.float32) >= self.threshold, tf.uint8)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def segment_files(self, image_bytes):
        def one(data):
            mask = self.mask_of(tf.io.decode_image(data, channels=3, expand_animations=False))
            counts = tf.math.bincount(tf.cast(mask, tf.int32), minlength=CLASSES)
            return tf.io.encode_png(mask[..., None]), tf.cast(counts / tf.size(mask), tf.float32)

        types = (tf.TensorSpec([], tf.string), tf.TensorSpec([CLASSES], tf.float32))
        masks, fractions = tf.map_fn(one, image_bytes, fn_output_signature=types)
        return {"mask_png_bytes": masks, "class_fractions": fractions}

    @tf.function(input_signature=[tf.TensorSpec([None] * 3 + [3], tf.uint8, name="images")])
    def predict_images(self, images):
        return {"mask": self.mask_of(images)}

    @tf.function(input_signature=[tf.TensorSpec([], tf.int32, name="size")])
    def multiply(self, size):
        return {"norm": tf.norm(tf.matmul(*[tf.random.normal([size, size])] * 2))}

    @tf.function(input_signature=[])
    def labels(self):
        return {"names": tf.constant(["a", "b", "c"])}


def save_version(base, version, threshold=100.0, warmup=()):
    """Writes a version as an export does: whole or not at all."""
    toy, partial = Toy(threshold), base / f".partial-{version}"
    signatures = {
        "serving_default": toy.segment_files,
        "predict_images": toy.predict_images,
        "multiply": toy.multiply,
        "labels": toy.labels,
    }
    tf.saved_model.save(toy, str(partial), signatures=signatures)
    (partial / "assets.extra").mkdir()
    with tf.io.TFRecordWriter(str(partial / "assets.extra/tf_serving_warmup_requests")) as writer:
        for signature, name, value in warmup:
            request = predict_pb2.PredictRequest()
            request.model_spec.signature_name = signature
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            log = prediction_log_pb2.PredictLog(request=request)
            record = prediction_log_pb2.PredictionLog(predict_log=log)
            writer.write(record.SerializeToString())
    partial.rename(base / str(version))


class Server:
    """A running server; `lines` has what it printed so far."""

    def __init__(self, base, *flags, prelude="pass"):
        command = f"{prelude}; import sys; from fcn_keras.cli import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, "serve", "--model-base-path", str(base)]
            + ["--port", "0", "--poll-seconds", "0.2", *flags],
            cwd=ROOT,
            env=processes.environment(),
            preexec_fn=processes.heed_signals,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        threading.Thread(target=lambda: self.lines.extend(self.process.stdout)).start()

    def wait_until_it_serves(self):
        wait_for(lambda: self.line("Serving") or self.process.poll() is not None)
        assert self.line("Serving"), self.lines
        self.port = int(self.line("Serving").split("/")[2].split(":")[1])

    def line(self, start):
        return next((line for line in list(self.lines) if line.startswith(start)), None)

    def ask(self, method, path, body=None, headers=None):
        """Status code and JSON (or text) of an answer."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            text = response.read().decode()
            is_json = response.getheader("content-type") == "application/json" and text
            return response.status, json.loads(text) if is_json else text

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def predict(self, content, where=""):
        body = content if isinstance(content, bytes) else json.dumps(content)
        return self.ask("POST", f"/v1/models/fcn{where}:predict", body)

    def states(self):
        versions = self.ask("GET", "/v1/models/fcn")[1]["model_version_status"]
        return {int(each["version"]): each["state"] for each in versions}

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)


def wait_for(condition):
    end = time.monotonic() + SECONDS
    while not (result := condition()):
        assert time.monotonic() < end, "It did not happen."
        time.sleep(0.02)
    return result


@contextlib.contextmanager
def serving(base, *flags, prelude="pass"):
    server = Server(base, *flags, prelude=prelude)
    try:
        server.wait_until_it_serves()
        yield server
    finally:
        processes.end(server.process)


def b64(data):
    return {"b64": base64.b64encode(data).decode()}


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
PHOTO = encoded(PIXELS)
MASK = (PIXELS[..., 0] >= 100).astype(np.uint8)


def send_raw(server, head, chunks):
    """Sends as much as the server takes; returns its answer's first line and body."""
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as raw:
        with contextlib.suppress(ConnectionError):
            raw.sendall(head.encode())
            for chunk in chunks:
                raw.sendall(chunk)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while chunk := raw.recv(65536):
                answer += chunk
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode().splitlines()[0], body.decode()


HEAD = "POST /v1/models/fcn:predict HTTP/1.1\r\nHost: x\r\n"


def resident_mib(server, name="VmHWM"):
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split(f"{name}:")[1].split()[0]) / 1024
