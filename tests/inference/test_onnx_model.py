"""ONNX files that run without TensorFlow, compared with the model they were exported from."""

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import onnx
import pytest
from PIL import Image
from support.bfloat16 import has_bfloat16
from support.fake_folder import CLASSES, draw_example, write_folder
from support.processes import FCN_KERAS, ROOT, environment

from fcn_keras import Segmenter, UserError
from fcn_keras.cli import main
from fcn_keras.data.split import LabelSet
from fcn_keras.inference.agreement import deviation
from fcn_keras.inference.onnx_model import OnnxModel
from fcn_keras.inference.options import NetworkError

RUNTIMES = ["onnx", "openvino"]
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
HIDDEN = "tensorflow keras keras_hub h5py matplotlib onnx tf2onnx requests yaml tqdm".split()
HIDING = f"""
import sys

class Hide:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {HIDDEN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hide())
"""


@pytest.fixture(scope="module")
def exported(untrained_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    command = ["export", "--model", str(untrained_run), "--output", str(path)]
    assert main([*command, "--format", "onnx"]) == 0
    return path


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    pytest.importorskip(PACKAGES[request.param])
    return request.param


@pytest.fixture
def changed(exported, tmp_path):
    """Writes a copy of the exported file that a function has changed."""

    def changed(change):
        model = onnx.load(exported)
        change(model)
        onnx.save(model, tmp_path / "changed.onnx")
        return tmp_path / "changed.onnx"

    return changed


def picture(height, width, seed=1):
    return Image.fromarray(draw_example(np.random.default_rng(seed), (height, width), False)[0])


def as_they_are(pieces, total):
    return pieces


def test_classes_receptive_field_and_logits_are_the_runs(exported, untrained_run, runtime):
    segmenter = Segmenter.load(exported, runtime=runtime)
    run = Segmenter.load(untrained_run)
    assert segmenter.labels == run.labels and segmenter.model.field == run._field
    for size in ((64, 96), (45, 70), (64, 96), (64, 96), (1, 1)):
        image = picture(*size) if size != (1, 1) else Image.new("RGB", (1, 1))
        np.testing.assert_allclose(segmenter.logits(image), run.logits(image), atol=1e-4)


def test_tiles_are_exact(exported, runtime):
    whole = Segmenter.load(exported, runtime=runtime)
    field = whole.model.field
    tile = 2 * field.halo + field.stride
    tiled = dataclasses.replace(whole, tile=tile, progress=as_they_are)
    for size in ((tile + 30, 40), (45, tile + 30)):
        image = picture(*size)
        logits = whole.logits(image)
        assert len(list(tiled.pieces(image))) > 4 and np.ptp(logits) > 0.1
        np.testing.assert_allclose(tiled.logits(image), logits, atol=1e-5)


def test_a_segmenter_can_be_pickled(exported):
    segmenter = Segmenter.load(exported, progress=as_they_are)
    expected = segmenter(picture(40, 60))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(segmenter))(picture(40, 60)), expected)


def without_tensorflow(folder, *command):
    (folder / "hiding").mkdir()
    (folder / "hiding/sitecustomize.py").write_text(HIDING)
    variables = environment(PYTHONPATH=f"{folder}/hiding:{ROOT}")
    return subprocess.run(
        [*FCN_KERAS, *map(str, command)], env=variables, capture_output=True, text=True
    )


def test_predict_imports_neither_tensorflow_nor_keras(exported, runtime, tmp_path):
    data = write_folder(tmp_path / "data", val=3)
    flags = ["--model", exported, "--runtime", runtime, "--polygons", "coco", "--probabilities"]
    output = tmp_path / "out"
    done = without_tensorflow(tmp_path, "predict", *flags, "--output", output, data / "JPEGImages")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith("9 of 9 images predicted, 0 failed.")
    segmenter = Segmenter.load(exported, runtime=runtime)
    for path in (data / "JPEGImages").iterdir():
        mask = np.asarray(Image.open(output / f"{path.stem}.png"))
        np.testing.assert_array_equal(mask, segmenter(path))
    assert len(json.loads((output / "coco.json").read_text())["images"]) == 9


