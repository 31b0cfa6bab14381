"""The messages of the page's server: files that arrive, answers and refusals."""

from __future__ import annotations

import asyncio
import io
import json
import secrets

from fcn_keras.demo.prediction import Answer

MAX_BODY = 256 * 2**20  # bytes of one photograph's file
BODY_SECONDS = 300  # for a whole photograph to arrive
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Refusal(Exception):
    """A request that gets a status and a line instead of what it asked for."""

    def __init__(self, status: int, reason: str, **headers: str):
        super().__init__(reason)
        self.status, self.headers = status, headers


def check_method(scope, *allowed: str) -> None:
    """Raises `Refusal` if a request's method is not one of these."""
    if scope["method"] not in allowed:
        raise Refusal(405, "Method not allowed.", Allow=", ".join(allowed))


def check_size(size: int) -> None:
    """Raises `Refusal` if a file has more than `MAX_BODY` bytes."""
    if size > MAX_BODY:
        raise Refusal(413, f"The file is larger than {MAX_BODY // 2**20} MiB.")


async def read_file(receive, photograph: io.BytesIO, hold) -> None:
    """Reads a request's body.

    Args:
        receive: ASGI's.
        photograph: Where to put it.
        hold: Called with the bytes so far; may raise `Refusal`.

    Raises:
        Refusal: If it is too large, or takes more than `BODY_SECONDS`.
        ConnectionError: If the client leaves.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError
                photograph.write(message["body"])
                check_size(photograph.tell())
                hold(photograph.tell())
                if not message["more_body"]:
                    return
    except TimeoutError as error:
        raise Refusal(408, f"The file took more than {BODY_SECONDS} s.") from error


def as_form(answer: Answer) -> tuple[str, list[bytes]]:
    """An answer as a form, which browsers can read: its type and its parts."""
    facts = {
        "size": answer.size,
        "shown": answer.shown_size,
        "seconds": answer.seconds,
        "shares": list(answer.shares.items()),
    }
    boundary, parts = secrets.token_hex(16), []
    for name, kind, content in (
        ("facts", "application/json", json.dumps(facts).encode()),
        ("picture", "application/octet-stream", answer.picture),
        ("mask", "image/png", answer.mask),
    ):
        disposition = f'form-data; name="{name}"; filename="{name}"'
        head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\nContent-Type: {kind}\r\n\r\n"
        parts += [head.encode(), content, b"\r\n"]
    return f"multipart/form-data; boundary={boundary}", [*parts, f"--{boundary}--\r\n".encode()]


async def refuse(send, refusal: Refusal) -> None:
    """Sends a refusal's status and reason."""
    kind, reason = "text/plain; charset=utf-8", str(refusal).encode(errors="replace")
    await send_parts(send, refusal.status, kind, [reason], **refusal.headers)


async def send_parts(send, status: int, kind: str, parts: list[bytes], **more: str) -> None:
    """Sends parts one after the other; the last call returns when the client has taken them."""
    headers = {**HEADERS, "Content-Type": kind, "Content-Length": str(sum(map(len, parts))), **more}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})
