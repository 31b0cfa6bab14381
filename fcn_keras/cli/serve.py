"""`fcn-keras serve`: exported model -> HTTP server with TF Serving's REST API."""

from __future__ import annotations

import socket
import sys
import urllib.parse

from fcn_keras.cli.listening import add_listening_flags, listening, url_of
from fcn_keras.cli.shared import import_tensorflow
from fcn_keras.errors import UserError, printable, require_packages
from fcn_keras.runs.validation import flag
from fcn_keras.serving.server.model_versions import ModelVersions


def add(commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="serve an exported model without Docker",
        description="Serves a model that fcn-keras export has written, with TF Serving's REST API: "
        "the newest versions and those with a label. A new version is loaded while the old ones "
        "serve. Ctrl-C, SIGTERM or SIGHUP stops the server once all requests are answered.",
    )
    parser.set_defaults(command=_serve, parser=parser)
    parser.add_argument(
        "--model-base-path", required=True, metavar="DIR", help="folder of the model's versions"
    )
    parser.add_argument(
        "--model-name", default="fcn", metavar="NAME", help="model name in URLs (fcn)"
    )
    add_listening_flags(parser, port=8501)
    parser.add_argument(
        "--version-label",
        action="append",
        default=[],
        metavar="LABEL=N",
        help="name for a version, which is served as long as its folder exists; may be repeated",
    )
    parser.add_argument(
        "--keep-versions",
        type=int,
        default=2,
        metavar="N",
        help="number of newest versions to serve (2)",
    )
    parser.add_argument(
        "--poll-seconds", type=float, default=1, metavar="S", help="time between checks of DIR (1)"
    )
    parser.add_argument(
        "--max-body-mb", type=float, default=32, metavar="N", help="largest request, in MiB (32)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=2, metavar="N", help="concurrent predictions (2)"
    )
    parser.add_argument(
        "--queue",
        type=int,
        default=64,
        metavar="N",
        help="requests that may wait; others get status 503 (64)",
    )


def _serve(arguments) -> int:
    _check(arguments)
    labels = dict(map(_label, arguments.version_label))
    versions = ModelVersions(
        arguments.model_name, arguments.model_base_path, labels, arguments.keep_versions
    )
    with listening(arguments.host, arguments.port) as listener:
        print(f"Loading {printable(arguments.model_base_path)} ...", file=sys.stderr, flush=True)
        import_tensorflow()
        from fcn_keras.serving.server.memory import leave_out_of_collections
        from fcn_keras.serving.server.saved_model import load_model
        from fcn_keras.serving.server.server import Limits, serve

        leave_out_of_collections()
        versions.start(load_model, arguments.poll_seconds)
        body_bytes = int(arguments.max_body_mb * 2**20)
        limits = Limits(body_bytes, arguments.concurrency, arguments.queue)
        serve(listener, versions, limits, _ready_line(versions, listener))
        versions.stop()
    return 0


def _ready_line(versions: ModelVersions, listener: socket.socket) -> str:
    path = f"/v1/models/{urllib.parse.quote(versions.name, safe='')}"
    return f"Serving {versions.name} version {max(versions.models)} at {url_of(listener)}{path}"


def _check(arguments) -> None:
    for name, least in (("keep_versions", 1), ("concurrency", 1), ("queue", 0)):
        value = getattr(arguments, name)
        if value < least:
            raise UserError(f"{flag(name)} must be at least {least}. Received: {value}.")
    for name in ("poll_seconds", "max_body_mb"):
        value = getattr(arguments, name)
        if not 0 < value < 1e6:
            raise UserError(f"{flag(name)} must be positive. Received: {value}.")
    if not arguments.model_name:
        raise UserError("--model-name must not be empty.")
    packages = ("fastapi", "uvicorn", "tensorflow_serving")
    require_packages("fcn-keras serve", "serve", *packages, load=False)


def _label(text: str) -> tuple[str, int]:
    label, _, version = text.rpartition("=")
    if not label or not (version.isascii() and version.isdecimal()):
        raise UserError(f"--version-label must look like stable=1. Received: {text}.")
    return label, int(version)
