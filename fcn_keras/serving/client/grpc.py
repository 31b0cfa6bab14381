"""Photographs to a TensorFlow Serving server and masks back, over gRPC.

Needs TensorFlow, which the messages' classes import.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from fcn_keras.errors import UserError
from fcn_keras.serving.client.answers import (
    ABOUT,
    ABOUT_INPUTS,
    MAX_CLASSES,
    Segmentation,
    check_options,
    checked_fractions,
    checked_labels,
    no_model,
    one_line,
    refused,
    too_slow,
    unreachable,
    wrong_answer,
)
from fcn_keras.serving.client.retrying import TemporaryError, retrying

MAX_MESSAGE_BYTES = 64 * 2**20
OPTIONS = [
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # While a channel waits to reconnect, calls fail at once; by default for 20 s and more.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


class GrpcClient:
    """Asks a server over gRPC. Safe to use from many threads.

    Args:
        target: The server's address without scheme, such as `"localhost:8500"`.
        model: As for `RestClient`.
        version: The model's version; by default, the newest.
        label: Instead of a version, the label that the server gave it.
        timeout: How many seconds a request may take, including the connection; each retry
            has as many.
        retries: How often to retry; see `retrying`.

    Raises:
        UserError: As for `RestClient`.

    Attributes:
        stopped: An event; when it is set, nothing is retried.
    """

    def __init__(
        self,
        target: str,
        model: str = "fcn",
        version: int | None = None,
        label: str | None = None,
        timeout: float = 60,
        retries: int = 4,
    ):
        check_options(model, version, label, timeout, retries)
        self.url, self.timeout, self.retries = f"grpc://{target}", timeout, retries
        self.stopped = threading.Event()
        self._spec: dict[str, Any] = {"name": model}
        if version is not None:
            self._spec["version"] = {"value": version}
        if label is not None:
            self._spec["version_label"] = label
        channel = grpc.insecure_channel(target, OPTIONS)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

    def segment(self, image_bytes: bytes) -> Segmentation:
        """Segments a photograph; see `RestClient.segment`."""
        outputs = self._ask("serving_default", {"image_bytes": [image_bytes]})
        try:
            [mask_png] = outputs["mask_png_bytes"].string_val
            [fractions] = _small_array(outputs["class_fractions"]).tolist()
            return Segmentation(mask_png, checked_fractions(fractions))
        except (KeyError, TypeError, ValueError) as error:
            raise wrong_answer(self.url, sorted(outputs)) from error

    def labels(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
        """The model's classes; see `RestClient.labels`."""
        outputs = self._ask(ABOUT, ABOUT_INPUTS)
        try:
            names = [name.decode() for name in outputs["names"].string_val[: MAX_CLASSES + 1]]
            palette = _small_array(outputs["palette"]).reshape(-1, 3)
            return checked_labels(names, palette.tolist())
        except (KeyError, TypeError, ValueError) as error:
            raise wrong_answer(self.url, sorted(outputs)) from error

    def predict_images(self, images: np.ndarray) -> np.ndarray:
        """Segments decoded images of one size, limited only by the size of a message.

        Args:
            images: uint8 `(B, H, W, 3)` in RGB.

        Returns:
            Class ids, uint8 `(B, H, W)`.

        Raises:
            UserError: As `segment` does.
        """
        outputs = self._ask("predict_images", {"images": images})
        try:
            mask = outputs["mask"]
            if _shape(mask) != images.shape[:3]:
                raise ValueError("not one class per pixel")
            return tf.make_ndarray(mask)
        except (KeyError, TypeError, ValueError) as error:
            raise wrong_answer(self.url, sorted(outputs)) from error

    def _ask(self, signature: str, inputs: dict) -> dict:
        spec = {**self._spec, "signature_name": signature}
        tensors = {name: tf.make_tensor_proto(value) for name, value in inputs.items()}
        request = predict_pb2.PredictRequest(model_spec=spec, inputs=tensors)
        return dict(retrying(lambda: self._ask_once(request), self.retries, self.stopped).outputs)

    def _ask_once(self, request):
        try:
            return self._stub.Predict(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._explained(error) from error

    def _explained(self, error: grpc.RpcError) -> UserError:
        code, said = error.code(), one_line(error.details()).removesuffix(".")
        if code == grpc.StatusCode.UNAVAILABLE:
            return unreachable(self.url, said)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return too_slow(self.url, self.timeout)
        if code == grpc.StatusCode.NOT_FOUND:
            return no_model(self.url, said)
        if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION):
            return refused(self.url, said)
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            if "larger than max" in said:
                return UserError(f"{self.url}: {said}. Send a smaller file.")
            return TemporaryError(f"{self.url} is overloaded ({said}). Try later.")
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return UserError(
                f"{self.url} answers, but not as TensorFlow Serving does ({said}). "
                "Check the address; its port for gRPC is usually 8500."
            )
        return UserError(f"{self.url} failed ({code.name}: {said}). Look at the server's log.")


def _small_array(tensor) -> np.ndarray:
    """An array about classes; a short message could declare one of any size."""
    if not 0 <= math.prod(_shape(tensor)) <= 3 * MAX_CLASSES:
        raise ValueError("more values than classes have")
    return tf.make_ndarray(tensor)


def _shape(tensor) -> tuple[int, ...]:
    return tuple(dim.size for dim in tensor.tensor_shape.dim)
