"""Published weights: downloads from a real server that misbehaves, and by real processes."""

import resource
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from support.processes import heed_signals, start
from support.torch_files import state_file
from support.weights_server import COMMAND, NAME, WeightsServer

from fcn_keras.errors import UserError
from fcn_keras.files import downloading, published
from fcn_keras.files.published import PUBLISHED, Weights, cache_folder, fetched
from fcn_keras.files.torch_weights import read_state_dict

VALUES = np.random.default_rng(0).normal(size=300_000).astype("float32")
DATA = state_file({"weight": VALUES})  # 1.2 MB
FETCH = ("weights", "fetch", NAME)


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = WeightsServer(DATA)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(published, "HOST", server.address)
    monkeypatch.setitem(PUBLISHED, NAME, server.weights)
    for name in ("PROBE_SECONDS", "SILENT_SECONDS"):
        monkeypatch.setattr(downloading, name, 0.5)
    yield server
    server.close()


def left() -> dict[str, int]:
    """The files in the cache, and their sizes."""
    return {path.name: path.stat().st_size for path in cache_folder().iterdir()}


def run(server, tmp_path, *command, **options):
    return start("-c", COMMAND, *server.arguments(tmp_path / "home"), *command, **options)


def ended(process, code) -> str:
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code and "Traceback" not in output, output
    return output


def test_names_are_torchvisions():
    assert len(PUBLISHED) == 7
    for name, known in PUBLISHED.items():
        assert name == f"torchvision/{known.file.partition('_coco')[0].partition('-')[0]}"
        assert known.is_fcn == ("fcn_" in name) and name.endswith(known.backbone)
        assert published.published(name) is known and published.published_file(Path(known.file))
        # 4 bytes per parameter, of which fcn_resnet50 has 35,322,218 and resnet18 11,689,512.
        parameters = {"torchvision/fcn_resnet50": 35_322_218, "torchvision/resnet18": 11_689_512}
        if name in parameters:
            assert known.sizes.start / 4 == pytest.approx(parameters[name], rel=3e-3)


def test_a_file_is_downloaded_once(server, capfd):
    path = fetched(NAME)
    np.testing.assert_array_equal(read_state_dict(path)["weight"], VALUES)
    assert left() == {server.weights.file: len(DATA)}
    assert capfd.readouterr().err == f"Downloading {server.address}{path.name} (1 MiB) ...\n"
    server.mode = 404
    assert fetched(NAME) == path and capfd.readouterr().err == ""


def test_a_broken_download_is_continued(server):
    server.mode = "breaks"
    with pytest.raises(UserError, match=r"broke off after \d.\d of 1.1 MiB; another try continues"):
        fetched(NAME)
    [(name, size)] = left().items()
    assert name == f".partial-{server.weights.file}"
    # Three attempts, each half of the rest, of which up to a chunk is lost with the connection.
    shares = [pytest.approx(share, abs=2**17 / len(DATA)) for share in (0, 1 / 2, 3 / 4, 7 / 8)]
    assert [each / len(DATA) for each in (*server.starts[-3:], size)] == shares
    server.mode = "good"
    assert fetched(NAME).read_bytes() == DATA
    assert server.starts[-1] == size and len(left()) == 1


def test_a_server_that_does_not_continue_starts_again(server):
    server.mode = "breaks"
    with pytest.raises(UserError):
        fetched(NAME)
    server.mode = "whole"
    assert fetched(NAME).read_bytes() == DATA and server.starts[-1] == 0


def test_an_end_without_a_length_is_noticed(server):
    server.mode = "short"
    with pytest.raises(UserError, match=r"it broke off after \d.\d of 1.1 MiB"):
        fetched(NAME)
    server.mode = "good"
    assert fetched(NAME).read_bytes() == DATA


def test_a_complete_download_without_its_name_is_used(server):
    cache_folder().mkdir(parents=True)
    (cache_folder() / f".partial-{server.weights.file}").write_bytes(DATA)
    assert fetched(NAME).read_bytes() == DATA and len(left()) == 1


@pytest.mark.parametrize(
    ("mode", "reason", "kept"),
    [
        ("html", "some bytes of text/html were sent in its place, perhaps by a proxy or a l", None),
        (404, "HTTP status 404", None),
        (503, "HTTP status 503", None),
        ("silent", "no answer in 0.5 s|ReadTimeout", None),
        ("long", "more bytes were sent than it has", 0),
        (
            "waits",
            r"it broke off after \d.\d of 1.1 MiB",
            pytest.approx(len(DATA), rel=0.25),
        ),
    ],
)
def test_what_goes_wrong_is_told(server, mode, reason, kept):
    server.mode = mode
    begin = time.monotonic()
    with pytest.raises(UserError, match=reason) as error:
        fetched(NAME)
    assert time.monotonic() - begin < 5
    file, address = server.weights.file, server.address
    first, second = str(error.value).splitlines()
    assert first.startswith(f"{NAME}: {address}{file} cannot be downloaded (")
    assert first.endswith(f"run: fcn-keras weights fetch {NAME} --to DIR")
    assert second == (
        f"Then give the path of DIR/{file} in place of the name, or copy that file to "
        f"{cache_folder()}."
    )
    assert [*left().values()] == ([] if kept is None else [kept])


