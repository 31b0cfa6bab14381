"""torchvision's `.pth` files as models, backbones and starting points, and published ones."""

import json
import os
import re
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
from support.torch_files import archive, call, pickled, state_file, state_of
from support.weights_server import NAME, WeightsServer

from fcn_keras.data.split import LabelSet
from fcn_keras.data.voc.labels import VOC_CLASSES, VOC_LABELS
from fcn_keras.errors import UserError
from fcn_keras.files import published
from fcn_keras.files.published import PUBLISHED, cache_folder
from fcn_keras.files.torch_networks import backbone_of, read_backbone
from fcn_keras.inference.loading import load_model
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.models.backbones import RESNETS, build_features
from fcn_keras.models.fcn import build_fcn, without_auxiliary_head
from fcn_keras.models.pretrained import backbone_name_of
from fcn_keras.models.short_side import short_side_of
from fcn_keras.models.torchvision_names import torchvision_names
from fcn_keras.runs.folder import model_file, provenance, require_model
from fcn_keras.training.start import copy_run

IMAGE = np.random.default_rng(0).uniform(0, 255, (1, 40, 56, 3)).astype("float32")


@pytest.fixture(scope="module")
def source():
    """A dilated FCN of VOC's classes, with random statistics, and its state dict."""
    model = build_fcn("tiny", len(VOC_CLASSES), dilated=True, auxiliary_head=True, weights=None)
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "variance" in weight.path or "gamma" in weight.path:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return model, state_of(model)


@pytest.fixture
def server(source, tmp_path, monkeypatch):
    server = WeightsServer(state_file(source[1]))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(published, "HOST", server.address)
    monkeypatch.setitem(PUBLISHED, NAME, server.weights)
    yield server
    server.close()


