"""Where `serve` and `demo` listen: their flags, the socket and its URL."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator

from fcn_keras.errors import UserError


def add_listening_flags(parser, port: int) -> None:
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines connect (127.0.0.1)",
    )
    parser.add_argument(
        "--port", type=int, default=port, metavar="N", help=f"port, 0 for any free one ({port})"
    )


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket for a block that a signal ends.

    It does not listen yet: clients would wait in vain while the model loads. Once uvicorn
    listens, it handles the signals.
    """
    listener = _bind(host, port)
    try:
        yield listener
    except KeyboardInterrupt:
        print("Stopped.", flush=True)


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UserError(f"--port must be 0 to 65535. Received: {port}.")
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        return listener
    except socket.gaierror as error:
        raise UserError(
            f"--host {host}: {error.strerror}. Give an address of this machine."
        ) from error
    except OSError as error:
        remedy = "Choose another port, or 0 for any."
        if error.errno == errno.EADDRNOTAVAIL:
            remedy = "Give an address of this machine."
        raise UserError(f"--host {host} --port {port}: {error.strerror}. {remedy}") from error


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
