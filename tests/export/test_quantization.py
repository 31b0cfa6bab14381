"""Files of 8-bit integers: how they are calibrated and measured, and when they are refused."""

import json
import re
import shutil
import zipfile

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from support.fake_folder import write_folder

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.evaluation.scores import evaluate
from fcn_keras.export import FILES
from fcn_keras.export.formats import FORMATS
from fcn_keras.inference.segmenter import Segmenter


def export(run, dataset, path, *flags):
    format = next(name for name, (suffix, _) in FILES.items() if suffix == path.suffix)
    words = ["--format", format, "--output", str(path), "--int8", "--calibrate", str(dataset)]
    return main(["export", "--model", str(run), *words, *flags])


@pytest.fixture(scope="module")
def folder(finished_run, shapes, tmp_path_factory):
    """A folder with the two files, made on demand."""
    folder = tmp_path_factory.mktemp("int8")

    def made(name):
        if not (folder / name).exists():
            assert export(finished_run, shapes, folder / name, "--max-miou-drop", "0.1") == 0
        return folder / name

    return made


def provenance(path):
    if path.suffix == ".onnx":
        return json.loads({p.key: p.value for p in onnx.load(path).metadata_props}["provenance"])
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("provenance.json"))


def weights(path):
    """Names of types of the kernels of 3x3 convolutions."""
    if path.suffix == ".onnx":
        tensors = [(t.data_type, t.dims) for t in onnx.load(path).graph.initializer]
        return {
            onnx.TensorProto.DataType.Name(kind) for kind, dims in tensors if dims[2:] == [3, 3]
        }
    tensors = Interpreter(str(path)).get_tensor_details()
    kernels = [t for t in tensors if len(t["shape"]) == 4 and list(t["shape"][1:3]) == [3, 3]]
    return {np.dtype(kernel["dtype"]).name.upper() for kernel in kernels}


@pytest.mark.parametrize("name", ["m.onnx", "m.tflite"])
def test_mean_iou_is_measured_and_logits_are_near_the_models(
    name, folder, finished_run, shapes, capfd
):
    capfd.readouterr()
    path = folder(name)
    output, errors = capfd.readouterr()
    figures = re.search("validation split: ([.0-9]+) in float32, ([.0-9]+) in int8\n", output)
    assert errors == ""
    assert weights(path) == {"INT8"}

    run = FORMATS["onnx" if path.suffix == ".onnx" else "litert"].load(path)
    model, val = Segmenter.load(finished_run), load_split(str(shapes), "val")
    scores = [
        evaluate(segment, val).mean_iou
        for segment in (model, lambda x: run(x[None].astype(np.float32))[0].argmax(-1))
    ]
    assert [float(figure) for figure in figures.groups()] == pytest.approx(scores, abs=1e-4)
    record = provenance(path)["int8"]
    assert record["calibration"] == {"dataset": shapes.name, "split": "train", "images": 6}
    assert [record["mean_iou"][key] for key in ("float32", "int8")] == pytest.approx(scores)
    assert (record["mean_iou"]["split"], record["mean_iou"]["images"]) == ("val", 5)

    for batch, size in ((1, (48, 64)), (2, (37, 81))):  # of any batch, height and width
        pixels = np.stack([val.read(index)[0] for index in range(batch)])
        rows, columns = (np.arange(side) % most for side, most in zip(size, (48, 64)))
        images = pixels[:, rows[:, None], columns].astype(np.float32)
        logits, expected = run(images), model.model.predict_on_batch(images)
        assert logits.shape == (batch, *size, 3) and logits.dtype == np.float32
        assert np.abs(logits - expected).mean() < 0.1 * expected.std()
        assert np.abs(logits - expected).max() > 1e-3  # float32 would be closer


