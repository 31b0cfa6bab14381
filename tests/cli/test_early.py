"""Mistakes that are reported before TensorFlow is imported, by real processes without it."""

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from support.processes import FCN_KERAS, ROOT
from support.torch_files import archive, call, pickled, state_file

from fcn_keras.models.backbones import RESNETS
from fcn_keras.runs.config import BACKBONES

IMPORTED = 'import os; os.write(2, b"IMPORTED"); os._exit(99)'


@pytest.fixture(scope="module")
def place(shapes, finished_run, tmp_path_factory):
    """A folder with a data set `data`, and runs and files that are damaged in several ways."""
    place = tmp_path_factory.mktemp("early")
    for package in ("tensorflow", "keras"):
        (place / "fakes" / package).mkdir(parents=True)
        (place / "fakes" / package / "__init__.py").write_text(IMPORTED)
    shutil.copytree(shapes, place / "data")
    shutil.copytree(shapes, place / "no_val")
    (place / "no_val/ImageSets/Segmentation/val.txt").unlink()
    for name in ("run", "damaged", "unfinished", "no_archive"):
        shutil.copytree(finished_run, place / name)
    (place / "damaged/config.json").write_text("{")
    config = json.loads((place / "unfinished/config.json").read_text())
    config["train"]["dataset"] = str(place / "moved")
    (place / "unfinished/config.json").write_text(json.dumps(config))
    (place / "unfinished/metrics.json").unlink()
    (place / "unfinished/history.csv").unlink()
    (place / "no_archive/best.keras").write_bytes(b"no archive")
    shutil.copytree(place / "unfinished", place / "elsewhere")
    shutil.copy(place / "run/metrics.json", place / "elsewhere")
    shutil.copy(place / "run/history.csv", place / "elsewhere")
    (place / "code.pth").write_bytes(archive(pickled(call("os.system", "touch hacked"))))
    small = np.ones((1, 1, 1, 1), "f4")
    (place / "resnet.pth").write_bytes(state_file({"conv1.weight": small}))
    names = ("backbone.conv1.weight", "classifier.0.weight", "classifier.4.weight")
    (place / "fcn.pth").write_bytes(state_file(dict.fromkeys(names, small)))
    (place / "text.onnx").write_text("no network")
    (place / "file").touch()
    (place / "empty").mkdir()
    (place / "photo.jpg").touch()
    return place