def test_no_network_is_told(server):
    published.HOST = "http://127.0.0.1:1/"
    with pytest.raises(UserError, match=r"127.0.0.1:1/tiny-.*\(ConnectionError\)"):
        fetched(NAME)


def test_a_name_that_is_looked_up_forever_is_told(server, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(3) or [])
    published.HOST = "http://weights.invalid/"
    begin = time.monotonic()
    with pytest.raises(UserError, match="no answer in 0.5 s"):
        fetched(NAME)
    assert time.monotonic() - begin < 2


def test_another_file_is_removed(server, monkeypatch):
    other = server.weights._replace(file="tiny-00000000.pth")
    monkeypatch.setitem(PUBLISHED, NAME, other)
    with pytest.raises(UserError, match="not tiny-00000000.pth, as its SHA-256 begins with") as e:
        fetched(NAME)
    assert len(str(e.value).splitlines()) == 1 and left() == {}


def test_a_file_of_another_size_is_not_begun(server, monkeypatch):
    larger = server.weights._replace(mib=server.weights.mib + 1)
    monkeypatch.setitem(PUBLISHED, NAME, larger)
    with pytest.raises(UserError, match=f"{len(DATA)} bytes of unknown type were sent in its pl"):
        fetched(NAME)
    assert left() == {}


def test_to_a_folder(server, tmp_path):
    path = fetched(NAME, tmp_path / "usb" / "stick")
    assert path == tmp_path / "usb" / "stick" / server.weights.file
    server.mode = 404
    assert fetched(NAME, tmp_path / "usb" / "stick") == path
    path.write_bytes(DATA[:-1])  # another file under that name is replaced
    with pytest.raises(UserError, match="HTTP status 404"):
        fetched(NAME, tmp_path / "usb" / "stick")
    server.mode = "good"
    assert fetched(NAME, tmp_path / "usb" / "stick").read_bytes() == DATA


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "home").touch()
    with pytest.raises(UserError, match="home/fcn_keras: cannot .* another folder by KERAS_HOME"):
        fetched(NAME)


def test_a_killed_download_is_continued(server, tmp_path):
    server.mode = "waits"
    process = run(server, tmp_path, *FETCH)
    assert server.half_sent.wait(30)
    partial = cache_folder() / f".partial-{server.weights.file}"
    half = (len(DATA) + 1) // 2
    until = time.monotonic() + 10
    while not partial.exists() or partial.stat().st_size < half - 2**16:
        assert time.monotonic() < until
        time.sleep(0.02)
    process.kill()
    process.communicate()
    size = partial.stat().st_size
    assert 0 < size <= half
    server.mode = "good"
    output = ended(run(server, tmp_path, *FETCH), 0)
    assert "Next: fcn-keras predict --model torchvision/fcn_resnet50 --output" in output
    assert server.starts[-1] == size and left() == {server.weights.file: len(DATA)}


def test_a_stopped_download_says_that_it_can_be_continued(server, tmp_path):
    server.mode = "waits"
    process = run(server, tmp_path, *FETCH, preexec_fn=heed_signals)
    assert server.half_sent.wait(30)
    time.sleep(0.3)
    process.terminate()
    output = ended(process, 128 + signal.SIGTERM)
    assert output.endswith("Interrupted by SIGTERM: run this again to continue the download.\n")


def test_two_processes_download_once(server, tmp_path):
    server.mode = "waits"
    processes = [run(server, tmp_path, *FETCH)]
    assert server.half_sent.wait(30)
    processes.append(run(server, tmp_path, *FETCH))
    line = processes[1].stdout.readline()
    assert line == f"Waiting for another process that writes to {cache_folder()} ...\n"
    server.mode = "good"
    server.stop.set()  # the first one's part breaks off, and it goes on by itself
    for process in processes:
        ended(process, 0)
    assert fetched(NAME).read_bytes() == DATA and len(left()) == 1
    assert [begin > 0 for begin in server.starts if begin] == [True]


def test_a_full_disk_leaves_nothing(server, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    output = ended(run(server, tmp_path, *FETCH, preexec_fn=limit), 1)
    assert output.splitlines()[-1].endswith(
        f"{server.weights.file}: cannot be written (File too large); it needs 1 MiB."
    )
    assert left() == {}


def test_sizes_are_those_of_rounded_mebibytes():
    # torchvision states 135.009: 141,567,418 bytes are 135.0092 MiB.
    known = Weights("a-00000000.pth", 135.009, "resnet50", True, "")
    assert 141_567_418 in known.sizes and len(known.sizes) < 2200
