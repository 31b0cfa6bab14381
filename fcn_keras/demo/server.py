"""The page and its predictions over HTTP.

The server keeps nothing: no files, no sessions. It asks no other machine for anything, and
what a request can make it hold in memory is bounded.
"""

from __future__ import annotations

import asyncio
import io
import ipaddress
import json
import re
import socket
import sys
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fcn_keras.data.split import LabelSet
from fcn_keras.demo.messages import (
    MAX_BODY,
    Refusal,
    as_form,
    check_method,
    check_size,
    read_file,
    refuse,
    send_parts,
)
from fcn_keras.demo.prediction import Answer, segment
from fcn_keras.demo.samples import Sample
from fcn_keras.errors import UserError, printable
from fcn_keras.files.painting import is_greyish, line_level, painted_ids
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.serving import http
from fcn_keras.serving.server.connection import BrowserConnection

MAX_HELD = 2 * MAX_BODY  # bytes of the photographs and answers of all requests together
WAITING = 64  # requests that wait for the running one
STOP_SECONDS = 60  # for a prediction to end when the server does
FOLDER = Path(__file__).parent
FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}


def serve(
    listener: socket.socket,
    segmenter: Segmenter,
    samples: Sequence[Sample],
    title: str,
    host: str,
    ready: str,
) -> None:
    """Serves the page until SIGTERM, SIGHUP or SIGINT, then ends what is running.

    Args:
        listener: A bound socket.
        segmenter: The model.
        samples: Pictures to try.
        title: The model's name.
        host: The page's host name in addresses, besides `localhost`.
        ready: A line to print when the page can be opened.

    Raises:
        UserError: If another server has started listening at the address meanwhile.
    """
    page = Page(segmenter, samples, title, host)
    options = {"lifespan": "off", "timeout_graceful_shutdown": STOP_SECONDS}
    http.run(page, listener, ready, lambda: None, http=BrowserConnection, **options)
    page.close()
    print("Stopped.", flush=True)


class Page:
    """The ASGI application; one prediction runs at a time.

    Args:
        segmenter: The model.
        samples: Pictures to try.
        title: The model's name.
        host: A name of this server, besides `localhost` and the machine's.
    """

    def __init__(self, segmenter: Segmenter, samples: Sequence[Sample], title: str, host: str):
        self._segmenter = segmenter
        segmenter.progress = self._unless_given_up
        self._hosts = {"localhost", host.lower(), socket.gethostname().lower()}
        self._samples = {f"sample={i}": sample.source for i, sample in enumerate(samples)}
        self._files = {
            path: (kind, (FOLDER / name).read_bytes()) for path, (name, kind) in FILES.items()
        }
        self._files["/model.json"] = "application/json", _about(title, segmenter.labels, samples)
        for i, sample in enumerate(samples):
            self._files[f"/samples/{i}.jpg"] = "image/jpeg", sample.thumbnail
        self._thread = ThreadPoolExecutor(1, "prediction")
        self._requests = self._held = 0
        self._photograph = io.BytesIO()  # whose prediction is running

    def close(self) -> None:
        """Waits for the thread, which ends at the next tile."""
        self._thread.shutdown()

    async def __call__(self, scope, receive, send) -> None:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            key = name.decode("latin-1")
            headers[key] = "several" if key in headers else value.decode("latin-1")
        try:
            self._check_source(scope["path"], headers)
            if scope["path"] == "/predict":
                check_method(scope, "POST")
                query = scope["query_string"].decode("latin-1")
                await self._predict(query, headers, receive, send)
            elif scope["path"] in self._files:
                check_method(scope, "GET", "HEAD")
                kind, content = self._files[scope["path"]]
                await send_parts(send, 200, kind, [content])
            else:
                raise Refusal(404, "Not found.")
        except asyncio.CancelledError:
            await refuse(send, Refusal(503, "The server is stopping."))
        except Refusal as refusal:
            await refuse(send, refusal)

    def _check_source(self, path: str, headers: dict[str, str]) -> None:
        """Refuses requests that other web pages send from a user's browser."""
        name = re.sub(r":\d*$", "", headers.get("host", "").lower())
        try:
            if name not in self._hosts:  # an attacker's name may resolve to this machine
                ipaddress.ip_address(name.strip("[]"))
        except ValueError as error:
            reason = "Open this page at an IP address, or as localhost."
            raise Refusal(403, reason) from error
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site:  # which browsers send over https, and to this machine
            foreign = site not in ("same-origin", "none")
        else:  # ignores the scheme, as a proxy may have another
            foreign = origin is not None and origin.partition("://")[2] != headers.get("host")
        if foreign and path != "/":  # which other pages may link to
            raise Refusal(403, "Only this page may ask for that.")

    async def _predict(self, query: str, headers: dict[str, str], receive, send) -> None:
        if query and query not in self._samples:
            raise Refusal(400, "No such sample.")
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy may see the body end elsewhere than this server does.
            raise Refusal(400, "Both Content-Length and Transfer-Encoding.", Connection="close")
        check_size(int(headers.get("content-length", 0)))
        if self._requests > WAITING:
            raise Refusal(503, "Too many photographs are waiting. Try again later.")
        held = 0

        def hold(size: int) -> None:
            nonlocal held
            self._held, held = self._held + size - held, size
            if self._held > MAX_HELD:
                raise Refusal(503, "Too many large photographs are waiting. Try again later.")

        self._requests += 1
        photograph = io.BytesIO()
        try:
            await read_file(receive, photograph, hold)
            answer = await self._until_gone(receive, photograph, self._samples.get(query))
            kind, parts = as_form(answer)
            photograph.close()
            hold(sum(map(len, parts)))
            await send_parts(send, 200, kind, parts)
        except ConnectionError:
            pass  # the client has gone
        finally:
            self._requests -= 1
            self._held -= held
            photograph.close()

    async def _until_gone(self, receive, photograph: io.BytesIO, sample) -> Answer:
        loop = asyncio.get_running_loop()
        prediction = loop.run_in_executor(self._thread, self._segment, photograph, sample)
        gone = asyncio.ensure_future(receive())  # nothing else can come after the body
        try:
            await asyncio.wait([prediction, gone], return_when=asyncio.FIRST_COMPLETED)
            if not prediction.done():
                raise ConnectionError
            return prediction.result()
        finally:
            prediction.cancel()
            gone.cancel()

    def _segment(self, photograph: io.BytesIO, sample) -> Answer:
        self._photograph = photograph
        try:
            return segment(self._segmenter, sample or photograph.getvalue())
        except UserError as error:
            raise Refusal(400, str(error)) from error
        except Exception as error:
            if photograph.closed:
                raise ConnectionError from error
            for line in traceback.format_exc().splitlines():
                print(printable(line), file=sys.stderr)
            raise Refusal(500, f"Internal error: {type(error).__name__}.") from error

    def _unless_given_up(self, pieces, total):
        """The pieces of a large photograph, as long as somebody is waiting for them."""
        for piece in pieces:
            if self._photograph.closed:
                raise ConnectionError
            yield piece


def _about(title: str, labels: LabelSet, samples: Sequence[Sample]) -> bytes:
    painted = painted_ids(labels.names)
    classes = [
        {
            "name": name,
            "color": color,
            "line": line_level(color),
            "hatched": is_greyish(color),
            "painted": i in painted,
        }
        for i, (name, color) in enumerate(zip(labels.names, labels.palette))
    ]
    names = [sample.name for sample in samples]
    return json.dumps({"title": title, "classes": classes, "samples": names}).encode()
