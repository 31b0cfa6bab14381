"""Exported files, run by their runtimes and compared with the model once more."""

import dataclasses
import json
import shutil
import sys
import zipfile

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter

from fcn_keras.cli import main
from fcn_keras.cli.export import PROVENANCE
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.export import FILES
from fcn_keras.export.formats import FORMATS
from fcn_keras.export.single_file import export_file
from fcn_keras.files.writing import require_replaceable
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.models.fcn import build_fcn

LABELS = LabelSet(("ground", "Bäume", "c"), ((0, 0, 0), (1, 2, 3), (255, 0, 9)))
CONTENT = {
    "names": ["ground", "Bäume", "c"],
    "palette": [[0, 0, 0], [1, 2, 3], [255, 0, 9]],
    "ignore_id": 255,
}
SIZES = [(1, 1, 1), (2, 37, 50), (3, 96, 64)]


def small_fcn(stride=8, seed=0, dtype=None, dilated=False, upsampling="dense"):
    """An FCN with few channels, whose batch normalisations have statistics as after training."""
    keras.utils.set_random_seed(seed)
    options = {"dilated": dilated, "weights": None, "dtype": dtype, "upsampling": upsampling}
    model = build_fcn("tiny", len(LABELS), None if dilated else stride, **options)
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if "moving" in weight.path:
            mean = weight.path.endswith("moving_mean")
            weight.assign(rng.uniform(-0.3 if mean else 0.3, 0.3 if mean else 0.9, weight.shape))
    return model


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(small_fcn(), LABELS)


def name_of(format):
    return f"m{FILES[format][0]}"


@pytest.fixture(scope="module")
def folder(segmenter, tmp_path_factory):
    """A folder with the three files."""
    folder = tmp_path_factory.mktemp("files")
    for format in FORMATS:
        path = folder / name_of(format)
        assert export_file(segmenter, path, format, {"run": "x"}) == path
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_replaces_exports_alone(format, folder, untrained_run, tmp_path, capfd):
    own = folder / name_of(format)
    require_replaceable("--output", own, PROVENANCE)
    others = [(untrained_run / "best.keras").read_bytes(), own.read_bytes()[:99], b"mine"]
    for content in others:
        path = tmp_path / own.name
        path.write_bytes(content)
        flags = ["--format", format, "--output", str(path)]
        assert main(["export", "--model", str(untrained_run), *flags]) == 1
        assert (
            f"error: --output {path}: exists, but was not written by this command"
            in capfd.readouterr().err
        )
        assert path.read_bytes() == content


def random_images(shape):
    return np.random.default_rng(1).integers(0, 256, (*shape, 3)).astype(np.float32)


def by_onnx(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {"images": images})
    return logits


def by_litert(path, images):
    interpreter = Interpreter(str(path))
    [images_in], [logits_out] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(images_in["index"], images.shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(images_in["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(logits_out["index"])


def by_keras(path, images):
    return keras.models.load_model(path).predict_on_batch(images)


RUNS = {".onnx": (by_onnx, 1e-4), ".tflite": (by_litert, 2e-2), ".keras": (by_keras, 1e-5)}


@pytest.mark.parametrize("suffix", RUNS)
@pytest.mark.parametrize("shape", SIZES)
def test_logits_of_any_size_are_the_models(segmenter, folder, suffix, shape):
    run, tolerance = RUNS[suffix]
    images = random_images(shape)
    expected = segmenter.model.predict_on_batch(images)
    assert np.ptp(expected) > 50 * tolerance or shape == (1, 1, 1)
    np.testing.assert_allclose(run(folder / f"m{suffix}", images), expected, atol=tolerance)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 16, "upsampling": "per-class"},
        {"stride": 8, "upsampling": "fixed"},
        {"stride": 32},
        {"dilated": True},
    ],
)
@pytest.mark.parametrize("format", ["onnx", "litert"])
def test_other_networks(options, format, tmp_path):
    model, suffix = small_fcn(**options), FILES[format][0]
    path = export_file(Segmenter(model, LABELS), tmp_path / f"m{suffix}", format)
    run, tolerance = RUNS[suffix]
    images = random_images((2, 70, 45))
    expected = model.predict_on_batch(images)
    np.testing.assert_allclose(run(path, images), expected, atol=tolerance)