@pytest.fixture
def file(source, tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(state_file(source[1]))
    return path


def logits(model):
    return np.asarray(without_auxiliary_head(model)(IMAGE))


def test_a_published_model_is_downloaded_converted_and_kept(source, server, capfd):
    segmenter = Segmenter.load(NAME)
    assert segmenter.labels == VOC_LABELS and short_side_of(segmenter.model) == 520
    np.testing.assert_array_equal(logits(segmenter.model), logits(source[0]))
    [path] = cache_folder().iterdir()
    assert path.name == server.weights.file.replace(".pth", ".keras")
    with zipfile.ZipFile(path) as archived:
        assert json.loads(archived.read("labels.json"))["names"] == [*VOC_CLASSES]
    assert [line[:11] for line in capfd.readouterr().err.splitlines()] == ["Downloading"]
    server.close()
    again = Segmenter.load(NAME)
    assert short_side_of(again.model) == 520
    assert again.labels == VOC_LABELS and capfd.readouterr().err == ""
    np.testing.assert_array_equal(logits(again.model), logits(source[0]))
    assert len(again.model.outputs) == 1
    assert len(load_model(NAME, auxiliary_head=True).outputs) == 2
    assert Segmenter.load(path).labels == VOC_LABELS
    assert provenance(NAME)["file"] == path.name
    require_model(NAME)


def test_a_damaged_file_in_the_cache_is_named_or_replaced(server):
    load_model(NAME)
    [path] = cache_folder().iterdir()
    data = path.read_bytes()
    path.write_bytes(data[:5000])
    for load in (require_model, load_model):
        with pytest.raises(UserError, match=f"{path}: .*damaged.*Delete it; then it is downloade"):
            load(NAME)
    path.unlink()
    path.with_suffix(".pth").write_bytes(server.data[:-1])
    load_model(NAME)
    assert [*cache_folder().iterdir()] == [path]


def test_a_path_has_priority_over_a_name(untrained_run, server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(untrained_run, tmp_path / NAME)
    assert str(model_file(NAME)) == f"{NAME}/best.keras"
    assert len(Segmenter.load(NAME).labels) == 3 and not server.starts


def test_a_file_brought_by_hand(source, file, tmp_path, capfd):
    segmenter = Segmenter.load(file)
    assert segmenter.labels == VOC_LABELS and file.exists()
    np.testing.assert_array_equal(logits(segmenter.model), logits(source[0]))
    note = f"Note: {file} does not name its classes; they are taken to be VOC's (background, aero"
    assert capfd.readouterr().err.startswith(note)
    # In a run's folder it is not that run's.
    (tmp_path / "config.json").write_text(json.dumps({"labels": {"names": ["a"], "palette": []}}))
    assert Segmenter.load(file).labels == VOC_LABELS
    assert "run" not in provenance(file)


def test_a_file_of_training_in_parallel(source, tmp_path):
    state = {f"module.{name}": values for name, values in source[1].items()}
    (tmp_path / "parallel.pth").write_bytes(state_file(state))
    segmenter = Segmenter.load(tmp_path / "parallel.pth")
    assert segmenter.short_side == 520
    np.testing.assert_array_equal(logits(segmenter.model), logits(source[0]))


def test_a_file_under_its_published_name(server, tmp_path, capfd):
    path = tmp_path / server.weights.file
    path.write_bytes(server.data)
    assert Segmenter.load(path).labels == VOC_LABELS
    assert capfd.readouterr().err == "" and path.exists() and not cache_folder().exists()
    path.write_bytes(server.data[:-1])
    with pytest.raises(UserError, match="damaged or not tiny-"):
        Segmenter.load(path)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_other_classes_have_placeholders(tmp_path, suffix, capfd):
    model = build_fcn("tiny", 4, dilated=True, weights=None)
    (tmp_path / f"x{suffix}").write_bytes(state_file(state_of(model)))
    segmenter = Segmenter.load(tmp_path / f"x{suffix}")
    assert segmenter.labels.names == ("class_0", "class_1", "class_2", "class_3")
    np.testing.assert_array_equal(logits(segmenter.model), logits(model))
    assert capfd.readouterr().err == ""


def deeplab(state):
    return {"backbone.conv1.weight": state["backbone.conv1.weight"]} | {
        "classifier.0.convs.0.0.weight": np.ones((2, 2, 1, 1), "f4")
    }


def without(*prefixes):
    return lambda state: {k: v for k, v in state.items() if not k.startswith(prefixes)}


def backbone(state):
    return {k[9:]: v for k, v in state.items() if k.startswith("backbone.")}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (backbone, r"a backbone's weights, not a model. Pass it as train --weights .*mine.pth"),
        (deeplab, "a DeepLab's weights, not an FCN's"),
        (lambda _: {"decode_head.conv_seg.weight": np.ones((2, 2, 1, 1), "f4")}, "decode_head"),
        (without("classifier.4"), "not an FCN of torchvision .'classifier.4.weight'"),
        (without("backbone.layer4"), r"not one of resnet18, .*basic_blocks \[1, 1, 1, 0\]"),
        (without("backbone.bn1"), "lacks 'backbone.bn1"),
        (lambda state: state | {"backbone.bn1.bias": np.ones(3, "f4")}, r"has the shape \(3,\)"),
    ],
)
def test_weights_of_another_network(source, file, change, message):
    file.write_bytes(state_file(change(source[1])))
    with pytest.raises(UserError, match=message) as error:
        load_model(file)
    assert len(str(error.value).splitlines()) == 1 and str(error.value).startswith(str(file))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.pth", archive(pickled(call("os.system", "touch hacked"))), "system"),
        ("m.pt", archive(pickled({}), more=[("archive/constants.pkl", b"")]), "TorchScript"),
        ("m.pth", b"PK\3\4 not really", "damaged"),
        ("m.pth", b"{}", "not a file that torch.save"),
        ("m.safetensors", b"{}", "not a .keras model. Give a run's folder, a .keras file, a .pth"),
        ("m.ckpt", b"{}", "not a .keras model"),
        ("m.bin", b"{}", "not a .keras model"),
    ],
)
def test_other_files(tmp_path, monkeypatch, name, data, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(data)
    for load in (require_model, load_model, Segmenter.load):
        with pytest.raises(UserError, match=message) as error:
            load(name)
        assert len(str(error.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_hostile_download_is_not_run_or_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    data = archive(pickled(call("os.system", "touch hacked")))
    server = WeightsServer(data)
    monkeypatch.setattr(published, "HOST", server.address)
    monkeypatch.setitem(PUBLISHED, NAME, server.weights)
    with pytest.raises(UserError, match="refused|system"):
        load_model(NAME)
    server.close()
    assert [path.name for path in cache_folder().iterdir()] == [server.weights.file]
    assert not (tmp_path / "hacked").exists()


def test_names_of_the_other_use_are_refused():
    with pytest.raises(UserError, match="torchvision/resnet50: a backbone's weights, not a model"):
        load_model("torchvision/resnet50")
    with pytest.raises(UserError, match="whole FCN. Pass it as --init-from torchvision/fcn_resn"):
        build_features("resnet50", "torchvision/fcn_resnet50")
    with pytest.raises(UserError, match="no such model. Give a .* a name of fcn-keras weights li"):
        load_model("torchvision/fcn_resnet18")


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_backbone_starts_from_a_file(tmp_path, prefix):
    features = build_features("resnet18", None)
    state = {prefix + name: values for name, values in state_of(features).items()}
    state |= {"fc.weight": np.ones((9, 512), "f4")}
    path = tmp_path / "resnet18.pth"
    path.write_bytes(state_file(state))
    for options in ({}, {"dilated": True}):
        loaded = build_features("resnet18", str(path), **options)
        assert all(map(np.array_equal, loaded.get_weights(), features.get_weights()))
    with pytest.raises(UserError, match=r"not resnet50|other than resnet50: they have basic_blo"):
        build_features("resnet50", str(path))
    with pytest.raises(UserError, match="tiny has random weights only"):
        build_features("tiny", str(path))
    path.write_bytes(state_file({"fc.weight": np.ones((9, 512), "f4")}))
    with pytest.raises(UserError, match="not the weights of a ResNet of torchvision"):
        read_backbone(path)


def test_a_backbone_starts_from_a_published_one(tmp_path, monkeypatch):
    features = build_features("resnet18", None)
    server = WeightsServer(state_file(state_of(features)))
    known = server.weights._replace(backbone="resnet18", is_fcn=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(published, "HOST", server.address)
    monkeypatch.setitem(PUBLISHED, "torchvision/resnet18", known)
    loaded = build_features("resnet18", "torchvision/resnet18")
    assert all(map(np.array_equal, loaded.get_weights(), features.get_weights()))
    assert [path.name for path in cache_folder().iterdir()] == [known.file]
    server.close()


@pytest.mark.parametrize("name", ["tiny", "resnet18", "resnet50"])
def test_forms_are_found_by_names(name):
    model = build_fcn(name, 2, dilated=True, weights=None)
    assert backbone_of(torchvision_names(model)) == RESNETS[name]
    assert backbone_name_of(model) == name


def target(classes, **options):
    return build_fcn("tiny", classes, weights=None, **{"dilated": True, **options})


def test_training_starts_from_published_weights(source, server, capfd):
    model = target(21, auxiliary_head=True)
    copy_run(NAME, model, VOC_LABELS)
    assert "Note" not in capfd.readouterr().err
    assert all(map(np.array_equal, model.get_weights(), source[0].get_weights()))
    # From the cache, too, and without an auxiliary head.
    own, fresh = target(3), None
    fresh = own.get_layer("score_head").get_weights()
    copy_run(NAME, own, LabelSet(("cat", "puma", "lynx")))
    note = f"Note: --init-from {NAME} has other classes (background, aeroplane, bicycle, bird, ...)"
    errors = capfd.readouterr().err
    assert errors.startswith(note) and "in score_head: cat keep their values; puma" in errors
    kernel = source[0].get_layer("score_head").get_weights()[0]
    ours = own.get_layer("score_head").get_weights()[0]
    np.testing.assert_array_equal(ours[..., 0], kernel[..., VOC_CLASSES.index("cat")])
    np.testing.assert_array_equal(ours[..., 1:], fresh[0][..., 1:])
    for layer in ("backbone", "head_conv", "head_bn"):
        pairs = (model.get_layer(layer).get_weights() for model in (own, source[0]))
        assert all(map(np.array_equal, *pairs))


def test_training_starts_from_a_file(file, capfd):
    copy_run(str(file), target(2, auxiliary_head=True), LabelSet(("a", "b")))
    errors = capfd.readouterr().err
    assert re.search("taken to be VOC's .*\n.*score_auxiliary.* start afresh", errors)


@pytest.mark.parametrize(
    ("backbone", "options", "flags"),
    [
        ("tiny", {"dilated": False, "output_stride": 8}, "--dilated"),
        ("resnet18", {}, "--backbone tiny"),
        ("resnet18", {"dilated": False}, "--backbone tiny --dilated"),
    ],
)
def test_the_network_must_fit(file, backbone, options, flags):
    model = build_fcn(backbone, 21, weights=None, **{"dilated": True, **options})
    with pytest.raises(UserError, match=f"--init-from .*mine.pth: a dilated FCN. Add {flags}."):
        copy_run(str(file), model, VOC_LABELS)


TORCH_SCRIPT = """
import sys, numpy as np, torch
from torchvision.models.segmentation import fcn_resnet50
model = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
state = model.state_dict()
torch.save(state, "older.pth", _use_new_zipfile_serialization=False)
torch.save({"model": state, "epoch": 29, "args": None}, "checkpoint.pth")
np.savez("state.npz", **{name: value.numpy() for name, value in state.items()})
"""


@pytest.mark.slow
@pytest.mark.skipif("TORCH_PYTHON" not in os.environ, reason="TORCH_PYTHON names no Python")
def test_files_of_torchvision_itself(tmp_path):
    """With TORCH_PYTHON, a Python that has torch and torchvision."""
    command = [os.environ["TORCH_PYTHON"], "-c", TORCH_SCRIPT]
    subprocess.run(command, check=True, cwd=tmp_path)
    expected = np.load(tmp_path / "state.npz")
    for name in ("older.pth", "checkpoint.pth"):
        model = load_model(tmp_path / name, auxiliary_head=True)
        assert backbone_name_of(model) == "resnet50" and len(model.outputs) == 2
        for weight, values in state_of(model).items():
            np.testing.assert_array_equal(values, expected[weight])
    backbone = build_features("resnet50", str(tmp_path / "older.pth"))
    for weight, values in state_of(backbone).items():
        np.testing.assert_array_equal(values, expected[f"backbone.{weight}"])
