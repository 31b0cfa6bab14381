"""A request's body, read within limits, and answers to requests whose body is refused."""

from __future__ import annotations

import asyncio
import contextlib
import zlib

from fastapi import Request, Response

from fcn_keras.serving.server.json_tensor import RequestError
from fcn_keras.serving.server.rest_codec import encode_error

JSON = "application/json"
BODY_SECONDS = 60  # for a whole body to arrive
LINGER_SECONDS = 5  # for the rest of a refused body


class RequestBody:
    """A request's body, of which no more than the limit is ever in memory.

    Args:
        request: The request.
        limit: The largest number of bytes, before and after decompression.

    Attributes:
        ended: Whether all of it has arrived.
    """

    def __init__(self, request: Request, limit: int):
        self._limit = limit
        self._receive, self._headers = request.receive, request.headers
        self._length = int(self._headers.get("content-length", 0))
        self.ended = not self._length and "transfer-encoding" not in self._headers

    def check_framing(self) -> None:
        """Raises `RequestError` if a proxy might see it end elsewhere than this server does."""
        if "content-length" in self._headers and "transfer-encoding" in self._headers:
            raise RequestError("Malformed request: both Content-Length and Transfer-Encoding")

    def check_announced_size(self) -> None:
        """Raises `RequestError` if the headers say that it is too large."""
        self._check_size(self._length)

    async def read(self) -> bytes:
        """All of it.

        Raises:
            RequestError: If it is too large or too slow.
            ConnectionError: If the client has gone.
        """
        content = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while not self.ended:
                    content += await self._chunk()
                    self._check_size(len(content))
        except TimeoutError as error:
            raise RequestError(f"The body took more than {BODY_SECONDS} s.", 408) from error
        return bytes(content)

    async def discard(self) -> None:
        """Discards what still arrives, for a while."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(LINGER_SECONDS):
                while not self.ended:
                    await self._chunk()

    def decompressed(self, content: bytes) -> bytes:
        """Undoes the compression that the headers name.

        Raises:
            RequestError: If it cannot be undone, or the result is too large.
        """
        if "gzip" not in self._headers.get("content-encoding", "").lower():
            return content
        decoder = zlib.decompressobj(wbits=31)
        try:
            plain = decoder.decompress(content, self._limit + 1)
        except zlib.error as error:
            raise RequestError(f"Failed to uncompress the gzipped body: {error}") from error
        self._check_size(len(plain))
        if not decoder.eof and content:
            raise RequestError("Failed to uncompress the gzipped body: it is cut off")
        if decoder.unused_data:
            raise RequestError("Failed to uncompress the gzipped body: something follows its end")
        return plain

    async def _chunk(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        self.ended = not message.get("more_body")
        return message.get("body", b"")

    def _check_size(self, size: int) -> None:
        if size > self._limit:
            limit = f"{self._limit / 2**20:g} MiB"
            raise RequestError(f"The body is larger than {limit} (--max-body-mb).", 413)


class Refusal(Response):
    """An error; the rest of the body is read before the connection is closed."""

    def __init__(self, error: RequestError, body: RequestBody):
        headers = {} if body.ended else {"Connection": "close"}
        if error.code == 503:
            headers["Retry-After"] = "1"
        super().__init__(encode_error(str(error)), error.code, headers, JSON)
        self._rest = body

    async def __call__(self, scope, receive, send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await self._rest.discard()
        await send({"type": "http.response.body", "body": b""})


class NoAnswer(Response):
    """For a client that has gone."""

    async def __call__(self, scope, receive, send) -> None:
        pass
