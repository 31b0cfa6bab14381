"""Long answers, written part by part in threads."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor

from fastapi.responses import StreamingResponse

PART = 2**20  # characters


def in_parts(pieces: Iterator[str]) -> Iterator[bytes]:
    """The text of the pieces, in larger parts; at least one."""
    held, size = [], 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PART:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join(held).encode()


class LongAnswer(StreamingResponse):
    """An answer of which each part is written once the client has taken the one before.

    Args:
        parts: The first parts, already written, and an iterator over the others.
        media_type: Their type.
        threads: Where they are written.
        done: Called when the last one is sent, or the client has gone.
    """

    def __init__(
        self,
        parts: tuple[list[bytes], Iterator[bytes]],
        media_type: str,
        threads: Executor,
        done: Callable[[], None],
    ):
        super().__init__(self._written(itertools.chain(*parts), threads), media_type=media_type)
        self._done = done

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._done()

    async def _written(self, parts: Iterator[bytes], threads: Executor) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        while (part := await loop.run_in_executor(threads, next, parts, None)) is not None:
            yield part
