"""A SavedModel in a session, as TF Serving runs it: fed and fetched by its signatures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import prediction_log_pb2

from fcn_keras.errors import first_line
from fcn_keras.files.images import MAX_SCANS, SCAN_START
from fcn_keras.serving.server.model_versions import LoadError

DEFAULT_SIGNATURE = "serving_default"
WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
MAX_WARMUP_RECORDS = 1000  # as TF Serving
FOLDERS = re.compile(r"(?<![\w/.])/(?:[^/\s'\"]+/)+")  # of a file with an absolute path


def load_model(folder: Path) -> LoadedModel:
    """Loads a SavedModel and runs its warm-up requests.

    Raises:
        LoadError: If either fails.
    """
    stage = ""
    try:
        model = LoadedModel(folder)
        stage = "warm-up: "
        model.warm_up(folder / WARMUP_FILE)
        return model
    except Exception as error:  # TensorFlow raises many kinds
        missing = isinstance(error, OSError)
        unknown = error_codes_pb2.NOT_FOUND if missing else error_codes_pb2.UNKNOWN
        code = getattr(error, "error_code", unknown)
        raise LoadError(stage + public_reason(error, folder), code) from error


def public_reason(error: Exception, folder: Path) -> str:
    """The first line of an error, in which files have no folders, as clients see it.

    Args:
        error: What TensorFlow or loading raised.
        folder: The version's, which may have spaces in its name.
    """
    reason = first_line(error)
    for known in map(os.fsencode, (folder.resolve(), folder.absolute(), folder)):
        # TensorFlow shows some as Python writes bytes: b'/a/\xfc/saved_model.pb'.
        for text in (os.fsdecode(known), repr(known)[2:-1]):
            reason = reason.replace(f"{text}/", "").replace(text, folder.name)
    return FOLDERS.sub("", reason)


class LoadedModel:
    """One version of a model, ready for requests from several threads.

    Its memory is freed when the last reference is gone, so a request in flight
    finishes on the version that it began with.

    Args:
        folder: The SavedModel.

    Attributes:
        folder: The SavedModel.
        signatures: `SignatureDef`s by their names.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        graph = tf.Graph()
        with graph.as_default():
            self._session = tf.compat.v1.Session(graph=graph)
            meta_graph = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder))
        self.signatures = dict(meta_graph.signature_def)
        self._calls: dict[str, Callable] = {}

    def run(self, name: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Computes all outputs of a signature.

        Args:
            name: The signature's name.
            inputs: An array for each of its inputs.

        Raises:
            tensorflow.errors.OpError: If the graph fails, or if the inputs' names or
                shapes are not the signature's.
        """
        signature = self.signatures.get(name)
        if signature is None:
            raise _invalid(f"There is no signature {name}.")
        _check_inputs(signature, inputs)
        outputs = sorted(signature.outputs)
        if name not in self._calls:
            # Two threads may do this at the same time; either result is right.
            self._calls[name] = self._session.make_callable(
                [signature.outputs[key].name for key in outputs],
                [signature.inputs[key].name for key in sorted(signature.inputs)],
            )
        results = self._calls[name](*(inputs[key] for key in sorted(signature.inputs)))
        return {key: np.asarray(result) for key, result in zip(outputs, results)}

    def warm_up(self, path: Path) -> None:
        """Runs the requests in a file of `PredictionLog`s, if there is such a file."""
        if not path.exists():
            return
        for count, record in enumerate(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()):
            if count == MAX_WARMUP_RECORDS:
                raise ValueError(f"{path} has more than {MAX_WARMUP_RECORDS} requests.")
            log = prediction_log_pb2.PredictionLog.FromString(record)
            if not log.HasField("predict_log"):
                raise ValueError(f"{path} has requests other than predict.")
            request = log.predict_log.request
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            self.run(request.model_spec.signature_name or DEFAULT_SIGNATURE, inputs)


def _check_inputs(signature, inputs: Mapping[str, np.ndarray]) -> None:
    if inputs.keys() != set(signature.inputs):
        raise _invalid(
            f"The inputs must be {', '.join(sorted(signature.inputs))}. Received: "
            f"{', '.join(sorted(inputs))}."
        )
    for name, info in signature.inputs.items():  # kernels accept some wrong shapes silently
        shape, expected = list(inputs[name].shape), tf.TensorShape(info.tensor_shape)
        if not expected.is_compatible_with(shape):
            raise _invalid(f"Input {name} has shape {shape}, but the signature has {expected}.")
        if inputs[name].dtype == object:
            _check_scans(name, inputs[name])


def _check_scans(name: str, files: np.ndarray) -> None:
    """Refuses JPEG files that would occupy a thread for hours; older exports do not."""
    for index, data in np.ndenumerate(files):
        place = "".join(f"[{i}]" for i in index)
        if data.startswith(b"\xff\xd8\xff") and (scans := data.count(SCAN_START)) > MAX_SCANS:
            raise _invalid(
                f"{name}{place} is a JPEG of {scans} scans; at most {MAX_SCANS} are allowed. "
                "Save it as a baseline JPEG."
            )


def _invalid(message: str) -> tf.errors.OpError:
    return tf.errors.InvalidArgumentError(None, None, message)
