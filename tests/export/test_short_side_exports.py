"""Exported models with a short side resize photographs as `Segmenter` does."""

import dataclasses
import io
import json
import zipfile

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from PIL import Image
from support.fake_folder import CLASSES
from support.runs import balanced_fcn

from fcn_keras.cli import main
from fcn_keras.data.sample.scenes import draw_scene
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError
from fcn_keras.export.formats import FORMATS
from fcn_keras.export.saved_model import export_saved_model
from fcn_keras.inference.segmenter import Segmenter

SIDE = 96
SIZES = [(60, 83), (250, 170), (1, 1), (1, 300), (96, 132), (3, 300_000), (5000, 2)]


def photograph(height, width):
    image = Image.fromarray(draw_scene(np.random.default_rng(3), (200, 250))[0])
    return image.resize((width, height), Image.Resampling.BILINEAR)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    balanced_fcn(np.asarray(photograph(96, 132)), short_side=SIDE).save(run / "best.keras")
    (run / "config.json").write_text(json.dumps({"labels": {"names": CLASSES}}))
    return run


@pytest.fixture(scope="module")
def segmenter(run):
    return Segmenter.load(run)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    flags = ["export", "--model", str(run), "--output"]
    assert main([*flags, str(folder / "fcn"), "--max-side", "400"]) == 0
    for format, name in (("onnx", "m.onnx"), ("litert", "m.tflite")):
        assert main([*flags, str(folder / name), "--format", format]) == 0
    assert main([*flags, str(folder / "m.keras"), "--format", "keras", "--short-side", "70"]) == 0
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return tf.saved_model.load(str(folder / "fcn" / "1"))


@pytest.fixture(scope="module")
def signatures(loaded):
    return loaded.signatures


def segmented(signatures, *images):
    files = [io.BytesIO() for _ in images]
    for file, image in zip(files, images):
        image.save(file, "PNG")
    answer = signatures["serving_default"](
        image_bytes=tf.constant([file.getvalue() for file in files])
    )
    return [np.asarray(Image.open(io.BytesIO(png))) for png in answer["mask_png_bytes"].numpy()]


def test_files_are_segmented_as_by_predict(signatures, segmenter):
    images = [photograph(*size) for size in SIZES]
    masks = segmented(signatures, *images)
    pairs = [(mask, segmenter(image)) for mask, image in zip(masks, images, strict=True)]
    assert [mask.shape for mask, _ in pairs] == SIZES
    assert sum(len(np.unique(expected)) == 3 for _, expected in pairs) >= 3
    for mask, expected in pairs:
        # Single levels differ, which a strip of few pixels shows.
        assert (mask == expected).mean() > (0.999 if min(mask.shape) > 9 else 0.99)


