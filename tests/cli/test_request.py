"""`fcn-keras request` on real files and a real server, checked from outside."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.processes import FCN_KERAS, ROOT, heed_signals
from support.tiny_server import LABELS, RestServer, red_thirds, replying, save_tiny_model

from fcn_keras.cli import main
from fcn_keras.data.overlay import overlay
from fcn_keras.files.images import open_photograph
from fcn_keras.serving.client import retrying


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with RestServer(save_tiny_model(tmp_path_factory.mktemp("model"))) as server:
        yield server


@pytest.fixture
def server(running, monkeypatch):
    """A server that has been asked nothing yet."""
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.01)
    running.script, running.paths = [], []
    return running


@pytest.fixture
def photographs(tmp_path):
    """A folder of four photographs."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for index, name in enumerate(("a.jpg", "b.png", "c.webp", "sub/d.JPG")):
        noise(index).resize((64, 48)).save(folder / name)
    return folder


def noise(seed=0, size=(6, 8)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def request(server, output, *arguments):
    url = server if isinstance(server, str) else server.url
    return main(["request", "--url", url, "--output", str(output), *map(str, arguments)])


def files_below(folder):
    """Files except hidden ones, such as the list of results."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("[!.]*.*"))


def check(path, output, name):
    """A photograph's files are what the Python functions make of it."""
    image = np.asarray(open_photograph(path, str(path)))
    mask = Image.open(output / f"{name}.png")
    assert mask.mode == "P" and mask.getpalette()[:9] == [0, 0, 0, 10, 200, 30, 255, 250, 0]
    assert mask.getpalette()[9:12] == mask.getpalette()[-3:] == [224, 224, 192]
    np.testing.assert_array_equal(np.asarray(mask), red_thirds(image))
    if (output / "overlay").is_dir():
        drawn = np.asarray(Image.open(output / "overlay" / f"{name}.png")).astype(int)
        np.testing.assert_array_equal(drawn, overlay(image, np.asarray(mask), LABELS))


def test_masks_and_overlays_of_a_folder(server, photographs, tmp_path, capfd):
    output = tmp_path / "out"
    assert request(server, output, photographs, "--overlay") == 0
    captured = capfd.readouterr()
    report = f"4 of 4 images segmented, 0 failed. Results: {tmp_path}/out/\n"
    assert captured.out == report and not captured.err
    names = ["a", "b", "c", "sub/d"]
    expected = [f"{folder}{name}.png" for folder in ("", "overlay/") for name in names]
    assert files_below(output) == sorted(expected)
    for path, name in zip(("a.jpg", "b.png", "c.webp", "sub/d.JPG"), names):
        check(photographs / path, output, name)


def test_all_kinds_of_photographs(server, tmp_path):
    """Turned ones, 16 bits, grey, transparency, palettes, CMYK, and other formats."""
    exif = Image.Exif()
    exif[0x0112] = 6
    gradient = Image.fromarray(np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 21)
    kinds = {
        "turned.jpg": (noise(1, (48, 64)), {"exif": exif}),
        "turned.png": (noise(2, (48, 64)), {"exif": exif}),
        "turned.webp": (noise(3, (48, 64)), {"exif": exif, "lossless": True}),
        "deep.png": (gradient, {}),
        "deep.tif": (gradient, {}),
        "grey.png": (noise(4).convert("L"), {}),
        "clear.png": (noise(5).convert("RGBA"), {}),
        "colors.gif": (noise(6).convert("P"), {}),
        "plain.bmp": (noise(7), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(tmp_path / name, **options)
    output = tmp_path / "out"
    for name in kinds:
        assert request(server, output / name, "--overlay", tmp_path / name) == 0
        check(tmp_path / name, output / name, Path(name).stem)
    assert Image.open(output / "turned.webp" / "turned.png").size == (48, 64)


def test_shares(server, photographs, tmp_path, capfd):
    Image.new("RGB", (10, 4), (255, 0, 0)).save(tmp_path / "x.png")
    pixels = np.zeros((4, 10, 3), np.uint8)
    pixels[:, :7] = 100
    Image.fromarray(pixels).save(tmp_path / "y.png")
    assert request(server, tmp_path / "out", tmp_path / "y.png") == 0
    assert capfd.readouterr().out.startswith(
        "  middle   70.0%\n  dark     30.0%\n1 of 1 images segmented, 0 failed. "
    )
    file = tmp_path / "shares.json"
    images = [tmp_path / "x.png", tmp_path / "y.png", tmp_path / "none.png"]
    assert request(server, tmp_path / "out", *images, "--fractions", file) == 1
    shares = json.loads(file.read_text())
    assert list(shares) == [str(path) for path in images[:2]]
    assert shares[str(images[0])] == {"dark": 0, "middle": 0, "bright": 1}
    assert shares[str(images[1])] == pytest.approx({"dark": 0.3, "middle": 0.7, "bright": 0})


def test_bad_files_are_reported_and_the_rest_is_done(server, photographs, tmp_path, capfd):
    whole = (photographs / "b.png").read_bytes()
    (photographs / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photographs / "cut.webp").write_bytes((photographs / "c.webp").read_bytes()[:100])
    (photographs / "text.jpg").write_text("hello")
    Image.new("F", (4, 4)).save(photographs / "floats.tif")
    code = request(server, tmp_path / "out", photographs, tmp_path / "none.jpg", tmp_path / "?.jpg")
    captured = capfd.readouterr()
    assert code == 1 and "4 of 10 images segmented, 6 failed." in captured.out
    assert files_below(tmp_path / "out") == ["a.png", "b.png", "c.png", "sub/d.png"]
    lines = captured.err.splitlines()
    assert len(lines) == 6 and all(line.startswith(f"error: {tmp_path}") for line in lines)
    assert f"cut.png: {server.url} refused the request (" in captured.err
    assert "cut.webp: not a readable image" in captured.err
    assert "text.jpg: not a readable image" in captured.err
    assert "floats.tif: an image of floats" in captured.err
    for name in ("none.jpg", "?.jpg"):
        assert f"{name}: no such file or folder." in captured.err


def test_busy_servers_are_asked_again(server, photographs, tmp_path):
    server.script = [replying(503, {"error": "busy"})] * 4
    assert request(server, tmp_path / "out", photographs) == 0
    assert len(server.paths) == 5 + 4


def test_skip_existing_does_what_is_missing_or_changed(server, photographs, tmp_path, capfd):
    output = tmp_path / "out"
    assert request(server, output, photographs / "a.jpg") == 0
    before = (output / "a.png").stat().st_mtime_ns
    assert request(server, output, photographs, "--skip-existing") == 0
    assert "3 of 4 images segmented, 1 already existed, 0 failed." in capfd.readouterr().out
    assert (output / "a.png").stat().st_mtime_ns == before
    assert request(server, output, photographs, "--skip-existing", "--overlay") == 0
    assert "4 of 4 images" in capfd.readouterr().out
    time.sleep(0.05)
    noise(9).save(photographs / "b.png")
    assert request(server, output, photographs, "--skip-existing") == 0
    assert "1 of 4 images segmented, 3 already existed" in capfd.readouterr().out
    pixels = np.asarray(Image.open(photographs / "b.png"))
    np.testing.assert_array_equal(np.asarray(Image.open(output / "b.png")), red_thirds(pixels))


def test_nothing_but_own_results_is_replaced(server, photographs, tmp_path, capfd):
    (tmp_path / "link").symlink_to(photographs)
    for output, image in ((photographs, "b.png"), (tmp_path / "link", "a.jpg")):
        (photographs / "overlay").mkdir(exist_ok=True)
        (photographs / "overlay" / "a.png").write_text("mine")
        before = contents(photographs)
        assert request(server, output, photographs / image, "--overlay") == 1
        [line] = capfd.readouterr().err.splitlines()
        assert ": the result would replace a" in line and line.startswith(f"error: {output}/")
        assert contents(photographs) == before and not server.paths
    for flags in ([], ["--overlay"], ["--skip-existing"]):
        assert request(server, tmp_path / "out", photographs / "a.jpg", *flags) == 0
    assert (
        request(server, tmp_path / "link", photographs / "a.jpg", "--overlay", "--overwrite") == 0
    )
    check(photographs / "a.jpg", photographs, "a")


@pytest.mark.parametrize("content", ["mine", '{"labels": {"a": 1}}', "[0.5]", '{\n "a": "b"\n}'])
def test_shares_replace_no_other_file(server, photographs, tmp_path, capfd, content):
    path = tmp_path / "shares.json"
    path.write_text(content)
    flags = ["--fractions", path]
    assert request(server, tmp_path / "out", photographs / "a.jpg", *flags) == 1
    assert (
        f"error: --fractions {path}: exists, but was not written by this command"
        in capfd.readouterr().err
    )
    assert path.read_text() == content and not server.paths
    for more in (["--overwrite"], []):
        assert request(server, tmp_path / "out", photographs / "a.jpg", *flags, *more) == 0
    (tmp_path / "broken.jpg").touch()
    assert request(server, tmp_path / "out", tmp_path / "broken.jpg", *flags) == 1
    assert path.read_text() == "{}\n"
    assert request(server, tmp_path / "out", photographs / "a.jpg", *flags) == 0


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MISTAKES = {
    "parallel": (["x.png", "--parallel", "0"], "--parallel must be at least 1. Received: 0"),
    "both": (["x.png", "--version", "1", "--label", "a"], "a version or a label, not both"),
    "shares": (["x.png", "--fractions", "f", "--skip-existing"], "Omit --skip-existing"),
    "empty": (["."], ".: no images found (those in --output do not count)"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(server, name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    arguments, message = MISTAKES[name]
    if "x.png" in arguments:
        (tmp_path / "x.png").touch()
    assert request(server, "out", *arguments) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "out").exists() and not server.paths


def test_no_server_no_work(running, photographs, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.01)
    with RestServer(None) as gone:
        url = gone.url
    assert request(url, tmp_path / "out", photographs) == 1
    captured = capfd.readouterr()
    [line] = captured.err.splitlines()
    assert line.startswith(f"error: {url}: no server answers there (") and not captured.out
    assert request(running, tmp_path / "out", photographs, "--model", "fcn") == 0


def test_output_that_cannot_be_written_is_named(server, photographs, tmp_path, capfd):
    (tmp_path / "file").write_text("in the way")
    assert request(server, tmp_path / "file", photographs) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert "file: cannot be written (Not a directory). Choose" in line and not server.paths


BAD_MASK = {"b64": "aGVsbG8="}
BAD_ROWS = {
    "no mask": (
        {"mask_png_bytes": BAD_MASK, "class_fractions": [1, 0, 0]},
        "the server's mask: not a readable image",
    ),
    "other classes": (
        {"mask_png_bytes": BAD_MASK, "class_fractions": [1, 0]},
        "the server's model now has different classes",
    ),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_answers_are_named(server, photographs, tmp_path, capfd, name):
    row, message = BAD_ROWS[name]
    labels = {"outputs": {"names": list(LABELS.names), "palette": LABELS.palette}}
    server.script = [replying(200, labels), replying(200, {"predictions": [row]})]
    assert request(server, tmp_path / "out", photographs / "a.jpg") == 1
    assert f"a.jpg: {message}" in capfd.readouterr().err
    assert not files_below(tmp_path / "out")


def test_an_exported_model_on_fcn_keras_serve(
    exported, untrained_run, photographs, tmp_path, capfd
):
    command = [*FCN_KERAS, "serve", "--model-base-path", exported.parent, "--port", "0"]
    command += ["--version-label", "stable=1"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in process.stdout if line.startswith("Serving"))
        url = line.split()[-1].partition("/v1/")[0]
        (photographs / "cut.png").write_bytes((photographs / "b.png").read_bytes()[:99])
        assert request(url, tmp_path / "out", "--label", "stable", photographs) == 1
        captured = capfd.readouterr()
        assert "4 of 5 images segmented, 1 failed." in captured.out
        assert f"cut.png: {url} refused the request" in captured.err
        assert request(url, tmp_path / "out", "--version", "2", photographs) == 1
        assert "no such model (Version 2 of model fcn is not served)" in capfd.readouterr().err
    finally:
        process.terminate()
        process.communicate(timeout=60)
    command = ["predict", "--model", str(untrained_run), "--output", str(tmp_path / "predicted")]
    assert main([*command, str(photographs)]) == 1
    for name in ("a", "b", "c", "sub/d"):
        there, here = (Image.open(tmp_path / f / f"{name}.png") for f in ("out", "predicted"))
        np.testing.assert_array_equal(np.asarray(there), np.asarray(here))
        assert there.mode == here.mode == "P" and there.getpalette() == here.getpalette()


FORBIDDEN = "tensorflow keras numpy matplotlib tqdm grpc scipy"
ALONE = f"""
import sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {FORBIDDEN.split()!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Forbid())
from fcn_keras.cli import main
sys.exit(main())
"""


def test_needs_requests_and_pillow_only(server, photographs, tmp_path):
    arguments = ["request", "--url", server.url, "--output", tmp_path / "out", "--overlay"]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments, photographs], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    for path, name in (("a.jpg", "a"), ("b.png", "b"), ("c.webp", "c"), ("sub/d.JPG", "sub/d")):
        check(photographs / path, tmp_path / "out", name)
    arguments[2] = "grpc://localhost:1"
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *arguments, photographs], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 1 and b"needs the package tensorflow-serving" in done.stderr


def test_help_needs_no_package():
    done = subprocess.run(
        [sys.executable, "-c", ALONE, "request", "--help"], cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0
    assert b"--parallel" in done.stdout and b"--label" in done.stdout


def test_an_interrupted_call_ends_soon_and_leaves_whole_files(server, tmp_path, monkeypatch):
    count, answer, interrupted = itertools.count(), server.answer, threading.Event()

    def answer_some(body):
        if next(count) > 40:
            interrupted.wait(60)
        return answer(body)

    monkeypatch.setattr(server, "answer", answer_some)
    (tmp_path / "in").mkdir()
    for index in range(200):
        noise(index, (60, 80)).save(tmp_path / "in" / f"{index:03}.png")
    command = [*FCN_KERAS, "request", "--url", server.url, tmp_path / "in"]
    command += ["--output", tmp_path / "out"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, preexec_fn=heed_signals)
    while process.poll() is None and len(list((tmp_path / "out").glob("[0-9]*.png"))) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # the signal must be noticed before the answers come
    interrupted.set()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and b"Traceback" not in stderr
    done = list((tmp_path / "out").glob("[0-9]*.png"))
    assert 20 <= len(done) < 200 and not list((tmp_path / "out").glob(".partial-*"))
    for path in done:
        assert np.asarray(Image.open(path)).shape == (60, 80)


def test_a_second_interrupt_ends_a_call_that_waits_in_vain(server, tmp_path, monkeypatch):
    asked, never = threading.Event(), threading.Event()

    def hang(body):
        asked.set()
        never.wait(300)

    noise().save(tmp_path / "a.png")
    labels = {"outputs": {"names": list(LABELS.names), "palette": LABELS.palette}}
    server.script = [replying(200, labels)]
    monkeypatch.setattr(server, "answer", hang)
    command = [*FCN_KERAS, "request", "--url", server.url, tmp_path / "a.png"]
    command += ["--output", tmp_path / "out"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, preexec_fn=heed_signals)
    assert asked.wait(60)
    process.send_signal(signal.SIGINT)
    lines = process.stderr.readline() + process.stderr.readline()
    assert b"press Ctrl-C again to stop at once" in lines
    time.sleep(0.3)  # two at once are one
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    never.set()


def test_a_server_that_has_gone_is_given_up(server, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    for index in range(30):
        noise(index).save(tmp_path / "in" / f"{index:02}.png")
    labels = {"outputs": {"names": list(LABELS.names), "palette": LABELS.palette}}
    server.script = [replying(200, labels), *[replying(503, {"error": "gone"})] * 60]
    command = ["request", "--url", server.url, "--output", str(tmp_path / "out"), "--retries", "0"]
    assert main([*command, "--parallel", "2", str(tmp_path / "in")]) == 1
    stderr = capfd.readouterr().err
    assert "gave up after 3 images in a row without a response" in stderr
    assert len(server.script) > 50


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--timeout", "inf"], "timeout must be more than 0 and at most 86400 seconds"),
        (["--version", "-1"], "version must be 0 or more. Received: -1"),
        (["--label", ""], "Names must not be empty"),
        (["--url", "http://127.0.0.1:1/v1/models/fcn"], "give only the server's address"),
        (["--fractions", "/"], "/: cannot be written (Is a directory)"),
    ],
)
def test_mistakes_are_named_before_anything_is_sent(photographs, tmp_path, flags, message, capfd):
    command = ["request", "--output", str(tmp_path / "out"), *flags, str(photographs)]
    assert main(command) == 1
    assert message in capfd.readouterr().err


@pytest.mark.slow
def test_a_fresh_environment_with_requests_and_pillow(server, photographs, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "requests", "pillow"]
    if subprocess.run(install, capture_output=True).returncode:
        pytest.skip("the package index cannot be reached")
    source = tmp_path / "source"  # pip writes into it
    shutil.copytree(ROOT / "fcn_keras", source / "fcn_keras")
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run([*install[:-2], "--no-deps", source], check=True, capture_output=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [tmp_path / "venv" / "bin" / "fcn-keras", "request", "--url", server.url]
    command += ["--output", tmp_path / "out", "--overlay", photographs]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    packages = subprocess.run([python, "-m", "pip", "list"], capture_output=True).stdout
    assert b"numpy" not in packages and b"tensorflow" not in packages
    for path, name in (("a.jpg", "a"), ("b.png", "b"), ("c.webp", "c"), ("sub/d.JPG", "sub/d")):
        check(photographs / path, tmp_path / "out", name)
