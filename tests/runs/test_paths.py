"""Paths that were given relative: found from any folder, and never shown in full."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from support.runs import QUICK

from fcn_keras.cli import main
from fcn_keras.errors import UserError
from fcn_keras.export.single_file import PROVENANCE_FILE
from fcn_keras.runs.config import TrainConfig
from fcn_keras.runs.folder import RunFolder, provenance
from fcn_keras.runs.paths import absolute, shown, shown_command, shown_text


@pytest.fixture
def earlier_run(finished_run, tmp_path):
    """An unfinished run of an earlier version, which kept paths as they were typed."""
    run = RunFolder(shutil.copytree(finished_run, tmp_path / "elsewhere" / "run"))
    content = json.loads(run.config.read_text())
    content["train"] |= {"dataset": "photos/data", "run_dir": "run"}
    run.config.write_text(json.dumps(content))
    return run


def test_a_run_with_relative_paths_goes_on_from_anywhere(
    shapes, finished_run, tmp_path, monkeypatch, capfd
):
    home = tmp_path / "someone" / "project"
    home.mkdir(parents=True)
    shutil.copytree(shapes, home / "photos" / "data")
    shutil.copytree(finished_run, home / "earlier")
    monkeypatch.chdir(home)
    flags = [*QUICK, "--output-stride", "16", "--epochs", "1", "--init-from", "./earlier"]
    command = ["train", "--dataset", "photos/data", "--run-dir=../project/run", *flags]
    monkeypatch.setattr("sys.argv", [str(home / "fcn-keras"), *command])
    assert main(command) == 0
    run = RunFolder(home / "run")
    config = run.read_config()
    assert config.dataset == str(home / "photos" / "data")
    assert (config.init_from, config.run_dir) == (str(home / "earlier"), str(home / "run"))

    monkeypatch.chdir("/")
    assert main(["train", "--resume", str(run.path), "--epochs", "2"]) == 0
    capfd.readouterr()
    assert main(["report", str(run.path), "--images", "1"]) == 0
    assert "Note" not in capfd.readouterr().err
    output = home / "model.keras"
    export = ["export", "--model", str(run.path), "--output", str(output), "--format", "keras"]
    assert main(export) == 0
    about = zipfile.ZipFile(output).read(PROVENANCE_FILE).decode()
    card, page = (run.path / name for name in ("MODEL_CARD.md", "report.html"))
    for text in (card.read_text(), page.read_text(), about):
        assert "someone" not in text and "project" not in text
    assert "--dataset data --run-dir=run" in card.read_text()
    assert "--dataset data" in page.read_text() and '"dataset": "data"' in about


def test_what_is_no_path_stays():
    for dataset in ("sample", "voc2012", "voc2012_aug"):
        for weights in ("none", "auto", "imagenet", "resnet_18_imagenet", "hf://timm/resnet18"):
            config = TrainConfig(dataset=dataset, weights=weights)
            assert absolute(config) == config == shown(config)


def test_published_names_are_no_paths_unless_they_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"weights": "torchvision/resnet18", "init_from": "torchvision/fcn_resnet50"}
    config = TrainConfig(**names)
    assert absolute(config) == config == shown(config)
    command = ["train", "--weights=torchvision/resnet18", "--init-from", names["init_from"]]
    assert shown_command(command) == command
    (tmp_path / "torchvision" / "resnet18").mkdir(parents=True)
    assert absolute(config).weights == str(tmp_path / "torchvision" / "resnet18")
    assert absolute(config).init_from == names["init_from"]


@pytest.mark.parametrize("name", ["resnet.pth", "resnet.pt", "files/resnet.pth"])
def test_a_file_of_weights_is_a_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = absolute(TrainConfig(weights=name))
    assert config.weights == str(tmp_path / name)
    assert shown(config).weights == name.removeprefix("files/")


def test_a_folder_of_weights_and_of_voc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    Path("preset").mkdir()
    config = absolute(TrainConfig(weights="preset", data_dir="~/voc", dataset="voc2012"))
    assert config.weights == str(tmp_path / "preset")
    assert config.data_dir == "/home/someone/voc"
    assert (shown(config).weights, shown(config).data_dir) == ("preset", "voc")


def test_commands_and_texts_are_shortened():
    words = ["/a/b/train.py", "--dataset=/home/x=1/data=2/", "../run", "--crop", "3", "hf://a/b"]
    short = ["train.py", "--dataset=data=2", "run", "--crop", "3", "hf://a/b"]
    assert shown_command(words) == short
    assert shown_text("/home/x/data/a.jpg: missing", "/home/x/data/", None) == "data/a.jpg: missing"


def test_home_is_shortened_where_a_path_begins(monkeypatch):
    monkeypatch.setenv("HOME", "/root")
    for kept in ("/mnt/root/x", "/rootfs/x", "/root.old/x", "/root-2/x", "s3://bucket/root/x"):
        assert shown_text(f"{kept}: missing") == f"{kept}: missing"
    for text in ("/root/x: no", "in '/root/x'", "path=/root/x", "file:///root/x", "Go to /root."):
        assert shown_text(text) == text.replace("/root", "~")


def test_a_path_just_typed_is_none_of_the_run(earlier_run, shapes, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    earlier_run.metrics.unlink()
    content = json.loads(earlier_run.config.read_text())
    content["train"] |= {"dataset": "voc2012", "data_dir": None}
    earlier_run.config.write_text(json.dumps(content))
    from fcn_keras.training.train import resume

    run, nope = str(earlier_run.path), f"--data-dir {tmp_path / 'nope'}"
    assert main(["train", "--resume", run, "--data-dir", "nope"]) == 1
    assert f"error: {nope}: no such folder" in capfd.readouterr().err
    with pytest.raises(UserError, match=f"^{nope}: no such folder"):
        resume(run, data_dir="nope")
    from fcn_keras.evaluation.report.contents import gather

    with pytest.raises(UserError, match=f"^{nope}: no such folder"):
        gather(run, data_dir="nope")

    content["train"] |= {"dataset": str(shapes), "data_dir": "nope"}  # which is unused
    earlier_run.config.write_text(json.dumps(content))
    assert main(["report", run]) == 0
    assert "is relative" not in capfd.readouterr().err


def test_an_earlier_run_says_where_it_looked(earlier_run, shapes, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    looked = (
        f"{earlier_run.config}: --dataset photos/data is relative to the folder where training "
        f"began; {tmp_path}/photos/data does not exist. Run this from that folder"
    )
    run = str(earlier_run.path)
    assert main(["report", run]) == 0
    assert f"{looked}. If the data set has moved, pass its new path" in capfd.readouterr().err
    assert main(["report", run, "--dataset", str(shapes)]) == 0
    assert "Note" not in capfd.readouterr().err
    assert main(["train", "--config", run]) == 1
    assert f"error: {looked}, or pass new paths, such as --dataset" in capfd.readouterr().err
    earlier_run.metrics.unlink()
    assert main(["train", "--resume", run]) == 1
    assert f"error: {looked}.\n" in capfd.readouterr().err
    from fcn_keras.training.train import resume

    with pytest.raises(UserError, match="is relative to the folder where training began"):
        resume(run)


def test_an_earlier_run_is_found_from_where_it_began(earlier_run, shapes, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    os.symlink(shapes, tmp_path / "photos" / "data")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--resume", str(earlier_run.path), "--epochs", "3"]) == 0
    assert earlier_run.read_config().dataset == str(tmp_path / "photos" / "data")
    assert provenance(earlier_run.path)["run"]["train"]["dataset"] == "data"