def test_segmenter_loads_the_onnx_file(folder, shapes):
    val = load_split(str(shapes), "val")
    image, _ = val.read(0)
    mask = FORMATS["onnx"].load(folder("m.onnx"))(image[None].astype(np.float32))[0].argmax(-1)
    for runtime, least in (("onnx", 1.0), ("openvino", 0.97)):  # which rounds in another way
        segmenter = Segmenter.load(folder("m.onnx"), runtime=runtime)
        assert segmenter.labels == val.labels
        assert (segmenter(image) == mask).mean() >= least


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m.onnx", "m.tflite"])
def test_a_file_that_loses_too_much_is_refused(name, folder, finished_run, shapes, tmp_path, capfd):
    dark = shutil.copytree(shapes, tmp_path / "dark")
    for path in (dark / "JPEGImages").glob("train_*"):  # of images that say nothing of the ranges
        Image.new("RGB", (64, 48)).save(path)
    path = tmp_path / name
    shutil.copy(folder(name), path)
    before = path.read_bytes()
    capfd.readouterr()
    assert export(finished_run, dark, path) == 1
    message = (
        r"error: Nothing was written: the mean IoU on .*dark falls from 0\.\d{4} to 0\.\d{4} in"
    )
    assert re.search(message, capfd.readouterr().err)
    assert path.read_bytes() == before and not list(tmp_path.glob(".partial*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["m.onnx", "m.tflite"])
def test_an_image_that_cannot_be_read_is_named(name, finished_run, tmp_path, capfd):
    damaged = write_folder(tmp_path / "damaged", train=5)
    (damaged / "JPEGImages" / "train_4.jpg").write_bytes(b"no image")
    assert export(finished_run, damaged, tmp_path / name) == 1
    [line] = capfd.readouterr().err.splitlines()
    assert "train_4.jpg" in line
    assert not (tmp_path / name).exists()


@pytest.mark.slow
def test_photographs_of_all_sizes_and_a_short_side(finished_run, tmp_path, capfd):
    mixed = write_folder(tmp_path / "mixed", train=4)
    for number, size in enumerate([(30, 90), (100, 40), (900, 600)]):
        for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
            path = mixed / folder / f"train_{number}.{suffix}"
            Image.open(path).resize(size, Image.Resampling.NEAREST).save(path)
    for name, flags in (("m.onnx", []), ("m.tflite", []), ("s.onnx", ["--short-side", "64"])):
        drop = ["--max-miou-drop", "1"]
        assert export(finished_run, mixed, tmp_path / name, *flags, *drop) == 0, name
    assert provenance(tmp_path / "s.onnx")["short_side"] == 64
    assert export(finished_run, mixed, tmp_path / "s.tflite", *flags) == 1
    assert "error: LiteRT files in int8 cannot resize" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--int8", "--int8 requires --calibrate"),
        ("--calibrate x", "--max-miou-drop require --int8"),
        ("--int8 --calibrate x --format keras", "--int8 requires --format onnx or litert"),
        ("--int8 --calibrate x", "A data set must be sample, .* Received: 'x'"),
        ("--int8 --calibrate x --calibrate-images 3", "must be at least 4. Received: 3"),
        ("--int8 --calibrate x --max-miou-drop nan", "must be between 0 and 1. Received: nan"),
    ],
)
def test_flags_that_do_not_fit_are_named(flags, message, untrained_run, tmp_path, capfd):
    place = ["--model", str(untrained_run), "--output", str(tmp_path / "m.onnx")]
    assert main(["export", *place, "--format", "onnx", *flags.split()]) == 1
    assert re.search(f"^error: .*{message}", capfd.readouterr().err)


def test_data_sets_that_do_not_fit_are_named(untrained_run, tmp_path, capfd):
    data, path = write_folder(tmp_path / "data", train=3), tmp_path / "m.onnx"

    def error():
        assert export(untrained_run, data, path) == 1 and not path.exists()
        return capfd.readouterr().err

    assert "its training split has 3 images, but calibration needs at least 4" in error()
    (data / "classes.txt").write_text("ground\nbox\nother\n")
    assert "They must be the same" in error()
    (data / "ImageSets/Segmentation/val.txt").unlink()
    assert "val.txt: no such file" in error()