def test_onnx_names_and_metadata(folder):
    model = onnx.load(folder / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    [images], [logits] = model.graph.input, model.graph.output

    def shape(tensor):
        return [dim.dim_param or dim.dim_value for dim in tensor.type.tensor_type.shape.dim]

    assert (images.name, logits.name) == ("images", "logits")
    assert shape(images) == ["batch", "height", "width", 3]
    assert shape(logits) == ["batch", "height", "width", 3]
    session = onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == CONTENT
    provenance = json.loads(metadata["provenance"])
    assert provenance["model"] == "fcn_8s" and provenance["run"] == "x"
    assert {"git_commit", "versions"} <= set(provenance)


def test_litert_has_half_precision_and_its_labels(folder):
    path = folder / "m.tflite"
    interpreter = Interpreter(str(path))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["images"], "outputs": ["logits"]}
    }
    kernels = [d for d in interpreter.get_tensor_details() if list(d["shape"]) == [64, 3, 3, 64]]
    assert {np.float16} <= {kernel["dtype"] for kernel in kernels}
    assert path.stat().st_size < 0.6 * (folder / "m.onnx").stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("labels.json")) == CONTENT
        assert archive.read("labels.txt").decode() == "ground\nBäume\nc\n"
        assert json.loads(archive.read("provenance.json"))["run"] == "x"


@pytest.mark.slow
def test_keras_file_has_no_optimizer_but_labels(tmp_path, capfd):
    model = small_fcn()
    model.compile("adam", "mse")
    images = random_images((2, 32, 32))
    model.train_on_batch(images, np.zeros((2, 32, 32, 3)))
    model.save(tmp_path / "last.keras")
    arguments = ["--format", "keras", "--output", str(tmp_path / "a.keras")]
    assert main(["export", "--model", str(tmp_path / "last.keras"), *arguments]) == 0
    export_file(Segmenter(model, LABELS), tmp_path / "b.keras", "keras")
    for name, labels in (("a", ("class_0", "class_1", "class_2")), ("b", LABELS.names)):
        path = tmp_path / f"{name}.keras"
        assert path.stat().st_size < (tmp_path / "last.keras").stat().st_size / 2
        with zipfile.ZipFile(path) as archive:
            assert not json.loads(archive.read("config.json")).get("compile_config")
            assert b"optimizer" not in archive.read("model.weights.h5")
        loaded = Segmenter.load(path)
        assert loaded.labels.names == labels
        for ours, theirs in zip(loaded.model.get_weights(), model.get_weights()):
            np.testing.assert_array_equal(ours, theirs)
        np.testing.assert_allclose(
            loaded.model.predict_on_batch(images), model.predict_on_batch(images), atol=1e-5
        )
    assert model.optimizer is not None


def test_labels_of_a_keras_file_go_before_its_neighbours(segmenter, folder, tmp_path):
    shutil.copy(folder / "m.keras", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"labels": {"names": ["other"]}}))
    assert Segmenter.load(tmp_path / "m.keras").labels == LABELS
    segmenter.model.save(tmp_path / "n.keras")
    for content, message in (
        ("{", "labels.json is damaged"),
        ('["a", "b", "c"]', "labels.json is damaged"),
        ('{"names": ["a"]}', "it has 3 classes, but its labels.json has 1"),
    ):
        shutil.copy(tmp_path / "n.keras", tmp_path / "o.keras")
        with zipfile.ZipFile(tmp_path / "o.keras", "a") as archive:
            archive.writestr("labels.json", content)
        with pytest.raises(UserError, match=message):
            Segmenter.load(tmp_path / "o.keras")


