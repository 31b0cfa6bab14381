"""`fcn-keras weights`, and published weights in the commands that take models."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from support.torch_files import state_file, state_of
from support.weights_server import NAME, WeightsServer

from fcn_keras.cli import main
from fcn_keras.data.voc.labels import VOC_CLASSES
from fcn_keras.files import published
from fcn_keras.files.published import PUBLISHED
from fcn_keras.models.backbones import build_features
from fcn_keras.models.fcn import build_fcn
from fcn_keras.runs.folder import RunFolder


@pytest.fixture
def server(tmp_path, monkeypatch):
    model = build_fcn("tiny", len(VOC_CLASSES), dilated=True, weights=None)
    server = WeightsServer(state_file(state_of(model)))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(published, "HOST", server.address)
    monkeypatch.setitem(PUBLISHED, NAME, server.weights)
    yield server
    server.close()


@pytest.fixture
def photo(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 41, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_list_and_fetch(server, tmp_path, capfd):
    assert main(["weights", "list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:7]] == [*PUBLISHED]
    assert not any("downloaded" in line for line in lines)
    assert lines[-1] == "      fcn-keras weights fetch NAME --to DIR"
    assert main(["weights", "fetch", NAME, "--to", str(tmp_path / "usb")]) == 0
    path = tmp_path / "usb" / server.weights.file
    assert capfd.readouterr().out == (
        f"Weights: {path}\nNext: fcn-keras predict --model {path} --output results PHOTOS\n"
    )
    assert main(["weights", "fetch", NAME]) == 0
    assert f"Next: fcn-keras predict --model {NAME} " in capfd.readouterr().out
    assert main(["weights", "list"]) == 0
    assert capfd.readouterr().out.splitlines()[0].split()[:4] == [NAME, "0", "MiB", "downloaded"]


def test_next_command_for_a_backbone(tmp_path, monkeypatch, capfd):
    name = "torchvision/resnet18"
    server = WeightsServer(b"PK no weights, which fetch need not know")
    known = server.weights._replace(backbone="resnet18", is_fcn=False)
    monkeypatch.setattr(published, "HOST", server.address)
    monkeypatch.setitem(PUBLISHED, name, known)
    assert main(["weights", "fetch", name, "--to", str(tmp_path)]) == 0
    server.close()
    flags = f"--dataset DATA --backbone resnet18 --weights {tmp_path / known.file}"
    assert capfd.readouterr().out.endswith(f"Next: fcn-keras train {flags}\n")


def test_unknown_names_are_told(capfd):
    with pytest.raises(SystemExit) as ending:
        main(["weights", "fetch", "torchvision/resnet19"])
    assert ending.value.code == 2
    assert "invalid choice: 'torchvision/resnet19'" in capfd.readouterr().err


def test_predict_and_export_by_name(server, photo, tmp_path):
    output = tmp_path / "out"
    assert main(["predict", "--model", NAME, str(photo), "--output", str(output)]) == 0
    assert Image.open(output / "photo.png").size == (41, 30)
    file = tmp_path / "model.keras"
    command = ["export", "--model", NAME, "--output", str(file), "--format", "keras"]
    assert main(command) == 0
    again = tmp_path / "again"
    assert main(["predict", "--model", str(file), str(photo), "--output", str(again)]) == 0
    masks = [np.asarray(Image.open(folder / "photo.png")) for folder in (output, again)]
    np.testing.assert_array_equal(*masks)


def test_predict_by_file(server, photo, tmp_path, capfd):
    path = tmp_path / "mine.pth"
    path.write_bytes(server.data)
    command = ["predict", "--model", str(path), str(photo), "--output", str(tmp_path / "out")]
    assert main(command) == 0
    assert "they are taken to be VOC's" in capfd.readouterr().err
    assert not server.starts


def test_a_run_starts_from_a_published_model(server, shapes, tmp_path, capfd):
    flags = "--backbone tiny --dilated --batch-size 6 --crop 32 32 --epochs 1".split()
    flags += ["--dataset", str(shapes), "--run-dir", str(tmp_path / "run")]
    assert main(["train", "--init-from", NAME, *flags]) == 0
    output = capfd.readouterr()
    assert f"Dilated FCN on tiny, starting from {NAME}." in output.out
    note = f"Note: --init-from {NAME} has other classes (background, aeroplane, bicycle, bird, ...)"
    assert note in output.err and "score_head starts afresh." in output.err
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.config.read_text())["train"]["init_from"] == NAME
    assert f"--init-from {NAME}" in (run.path / "MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_a_run_starts_from_a_backbones_file(shapes, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    features = build_features("resnet18", None)
    (tmp_path / "resnet.pth").write_bytes(state_file(state_of(features)))
    flags = "--backbone resnet18 --weights resnet.pth --freeze backbone --crop 32 32 --epochs 1"
    flags += " --recipe voc2012 --batch-size 6 --run-dir run"
    command = ["train", "--dataset", str(shapes), *flags.split()]
    monkeypatch.setattr(sys, "argv", ["fcn-keras", *command])
    assert main(command) == 0
    assert "FCN-32s on resnet18, starting from resnet.pth." in capfd.readouterr().out
    run = RunFolder(tmp_path / "run")
    assert json.loads(run.config.read_text())["train"]["weights"] == str(tmp_path / "resnet.pth")
    (tmp_path / "resnet.pth").unlink()
    assert main(["train", "--resume", "run", "--epochs", "2"]) == 0
