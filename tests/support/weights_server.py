"""A server of one published file, which can misbehave in several ways, and the settings for it."""

import contextlib
import hashlib
import http.server
import json
import threading

from fcn_keras.files import published

NAME = "torchvision/fcn_resnet50"

# For a process: makes `NAME` a file of this server, then runs a command.
COMMAND = """
import json, os, sys
os.environ["KERAS_HOME"], host, entry = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
from fcn_keras.files import published
published.HOST = host
published.PUBLISHED["torchvision/fcn_resnet50"] = published.Weights(*entry)
from fcn_keras.__main__ import main
sys.exit(main(sys.argv[4:]))
"""


class WeightsServer:
    """Serves `data` at any path.

    Attributes:
        mode: `"good"`; `"whole"` ignores Range; `"breaks"` ends after half of what was asked for,
            `"short"` too, without having said how much it is; `"long"` goes on; `"waits"` stops
            sending after half; `"silent"` sends nothing; `"html"`; or a status.
        starts: Where the parts began that were sent, in bytes; probes send nothing.
    """

    def __init__(self, data: bytes, suffix: str = ".pth"):
        self.data, self.mode, self.starts = data, "good", []
        self.stop = threading.Event()
        self.half_sent = threading.Event()
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                with contextlib.suppress(OSError):
                    server.answer(self)

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}/"
        digits = hashlib.sha256(data).hexdigest()[:8]
        entry = (f"tiny-{digits}{suffix}", len(data) / 2**20, "tiny", True, "a tiny FCN")
        self.weights = published.Weights(*entry)
        threading.Thread(target=self.http.serve_forever, args=[0.05], daemon=True).start()

    def close(self):
        self.stop.set()
        self.http.shutdown()
        self.http.server_close()

    def arguments(self, home) -> list[str]:
        """Those of `COMMAND` before the command's own."""
        return [str(home), self.address, json.dumps(self.weights)]

    def answer(self, handler) -> None:
        mode, data = self.mode, self.data
        if mode == "silent":
            self.stop.wait(60)
            return
        if mode == "html":
            self.send(handler, 200, {"Content-Type": "text/html"}, b"<html>Log in</html>")
            return
        if isinstance(mode, int):
            self.send(handler, mode, {}, b"no")
            return
        wanted = handler.headers.get("Range", "")
        start = int(wanted[6:-1]) if wanted and mode != "whole" else 0
        if start >= len(data):
            self.send(handler, 416, {}, b"")
            return
        headers = {"Content-Length": str(len(data) - start)}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        half = (len(data) - start + 1) // 2
        if mode in ("short", "long"):
            del headers["Content-Length"]
        if handler.headers.get("Accept-Encoding") != "identity":  # a probe, which reads no more
            self.send(handler, 200, headers, b"")
            return
        body = {"long": data + data, "breaks": data[start:][:half], "short": data[start:][:half]}
        if mode == "waits":
            self.starts.append(start)
            self.send(handler, 206 if start else 200, headers, data[start:][:half])
            self.half_sent.set()
            self.stop.wait(60)
            return
        self.starts.append(start)
        self.send(handler, 206 if start else 200, headers, body.get(mode, data[start:]))

    def send(self, handler, status, headers, body) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        for begin in range(0, len(body), 1 << 14):
            handler.wfile.write(body[begin : begin + (1 << 14)])
            handler.wfile.flush()
