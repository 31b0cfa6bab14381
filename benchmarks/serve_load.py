"""How `fcn-keras serve` handles load and broken requests.

    python benchmarks/serve_load.py --model-base-path MODELS --broken 0.05 PHOTOGRAPHS
    python benchmarks/serve_load.py ... --seconds 3600 --clients 2 --pause 0.5 PHOTOGRAPHS

Starts the server on an exported model, lets clients send photographs for a while, and
compares every mask with the server's answer before the load. A broken request must get a 4xx
status and a reason. Prints the server's memory every minute, and finally requests per second,
latencies of whole requests, and the memory in the first quarter (after a twentieth as warm-up)
and in the last. The exit code is 1 if anything failed.
"""

import argparse
import base64
import contextlib
import http.client
import itertools
import json
import random
import signal
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

SERVE = "import sys; from fcn_keras.cli import main; sys.exit(main())"
SUFFIXES = {".jpg", ".jpeg", ".png"}
PREDICT = "/v1/models/fcn:predict"
HUGE_MIB = 200
BOMB_SIDE = 30_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model-base-path", required=True, metavar="DIR")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--broken", type=float, default=0, metavar="SHARE")
    parser.add_argument("--pause", type=float, default=0, metavar="S", help="between requests")
    parser.add_argument("folder", type=Path, help="folder of JPEG and PNG files")
    arguments = parser.parse_args()

    paths = [path for path in sorted(arguments.folder.iterdir()) if path.suffix in SUFFIXES]
    photos = [path.read_bytes() for path in paths]
    if not photos:
        sys.exit(f"{arguments.folder}: no JPEG or PNG files found.")
    command = [sys.executable, "-c", SERVE, "serve", "--port", "0"]
    command += ["--model-base-path", arguments.model_base_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            print(line := server.stdout.readline(), end="")
            if not line:
                return 1  # it has printed why
            port = int(line.split("/")[2].rpartition(":")[2])
            load = Load(port, photos, arguments.broken, arguments.pause)
            memory = load.run(arguments.clients, arguments.seconds, server.pid)
            server.send_signal(signal.SIGTERM)
            print(server.stdout.read(), end="")
            if server.wait() != 0:
                load.failures.append(f"The server's exit code is {server.returncode}.")
        finally:
            server.kill()
    report(load, memory, arguments.seconds)
    return 1 if load.failures else 0


class Load:
    def __init__(self, port: int, photos: list[bytes], broken: float, pause: float):
        self.port, self.share, self.pause = port, broken, pause
        self.latencies, self.failures, self.refused = [], [], 0
        self.bodies = [body_of(photo) for photo in photos]
        with contextlib.closing(connect(port)) as connection:
            self.expected = [mask_of(*ask(connection, body)) for body in self.bodies]
        self.broken = broken_requests(photos[0]) if broken else []

    def run(self, clients: int, seconds: float, server: int) -> list[float]:
        """Puts load on the server; returns its memory in MiB, twice per second."""
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self.client, args=(n, end)) for n in range(clients)]
        for thread in threads:
            thread.start()
        memory = []
        while time.monotonic() < end:
            memory.append(resident_mib(server))
            if len(memory) % 120 == 0:
                print(f"{len(memory) // 120} min: {memory[-1]:.0f} MiB", flush=True)
            time.sleep(0.5)
        for thread in threads:
            thread.join()
        return memory

    def client(self, number: int, end: float) -> None:
        rng, connection = random.Random(number), connect(self.port)
        for index in itertools.count(number):
            if time.monotonic() >= end:
                break
            try:
                if rng.random() < self.share:
                    self.send_broken(connection, *rng.choice(self.broken))
                else:
                    self.send_good(connection, index % len(self.bodies))
            except Exception as error:
                self.failures.append(repr(error))
                connection.close()
            time.sleep(self.pause)
        connection.close()

    def send_good(self, connection, index: int) -> None:
        start = time.perf_counter()
        answer = ask(connection, self.bodies[index])
        self.latencies.append(time.perf_counter() - start)
        if mask_of(*answer) != self.expected[index]:
            self.failures.append(f"A different mask than before for photograph {index}.")

    def send_broken(self, connection, name: str, body: bytes | None) -> None:
        code, text = ask(connection, body) if body is not None else ask_huge(self.port)
        if 400 <= code < 500 and json.loads(text)["error"]:
            self.refused += 1
        else:
            self.failures.append(f"{name}: {code} {text[:200]}")


def connect(port: int) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", port, timeout=120)


def ask(connection, body: bytes) -> tuple[int, bytes]:
    connection.request("POST", PREDICT, body)
    response = connection.getresponse()
    return response.status, response.read()


def ask_huge(port: int) -> tuple[int, bytes]:
    """Sends a body above any limit; the server may answer and close before it is all sent."""
    with socket.create_connection(("127.0.0.1", port), 120) as raw:
        head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {HUGE_MIB << 20}\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            raw.sendall(head.encode())
            for _ in range(HUGE_MIB):
                raw.sendall(bytes(2**20))
        response = http.client.HTTPResponse(raw)
        response.begin()
        return response.status, response.read()


def body_of(data: bytes) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(data).decode()}]}).encode()


def mask_of(code: int, text: bytes) -> str:
    if code != 200:
        raise RuntimeError(f"{code} {text[:200]}")
    return json.loads(text)["predictions"][0]["mask_png_bytes"]["b64"]


def broken_requests(photo: bytes) -> list[tuple[str, bytes | None]]:
    whole = body_of(photo)
    return [
        ("truncated photograph", body_of(photo[: len(photo) // 3])),
        ("text file", body_of(b"This is a text.\n" * 100)),
        ("no bytes", body_of(b"")),
        ("decompression bomb", body_of(png_bomb())),
        ("wrong JSON", whole[:-2]),
        ("wrong base64", whole.replace(b'"b64": "', b'"b64": "*')),
        ("nested lists", b'{"instances": ' + b"[" * 10**6),
        ("half a character", b'{"signature_name": "\\ud800", "instances": [1]}'),
        ("million instances", b'{"instances": [' + b"{}," * 10**6 + b"{}]}"),
        (f"{HUGE_MIB} MiB", None),
    ]


def png_bomb() -> bytes:
    """A small file that decodes to 30,000 x 30,000 grey pixels."""
    packer, packed = zlib.compressobj(9), []
    rows = bytes((BOMB_SIDE + 1) * 100)
    for _ in range(BOMB_SIDE // 100):
        packed.append(packer.compress(rows))
    packed.append(packer.flush())
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", b"".join(packed)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def resident_mib(process: int) -> float:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def report(load: Load, memory: list[float], seconds: float) -> None:
    good, memory = len(load.latencies), memory[len(memory) // 20 :]
    quarter = max(1, len(memory) // 4)
    print(f"{good / seconds:.1f} good requests/s: {good} good, {load.refused} refused as broken")
    if good > 1:
        cuts = statistics.quantiles(load.latencies, n=100, method="inclusive")
        print("latency " + ", ".join(f"p{n} {cuts[n - 1] * 1000:.0f} ms" for n in (50, 95, 99)))
    first, last = statistics.median(memory[:quarter]), statistics.median(memory[-quarter:])
    print(f"memory {first:.0f} MiB in the first quarter, {last:.0f} MiB in the last")
    print(f"{len(load.failures)} failures", *load.failures[:5], sep="\n  ")


if __name__ == "__main__":
    sys.exit(main())
