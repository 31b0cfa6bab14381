"""Common mistakes in requests: whether the answer or the log says what to send."""

import base64
import io

import numpy as np
import pytest
from PIL import Image
from support.image_files import encoded
from support.toy_server import MASK, PHOTO, PIXELS, b64, save_version, serving, wait_for

from fcn_keras.serving.server import hints

KEY = '{"b64": "..."}'
JPEG = encoded(np.full((40, 40, 3), 120, np.uint8), "JPEG")


def in_base64(data, encode=base64.b64encode):
    return encode(data).decode()


def webp():
    file = io.BytesIO()
    Image.new("RGB", (9, 9)).save(file, "WEBP")
    return file.getvalue()


TEXTS = {
    "a PNG": in_base64(PHOTO),
    "a JPEG": in_base64(JPEG),
    "another kind": in_base64(webp()),
    "the alphabet of URLs": in_base64(JPEG, base64.urlsafe_b64encode),
    "line breaks": in_base64(JPEG, base64.encodebytes),
    "white space before": "\n " + in_base64(JPEG),
    "Python's bytes": str(base64.b64encode(JPEG)),
    "without padding": in_base64(JPEG).rstrip("="),
    "cut off": in_base64(JPEG)[:50],
    "a data URL": "data:image/png;base64," + in_base64(PHOTO),
    "a path": "photos/my cat.JPG",
    "an address": "https://example.com/photo?id=1",
    "characters": JPEG.decode("latin-1"),
    "a PNG's characters": PHOTO.decode("latin-1"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    save_version(base, 1, 1.0)
    with serving(base) as server:
        yield server


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_in_place_of_a_file_gets_the_key(server, text):
    for content in (
        {"instances": [text]},
        {"instances": [{"image_bytes": text}]},
        {"instances": [b64(PHOTO), text]},
        {"inputs": [text]},
        {"inputs": text},
        {"inputs": {"image_bytes": [text]}},
    ):
        code, answer = server.predict(content)
        assert code == 400 and KEY in answer["error"], answer
        assert len(answer["error"]) < 600 and "\n" not in answer["error"]
        place = "image_bytes" + {2: "[1]"}.get(len(content.get("instances", [])), "")
        assert place in answer["error"]
    assert server.predict({"instances": [b64(PHOTO)]})[0] == 200


@pytest.mark.parametrize("text", [b"This is a text.", b"GIF89a, broken", b"", b"\xff\xd8\xff"])
def test_a_broken_file_gets_no_advice_on_keys(server, text):
    code, answer = server.predict({"instances": [b64(text)]})
    assert code == 400 and KEY not in answer["error"]


@pytest.mark.parametrize(
    "text", [TEXTS["a data URL"], TEXTS["the alphabet of URLs"], TEXTS["Python's bytes"]]
)
def test_what_is_no_base64_under_the_key(server, text):
    code, answer = server.predict({"instances": [{"b64": text}]})
    assert code == 400 and "not base64 (A-Z, a-z, 0-9, + and /, without" in answer["error"]
    assert server.predict({"instances": [{"b64": TEXTS["line breaks"]}]})[0] == 200


@pytest.mark.parametrize(
    "body", [JPEG, PHOTO, b"--x\r\nContent-Disposition: form-data\r\n\r\n" + JPEG, b"image=x", b""]
)
def test_a_file_as_the_body_gets_the_form(server, body):
    code, answer = server.predict(body)
    assert code == 400 and '{"instances": [{"b64": "..."}]}' in answer["error"]
    code, answer = server.predict(b'{"instances": [')
    assert code == 400 and "b64" not in answer["error"]


def test_arrays_of_other_layouts_and_kinds_are_refused(server):
    for pixels, problem in (
        (PIXELS.transpose(2, 0, 1), "the signature has (None, None, None, 3)"),
        (PIXELS[..., 0], "the signature has (None, None, None, 3)"),
        (PIXELS / 255, "is not of type uint8; send integers"),
        (PIXELS.astype(int) + 256, "is out of the range of uint8"),
        (PIXELS.astype(int) - 256, "is out of the range of uint8"),
    ):
        request = {"signature_name": "predict_images", "instances": [pixels.tolist()]}
        code, answer = server.predict(request)
        assert code == 400 and problem in answer["error"]


def test_pixels_in_0_to_1_are_computed_and_the_log_says_so_once(server):
    request = {
        "signature_name": "predict_images",
        "instances": [(PIXELS > 99).astype(int).tolist()],
    }
    for instances in ([PIXELS.tolist()], [(0 * PIXELS).tolist()]):
        assert server.predict({**request, "instances": instances})[0] == 200
    assert not server.line("Warning: ")
    for _ in range(3):
        assert server.predict(request) == (200, {"predictions": [MASK.tolist()]})
    server.stop()  # for all of its lines
    wait_for(lambda: server.line("Stopped"))
    log = "".join(server.lines)
    assert log.count("Warning: ") == 1 and "predict_images got pixels in 0..1;" in log
    assert "Multiply values in 0..1 by 255." in log


def images(*values, dtype=np.float32):
    return {"images": np.array(values, dtype).reshape(-1, 1, 1, 3)}


@pytest.mark.parametrize(
    ("inputs", "warned"),
    [
        (images(0, 0.5, 1), True),
        (images(0, 1, 1, dtype=np.uint8), True),
        (images(0, 200, 255, 0, 0.1, 0.2), True),  # the second one
        (images(-1, 0.5, 1), True),
        (images(-100, 0, 120), True),
        (images(0, 200, 300), True),
        (images(0, 0, 0), False),
        (images(0, 0, 0, dtype=np.uint8), False),
        (images(0, 2, 1), False),
        (images(0, 0.5, 255), False),
        (images(np.nan, 0.5, 0.5), False),
        (images(), False),
        ({"images": np.ones((2, 3), np.float32)}, False),
        ({"images": np.full((1, 1, 1, 3), b"", object)}, False),
        ({"query": np.ones((1, 1, 1, 3))}, False),
    ],
)
def test_what_is_warned_of(inputs, warned, capfd, monkeypatch):
    monkeypatch.setattr(hints, "_warned", {})
    for signature in ("one", "one", "two"):
        hints.warn_of_range(signature, inputs)
    assert capfd.readouterr().err.count("\n") == 2 * warned


def test_a_warning_comes_again_after_a_while(capfd, monkeypatch):
    monkeypatch.setattr(hints, "_warned", {})
    now = [0.0]
    monkeypatch.setattr(hints.time, "monotonic", lambda: now[0])
    for second in (0, 5, 9, 11, 12, 22):
        now[0] = second
        hints.warn_of_range("one", images(0.2, 0.5, 1))
    assert capfd.readouterr().err.count("\n") == 3