def test_evaluate_does_not_either(exported, tmp_path):
    data = write_folder(tmp_path / "data", val=2)
    done = without_tensorflow(tmp_path, "evaluate", "--model", exported, "--dataset", data)
    assert done.returncode == 0 and "mean IoU" in done.stdout, done.stderr


def test_an_overlay_without_matplotlib_is_refused_early(exported, tmp_path):
    picture(40, 60).save(tmp_path / "a.png")
    flags = ["--model", exported, "--output", tmp_path / "out", "--overlay"]
    done = without_tensorflow(tmp_path, "predict", *flags, tmp_path / "a.png")
    assert done.returncode == 1 and not (tmp_path / "out").exists()
    assert done.stderr.startswith("error: --overlay needs the package matplotlib (")
    assert done.stderr.endswith("Run: pip install matplotlib\n")


@pytest.mark.slow
def test_results_are_those_of_the_run_in_onnx_runtime(exported, untrained_run, tmp_path, capfd):
    data = write_folder(tmp_path / "data", val=3)
    command = ["predict", "--dataset", str(data), "--overlay", "--runtime", "onnx", "--model"]
    for name, model in (("file", exported), ("run", untrained_run)):
        assert main([*command, str(model), "--output", str(tmp_path / name)]) == 0
    pictures = sorted(path.relative_to(tmp_path / "run") for path in tmp_path.glob("run/**/*.png"))
    assert len(pictures) == 6
    for path in pictures:
        assert (tmp_path / "file" / path).read_bytes() == (tmp_path / "run" / path).read_bytes()


def test_a_file_of_an_earlier_version_has_no_exact_tiles(changed):
    def forget(model):
        texts = [text for text in model.metadata_props if text.key != "receptive_field"]
        del model.metadata_props[:]
        model.metadata_props.extend(texts)

    segmenter = Segmenter.load(changed(forget), tile=100)
    assert segmenter(picture(90, 100)).shape == (90, 100)
    with pytest.raises(UserError, match="Export it again, or use --blend average"):
        segmenter(picture(90, 120))
    average = dataclasses.replace(segmenter, blend="average", overlap=20, progress=as_they_are)
    assert average(picture(90, 120)).shape == (90, 120)


FIELD = '{"jump": 1.0, "low": -9.0, "high": 9.0, "stride": 32}'


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("labels", '{"names": ["a"]}', "it has 3 classes, but names 1"),
        ("labels", '["a", "b", "c"]', "its metadata are damaged"),
        ("labels", '{"names": ["a", "b", "\\u001b[2J"]}', "its metadata are damaged"),
        ("labels", "[" * 99999, "its metadata are damaged"),
        ("provenance", '{"short_side": -1}', "its short side is out of range"),
        ("provenance", '{"short_side": 1e9}', "its short side is out of range"),
        ("provenance", "[]", "its metadata are damaged"),
        ("receptive_field", FIELD.replace("-9.0", "NaN"), "field that is out of range"),
        ("receptive_field", FIELD.replace("-9.0", "-1e300"), "field that is out of range"),
        ("receptive_field", FIELD.replace("-9.0", "99.0"), "field that is out of range"),
        ("receptive_field", FIELD.replace("32", "0"), "field that is out of range"),
        ("receptive_field", FIELD.replace("32", "0.5"), "field that is out of range"),
        ("receptive_field", FIELD.replace("32", "true"), "field that is out of range"),
        ("receptive_field", "[]", "its metadata are damaged"),
    ],
)
def test_wrong_metadata_are_refused(changed, key, text, message):
    def change(model):
        for each in model.metadata_props:
            each.value = text if each.key == key else each.value

    path = changed(change)
    with pytest.raises(UserError, match=rf"{path}: .*{message}.* Give a file that"):
        OnnxModel.load(path)


