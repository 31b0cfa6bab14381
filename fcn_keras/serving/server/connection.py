"""A connection that ends when its client stalls, or sends something other than HTTP."""

from __future__ import annotations

import resource

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 60  # for a request's headers to arrive, since the connection or the last answer
ANSWER_SECONDS = 300  # for an answer to be taken
MAX_HEAD_BYTES = 2**16  # of a request's headers
FEW_CHUNKS, CHUNK_BYTES = 1000, 256  # of a body: reading tiny ones would take seconds
SPARE_FILES = 32  # below the limit of open files, which connections leave to others


class Requests(h11.Connection):
    """H11's, which would take long headers that come at once and end each HTTP/1.0 connection."""

    _kept = False
    _chunks = _bytes = 0

    def next_event(self):
        before = len(self._receive_buffer)  # of which folded headers and spaces may be the most
        event = super().next_event()
        if isinstance(event, h11.Request | h11.EndOfMessage):
            if before - len(self._receive_buffer) > MAX_HEAD_BYTES:
                raise h11.RemoteProtocolError("The headers are too long.")
        if isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._bytes += len(event.data)
            if self._chunks > FEW_CHUNKS + self._bytes // CHUNK_BYTES:
                raise h11.RemoteProtocolError("The chunks are too small.")
        if isinstance(event, h11.Request):
            self._chunks = self._bytes = 0
            wishes = b",".join(value for name, value in event.headers if name == b"connection")
            options = {each.strip() for each in wishes.lower().split(b",")}
            self._kept = event.http_version == b"1.0" and (
                b"keep-alive" in options and b"close" not in options
            )
            if self._kept:
                self._cstate.keep_alive = True
        return event

    def send(self, event):
        if self._kept and isinstance(event, h11.Response):
            headers = list(event.headers)
            if not any(name == b"connection" for name, _ in headers):
                headers.append((b"connection", b"keep-alive"))
            event = h11.Response(
                status_code=event.status_code, headers=headers, reason=event.reason
            )
        return super().send(event)


class Connection(H11Protocol):
    """Uvicorn's, which would wait forever if a client sends or takes a byte now and then."""

    _awaited = _sent = None
    _half_closed = False

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.conn = Requests(h11.SERVER, MAX_HEAD_BYTES)

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._await_request()
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The system assigns the lowest free number.
        if transport.get_extra_info("socket").fileno() >= limit - SPARE_FILES > 0:
            close_idle(self.connections - {self}, 1)

    @property
    def is_idle(self) -> bool:
        """Whether no request whose headers have arrived is waiting for its answer."""
        return not self.cycle or self.cycle.response_complete

    def connection_lost(self, exc) -> None:
        for timer in (self._awaited, self._sent):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps the connection of a client that has ended its side, until it has its answers."""
        self._half_closed = True
        return self._has_whole_request

    def on_response_complete(self) -> None:
        self._await_request()
        super().on_response_complete()  # which may start on the next request
        if self._half_closed and not self._has_whole_request:
            self.transport.close()

    @property
    def _has_whole_request(self) -> bool:
        return not self.is_idle and not self.cycle.more_body

    def send_400_response(self, msg: str) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # an answer has begun, and a second one cannot
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sent = self.loop.call_later(ANSWER_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._sent:
            self._sent.cancel()

    def _await_request(self) -> None:
        if self._awaited:
            self._awaited.cancel()
        self.waits_since = self.loop.time()
        self._awaited = self.loop.call_later(HEAD_SECONDS, self._close_after, self.cycle)

    def _close_after(self, cycle) -> None:
        if self.cycle is cycle:
            self.transport.close()


class BrowserConnection(Connection):
    """One that ends when its client sends no more: a browser has left and gives up its place."""

    def data_received(self, data: bytes) -> None:
        if self._has_whole_request:  # nothing more would be read, nor seen when the client leaves
            self.transport.abort()
        else:
            super().data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]
        return False


def close_idle(connections: set, count: int) -> None:
    """Closes those that have waited for a request the longest."""
    idle = [each for each in connections if each.is_idle and not each.transport.is_closing()]
    for each in sorted(idle, key=lambda each: each.waits_since)[:count]:
        each.transport.abort()
