"""Counts an HTTP application's requests and bytes, for Prometheus."""

from __future__ import annotations

import collections
import time


class Meter:
    """Wraps an ASGI application.

    Args:
        app: The application.
        model: The model's name, a label of all counters.

    Attributes:
        answered: How many requests have been answered in full.
        stopping: Whether clients are told that their connections will close.
    """

    def __init__(self, app, model: str):
        self.answered = 0
        self.stopping = False
        self._app, self._model = app, model
        self._codes: collections.Counter = collections.Counter()
        self._seconds = 0.0
        self._received = self._sent = 0

    async def __call__(self, scope, receive, send) -> None:
        start, code = time.perf_counter(), 0

        async def counted_receive():
            message = await receive()
            self._received += len(message.get("body", b""))
            return message

        async def counted_send(message):
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                if self.stopping:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)
            self._sent += len(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                self.answered += 1
                self._codes[code] += 1
                self._seconds += time.perf_counter() - start

        await self._app(scope, counted_receive, counted_send)

    def stop(self) -> None:
        """Tells clients that their connections will close."""
        self.stopping = True

    def page(self) -> str:
        """The counters in Prometheus' text format, under TF Serving's names where it has them."""
        escaped = self._model.replace("\\", "\\\\").replace('"', '\\"')
        model = f'{{model_name="{escaped}"}}'
        prefix = ":tensorflow:serving:request"
        lines = [f"# TYPE {prefix}_count counter"]
        for code, count in sorted(self._codes.items()):
            lines.append(f'{prefix}_count{model[:-1]},status="{code}"}} {count}')
        lines += [
            f"# TYPE {prefix}_latency summary",  # in microseconds, as TF Serving's
            f"{prefix}_latency_sum{model} {self._seconds * 1e6:.0f}",
            f"{prefix}_latency_count{model} {self.answered}",
        ]
        for name, count in (("received", self._received), ("sent", self._sent)):
            lines += [f"# TYPE {prefix}_bytes_{name} counter"]
            lines += [f"{prefix}_bytes_{name}{model} {count}"]
        return "\n".join(lines) + "\n"