def unknown_operator(model):
    model.graph.node[3].op_type = "Nope"


def no_weights(model):
    del model.graph.initializer[:]


@pytest.mark.parametrize("change", [unknown_operator, no_weights])
def test_a_network_that_cannot_be_loaded_ends_the_command(
    change, changed, runtime, tmp_path, capfd
):
    path = changed(change)
    for name in "ab":
        picture(40, 60).save(tmp_path / f"{name}.png")
    photos = [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    flags = ["--model", str(path), "--output", str(tmp_path / "out"), "--runtime", runtime]
    assert main(["predict", *flags, *photos]) == 1
    errors = capfd.readouterr().err
    assert errors.startswith(f"error: {path}: cannot be loaded by the runtime {runtime} (")
    assert errors.count("\n") == 1


def test_logits_of_another_shape_are_refused(changed, runtime):
    def cut(model):
        """Swaps height and width, which the file does not announce."""
        [last] = [node for node in model.graph.node if "logits" in node.output]
        last.output[:] = ["whole"]
        node = onnx.helper.make_node("Transpose", ["whole"], ["logits"], perm=[0, 2, 1, 3])
        model.graph.node.append(node)

    segmenter = Segmenter.load(changed(cut), runtime=runtime)
    with pytest.raises(
        NetworkError, match=r"returns float32 \(1, 60, 40, 3\), not float32 \(1, 40"
    ):
        segmenter(picture(40, 60))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "tensorflow"}, "An ONNX file is run by openvino or onnx. Received: .*flow'"),
        ({"runtime": "keras"}, "An ONNX file is run by openvino or onnx. Received: .*'keras'"),
        ({"runtime": "torch"}, "runtime must be one of"),
        ({"runtime": "onnx", "precision": "bfloat16"}, "The runtime onnx does not support"),
        ({"runtime": "onnx", "tile": 64}, "Exact tiles must be at least"),
    ],
)
def test_mistakes_are_named(exported, options, message):
    with pytest.raises(UserError, match=message):
        Segmenter.load(exported, **options)(picture(60, 70))


def test_bfloat16_is_compared_with_float32_or_refused(exported, tmp_path, capfd):
    """On some processors the random network of the tests has other classes in bfloat16."""
    pytest.importorskip("openvino")
    image = picture(40, 60)
    image.save(tmp_path / "a.png")
    flags = ["--runtime", "openvino", "--precision", "bfloat16", "--output", str(tmp_path / "out")]
    code = main(["predict", "--model", str(exported), *flags, str(tmp_path / "a.png")])
    error = capfd.readouterr().err
    if code == 0:
        found = np.asarray(Image.open(tmp_path / "out" / "a.png"))
        logits = Segmenter.load(exported).logits(image)
        assert has_bfloat16() and not deviation("bfloat16", found[None], logits[None])
    elif has_bfloat16():
        assert (
            "openvino in bfloat16 deviates from the model on the first image of a size: " in error
        )
        assert error.endswith(". Leave out --precision.\n")
    else:
        assert "This processor has no bfloat16 instructions" in error and error.count("\n") == 1


@pytest.mark.parametrize(("runtime", "package"), PACKAGES.items())
def test_a_missing_runtime_is_named(runtime, package, exported, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(NetworkError, match=rf"An ONNX file needs .*Run: pip install {package}$"):
        Segmenter.load(exported, runtime=runtime)


def test_a_segmenter_of_such_a_file_is_not_exported(exported, tmp_path):
    from fcn_keras.export.single_file import export_file

    with pytest.raises(UserError, match="an ONNX file, which only predict"):
        export_file(Segmenter.load(exported), tmp_path / "n.onnx", "onnx")


def test_the_classes_are_of_the_run(exported):
    assert OnnxModel.load(exported).labels == LabelSet(CLASSES)