MODEL = ["--model", "run"]
FCN = "torchvision/fcn_resnet50"
OUT = ["--output", "out"]
PREDICT = ["predict", *MODEL, *OUT]
EVALUATE = ["evaluate", *MODEL, "--dataset"]
MASKS = ["evaluate", "--dataset", "data", "--masks"]
EXPORT = ["export", *MODEL, "--output"]
TRAIN = ["train", "--dataset"]
TUNE = ["tune", "--search-dir", "search", "--dataset"]
CONVERT = ["data", "convert", "--images", "data/JPEGImages", "--masks", "data/SegmentationClass"]
CONVERT += ["--classes", "data/classes.txt"]
MISSING_DATA = "'missing', which is not a folder"
ADDRESS = "s3://bucket/x"
NO_ADDRESS = f"error: {ADDRESS}: only predict --output"
SHARES = ["request", "photo.jpg", *OUT, "--fractions"]
MISTAKES = [
    ([*PREDICT, "nofolder/"], "nofolder/: no such file or folder."),
    ([*PREDICT, "a", "b"], "a: no such file or folder. None of the 2 paths exists."),
    ([*PREDICT, "*.gif"], "*.gif: no such file or folder."),
    ([*PREDICT, "empty"], "empty: no images found (those"),
    (["predict", *MODEL, "--output", "file", "photo.jpg"], "file: cannot be written (Not a dir"),
    (["predict", *MODEL, "--output", "file/x", "photo.jpg"], "file/x: cannot be written (Not a"),
    (["predict", "--model", "nomodel", *OUT, "photo.jpg"], "nomodel: no such model"),
    (["predict", "--model", "damaged", *OUT, "photo.jpg"], "damaged/config.json: damaged"),
    (["predict", "--model", "no_archive", *OUT, "photo.jpg"], "best.keras: not a .keras model"),
    (["predict", "--model", "code.pth", *OUT, "photo.jpg"], "code.pth: refused"),
    (["predict", "--model", "text.onnx", *OUT, "photo.jpg"], "text.onnx: not an ONNX file of fcn"),
    (
        ["predict", "--model", "text.onnx", *OUT, "photo.jpg", "--runtime", "tensorflow"],
        "run by op",
    ),
    (["export", "--model", "text.onnx", *OUT], "text.onnx: an ONNX file, which only predict, eval"),
    ([*TRAIN, "data", "--init-from", "text.onnx"], "Give the model that it was exported from."),
    (["predict", "--model", "resnet.pth", *OUT, "photo.jpg"], "Pass it as train --weights resnet"),
    (["predict", "--model", "torchvision/resnet50", *OUT, "photo.jpg"], "a backbone's weights"),
    (["predict", "--model", FCN, *OUT, "nofolder/"], "nofolder/: no such file or folder."),
    (["predict", "--model", FCN, *OUT, "photo.jpg"], "coco-1167a1af.pth cannot be downloaded"),
    (["evaluate", "--model", FCN, "--dataset", "missing"], MISSING_DATA),
    (["demo", "--port", "0", "--model", FCN], f"run: fcn-keras weights fetch {FCN} --to DIR"),
    (["export", "--model", FCN, *OUT], "cannot be downloaded (ProxyError)"),
    (["weights", "fetch", FCN], "cannot be downloaded (ProxyError)"),
    (["weights", "fetch", FCN, "--to", "file"], "file: cannot be written (Not a directory)"),
    (["weights", "fetch", FCN, "--to", ADDRESS], NO_ADDRESS),
    ([*PREDICT, "photo.jpg", "--tile", "0"], "tile must be at least 1"),
    ([*PREDICT, "photo.jpg", "--scales", "0"], "scales must be positive"),
    ([*PREDICT, "photo.jpg", "--blend", "smooth", "--overlap", "5000"], "overlap must be 0 to"),
    ([*PREDICT, "photo.jpg", "--max-pixels", "0"], "--max-pixels must be at least 1"),
    ([*PREDICT, "photo.jpg", "--runtime", "onnx", "--precision", "bfloat16"], "runtime onnx does"),
    ([*PREDICT, "photo.jpg", "--short-side", "-1"], "short_side must be 0"),
    ([*PREDICT, "photo.jpg", "--min-confidence", "nan"], "min_confidence must be 0 to 1"),
    ([*PREDICT, "--dataset", "missing"], MISSING_DATA),
    ([*PREDICT, "--dataset", "data", "--split", "test"], "test.txt: no such file"),
    ([*PREDICT, "--dataset", "data", "--limit", "0"], "--limit must be at least 1"),
    ([*EVALUATE, "missing"], MISSING_DATA),
    ([*EVALUATE, "no_val"], "val.txt: no such file"),
    ([*EVALUATE, "sample", "--split", "test"], "Received: 'test'"),
    ([*EVALUATE, "voc2012", "--split", "test"], "Received: 'test'"),
    ([*EVALUATE, "voc2012", "--data-dir", "missing"], "missing: no such folder"),
    ([*EVALUATE, "data", "--json", "file/x.json"], "file/x.json: cannot be written"),
    ([*EVALUATE, "data", "--confusion", "empty"], "--confusion empty: a folder"),
    (["evaluate", "--model", "damaged", "--dataset", "data"], "config.json: damaged"),
    ([*MASKS, "no"], "--masks no: no such folder."),
    ([*MASKS, "file"], "--masks file: no such folder."),
    ([*MASKS, ADDRESS], f"--masks {ADDRESS}: no such folder."),
    ([*MASKS, "empty", "--dataset", "missing"], MISSING_DATA),
    ([*MASKS, "empty", "--tile", "99"], "--tile requires --model"),
    ([*MASKS, "empty", "--short-side", "0"], "--short-side requires --model"),
    ([*EXPORT, "file"], "file: cannot be written (Not a directory)"),
    ([*EXPORT, "out", "--max-side", "0"], "max_side must be at least 1"),
    ([*EXPORT, "out", "--short-side", "5000"], "short_side must be 0"),
    ([*EXPORT, "out.tflite", "--format", "onnx"], "Name it out.onnx"),
    ([*EXPORT, "file/x.onnx", "--format", "onnx"], "file/x.onnx: cannot be written"),
    (["export", "--model", "damaged", *OUT], "config.json: damaged"),
    (["demo", "--port", "0", "--model", "damaged"], "config.json: damaged"),
    (["demo", "--port", "0", *MODEL, "--examples", "empty"], "--examples empty: no images there"),
    (["demo", "--port", "0", *MODEL, "--examples", "no"], "error: --examples no: no such folder"),
    (["demo", "--port", "0", *MODEL, "--examples", "file"], "file: no such folder"),
    (
        ["export", *MODEL, "--output", "x.onnx"],
        "x.onnx: a SavedModel is a folder. Add --format",
    ),
    (["demo", "--port", "0", *MODEL, "--tile", "-1"], "tile must be at least 1"),
    (["serve", "--model-base-path", "missing"], "missing: no such folder"),
    (["serve", "--model-base-path", "empty"], "empty contains no version"),
    (["request", "nofolder/", *OUT], "nofolder/: no such file or folder."),
    (["request", "photo.jpg", "--output", "file", "--url", "grpc://x"], "file: cannot be written"),
    ([*TRAIN, "missing"], MISSING_DATA),
    ([*TRAIN, "empty"], "empty/classes.txt: no such file"),
    ([*TRAIN, "no_val"], "val.txt: no such file"),
    ([*TRAIN, "voc2012", "--data-dir", "missing"], "missing: no such folder"),
    ([*TRAIN, "data", "--run-dir", "run"], "run: already exists"),
    ([*TRAIN, "data", "--run-dir", "file/run"], "file/run: cannot be written"),
    ([*TRAIN, "data", "--init-from", "missing"], "missing: no such model"),
    ([*TRAIN, "data", "--init-from", "damaged"], "config.json: damaged"),
    ([*TRAIN, "data", "--init-from", FCN], "a dilated FCN. Add --backbone resnet50 --dilated."),
    ([*TRAIN, "data", "--init-from", FCN, "--dilated"], "FCN. Add --backbone resnet50."),
    ([*TRAIN, "data", "--init-from", "torchvision/resnet18"], "a backbone's weights, not a model"),
    ([*TRAIN, "data", "--init-from", "code.pth"], "code.pth: refused"),
    ([*TRAIN, "data", "--weights", "missing/"], "--weights must be imagenet"),
    ([*TRAIN, "data", "--weights", "missing.pth"], "missing.pth: not a file"),
    ([*TRAIN, "data", "--weights", "code.pth"], "code.pth: refused"),
    ([*TRAIN, "data", "--weights", "fcn.pth"], "not the weights of a ResNet of torchvision"),
    ([*TRAIN, "data", "--weights", FCN], "a whole FCN. Pass it as --init-from"),
    ([*TRAIN, "data", "--weights", "torchvision/resnet50"], "needs --backbone resnet50."),
    ([*TRAIN, "data", "--weights", "torchvision/resnet18"], "f37072fd.pth cannot be downloaded"),
    ([*TRAIN, "data", "--weights", "resnet_18_imagnet"], "--weights must be imagenet"),
    ([*TRAIN, "data", "--weights", "hff://timm/resnet18"], "--weights must be imagenet"),
    ([*TRAIN, "data", "--backbone", "resnet19"], "--backbone must be one of"),
    ([*TRAIN, "data", "--class-weights", "1", "2"], "one weight for each of the 3 classes"),
    (["train", "--config", "missing"], "missing: not a run folder"),
    (["train", "--resume", "damaged"], "config.json: damaged"),
    (["train", "--resume", "run", "--epochs", "0"], "--epochs must be at least 1"),
    (["train", "--resume", "unfinished"], "moved"),
    (["train", "--resume", "elsewhere", "--epochs", "9"], "moved"),
    ([*TUNE, "missing"], MISSING_DATA),
    ([*TUNE, "data", "--weights", "missing/"], "--weights must be imagenet"),
    (["tune", "--search-dir", "data", "--dataset", "data"], "data: holds something else"),
    (["tune", "--search-dir", "file", "--dataset", "data"], "file: cannot be written"),
    (["report", "missing"], "missing: not a run folder"),
    (["report", "damaged"], "config.json: damaged"),
    (["report", "unfinished"], "as no epoch is finished"),
    (["report", "run", "missing"], "missing: not a run folder"),
    (["report", "run", "./run"], "./run: given twice"),
    (
        ["report", "run", "elsewhere", "--output", "run/config.json"],
        "config.json: exists, but was not written",
    ),
    (["report", "run", "--images", "21"], "--images must be 0 to 20"),
    (["report", "run", "--dataset", "missing"], MISSING_DATA),
    (["report", "run", "--output", "empty"], "empty: cannot be written (Is a directory)"),
    (["data", "check", "missing"], "missing: no such folder"),
    ([*CONVERT, "--output", "file/x"], "file/x: cannot be written"),
    ([*EXPORT, ADDRESS], NO_ADDRESS),
    ([*EXPORT, f"{ADDRESS}.onnx", "--format", "onnx"], "x.onnx: only predict"),
    ([*TRAIN, "data", "--run-dir", ADDRESS], NO_ADDRESS),
    (["tune", "--search-dir", ADDRESS, "--dataset", "data"], NO_ADDRESS),
    ([*CONVERT, "--output", ADDRESS], NO_ADDRESS),
    (["request", "photo.jpg", "--output", ADDRESS], NO_ADDRESS),
    ([*SHARES, "empty"], "empty: cannot be written (Is a directory)"),
    ([*SHARES, "file/x.json"], "file/x.json: cannot be written (Not a directory)"),
    ([*SHARES, "empty", "--overwrite"], "empty: cannot be written (Is a directory)"),
]


