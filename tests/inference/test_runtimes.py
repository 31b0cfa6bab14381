"""Runtimes against the model itself: the same results at any size, and what they refuse."""

import dataclasses
import json
import pickle
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from support.bfloat16 import has_bfloat16
from support.fake_folder import write_folder
from support.runs import save_colour_run

from fcn_keras import Segmenter, UserError
from fcn_keras.cli import main
from fcn_keras.data.sample.scenes import draw_scene
from fcn_keras.inference.conversion import write_graph
from fcn_keras.inference.options import NetworkError
from fcn_keras.inference.runtimes import _checked, _OpenVino, load_network
from fcn_keras.models.fcn import build_fcn

SIZES = [(1, 96, 128), (2, 45, 70), (1, 96, 128), (1, 96, 128), (1, 1, 1)]
EXACT = [
    ("tensorflow", None),
    ("openvino", None),
    pytest.param("onnx", "float32", marks=pytest.mark.slow),
]
PACKAGES = {"openvino": "openvino", "onnx": "onnxruntime"}


def require(runtime, precision=None):
    if runtime in PACKAGES:
        pytest.importorskip(PACKAGES[runtime])
    if (runtime, precision) == ("openvino", "bfloat16") and not has_bfloat16():
        pytest.skip("the processor has no bfloat16 instructions")


def scene(seed, size):
    image, _ = draw_scene(np.random.default_rng(seed), (96, 128))
    return image[: size[0], : size[1]]


def batches():
    for batch, *size in SIZES:
        yield np.stack([scene(seed, tuple(size)) for seed in range(batch)]).astype(np.float32)


def as_they_are(pieces, total):
    return pieces


def fcn(dtype=None, seed=0, **form):
    keras.utils.set_random_seed(seed)
    return build_fcn("tiny", 3, **(form or {"output_stride": 8}), weights=None, dtype=dtype)