@pytest.mark.parametrize("format", FORMATS)
def test_mixed_precision_is_exported_in_float32_and_nothing_is_said(format, tmp_path, capfd):
    model, suffix = small_fcn(dtype="mixed_bfloat16"), FILES[format][0]
    assert model.get_layer("backbone").layers[-1].compute_dtype == "bfloat16"
    capfd.readouterr()
    path = export_file(Segmenter(model, LABELS), tmp_path / f"m{suffix}", format)
    assert capfd.readouterr() == ("", "")
    print("heard")
    assert capfd.readouterr().out == "heard\n"
    full = small_fcn()
    full.set_weights(model.get_weights())
    run, tolerance = RUNS[suffix]
    images = random_images((1, 64, 64))
    expected = full.predict_on_batch(images)
    np.testing.assert_allclose(run(path, images), expected, atol=tolerance)
    assert model.get_layer("backbone").layers[-1].compute_dtype == "bfloat16"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("seed", [0, 1])
def test_another_models_file_is_refused(format, seed, folder, tmp_path, monkeypatch):
    """The file of a model with seed 0 passes for that model only."""
    target = FORMATS[format]
    foreign = dataclasses.replace(
        target, write=lambda model, texts, path: shutil.copy(folder / name_of(format), path)
    )
    monkeypatch.setitem(FORMATS, format, foreign)
    path = tmp_path / name_of(format)
    path.write_text("former")
    segmenter = Segmenter(small_fcn(seed=seed), LABELS)
    if seed == 0:
        export_file(segmenter, path, format)
        assert path.read_bytes() == (folder / path.name).read_bytes()
    else:
        with pytest.raises(UserError, match=r"deviates from the model: .*% of the pixels"):
            export_file(segmenter, path, format)
        assert path.read_text() == "former"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("wrong", [np.nan, 0.01])
def test_results_that_are_no_numbers_or_a_little_off_are_refused(
    wrong, segmenter, folder, tmp_path, monkeypatch
):
    def write(model, texts, path):
        shutil.copy(folder / "m.onnx", path)

    def load(path):
        return lambda images: by_onnx(path, images) + np.array([wrong, 0, 0])

    changed = dataclasses.replace(FORMATS["onnx"], write=write, load=load)
    monkeypatch.setitem(FORMATS, "onnx", changed)
    with pytest.raises(UserError, match="not written, as it deviates"):
        export_file(segmenter, tmp_path / "m.onnx", "onnx")


def test_results_of_another_shape_are_refused(segmenter, tmp_path, monkeypatch):
    cut = dataclasses.replace(FORMATS["keras"], load=lambda path: lambda images: images[:, 1:])
    monkeypatch.setitem(FORMATS, "keras", cut)
    with pytest.raises(UserError, match="has the shape .1, 95, 128, 3., not .1, 96, 128, 3."):
        export_file(segmenter, tmp_path / "m.keras", "keras")


def test_mistakes_are_named(segmenter, tmp_path):
    with pytest.raises(UserError, match=r"m\.tflite: format onnx writes \.onnx .* m\.onnx, or"):
        export_file(segmenter, tmp_path / "m.tflite", "onnx")
    with pytest.raises(UserError, match="format must be one of onnx, litert, keras. Received: 'h"):
        export_file(segmenter, tmp_path / "m.h5", "h5")
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "m.keras").mkdir()
    for place in ("file/m.onnx", "m.keras"):
        path = tmp_path / place
        with pytest.raises(UserError, match="cannot be written"):
            export_file(segmenter, path, "keras" if path.suffix == ".keras" else "onnx")


@pytest.mark.parametrize(
    ("format", "module"), [("onnx", "tf2onnx"), ("litert", "ai_edge_litert.interpreter")]
)
def test_missing_packages_are_named(format, module, segmenter, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs .*: pip install 'fcn_keras\[{format}\]'$"):
        export_file(segmenter, tmp_path / name_of(format), format)
    assert not any(tmp_path.iterdir())
