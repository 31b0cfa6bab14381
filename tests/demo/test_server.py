"""The page's server without sockets: slow, failing and waiting requests, and their memory."""

import asyncio
import dataclasses

import numpy as np
import pytest
from PIL import Image
from support.demo_model import LABELS
from support.image_files import encoded

pytest.importorskip("uvicorn")

from fcn_keras.demo import messages, server
from fcn_keras.demo.samples import Sample

PHOTO = encoded(Image.new("RGB", (30, 20)))


@dataclasses.dataclass
class FakeSegmenter:
    fault: Exception | None = None
    labels = LABELS
    max_pixels = 1000

    def __call__(self, image):
        if self.fault:
            raise self.fault
        return np.zeros((image.height, image.width), np.uint8)


def make_page(fault=None):
    return server.Page(FakeSegmenter(fault), [Sample("a.png", PHOTO, PHOTO)], "title", "127.0.0.1")


class Client:
    """Sends chunks and then what `after` says, and takes answers as fast as `taken` allows."""

    def __init__(self, *chunks, after=None, taken=None):
        self.chunks, self.after, self.taken = list(chunks), after, taken
        self.status, self.body = None, b""

    async def receive(self):
        if self.chunks:
            body = self.chunks.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(self.chunks)}
        if self.after:
            return self.after
        await asyncio.Event().wait()

    async def send(self, message):
        if "status" in message:
            self.status = message["status"]
        elif self.taken:
            await self.taken.wait()
        self.body += message.get("body", b"")

    async def predict(self, page):
        headers = [(b"host", b"localhost")]
        scope = {"path": "/predict", "method": "POST", "query_string": b"", "headers": headers}
        await page(scope, self.receive, self.send)
        return self.status, self.body


def test_a_file_that_trickles_is_given_up(monkeypatch):
    monkeypatch.setattr(messages, "BODY_SECONDS", 0.05)
    page = make_page()
    assert asyncio.run(Client().predict(page)) == (408, b"The file took more than 0.05 s.")
    assert (page._requests, page._held) == (0, 0)


def test_a_fault_of_the_server_is_one_line_and_its_print_is_escaped(capfd):
    page = make_page(RuntimeError("\x1b]0;title\x07"))
    assert asyncio.run(Client(PHOTO).predict(page)) == (500, b"Internal error: RuntimeError.")
    printed = capfd.readouterr().err
    assert r"RuntimeError: \x1b]0;title\x07" in printed and "\x1b" not in printed
    assert (page._requests, page._held) == (0, 0)


def test_answers_that_are_not_taken_count(monkeypatch):
    async def check():
        page, taken = make_page(), asyncio.Event()
        slow = Client(PHOTO[:9], PHOTO[9:], taken=taken)
        waiting = asyncio.create_task(slow.predict(page))
        while slow.status is None:
            await asyncio.sleep(0.01)
        assert page._requests == 1 and 4 * 600 < page._held < 4 * 600 + 2000
        monkeypatch.setattr(server, "MAX_HELD", page._held + len(PHOTO) - 1)
        status, said = await Client(PHOTO).predict(page)
        assert status == 503 and said.startswith(b"Too many large photographs are waiting.")
        taken.set()
        assert (await waiting)[0] == 200
        assert (page._requests, page._held) == (0, 0)

    asyncio.run(check())


def test_a_client_that_left_is_sent_nothing():
    page, client = make_page(), Client(after={"type": "http.disconnect"})
    assert asyncio.run(client.predict(page)) == (None, b"")
    assert (page._requests, page._held) == (0, 0)


def test_what_waits_when_the_server_ends_is_told():
    async def check():
        page, client = make_page(), Client()
        waiting = asyncio.create_task(client.predict(page))
        await asyncio.sleep(0.01)
        waiting.cancel()
        assert await waiting == (503, b"The server is stopping.")
        assert (page._requests, page._held) == (0, 0)

    asyncio.run(check())