@pytest.mark.parametrize("size", [(60, 83), (250, 170)])
def test_tensors_are_too(signatures, segmenter, size):
    image = photograph(*size)
    images = np.stack([image, image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    expected = segmenter.probabilities(image)
    assert np.ptp(expected) > 0.1
    answer = signatures["predict_probabilities"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(answer[0], expected, atol=5e-3)
    for name, dtype in (("predict_images", tf.uint8), ("predict_float_images", tf.float32)):
        mask = signatures[name](images=tf.constant(images, dtype))["mask"].numpy()
        assert mask.shape == (2, *size)
        assert (mask[0] == expected.argmax(axis=-1)).mean() > 0.999
        assert (mask[1] == answer[1].numpy().argmax(axis=-1)).mean() > 0.999


def test_about_names_it_and_the_longest_side_is_limited(signatures, segmenter):
    about = signatures["about"](query=tf.zeros(1, tf.int32))["metadata"][0].numpy()
    metadata = json.loads(about)
    assert (metadata["short_side"], metadata["max_side"]) == (SIDE, 400)
    assert segmented(signatures, photograph(10, 600))[0].shape == (10, 600)  # seen as 6×384


def test_small_images_count_as_the_network_sees_them(segmenter, tmp_path):
    """A request of a kilobyte could ask for gigabytes."""
    large = Segmenter(segmenter.model, LabelSet(CLASSES), short_side=1000)
    path = export_saved_model(large, tmp_path / "fcn", max_side=999)
    loaded = tf.saved_model.load(str(path))
    for count, refused in ((17, "images have 17825792 pixels .*resized to 1000; at most"), (1, "")):
        images = tf.zeros((count, 1, 1, 3), tf.uint8)  # 1024 pixels after rounding
        signature = loaded.signatures["predict_images"]
        if refused:
            with pytest.raises(tf.errors.InvalidArgumentError, match=refused):
                signature(images=images)
        else:
            assert signature(images=images)["mask"].shape == (1, 1, 1)
    file = io.BytesIO()
    Image.new("1", (1, 1)).save(file, "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match="have 512972514 pixels; at most 512"):
        loaded.signatures["serving_default"](image_bytes=tf.constant([file.getvalue()] * 514))


def test_openvino_runs_the_onnx_file(folder, segmenter):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    network = core.compile_model(core.read_model(folder / "m.onnx"), "CPU", options)
    for size in ((60, 83), (250, 170)):
        image = photograph(*size)
        expected = float_logits(segmenter.model, image, SIDE)
        logits = network([np.asarray(image, np.float32)[None]])[0]
        np.testing.assert_allclose(logits[0], expected, atol=1e-3)


def float_logits(model, image, side):
    """What `Segmenter` computes, without rounding the resized photograph."""
    height, width = image.height, image.width
    short = min(height, width)
    seen = side * width // short, side * height // short
    planes = [Image.fromarray(np.float32(plane)) for plane in np.moveaxis(np.asarray(image), 2, 0)]
    small = np.stack([np.asarray(p.resize(seen, Image.Resampling.BILINEAR)) for p in planes], 2)
    return tf.image.resize(model(small[None]), (height, width)).numpy()[0]


@pytest.mark.parametrize(("name", "tolerance"), [("m.onnx", 1e-3), ("m.tflite", 5e-3)])
@pytest.mark.parametrize("size", [(1, 1), (60, 83), (250, 170)])
def test_onnx_and_litert_resize_inside(folder, segmenter, name, tolerance, size):
    image = photograph(*size)
    expected = float_logits(segmenter.model, image, SIDE)
    run = FORMATS["onnx" if name.endswith("x") else "litert"].load
    [logits] = run(folder / name)(np.asarray(image, np.float32)[None])
    assert logits.shape == expected.shape
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(logits, expected, atol=tolerance)  # LiteRT's weights are float16
    np.testing.assert_allclose(logits, segmenter.logits(image), atol=0.05)


def test_onnx_takes_batches_and_names_the_short_side(folder, segmenter):
    session = onnxruntime.InferenceSession(folder / "m.onnx", providers=["CPUExecutionProvider"])
    images = np.stack([np.asarray(photograph(50, 70), np.float32)] * 3)
    [logits] = session.run(None, {"images": images})
    np.testing.assert_array_equal(logits[0], logits[2])
    provenance = json.loads(session.get_modelmeta().custom_metadata_map["provenance"])
    assert provenance["short_side"] == SIDE


def test_a_keras_file_stores_it(folder, segmenter):
    with zipfile.ZipFile(folder / "m.keras") as archive:
        assert json.loads(archive.read("provenance.json"))["short_side"] == 70
    loaded = Segmenter.load(folder / "m.keras")
    assert loaded.short_side == 70
    image, other = photograph(60, 83), Segmenter(segmenter.model, segmenter.labels, short_side=70)
    np.testing.assert_allclose(loaded.logits(image), other.logits(image), atol=1e-4)


def test_0_exports_the_network_alone(run, tmp_path):
    flags = ["--format", "onnx", "--output", str(tmp_path / "m.onnx"), "--short-side", "0"]
    assert main(["export", "--model", str(run), *flags]) == 0
    image = np.asarray(photograph(60, 83), np.float32)[None]
    plain = Segmenter.load(run, short_side=0).logits(Image.fromarray(image[0].astype(np.uint8)))
    logits = FORMATS["onnx"].load(tmp_path / "m.onnx")(image)
    np.testing.assert_allclose(logits[0], plain, atol=1e-4)


def test_a_short_side_out_of_range_is_refused(run, tmp_path, capfd):
    flags = ["--output", str(tmp_path / "fcn"), "--short-side", "-3"]
    assert main(["export", "--model", str(run), *flags]) == 1
    assert "short_side must be 0" in capfd.readouterr().err


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_segmenter_of_the_onnx_file_resizes_once_and_makes_no_tiles(runtime, folder, segmenter):
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino"}[runtime])
    options = {"runtime": runtime, "tile": 64, "flip": True}
    fast = Segmenter.load(folder / "m.onnx", **options)
    plain = dataclasses.replace(segmenter, flip=True)
    for size in ((60, 83), (250, 170), (1, 300)):
        image = photograph(*size)
        np.testing.assert_allclose(fast.logits(image), plain.logits(image), atol=1e-3)


@pytest.mark.parametrize("options", [{"short_side": 0}, {"short_side": 70}, {"scales": (1.0, 0.5)}])
def test_it_has_one_short_side(options, folder):
    with pytest.raises(UserError, match=f"shorter side of {SIDE} pixels, .* with --short-side 0"):
        Segmenter.load(folder / "m.onnx", **options)
    assert Segmenter.load(folder / "m.onnx", short_side=SIDE).short_side == SIDE
