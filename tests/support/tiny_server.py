"""A SavedModel with a real export's signatures but a trivial model, and servers that run it."""

import base64
import contextlib
import http.server
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from fcn_keras.data.split import LabelSet
from fcn_keras.export.graph_decoding import decode_photograph

LABELS = LabelSet(("dark", "middle", "bright"), ((0, 0, 0), (10, 200, 30), (255, 250, 0)))


def red_thirds(images):
    """What the model sees: the third of 0..255 that a pixel's red is in."""
    return images[..., 0] // 86


class TinyModel(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def segment(self, image_bytes):
        def one(data):
            mask = red_thirds(decode_photograph(data, tf.constant("image_bytes"), 10**8))
            counts = tf.math.bincount(tf.cast(mask, tf.int32), minlength=len(LABELS))
            return tf.io.encode_png(mask[..., None]), tf.cast(counts / tf.size(mask), tf.float32)

        types = (tf.TensorSpec([], tf.string), tf.TensorSpec([len(LABELS)], tf.float32))
        masks, fractions = tf.map_fn(one, image_bytes, fn_output_signature=types)
        return {"mask_png_bytes": masks, "class_fractions": fractions}

    @tf.function(input_signature=[tf.TensorSpec([None] * 3 + [3], tf.uint8, name="images")])
    def predict_images(self, images):
        return {"mask": red_thirds(images)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="query")])
    def about(self, query):
        palette = tf.constant(LABELS.palette, tf.uint8)
        return {"names": tf.constant(LABELS.names), "palette": palette}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="query")])
    def batched_about(self, query):
        """As TF Serving's batching needs it: all outputs have the batch axis first."""
        size = tf.size(query)
        return {
            "names": tf.tile(tf.constant([LABELS.names]), [size, 1]),
            "palette": tf.tile(tf.constant([LABELS.palette], tf.uint8), [size, 1, 1]),
        }


def save_tiny_model(folder, batched: bool = False) -> str:
    model = TinyModel()
    signatures = {
        "serving_default": model.segment,
        "predict_images": model.predict_images,
        "about": model.batched_about if batched else model.about,
    }
    tf.saved_model.save(model, str(folder), signatures)
    return str(folder)


class GrpcServicer(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Runs a SavedModel, after it has failed with the scripted codes.

    Attributes:
        script: What the next calls fail with; for a number, a call sleeps so many seconds.
        requests: What it was asked.
    """

    def __init__(self, folder):
        self.signatures = tf.saved_model.load(folder).signatures
        self.script, self.requests = [], []

    def Predict(self, request, context):
        self.requests.append(request)
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, grpc.StatusCode):
                context.abort(step, "as scripted\nand a second line")
            time.sleep(step)
        if request.model_spec.name != "fcn":
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
        signature = self.signatures[request.model_spec.signature_name]
        inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
        if set(inputs) != set(signature.structured_input_signature[1]):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature")
        try:
            outputs = signature(**{name: tf.constant(value) for name, value in inputs.items()})
        except tf.errors.InvalidArgumentError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, _as_in_cpp(error))
        tensors = {name: tf.make_tensor_proto(value) for name, value in outputs.items()}
        return predict_pb2.PredictResponse(outputs=tensors)


@contextlib.contextmanager
def grpc_server(servicer, port: int = 0):
    """Yields a real server's address."""
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), options=unlimited)
    if servicer is not None:
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


class RestServer(http.server.ThreadingHTTPServer):
    """Speaks TF Serving's REST API for a SavedModel, after it has answered as scripted.

    Attributes:
        script: What the next requests get: functions of the handler.
        paths: What was requested.
    """

    daemon_threads = True

    def __init__(self, folder, port: int = 0):
        self.signatures = tf.saved_model.load(folder).signatures if folder else {}
        self.script, self.paths = [], []
        super().__init__(("127.0.0.1", port), _RestHandler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def answer(self, body: dict):
        if "instances" in body:
            files = [base64.b64decode(row["image_bytes"]["b64"]) for row in body["instances"]]
            outputs = self.signatures["serving_default"](image_bytes=tf.constant(files))
            masks = [base64.b64encode(mask).decode() for mask in outputs["mask_png_bytes"].numpy()]
            rows = zip(masks, outputs["class_fractions"].numpy().tolist())
            return {
                "predictions": [
                    {"mask_png_bytes": {"b64": mask}, "class_fractions": fractions}
                    for mask, fractions in rows
                ]
            }
        outputs = self.signatures[body["signature_name"]](
            query=tf.constant(body["inputs"]["query"])
        )
        names = np.char.decode(outputs["names"].numpy().astype(bytes)).tolist()
        return {"outputs": {"names": names, "palette": outputs["palette"].numpy().tolist()}}


class _RestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.append(self.path)
        if self.server.script:
            return self.server.script.pop(0)(self)
        try:
            self.reply(200, self.server.answer(body))
        except tf.errors.InvalidArgumentError as error:
            self.reply(400, {"error": _as_in_cpp(error)})

    def reply(self, status, content, kind="application/json", **headers):
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(data), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def _as_in_cpp(error) -> str:
    """The message without what Python puts before it."""
    lines = error.message.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("assertion failed")), 0)
    return "\n".join(lines[start:])


def replying(status, content, *arguments, **headers):
    """A step of a script: this answer."""
    return lambda handler: handler.reply(status, content, *arguments, **headers)


def breaking_off(handler):
    """A step of a script: only the beginning of an answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"predictions": [')
    handler.close_connection = True
