"""`fcn-keras demo` without a browser: where there is no page, and what the page shows."""

import importlib.util
import io
import socket

import numpy as np
import pytest
from PIL import Image
from support import demo_model

from fcn_keras.cli import main
from fcn_keras.demo import prediction, samples
from fcn_keras.errors import UserError
from fcn_keras.inference.segmenter import Segmenter


def test_a_port_in_use_is_named_in_one_line(capfd):
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--model", "no/such", "--port", str(port)]) == 1
    assert capfd.readouterr().err == (
        f"error: --host 127.0.0.1 --port {port}: Address already in use. Choose another port, or "
        "0 for any.\n"
    )


def test_uvicorn_missing_names_the_extra(monkeypatch, capfd):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["demo", "--model", "no/such"]) == 1
    assert capfd.readouterr().err == (
        "error: fcn-keras demo needs the package uvicorn (No module named 'uvicorn'). Run: pip "
        "install 'fcn_keras[demo]'\n"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port must be 0 to 65535. Received: 70000."),
        (["--port", "0", "--max-pixels", "0"], "--max-pixels must be at least 1. Received: 0."),
        (["--port", "0", "--model", "no/such"], "no/such: no such"),
    ],
)
def test_mistaken_values_are_named(run, flags, message, capfd):
    pytest.importorskip("uvicorn")
    assert main(["demo", "--model", str(run), *flags]) == 1
    assert message in capfd.readouterr().err


def test_a_folder_of_examples_keeps_what_is_readable(tmp_path, capfd):
    demo_model.save_photograph(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no picture")
    (tmp_path / "c.txt").write_text("no picture")
    [sample] = samples.folder_samples(str(tmp_path))
    assert (sample.name, sample.source) == ("a.jpg", tmp_path / "a.jpg")
    assert Image.open(io.BytesIO(sample.thumbnail)).size == (96, 160)  # upright
    assert "b.jpg: not a readable image" in capfd.readouterr().err
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(UserError, match="--examples .*: no images there"):
        samples.folder_samples(str(tmp_path))


def test_a_large_photograph_is_shown_small_and_its_mask_stays_large(run, tmp_path):
    path = demo_model.save_photograph(tmp_path / "large.jpg", size=(1600, 3200))
    segmenter = Segmenter.load(run)
    answer = prediction.segment(segmenter, path)
    assert (answer.size, answer.shown_size) == ((1600, 3200), (800, 1600))
    picture = np.frombuffer(answer.picture, np.uint8).reshape(1600, 800, 4)
    mask = np.asarray(Image.open(io.BytesIO(answer.mask)))
    assert (mask == segmenter(path)).all()
    assert (picture[..., 3] == mask[1::2, 1::2]).all()
    upright = Image.open(path).transpose(Image.Transpose.ROTATE_270)  # its EXIF's 6
    small = np.asarray(upright.reduce(2)).astype(int)
    assert np.abs(picture[..., :3] - small).max() < 8
    counts = np.bincount(mask.ravel(), minlength=3)
    assert list(answer.shares) == np.argsort(-counts).tolist()
    assert answer.shares == {i: counts[i] / mask.size for i in range(3)}