def pixelwise(seed):
    """The smallest model that a runtime can take."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, keras.layers.Conv2D(3, 1)(inputs))


@pytest.fixture(scope="module", params=[{}, {"dilated": True}], ids=["FCN-8s", "dilated"])
def form(request):
    return request.param


@pytest.fixture(scope="module")
def model(form):
    return fcn(**form)


@pytest.mark.parametrize(("runtime", "precision"), EXACT)
def test_logits_are_the_models_at_any_size(model, runtime, precision):
    require(runtime)
    network = load_network(model, runtime, precision)
    for images in batches():
        expected, actual = model.predict_on_batch(images), network(images)
        assert actual.dtype == np.float32 and expected.std() > 0.004
        np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["per-class", "fixed"])
def test_upsampling_without_dense_kernels(kind):
    require("openvino")
    model = fcn(output_stride=8, upsampling=kind)
    network = load_network(model, "openvino")
    for images in batches():
        expected = model(images).numpy()
        np.testing.assert_allclose(network(images), expected, atol=1e-4)


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_bfloat16_is_near_and_only_where_asked_for(model, runtime):
    require(runtime, "bfloat16")
    network = load_network(model, runtime, "bfloat16")
    images = next(batches())
    difference = np.abs(network(images) - model.predict_on_batch(images)).max()
    assert 1e-4 < difference < 0.2


@pytest.mark.parametrize(
    "runtime", ["tensorflow", "openvino", pytest.param("onnx", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_a_mixed_model_is_computed_in_float32(model, form, runtime, dtype):
    require(runtime)
    mixed = fcn(dtype, **form)
    mixed.set_weights(model.get_weights())
    network = load_network(mixed, runtime)
    images = next(batches())
    expected = model.predict_on_batch(images)
    np.testing.assert_allclose(network(images), expected, atol=1e-4)
    assert np.abs(mixed.predict_on_batch(images) - expected).max() > 2e-4


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        ("openvino", None),
        ("openvino", "bfloat16"),
        pytest.param("onnx", None, marks=pytest.mark.slow),
    ],
)
def test_another_network_is_noticed_at_its_first_image(runtime, precision, monkeypatch):
    require(runtime, precision)
    model, other = pixelwise(1), pixelwise(2)
    monkeypatch.setattr("fcn_keras.inference.conversion.fold_batchnorm", lambda model: other)
    network = load_network(model, runtime, precision)
    images = next(batches())
    name = f"The runtime {runtime} in {precision or 'float32'} deviates"
    with pytest.raises(NetworkError, match=rf"{name}.*: .*(differ|%).*Use --runtime tensorflow"):
        network(images)


def test_bfloat16_is_compared_at_each_size():
    def right(images):
        return np.concatenate([images, 1 - images], axis=-1).astype(np.float32)

    def wrong_when_small(images):
        return right(images) if images.shape[1] > 20 else -right(images)

    network = _checked(wrong_when_small, right, "x", "bfloat16")
    large, small = np.float32(np.random.default_rng(0).random((2, 1, 30, 30, 1)))
    network(large)
    with pytest.raises(NetworkError, match="on the first image of a size: "):
        network(small[:, :10])


@pytest.mark.parametrize(("runtime", "package"), PACKAGES.items())
def test_a_missing_package_is_named(runtime, package, monkeypatch, untrained_run, tmp_path, capfd):
    monkeypatch.setitem(sys.modules, package, None)
    Image.fromarray(scene(0, (40, 50))).save(tmp_path / "a.png")
    command = [
        "predict",
        "--model",
        untrained_run,
        "--output",
        tmp_path / "out",
        tmp_path / "a.png",
    ]
    assert main([*map(str, command), "--runtime", runtime]) == 1
    errors = capfd.readouterr().err
    assert errors.startswith(f"error: The runtime {runtime} needs the package {package} (")
    assert errors.endswith(f"Run: pip install 'fcn_keras[{runtime}]'\n") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "torch"}, "runtime must be one of .* Received: 'torch'"),
        ({"runtime": "onnx", "precision": "bfloat16"}, "The runtime onnx does not support"),
        ({"precision": "float32"}, "The runtime keras does not support .* Received: 'float32'"),
        ({"runtime": "tensorflow", "precision": "int8"}, "precision must be one of .* 'int8'"),
    ],
)
def test_mistakes_are_named(model, options, message):
    with pytest.raises(UserError, match=message):
        Segmenter(model, ("a", "b", "c"), **options)


def test_bfloat16_of_a_model_without_backbone_ends_the_command(tmp_path, capfd):
    run = save_colour_run(tmp_path / "run", ["a", "b", "c"], [[0, 0, 0]] * 3)
    Image.fromarray(scene(0, (40, 50))).save(tmp_path / "a.png")
    command = ["predict", "--model", run, "--output", tmp_path / "out", tmp_path / "a.png"]
    assert main([*map(str, command), "--precision", "bfloat16"]) == 1
    assert "this model has none. Use --precision float32." in capfd.readouterr().err


def test_a_segmenter_prepares_its_network_once_and_can_be_pickled(monkeypatch):
    segmenter = Segmenter(pixelwise(1), ("a", "b", "c"), scales=(1.0, 0.5), flip=True)
    options = {"runtime": "tensorflow", "precision": "float32"}
    fast = dataclasses.replace(segmenter, progress=as_they_are, **options)
    calls = []

    def load(*arguments):
        calls.append(arguments)
        return load_network(*arguments)

    monkeypatch.setattr("fcn_keras.inference.segmenter.load_network", load)
    image = scene(0, (60, 80))
    expected = segmenter(image)
    np.testing.assert_array_equal(fast(image), expected)
    np.testing.assert_array_equal(fast(image), expected)
    assert [arguments[1] for arguments in calls] == ["keras", "tensorflow"]
    copy = pickle.loads(pickle.dumps(fast))
    assert copy.runtime == "tensorflow" and len(np.unique(expected)) > 1
    np.testing.assert_array_equal(copy(image), expected)


def test_a_segmenter_of_a_model_in_training_sees_its_weights():
    model = pixelwise(1)
    segmenter, image = Segmenter(model, ("a", "b", "c")), Image.fromarray(scene(0, (40, 50)))
    before = segmenter.logits(image)
    model.set_weights(pixelwise(2).get_weights())
    assert np.abs(segmenter.logits(image) - before).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_predict_and_evaluate_by_another_runtime(runtime, untrained_run, tmp_path, capfd):
    require(runtime)
    data = write_folder(tmp_path / "data", train=1, val=3)
    common = ["--model", str(untrained_run), "--dataset", str(data)]
    masks, measures = [], []
    for name, flags in (("plain", []), ("fast", ["--runtime", runtime])):
        output, report = tmp_path / name, tmp_path / f"{name}.json"
        assert main(["predict", *common, "--output", str(output), *flags]) == 0
        assert "3 of 3 images predicted, 0 failed." in capfd.readouterr().out
        masks.append([np.asarray(Image.open(path)) for path in sorted(output.glob("*.png"))])
        assert main(["evaluate", *common, "--json", str(report), *flags]) == 0
        measures.append(json.loads(report.read_text())["pixel_accuracy"])
    assert (np.stack(masks[0]) == np.stack(masks[1])).mean() >= 0.999
    assert measures[1] == pytest.approx(measures[0], abs=1e-3) and 0 < measures[0] < 1


def test_openvino_takes_the_threads_it_is_given(tmp_path):
    pytest.importorskip("openvino")
    write_graph(pixelwise(1), tmp_path / "model.pb")
    network = _OpenVino(tmp_path / "model.pb", "f32", 1)
    assert network._any_size.get_property("INFERENCE_NUM_THREADS") == 1


def test_a_disagreement_ends_the_command(untrained_run, tmp_path, monkeypatch, capfd):
    pytest.importorskip("openvino")
    other = pixelwise(2)
    monkeypatch.setattr("fcn_keras.inference.conversion.fold_batchnorm", lambda model: other)
    for name in ("a.png", "b.png"):
        Image.fromarray(scene(0, (40, 50))).save(tmp_path / name)
    command = ["predict", "--model", str(untrained_run), str(tmp_path), "--output"]
    assert main([*command, str(tmp_path / "out"), "--runtime", "openvino"]) == 1
    errors = capfd.readouterr().err
    assert errors.startswith("error: The runtime openvino in float32 deviates from the model")
    assert len(errors.splitlines()) == 1 and not list(tmp_path.glob("out/*.png"))
