"""An HTTP server for one model, with TF Serving's REST API; see `serving.server.rest_api`.

Beyond that API it has `/ready`, and limits: the size of a body, which is checked while it
arrives, and the number of predictions that run and wait. A client that is refused before its
body has been read may keep sending for a while, so that it can read why. Requests are read
and answers written in threads, piece by piece, so that `/ready` is answered meanwhile.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import socket
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Request, Response

from fcn_keras.serving import http
from fcn_keras.serving.server import rest_api
from fcn_keras.serving.server.answers import LongAnswer, in_parts
from fcn_keras.serving.server.json_tensor import RequestError
from fcn_keras.serving.server.memory import give_back_memory
from fcn_keras.serving.server.meter import Meter
from fcn_keras.serving.server.model_versions import ModelVersions
from fcn_keras.serving.server.request_body import JSON, NoAnswer, Refusal, RequestBody
from fcn_keras.serving.server.rest_codec import encode_error

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
METRICS_PATH = "/monitoring/prometheus/metrics"
SWITCH_SECONDS = (
    0.0005  # for which a thread computes while the event loop waits, many times per request
)
TRIM_SECONDS = 1  # from the end of predictions until their memory is given back


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server accepts.

    Args:
        body_bytes: The longest body, before and after decompression.
        concurrency: How many predictions run at a time.
        queue: How many more may wait.
    """

    body_bytes: int = 32 * 2**20
    concurrency: int = 2
    queue: int = 64


def serve(listener: socket.socket, versions: ModelVersions, limits: Limits, ready: str) -> None:
    """Answers requests until SIGTERM, SIGHUP or SIGINT, then finishes those in progress.

    Args:
        listener: A bound socket.
        versions: The model's versions, loaded.
        limits: What to accept.
        ready: A line to print when requests are accepted.

    Raises:
        UserError: If another server has started listening at the address meanwhile.
    """
    sys.setswitchinterval(SWITCH_SECONDS)
    frontend = Frontend(versions, limits)
    http.run(frontend.app, listener, ready, frontend.app.stop, lifespan="off")
    frontend.close()
    print(f"Stopped: {frontend.app.answered} requests answered.", flush=True)


class Frontend:
    """Takes HTTP requests within limits, and has `rest_api` answer them in threads.

    Args:
        versions: The model's versions.
        limits: What to accept.

    Attributes:
        app: The ASGI application.
    """

    def __init__(self, versions: ModelVersions, limits: Limits):
        self._versions, self._limits = versions, limits
        self._taken = 0
        self._trim: asyncio.TimerHandle | None = None
        self._threads = ThreadPoolExecutor(limits.concurrency, "prediction")
        self._writers = ThreadPoolExecutor(limits.concurrency, "answer")
        # FastAPI finds no route for paths with line breaks and for whole addresses.
        handlers: dict[Any, Any] = {404: self._handle_unrouted, 405: _unknown_method}
        app = FastAPI(openapi_url=None, exception_handlers=handlers)
        app.add_api_route("/{path:path}", self._handle, methods=METHODS)
        self.app = Meter(app, versions.name)

    def close(self) -> None:
        """Waits for the threads."""
        self._threads.shutdown()
        self._writers.shutdown()

    async def _handle(self, request: Request) -> Response:
        path, query = (request.scope[key].decode() for key in ("raw_path", "query_string"))
        if path == METRICS_PATH:
            return Response(self.app.page(), media_type="text/plain")
        body = RequestBody(request, self._limits.body_bytes)
        try:
            body.check_framing()
            if path == "/ready":
                return self._ready()
            if not path.lower().startswith("/v1/"):
                raise RequestError(f"Not found: {request.method} {path}", 404)
            call = rest_api.parse_path(request.method, f"{path}?{query}" if query else path)
            if request.method == "GET":
                return Response("".join(rest_api.answer(self._versions, call)), media_type=JSON)
            return await self._predict(call, body)
        except RequestError as error:
            return Refusal(error, body)
        except ConnectionError:
            return NoAnswer()

    async def _handle_unrouted(self, request: Request, _) -> Response:
        return await self._handle(request)

    def _ready(self) -> Response:
        if self.app.stopping or not self._versions.models:
            raise RequestError("No version is available.", 503)
        return Response('{"ready": true}', media_type=JSON)

    async def _predict(self, call: rest_api.Call, body: RequestBody) -> Response:
        body.check_announced_size()
        if self._taken >= self._limits.concurrency + self._limits.queue:
            raise RequestError(f"Overloaded: {self._taken} requests run or wait. Try later.", 503)
        self._taken += 1
        long_answer = None
        try:
            content = await body.read()
            loop = asyncio.get_running_loop()
            parts = await loop.run_in_executor(self._threads, self._answer, call, body, content)
            if len(parts[0]) == 1:
                return Response(parts[0][0], media_type=JSON)
            long_answer = LongAnswer(parts, JSON, self._writers, self._end_prediction)
            return long_answer
        finally:
            if not long_answer:
                self._end_prediction()

    def _end_prediction(self) -> None:
        self._taken -= 1
        if not self._trim:  # under constant load, too, once in a while
            self._trim = asyncio.get_running_loop().call_later(TRIM_SECONDS, self._give_back)

    def _give_back(self) -> None:
        self._trim = None
        asyncio.get_running_loop().run_in_executor(self._writers, give_back_memory)

    def _answer(
        self, call: rest_api.Call, body: RequestBody, content: bytes
    ) -> tuple[list[bytes], Iterator[bytes]]:
        """The first two parts, or the only one, and an iterator over the others."""
        try:
            pieces = rest_api.answer(self._versions, call, body.decompressed(content))
            parts = in_parts(pieces)
            return list(itertools.islice(parts, 2)), parts
        except RequestError:
            raise
        except Exception as error:
            traceback.print_exc()
            raise RequestError(f"Internal error: {type(error).__name__}", 500) from error


async def _unknown_method(request: Request, _) -> Response:
    return Response(encode_error(f"Malformed request: {request.method}"), 405, media_type=JSON)
