"""Photographs to a TensorFlow Serving server and masks back, over REST.

Needs neither TensorFlow nor NumPy. The gRPC client is `serving.client.grpc`.
"""

from __future__ import annotations

import base64
import http.cookiejar
import json
import threading
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import Future

import requests
import urllib3

from fcn_keras.errors import UserError
from fcn_keras.serving.client.answers import (
    ABOUT,
    ABOUT_INPUTS,
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
from fcn_keras.serving.client.retrying import Answer, TemporaryError, retrying

MAX_ANSWER_BYTES = 256 * 2**20
MAX_VALUES = 10_000  # per answer; a real one has about 1,000, and each takes memory and time
TEMPORARY = {429, 503, 504}  # TensorFlow Serving's for overload, absence and a missed deadline


class RestClient:
    """Asks a server over REST. Safe to use from many threads.

    Args:
        url: The server's address, such as `"http://localhost:8501"`.
        model: The name that the server gave the model.
        version: The model's version; by default, the newest.
        label: Instead of a version, the label that the server gave it.
        timeout: How many seconds a request may take, from looking up the host's name
            to the answer's last byte; each retry has as many.
        retries: How often to retry if the server is unreachable, overloaded or
            too slow; see `retrying`.

    Raises:
        UserError: If both a version and a label are given, or an option is invalid.

    Attributes:
        stopped: An event; when it is set, nothing is retried.
    """

    def __init__(
        self,
        url: str,
        model: str = "fcn",
        version: int | None = None,
        label: str | None = None,
        timeout: float = 60,
        retries: int = 4,
    ):
        check_options(model, version, label, timeout, retries)
        self.url, self.timeout, self.retries = url.rstrip("/"), timeout, retries
        path = f"/v1/models/{urllib.parse.quote(model, safe='')}"
        if version is not None:
            path += f"/versions/{version}"
        if label is not None:
            path += f"/labels/{urllib.parse.quote(label, safe='')}"
        self.stopped = threading.Event()
        self._predict_url = f"{self.url}{path}:predict"
        self._threads = threading.local()  # requests does not promise that sessions are thread-safe

    def segment(self, image_bytes: bytes) -> Segmentation:
        """Segments a photograph.

        Args:
            image_bytes: A JPEG or PNG file.

        Raises:
            TemporaryError: If the server stays unreachable, overloaded or too slow.
            RefusedError: If it refuses the file.
            UserError: If it has no such model, or its answer is not a segmentation.
        """
        encoded = base64.b64encode(image_bytes).decode()
        answer = self._ask({"instances": [{"image_bytes": {"b64": encoded}}]})
        try:
            [row] = answer["predictions"]
            mask_png = base64.b64decode(row["mask_png_bytes"]["b64"], validate=True)
            return Segmentation(mask_png, checked_fractions(row["class_fractions"]))
        except (KeyError, TypeError, ValueError) as error:
            raise wrong_answer(self.url, answer) from error

    def labels(self) -> tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]]:
        """The model's classes: their names, and their colours in 0..255.

        Raises:
            UserError: As `segment` does.
        """
        answer = self._ask({"signature_name": ABOUT, "inputs": ABOUT_INPUTS})
        try:
            return checked_labels(answer["outputs"]["names"], answer["outputs"]["palette"])
        except (KeyError, TypeError, ValueError) as error:
            raise wrong_answer(self.url, answer) from error

    def _ask(self, body: dict) -> dict:
        return retrying(lambda: self._ask_once(body), self.retries, self.stopped)

    def _ask_once(self, body: dict) -> dict:
        if not hasattr(self._threads, "session"):
            self._threads.session = _Session()
        session = self._threads.session
        try:
            response, content = _within(self.timeout, lambda: self._exchange(session, body))
        except UserError:
            raise
        except (
            TimeoutError,
            requests.exceptions.Timeout,
            urllib3.exceptions.TimeoutError,
        ) as error:
            del self._threads.session  # another thread may still use it
            raise too_slow(self.url, self.timeout) from error
        except requests.exceptions.SSLError as error:
            raise UserError(f"{self.url}: not a trusted server ({_reason(error)}).") from error
        except (requests.ConnectionError, urllib3.exceptions.ProtocolError) as error:
            raise unreachable(self.url, _reason(error)) from error
        except Exception as error:  # whatever else a header may bring about in these packages
            raise UserError(f"{self.url}: {one_line(error)}. Check the address.") from error
        return self._checked(response, content)

    def _exchange(self, session: requests.Session, body: dict) -> tuple[requests.Response, bytes]:
        end = time.monotonic() + self.timeout
        with session.post(
            self._predict_url, json=body, timeout=self.timeout, stream=True
        ) as response:
            return response, self._read(response, end)

    def _read(self, response: requests.Response, end: float) -> bytes:
        """The body; requests itself would read it without a limit in bytes or time."""
        content = bytearray()
        while chunk := response.raw.read1(2**16, decode_content=True):
            content += chunk
            if len(content) > MAX_ANSWER_BYTES:
                limit = f"{MAX_ANSWER_BYTES / 2**20:g} MiB"
                raise UserError(f"{self.url} answers with more than {limit}. Check the address.")
            if time.monotonic() > end:  # by then nobody is waiting
                raise TimeoutError
        return bytes(content)

    def _checked(self, response: requests.Response, content: bytes) -> dict:
        status = f"status {response.status_code}"
        try:
            if response.is_redirect or sum(map(content.count, (b",", b"[", b"{"))) > MAX_VALUES:
                raise ValueError("no answer")
            answer = json.loads(content)
            said = answer.get("error")
        except (ValueError, AttributeError, RecursionError):
            answer = said = None
        if response.ok and answer is not None and not said:
            return answer
        said = one_line(said or (content.decode(errors="replace") if answer else status))
        said = said.removesuffix(".")
        if response.status_code in TEMPORARY:
            raise TemporaryError(
                f"{self.url} is overloaded or not ready ({said}). Try later.",
                _retry_after(response),
            )
        if answer is None:
            kind = one_line(response.headers.get("Content-Type", "no type").split(";")[0])
            raise UserError(
                f"{self.url} answers, but not as TensorFlow Serving does ({status}, {kind}). "
                "Check the address; its port for REST is usually 8501."
            )
        if response.status_code == 404:
            raise no_model(self.url, said)
        if 400 <= response.status_code < 500:
            raise refused(self.url, said)
        raise UserError(f"{self.url} failed ({status}, {said}). Look at the server's log.")


class _Session(requests.Session):
    """One that keeps connections, and no cookies."""

    def __init__(self):
        super().__init__()
        self.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))

    def get_redirect_target(self, resp) -> None:
        """None: the photograph would be sent to another server, and requests reads all before."""


def _within(seconds: float, function: Callable[[], Answer]) -> Answer:
    """What a function returns or raises; `TimeoutError` after so many seconds.

    Sockets limit each read, not their sum, and name look-ups not at all. A thread that takes
    longer is left running.
    """
    answer: Future = Future()

    def run():
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer.result(seconds)


def _reason(error: BaseException) -> str:
    """What the operating system said; urllib3 wraps it several times."""
    while isinstance(
        inner := getattr(error, "reason", None) or next(iter(error.args), None), BaseException
    ):
        error = inner
    return one_line(error).rpartition(": ")[2]


def _retry_after(response: requests.Response) -> float | None:
    try:
        return urllib3.Retry().get_retry_after(response.raw)
    except (urllib3.exceptions.InvalidHeader, ValueError, OverflowError):
        return None
