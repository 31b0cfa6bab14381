"""Signals that ask a program to stop: each ends a command as Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Signals that are ignored from the start, as under `nohup`, stay ignored.
IGNORED = tuple(number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN)
BURST_SECONDS = 0.2  # `timeout`, and a shell whose terminal is closed, send a signal twice
DEAF_SECONDS = 8  # Docker kills after 10


class Stop(KeyboardInterrupt):
    """One of `SIGNALS` arrived; the exception's text, if any, is a remedy."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextlib.contextmanager
def handled(handler: Callable):
    """Calls a handler for signals that are not ignored, in a block of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.SIG_IGN if number in IGNORED else handler)
        for number in SIGNALS
    }
    descriptor = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, former in before.items():
            if signal.getsignal(number) == handler:
                signal.signal(number, former)


@contextlib.contextmanager
def raised(remedy: str = ""):
    """Makes signals raise `Stop` in a block; a second one ends the process at once.

    So does the first if Python cannot raise it for `DEAF_SECONDS`: TensorFlow may wait
    forever for another worker. Signals that a surrounding program handles are left to it.

    Args:
        remedy: Part of the line that is then printed, see `report`.
    """
    defaults = (signal.SIG_DFL, signal.default_int_handler)
    taken = {n: before for n in SIGNALS if (before := signal.getsignal(n)) in defaults}
    if not taken or threading.current_thread() is not threading.main_thread():
        yield
        return
    arrivals, sender = socket.socketpair()
    sender.setblocking(False)
    heard = threading.Event()
    noted: list[Stop] = []

    def handle(number, frame):
        heard.set()
        for reaction in (signal.SIG_IGN, signal.SIG_DFL):
            for each in taken:
                signal.signal(each, reaction)
            if reaction == signal.SIG_IGN:
                time.sleep(BURST_SECONDS)
        noted.append(Stop(number))
        raise noted[0]

    def arrival(seconds: float | None = None) -> bytes:
        """The next number of `taken`; other signals that Python handles arrive, too."""
        end = seconds and time.monotonic() + seconds
        while True:
            arrivals.settimeout(end and max(end - time.monotonic(), 0.001))
            number = arrivals.recv(1)
            if not number or number[0] in taken:
                return number

    def watch():
        with arrivals:
            first = arrival()
            time.sleep(BURST_SECONDS)
            with contextlib.suppress(BlockingIOError):
                arrivals.recv(64, socket.MSG_DONTWAIT)
            with contextlib.suppress(TimeoutError):
                arrival(DEAF_SECONDS)
        if first and not heard.is_set():
            report(first[0], remedy)
            os._exit(128 + first[0])

    for number in taken:
        signal.signal(number, handle)
    former = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except Exception as error:
        if noted:  # TensorFlow replaced it, or printing met a terminal that is gone
            raise noted[0] from error
        raise
    finally:
        heard.set()
        signal.set_wakeup_fd(former)
        sender.close()
        for number, before in taken.items():
            if signal.getsignal(number) == handle:
                signal.signal(number, before)


def report(number: int, remedy: str = "") -> None:
    """Prints one line about the stop, and how to continue if the command can."""
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    remedy = remedy and f": {remedy}"
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"Interrupted{by}{remedy}.", file=sys.stderr)
