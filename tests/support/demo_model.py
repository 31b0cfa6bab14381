"""A small model for the page, and the page in a process that reports what it does.

The model sees leaves where green is largest, water where blue is.
"""

import contextlib
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fcn_keras.data.split import LabelSet
from support import processes
from support.runs import save_colour_run

PROCESS = Path(__file__).with_name("demo_process.py")
SECONDS = 300  # for anything; a busy machine is slow
LABELS = LabelSet(("background", "leaf", "water"), ((0, 0, 0), (250, 160, 10), (20, 60, 200)))


class Server:
    """`fcn-keras demo` in a process that reports predictions and connections to elsewhere."""

    def __init__(self, *arguments, **changes):
        self.process = subprocess.Popen(
            [sys.executable, PROCESS, "demo", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=processes.environment(**changes),
        )
        self.lines = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        self.lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def log(self):
        return "".join(self.lines)

    def wait_for(self, pattern):
        end = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.log)):
            assert time.monotonic() < end and self.process.poll() is None, self.log
            time.sleep(0.05)
        return found

    def stop(self):
        processes.end(self.process)


@contextlib.contextmanager
def serving(*flags, **changes):
    """A `Server` that is ready at a free port, with its address as `url`.

    Args:
        *flags: The command's.
        **changes: Changes to its environment.
    """
    server = Server(*flags, "--port", 0, **changes)
    try:
        server.url = server.wait_for("Showing .* at (http://.*)")[1]
        yield server
    finally:
        server.stop()


def save_run(folder):
    return save_colour_run(folder, LABELS.names, LABELS.palette)


def save_photograph(path, seed=0, size=(120, 200)):
    """Patches of three colours with EXIF orientation 6; upright, `size` is (width, height)."""
    width, height = size
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    image = Image.fromarray(patches).resize((height, width), Image.Resampling.BILINEAR)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, quality=95, exif=exif)
    return path