def run(place, command):
    path = os.pathsep.join([str(place / "fakes"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(place / "cache")}
    environment.pop("TFDS_DATA_DIR", None)
    environment |= {"KERAS_HOME": "home", "HTTPS_PROXY": "http://127.0.0.1:9"}  # which refuses
    return subprocess.run(
        [*FCN_KERAS, *command], cwd=place, env=environment, capture_output=True, text=True
    )


def _name(value):
    return " ".join(value) if isinstance(value, list) else ""


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=_name)
def test_a_mistake_is_told_before_tensorflow_is_imported(place, command, message):
    done = run(place, command)
    assert "IMPORTED" not in done.stderr, done.stderr
    assert message in done.stderr, done.stderr
    assert done.returncode == 1 and "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len([line for line in lines if not line.startswith(("Loading", "Downloading"))]) <= 2


@pytest.mark.parametrize(
    ("package", "command"),
    [
        ("onnx", [*EXPORT, "out.onnx", "--format", "onnx"]),
        ("litert", [*EXPORT, "out.tflite", "--format", "litert"]),
        ("openvino", [*PREDICT, "photo.jpg", "--runtime", "openvino"]),
        ("onnx", [*EVALUATE, "data", "--runtime", "onnx"]),
        ("demo", ["demo", *MODEL]),
        ("serve", ["serve", "--model-base-path", "empty"]),
        ("tune", [*TUNE, "data"]),
        ("cluster", [*PREDICT, "photo.jpg", "--ray"]),
    ],
)
def test_a_missing_package_too(place, package, command):
    """The packages of extras are hidden: `find_spec` does not find them."""
    hidden = {"onnx", "ai_edge_litert", "openvino", "uvicorn", "fastapi", "optuna", "ray"}
    (place / "fakes" / "sitecustomize.py").write_text(
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        f"util.find_spec = lambda n, *a: None if n.split('.')[0] in {hidden} else find(n, *a)\n"
    )
    done = run(place, command)
    (place / "fakes" / "sitecustomize.py").unlink()
    assert "IMPORTED" not in done.stderr, done.stderr
    assert done.stderr.endswith(f"Run: pip install 'fcn_keras[{package}]'\n"), done.stderr


@pytest.mark.parametrize(
    "command",
    [
        [*PREDICT, "photo.jpg"],
        ["predict", "--model", "fcn.pth", *OUT, "photo.jpg"],
        [*EVALUATE, "data"],
        [*EXPORT, "out"],
        [*TRAIN, "data", "--run-dir", "new"],
        [*TRAIN, "data", "--weights", "resnet_18_imagenet", "--run-dir", "new"],
        ["train", "--resume", "run"],
        ["train", "--resume", "elsewhere"],
        ["train", "--resume", "run", "--epochs", "9", "--data-dir", "nope"],
        ["report", "run"],
        ["report", "run", "elsewhere"],
    ],
    ids=" ".join,
)
def test_what_is_right_gets_as_far_as_tensorflow(place, command):
    """Shows that the tests above would notice its import."""
    assert run(place, command).returncode == 99


@pytest.mark.parametrize("flags", [[], ["--crop", "32", "32", "--void", "background"]])
def test_masks_are_evaluated_without_tensorflow(place, tmp_path, flags):
    data = place / "data"
    for path in (data / "SegmentationClass").iterdir():
        ids = np.asarray(Image.open(path))
        Image.fromarray(np.where(ids == 255, 0, ids)).save(tmp_path / path.name)
    files = ["--json", "masks.json", "--confusion", "masks.png"]
    done = run(place, [*MASKS, tmp_path, *files, *flags])
    assert done.returncode == 0 and "pixel accuracy          1.0000" in done.stdout, done.stderr


def test_a_search_needs_no_place_for_a_single_run(place, tmp_path):
    (tmp_path / "runs").touch()
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(place / "fakes", tmp_path / "fakes")
    assert run(tmp_path, [*TUNE, "data"]).returncode == 99
    done = run(tmp_path, [*TRAIN, "data"])
    assert "runs: cannot be written (Not a directory)" in done.stderr and done.returncode == 1


def test_the_backbones_offered_are_those_that_can_be_built():
    assert {*BACKBONES, "tiny"} == RESNETS.keys()
