"""Starting and stopping an HTTP server, for `fcn-keras serve` and `fcn-keras demo`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from fcn_keras import signals
from fcn_keras.errors import UserError, printable
from fcn_keras.serving.server.connection import HEAD_SECONDS, SPARE_FILES, Connection, close_idle

ACCEPTED = 4  # connections per round; idle ones are closed for them a few rounds later
BACKLOG = 2048  # connections that wait to be accepted
QUIET_SECONDS = 60  # between warnings
DRAIN_SECONDS = 0.5  # from the last new connection to the closing of idle ones


def run(app, listener: socket.socket, ready: str, stopping: Callable[[], None], **options) -> None:
    """Answers requests until SIGTERM, SIGHUP or SIGINT, then finishes those in progress.

    Args:
        app: An ASGI application.
        listener: A bound socket.
        ready: A line to print when requests are accepted.
        stopping: Called when no more connections are accepted.
        **options: `uvicorn.Config`'s.

    Raises:
        UserError: If another server has started listening at the address meanwhile.
    """
    # Clients that send what is no HTTP, or leave, could fill a terminal with warnings.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    config = uvicorn.Config(
        app,
        loop="asyncio",
        ws="none",
        log_level="error",  # a warning is one line for each request that is not HTTP
        access_log=False,
        server_header=False,
        timeout_keep_alive=HEAD_SECONDS,
        backlog=ACCEPTED,
        **{"http": Connection, **options},
    )
    try:
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn repeats the signal when it is done
            _Server(config, ready, stopping).run(sockets=[listener])
    except OSError as error:
        port = listener.getsockname()[1]
        raise UserError(f"--port {port}: {error.strerror}. Choose another port.") from error


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: str, stopping: Callable[[], None]):
        super().__init__(config)
        self._ready, self._stopping = ready, stopping
        self._warned: float = -QUIET_SECONDS

    @contextlib.contextmanager
    def capture_signals(self):
        with super().capture_signals(), signals.handled(self.handle_exit):
            yield

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        for each in sockets or ():
            each.listen(BACKLOG)  # asyncio uses one number for this and `ACCEPTED`
        asyncio.get_running_loop().set_exception_handler(self._handle_problem)
        print(printable(self._ready), flush=True)

    def _handle_problem(self, loop: asyncio.AbstractEventLoop, context: dict) -> None:
        """When no connection can be accepted, asyncio pauses for a second, with a traceback."""
        error: Any = context.get("exception")
        if (
            getattr(error, "errno", 0) not in (errno.EMFILE, errno.ENFILE)
            or "socket" not in context
        ):
            loop.default_exception_handler(context)
            return
        close_idle(self.server_state.connections, SPARE_FILES)
        if loop.time() - self._warned >= QUIET_SECONDS:
            self._warned = loop.time()
            print(
                f"Warning: no connection can be accepted ({error.strerror}). Idle ones are closed "
                "and new ones wait; raise the limit with `ulimit -n`.",
                file=sys.stderr,
                flush=True,
            )

    async def shutdown(self, sockets=None) -> None:
        # uvicorn closes connections whose next request it has not read yet. So clients are
        # first told to send no more, by `stopping`, and new ones are not accepted.
        self._stopping()
        for server in self.servers:
            server.close()
        await asyncio.sleep(DRAIN_SECONDS)
        await super().shutdown(sockets)
