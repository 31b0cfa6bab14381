"""Model files that a stranger may have made, given to the commands."""

import io
import json
import pickle
import warnings
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from PIL import Image
from support.fake_folder import write_folder

from fcn_keras import Segmenter, UserError
from fcn_keras.cli import main
from fcn_keras.models.backbones import build_features
from fcn_keras.models.fcn import build_fcn
from fcn_keras.models.untrusted import check_model_file
from fcn_keras.training.train import restore

FORMS = ("metadata.json", "config.json", "model.weights.h5")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The three files of a sound model, by name."""
    path = tmp_path_factory.mktemp("good") / "good.keras"
    inputs = keras.Input((None, None, 3))
    keras.Model(inputs, keras.layers.Conv2D(3, 1, name="score")(inputs)).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in FORMS}


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.new("RGB", (20, 16), (9, 99, 200)).save(path)
    return path


def write(path, entries, compression=zipfile.ZIP_STORED):
    entries = entries.items() if isinstance(entries, dict) else entries
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # about a name that occurs twice
        for name, content in entries:
            archive.writestr(name, content)
    return path


def with_config(good, change):
    config = json.loads(good["config.json"])
    config = change(config) or config
    return {**good, "config.json": json.dumps(config)}


def with_layer(good, layer):
    """The good model with this layer after the input, whose call makes what it does."""

    def change(config):
        node = {"args": [tensor], "kwargs": {}}
        config["config"]["layers"].append({"name": "evil", "inbound_nodes": [node], **layer})

    layers = json.loads(good["config.json"])["config"]["layers"]
    tensor = layers[1]["inbound_nodes"][0]["args"][0]
    return with_config(good, change)


def with_weights(good, change):
    file = io.BytesIO(good["model.weights.h5"])
    with h5py.File(file, "r+") as weights:
        change(weights)
    return {**good, "model.weights.h5": file.getvalue()}


def predict(path, photo, capfd):
    """What `predict` says of a model that it must refuse."""
    output = path.parent / "output"
    before = sorted(path.parent.iterdir())
    assert main(["predict", "--model", str(path), str(photo), "--output", str(output)]) == 1
    stderr = capfd.readouterr().err
    assert sorted(path.parent.iterdir()) == before  # no result, nothing unpacked
    assert stderr.startswith("error: ") and stderr.count("\n") <= 2 and "Traceback" not in stderr
    assert str(path) in stderr
    return stderr


def function(module, name):
    return {
        "module": module,
        "class_name": "function",
        "config": name,
        "registered_name": "function",
    }


def test_a_sound_model_loads(good, photo, tmp_path):
    path = write(tmp_path / "m.keras", good)
    output = tmp_path / "output"
    assert main(["predict", "--model", str(path), str(photo), "--output", str(output)]) == 0
    assert len(list(output.glob("*.png"))) == 1
    # Packed again by another program, which compresses.
    noise = np.random.default_rng(0).bytes(1 << 16)
    entries = {**good, "provenance.json": json.dumps(noise.hex())}
    check_model_file(write(tmp_path / "n.keras", entries, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("switched_off", [False, True])
def test_a_lambda_layer_does_not_run(photo, tmp_path, capfd, switched_off):
    marker = tmp_path / "marker"
    inputs = keras.Input((None, None, 3))
    code = f"__import__('pathlib').Path({str(marker)!r}).touch() or x"
    outputs = keras.layers.Lambda(eval(f"lambda x: {code}"))(inputs)
    keras.Model(inputs, outputs).save(tmp_path / "m.keras")
    marker.unlink(missing_ok=True)  # it ran when the model was built
    if switched_off:
        keras.config.enable_unsafe_deserialization()
    try:
        assert "uses 'keras.layers.Lambda', which may run code" in predict(
            tmp_path / "m.keras", photo, capfd
        )
        assert not marker.exists()
        if switched_off:  # so the file does run code
            keras.models.load_model(tmp_path / "m.keras")
            assert marker.exists()
    finally:
        from keras.src.backend.common import global_state

        global_state.set_global_attribute("safe_mode_saving", None)


def test_a_function_of_keras_does_not_run(good, photo, tmp_path, capfd):
    # Keras 3.15.1 writes this picture anywhere, with or without `safe_mode`.
    images = {"value": np.zeros((1, 4, 4, 3)).tolist(), "dtype": "float32"}
    layer = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {
            "name": "evil",
            "function": function("keras.visualization", "plot_image_gallery"),
            "arguments": {"path": str(tmp_path / "evil.png"), "value_range": [0, 255]},
        },
        "inbound_nodes": [{"args": [{"class_name": "__numpy__", "config": images}], "kwargs": {}}],
    }
    path = write(tmp_path / "m.keras", with_layer(good, layer))
    assert "'keras.layers.Lambda'" in predict(path, photo, capfd)  # and there is no new file


LAYERS = {
    "os.system": function("os", "system"),
    "posix.system": {"module": "posix", "class_name": "system", "config": {"command": "touch x"}},
    "keras.utils.get_file": function("keras.utils", "get_file"),
    "keras.layers.TFSMLayer": {
        "module": "keras.layers",
        "class_name": "TFSMLayer",
        "config": {"filepath": "/tmp/saved", "name": "evil"},
    },
    "keras.layers.StringLookup": {
        "module": "keras.layers",
        "class_name": "StringLookup",
        "config": {"vocabulary": "/etc/passwd", "name": "evil"},
    },
    "keras.layers.Lambda": {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "evil", "function": function("keras.utils", "plot_model")},
    },
    "keras_hub.src.models.task.Task": {
        "module": "keras_hub.src.models.task",
        "class_name": "Task",
        "config": {},
    },
    "keras.layers.Conv2D": {  # a registered name takes precedence over the class's
        "module": "keras.layers",
        "class_name": "Conv2D",
        "config": {},
        "registered_name": "keras_hub>BytePairTokenizer",
    },
    "Lambda": {"class_name": "Lambda", "config": {}},  # as in older files
    "__typespec__": {"class_name": "__typespec__", "spec_name": "x", "config": []},
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_that_may_do_more_than_compute_are_named(good, photo, tmp_path, capfd, name):
    path = write(tmp_path / "m.keras", with_layer(good, LAYERS[name]))
    stderr = predict(path, photo, capfd)
    assert f"its network uses '{name}'" in stderr and "keras.models.load_model" in stderr


def test_what_is_nested_in_a_layer_is_seen(good, photo, tmp_path, capfd):
    def activation(value):
        def change(config):
            config["config"]["layers"][1]["config"]["activation"] = value

        return write(tmp_path / "m.keras", with_config(good, change))

    path = activation(function("keras.utils", "plot_model"))
    assert "uses 'keras.utils.plot_model'" in predict(path, photo, capfd)
    assert "'fcn_keras>CropLike' by name" in predict(activation("fcn_keras>CropLike"), photo, capfd)
    assert "a damaged one" in predict(activation("no such activation"), photo, capfd)
    path = write(tmp_path / "m.keras", with_config(good, lambda c: function("keras.utils", "x")))
    assert "not a model, but 'keras.utils.x'" in predict(path, photo, capfd)


ARCHIVES = {
    "../evil": lambda good: {**good, "../evil": "x"},
    "/tmp/evil": lambda good: {**good, "/tmp/evil": "x"},
    "assets/vocabulary.txt": lambda good: {**good, "assets/vocabulary.txt": "x"},
    "model.weights.npz": lambda good: {**good, "model.weights.npz": "x"},
    "'config.json' twice": lambda good: [*good.items(), ("config.json", good["config.json"])],
    "lacks config.json": lambda good: {"model.weights.h5": good["model.weights.h5"]},
    "lacks model.weights.h5": lambda good: {"config.json": good["config.json"]},
}


@pytest.mark.parametrize("message", ARCHIVES)
def test_archives_hold_what_a_model_needs(good, photo, tmp_path, capfd, message):
    (tmp_path / "in").mkdir()
    path = write(tmp_path / "in" / "m.keras", ARCHIVES[message](good))
    assert message in predict(path, photo, capfd)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["model.weights.h5", "config.json", "labels.json"])
def test_a_zip_bomb_is_not_unpacked(good, photo, tmp_path, capfd, name):
    entries = {**good, name: bytes(64 << 20)}
    path = write(tmp_path / "m.keras", entries, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    assert "would become 671" in predict(path, photo, capfd)


def link(target):
    def change(weights):
        del weights["layers/conv2d"]
        weights["layers/conv2d"] = target

    return change


def huge(weights):
    del weights["layers/conv2d/vars/0"]
    options = {"chunks": (1, 1, 3, 3), "compression": "gzip"}
    weights.create_dataset("layers/conv2d/vars/0", (1, 1, 1 << 20, 1 << 16), "float32", **options)


def external(weights):
    del weights["layers/conv2d/vars/0"]
    place = [("/etc/passwd", 0, 36)]
    weights.create_dataset("layers/conv2d/vars/0", (1, 1, 3, 3), "float32", external=place)


def virtual(weights):
    del weights["layers/conv2d/vars/0"]
    layout = h5py.VirtualLayout((1, 1, 3, 3), "float32")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (1, 1, 3, 3))
    weights.create_virtual_dataset("layers/conv2d/vars/0", layout)


def cyclic(weights):
    weights["layers/again"] = weights["layers"]
    weights["layers/file"] = weights["/"]


WEIGHTS = {
    "external link": (link(h5py.ExternalLink("/etc/other.h5", "/x")), "'conv2d' in its weights"),
    "soft link": (link(h5py.SoftLink("/layers")), "is a link, not numbers"),
    "external data": (external, "is data in another file"),
    "virtual data": (virtual, "is data in another file"),
    "huge": (huge, "its weights claim 2748779069"),
    "type": (lambda weights: weights.__setitem__("t", np.dtype("i4")), "is a type, not numbers"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_numbers_of_their_own_file(good, photo, tmp_path, capfd, name):
    change, message = WEIGHTS[name]
    path = write(tmp_path / "m.keras", with_weights(good, change))
    assert message in predict(path, photo, capfd)
    model = keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 1)])
    with pytest.raises(UserError, match=message):
        restore(model, path)  # --resume


def test_weights_that_contain_themselves_end(good, tmp_path):
    check_model_file(write(tmp_path / "m.keras", with_weights(good, cyclic)))


FILES = {
    "text.keras": b"a text",
    "empty.keras": b"",
    "pickle.keras": pickle.dumps([1]),
    "image.keras": b"\x89PNG\r\n\x1a\n",
    "old.h5": b"\x89HDF\r\n\x1a\n",
    "weights.weights.h5": b"",
    "saved_model.pb": b"",
    "pickle.pkl": pickle.dumps([1]),
}


@pytest.mark.parametrize("name", FILES)
def test_other_files_are_named(photo, tmp_path, capfd, name):
    (tmp_path / name).write_bytes(FILES[name])
    messages = {".keras": "a damaged one", ".h5": "only .keras files are read"}
    message = messages.get(Path(name).suffix, "not a .keras model. Give a run's folder")
    assert message in predict(tmp_path / name, photo, capfd)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_damaged_configuration_is_named(good, photo, tmp_path, capfd, content):
    path = write(tmp_path / "m.keras", {**good, "config.json": content})
    assert "not a .keras model, or a damaged one" in predict(path, photo, capfd)


def test_damaged_labels_are_named(good, photo, tmp_path, capfd):
    path = write(tmp_path / "m.keras", {**good, "labels.json": b'{"names": ["sky"]}'})
    path.write_bytes(path.read_bytes().replace(b"sky", b"sea"))  # without its checksum
    assert "a damaged one (Bad CRC-32" in predict(path, photo, capfd)


def test_a_folder_is_no_model(photo, tmp_path, capfd):
    (tmp_path / "m.keras").mkdir()
    assert "no such model" in predict(tmp_path / "m.keras", photo, capfd)


def test_every_command_refuses(good, photo, tmp_path, capfd):
    path = str(write(tmp_path / "m.keras", with_layer(good, LAYERS["os.system"])))
    folder = ["--dataset", str(write_folder(tmp_path / "data"))]
    commands = [
        ["evaluate", "--model", path, *folder],
        ["export", "--model", path, "--output", str(tmp_path / "out")],
        ["export", "--model", path, "--format", "keras", "--output", str(tmp_path / "out.keras")],
        ["demo", "--model", path, "--port", "0"],
        ["train", "--init-from", path, "--run-dir", str(tmp_path / "run"), *folder],
    ]
    for command in commands:
        assert main(command) == 1
        assert "its network uses 'os.system'" in capfd.readouterr().err
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "m.keras"]


def test_a_classifier_is_no_network_of_masks(photo, tmp_path, capfd):
    inputs = keras.Input((8, 8, 3))
    keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs))).save(
        tmp_path / "m.keras"
    )
    assert "must map images" in predict(tmp_path / "m.keras", photo, capfd)


def test_networks_of_users_load(tmp_path):
    inputs = x = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(
        4, 3, 2, "same", kernel_regularizer="l2", bias_constraint="non_neg", activation="gelu"
    )(x)
    x = keras.ops.relu(x) * 2 + keras.ops.mean(x, axis=(1, 2), keepdims=True)
    x = keras.Sequential([keras.layers.DepthwiseConv2D(3, padding="same")])(x)
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(keras.activations.softmax(x))
    model = keras.Model(inputs, x)
    model.save(tmp_path / "m.keras")
    image = np.random.default_rng(0).integers(0, 255, (16, 20, 3)).astype(np.uint8)
    loaded = Segmenter.load(tmp_path / "m.keras", runtime="keras")
    expected = model.predict_on_batch(image[None].astype(np.float32))[0]
    np.testing.assert_allclose(loaded.logits(Image.fromarray(image)), expected, rtol=1e-5)


def test_our_own_networks_pass(tmp_path):
    for options in ({"output_stride": 8, "dtype": "mixed_bfloat16"}, {"fused_batchnorm": False}):
        build_fcn("tiny", 3, weights=None, **options).save(tmp_path / "m.keras")
        check_model_file(tmp_path / "m.keras")


PRESETS = {
    "Functional": {"registered_name": "Functional", "module": "keras", "class_name": "Model"},
    "keras_hub>BytePairTokenizer": {"registered_name": "keras_hub>BytePairTokenizer"},
    "bert": {"model_type": "bert"},
    "csp": {"architecture": "csp"},
    "keras.layers.Lambda": {
        "registered_name": "keras_hub>ResNetBackbone",
        "config": {"block_type": LAYERS["keras.layers.Lambda"]},
    },
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_of_resnets(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(PRESETS[name]))
    with pytest.raises(UserError) as error:
        build_features("resnet18", str(tmp_path))
    assert "config.json: " in str(error.value)


def test_weights_of_a_preset_are_walked(tmp_path):
    config = {"registered_name": "keras_hub>ResNetBackbone", "config": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with h5py.File(tmp_path / "model.weights.h5", "w") as weights:
        weights["layers"] = h5py.ExternalLink("/etc/other.h5", "/x")
    with pytest.raises(UserError, match="model.weights.h5: refused, as 'layers'"):
        build_features("resnet18", str(tmp_path))
