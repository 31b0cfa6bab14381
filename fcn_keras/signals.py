"""Signals that ask a program to stop, by which a command ends as it does by Ctrl-C."""

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
# What the program was started to ignore, as by `nohup`, stays ignored.
IGNORED = tuple(number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN)
BURST_SECONDS = 0.2  # `timeout`, and a shell whose terminal is closed, send a signal twice
DEAF_SECONDS = 8  # Docker kills after 10


class Stop(KeyboardInterrupt):
    """A signal of `SIGNALS`; its text, if any, is a remedy."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextlib.contextmanager
def handled(handler: Callable):
    """Has signals that are not ignored call a handler in a block, in the main thread."""
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
    """Has signals raise `Stop` in a block; the second one ends the process at once.

    So does the first one where Python cannot raise it for `DEAF_SECONDS`: TensorFlow
    may wait for another worker without end. What a program around us handles by
    itself is left to it.

    Args:
        remedy: What the line says that is then printed, see `report`.
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
        """The next number of `taken`; others that Python handles arrive as well."""
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
        if noted:  # which TensorFlow replaced, or whose way led to a terminal that is gone
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
    """Prints the one line that tells of a stop, and how to go on if a command can."""
    by = "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"
    remedy = remedy and f": {remedy}"
    with contextlib.suppress(OSError):  # the terminal may be gone
        print(f"Interrupted{by}{remedy}.", file=sys.stderr)
