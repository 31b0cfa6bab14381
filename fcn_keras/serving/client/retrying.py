"""Retrying what a server may do a moment later; needs only the standard library.

One loop serves both clients. Neither library's own would do: requests reads the
answer's body outside urllib3's retries, and gRPC's policy never repeats a call
whose deadline has passed.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from fcn_keras.errors import UserError

FIRST_WAIT, LONGEST_WAIT = 0.25, 60.0  # seconds

Answer = TypeVar("Answer")


class TemporaryError(UserError):
    """The server is unreachable, overloaded or too slow.

    Args:
        message: As for any `UserError`.
        wait: How many seconds the server asked to wait, if it did.
    """

    def __init__(self, message: str, wait: float | None = None):
        super().__init__(message)
        self.wait = wait


class RefusedError(UserError):
    """The server rejected what it was sent, and would reject it again."""


def retrying(attempt: Callable[[], Answer], retries: int, stopped: threading.Event) -> Answer:
    """Calls a function until it raises no `TemporaryError`.

    The waits double from 0.25 s on, each varied at random by up to half, so that many
    clients do not return at the same moment. None is shorter than the server asked
    for; if it asks for more than a minute, there are no more retries.

    Args:
        attempt: The function.
        retries: How often it is called again.
        stopped: When it is set, the function is not called again.

    Returns:
        What the function returns.

    Raises:
        TemporaryError: Its last one.
    """
    number = 0
    while True:
        try:
            return attempt()
        except TemporaryError as error:
            asked = error.wait or 0.0
            if number >= retries or asked > LONGEST_WAIT:
                raise
            problem = error
        own = min(FIRST_WAIT * 2**number, LONGEST_WAIT) * random.uniform(0.5, 1.5)
        if stopped.wait(max(asked, own)):
            raise problem
        number += 1
