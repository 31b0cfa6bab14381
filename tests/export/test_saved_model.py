"""Exported models, checked by programs that share no code with the export."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support import c_api
from support.fake_folder import CLASSES, draw_example
from support.processes import FCN_KERAS, ROOT
from support.runs import save_colour_run
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import prediction_log_pb2

from fcn_keras.cli import main
from fcn_keras.data.voc.labels import VOC_LABELS
from fcn_keras.errors import UserError
from fcn_keras.export.saved_model import _verify, export_saved_model
from fcn_keras.inference.conversion import in_bfloat16
from fcn_keras.inference.loading import load_model
from fcn_keras.inference.segmenter import Segmenter
from fcn_keras.models.fcn import build_fcn

SAVED_MODEL_CLI = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photographs of all kinds and several sizes."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(3)
    pixels = [draw_example(rng, size, void=False)[0] for size in [(48, 64), (70, 50), (99, 33)]]
    images = [Image.fromarray(image) for image in pixels]
    turned = Image.Exif()
    turned[0x0112] = 8
    images[0].save(folder / "photo.jpg")
    images[1].save(folder / "drawing.png")
    images[1].convert("L").save(folder / "grey.jpg")
    images[2].convert("RGBA").save(folder / "alpha.png")
    images[2].save(folder / "turned.jpg", exif=turned)
    deep = rng.integers(0, 65536, (40, 60)).astype(np.uint16)
    Image.fromarray(deep).save(folder / "sixteen.png")
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_saved_model_cli_lists_the_signatures(exported):
    command = [*SAVED_MODEL_CLI, "show", "--dir", exported, "--all"]
    shown = subprocess.run(command, capture_output=True, text=True, env=QUIET, check=True).stdout
    lines = [line.strip() for line in shown.split("Concrete Functions")[0].splitlines()]

    def signature(name):
        start = lines.index(f"signature_def['{name}']:")
        ends = [i for i in range(start, len(lines)) if lines[i].startswith("Method name")]
        keys = ("inputs[", "outputs[", "dtype:", "shape:")
        return [line for line in lines[start : ends[0]] if line.startswith(keys)]

    def tensor(kind, name, dtype, shape):
        return [f"{kind}['{name}'] tensor_info:", f"dtype: {dtype}", f"shape: {shape}"]

    images = "(-1, -1, -1, 3)"
    assert signature("serving_default") == [
        *tensor("inputs", "image_bytes", "DT_STRING", "(-1)"),
        *tensor("outputs", "class_fractions", "DT_FLOAT", "(-1, 3)"),
        *tensor("outputs", "mask_png_bytes", "DT_STRING", "(-1)"),
    ]
    for name, dtype in (("predict_images", "DT_UINT8"), ("predict_float_images", "DT_FLOAT")):
        assert signature(name) == [
            *tensor("inputs", "images", dtype, images),
            *tensor("outputs", "mask", "DT_UINT8", "(-1, -1, -1)"),
        ]
    assert signature("predict_probabilities") == [
        *tensor("inputs", "images", "DT_UINT8", images),
        *tensor("outputs", "probabilities", "DT_FLOAT", images),  # three classes
    ]
    assert signature("labels") == [
        *tensor("outputs", "names", "DT_STRING", "(3)"),
        *tensor("outputs", "palette", "DT_UINT8", "(3, 3)"),
    ]
    assert signature("about") == [
        *tensor("inputs", "query", "DT_INT32", "(-1)"),
        *tensor("outputs", "metadata", "DT_STRING", "(-1)"),
        *tensor("outputs", "names", "DT_STRING", "(-1, 3)"),
        *tensor("outputs", "palette", "DT_UINT8", "(-1, 3, 3)"),
    ]


@pytest.mark.slow
def test_saved_model_cli_run_gives_the_ids_of_predict(exported, untrained_run, photos, tmp_path):
    """All photographs in one batch, though their sizes differ."""
    np.save(tmp_path / "files.npy", np.array([path.read_bytes() for path in photos]))
    command = [*SAVED_MODEL_CLI, "run", "--dir", exported, "--tag_set", "serve"]
    command += ["--signature_def", "serving_default", "--outdir", tmp_path]
    command += ["--inputs", f"image_bytes={tmp_path / 'files.npy'}"]
    subprocess.run(command, capture_output=True, env=QUIET, check=True)
    answers = np.load(tmp_path / "mask_png_bytes.npy", allow_pickle=True)
    fractions = np.load(tmp_path / "class_fractions.npy")

    output = ["--output", str(tmp_path / "masks")]
    assert main(["predict", "--model", str(untrained_run), *output, str(photos[0].parent)]) == 0
    for path, answer, shares in zip(photos, answers, fractions, strict=True):
        mask = Image.open(io.BytesIO(answer))
        expected = np.asarray(Image.open(tmp_path / "masks" / f"{path.stem}.png"))
        assert mask.mode == "L"
        np.testing.assert_array_equal(np.asarray(mask), expected)
        counts = [(expected == c).sum() for c in range(len(CLASSES))]
        np.testing.assert_allclose(shares, np.array(counts) / expected.size, rtol=1e-6)
    assert np.unique(expected).size > 1


def test_the_c_api_gives_the_ids_of_predict(exported, untrained_run, photos, tmp_path):
    model = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    signature = model.meta_graphs[0].signature_def["serving_default"]
    tensors = [signature.inputs["image_bytes"].name, signature.outputs["mask_png_bytes"].name]
    answers = [tmp_path / f"{path.stem}.png" for path in photos]
    files = [file for pair in zip(photos, answers) for file in pair]
    program = [sys.executable, c_api.__file__, exported, *tensors, *files]
    subprocess.run(program, check=True, env=QUIET)
    segmenter = Segmenter.load(untrained_run)
    for path, answer in zip(photos, answers):
        np.testing.assert_array_equal(np.asarray(Image.open(answer)), segmenter(path))


@pytest.fixture(scope="module")
def signatures(exported):
    return tf.saved_model.load(str(exported)).signatures


def segment(signatures, *files):
    answer = signatures["serving_default"](image_bytes=tf.constant(list(files)))
    return [np.asarray(Image.open(io.BytesIO(png))) for png in answer["mask_png_bytes"].numpy()]


def test_tensor_signatures_agree_with_the_model(signatures, untrained_run):
    rng = np.random.default_rng(5)
    images = np.stack([draw_example(rng, (61, 83), void=False)[0] for _ in range(2)])
    logits = load_model(untrained_run / "best.keras").predict_on_batch(images.astype(np.float32))
    exponents = np.exp(logits.astype(np.float64))
    probabilities = exponents / exponents.sum(axis=-1, keepdims=True)
    answer = signatures["predict_probabilities"](images=tf.constant(images))
    np.testing.assert_allclose(answer["probabilities"], probabilities, atol=1e-5)
    for name, dtype in (("predict_images", tf.uint8), ("predict_float_images", tf.float32)):
        mask = signatures[name](images=tf.constant(images, dtype))["mask"]
        np.testing.assert_array_equal(mask, logits.argmax(axis=-1))


@pytest.fixture(scope="module")
def mixed_run(untrained_run, tmp_path_factory):
    """That run with a backbone in bfloat16, in which some pixels have another class."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copy(untrained_run / "config.json", folder)
    in_bfloat16(load_model(untrained_run)).save(folder / "best.keras")
    return folder


def test_a_run_in_mixed_precision_is_served_in_float32(mixed_run, untrained_run, photos, tmp_path):
    assert main(["export", "--model", str(mixed_run), "--output", str(tmp_path)]) == 0
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    own, plain = Segmenter(load_model(mixed_run), CLASSES), Segmenter.load(untrained_run)
    predict, differing = Segmenter.load(mixed_run), 0
    for photo in photos:
        mask = plain(photo)
        differing += np.count_nonzero(own(photo) != mask)
        np.testing.assert_array_equal(segment(signatures, photo.read_bytes())[0], mask)
        np.testing.assert_array_equal(predict(photo), mask)
    assert differing > 10  # so bfloat16 would show


def test_an_export_in_bfloat16_computes_in_it(untrained_run, photos, tmp_path):
    flags = ["--output", str(tmp_path), "--precision", "bfloat16"]
    assert main(["export", "--model", str(untrained_run), *flags]) == 0
    signatures = tf.saved_model.load(str(tmp_path / "1")).signatures
    plain, differing, pixels = Segmenter.load(untrained_run), 0, 0
    for photo in photos:
        [mask] = segment(signatures, photo.read_bytes())
        differing += np.count_nonzero(mask != plain(photo))
        pixels += mask.size
    assert 10 < differing < 0.05 * pixels, (differing, pixels)  # float32 and noise would not be
    metadata = json.loads(signatures["about"](query=tf.constant([0]))["metadata"][0].numpy())
    assert metadata["precision"] == "bfloat16"


@pytest.mark.slow
def test_packed_kernels_are_those_of_each_version(tmp_path):
    """A server loads versions one after the other, and oneDNN keeps the kernels of convolutions."""
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        network = build_fcn("tiny", len(VOC_LABELS), 8, weights=None)
        export_saved_model(Segmenter(network, VOC_LABELS), tmp_path / "fcn")
    program = """
import sys, numpy as np, tensorflow as tf
image = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), "uint8")
models, answers = [], []
for version in "1212":
    models.append(tf.saved_model.load(sys.argv[1] + version))
    answer = models[-1].signatures["predict_probabilities"]
    answers += [answer(images=tf.constant(image))["probabilities"].numpy() for _ in range(2)]
np.save(sys.argv[2], answers)
"""
    found = []
    for value in "01":
        environment = {**QUIET, "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": value}
        words = [f"{tmp_path}/fcn/", str(tmp_path / "answers.npy")]
        subprocess.run([sys.executable, "-c", program, *words], check=True, env=environment)
        found.append(np.load(words[1]))
    np.testing.assert_array_equal(*found)
    assert np.abs(found[0][0] - found[0][2]).max() > 0.01  # the versions differ


def test_bfloat16_of_a_model_without_backbone_is_refused(tmp_path, capfd):
    run = save_colour_run(tmp_path / "run", ["a", "b", "c"], [[0, 0, 0]] * 3)
    flags = ["--output", str(tmp_path / "fcn"), "--precision", "bfloat16"]
    assert main(["export", "--model", str(run), *flags]) == 1
    assert "this model has none. Use --precision float32." in capfd.readouterr().err
    assert not (tmp_path / "fcn").exists()


def test_the_dilated_network_is_served(photos, tmp_path):
    model = build_fcn("tiny", 21, dilated=True, weights=None)
    segmenter = Segmenter(model, VOC_LABELS)
    path = export_saved_model(segmenter, tmp_path)
    signatures = tf.saved_model.load(str(path)).signatures
    for photo in photos:
        np.testing.assert_array_equal(
            segment(signatures, photo.read_bytes())[0], segmenter(str(photo))
        )
    images = np.random.default_rng(0).integers(0, 256, (2, 61, 83, 3), "uint8")
    answer = signatures["predict_probabilities"](images=tf.constant(images))["probabilities"]
    expected = tf.nn.softmax(model.predict_on_batch(images.astype(np.float32)))
    np.testing.assert_allclose(answer, expected, atol=1e-5)


def test_another_models_export_is_noticed(exported, untrained_run):
    model = load_model(untrained_run / "best.keras")
    _verify(model, exported, max_side=300)
    model.get_layer("score_32").bias.assign([0, 0, 99])
    with pytest.raises(UserError, match="not written, as the exported model deviates .*% of the"):
        _verify(model, exported, max_side=300)


def test_labels_and_metadata_travel_along(signatures, exported):
    answer = signatures["labels"]()
    assert [name.decode() for name in answer["names"].numpy()] == list(CLASSES)
    assert answer["palette"].numpy().tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    labels = json.loads((exported / "assets" / "labels.json").read_text())
    assert labels["names"] == list(CLASSES) and labels["ignore_id"] == 255
    about = signatures["about"](query=tf.constant([0, 0]))
    for key in ("names", "palette"):
        assert about[key].numpy().tolist() == [answer[key].numpy().tolist()] * 2
    metadata = json.loads(about["metadata"][1].numpy())
    assert metadata == json.loads((exported / "assets.extra" / "metadata.json").read_text())
    assert metadata["model"] == "fcn_8s" and metadata["max_side"] == 300
    assert metadata["run"]["git_commit"] == "abc" and metadata["versions"]["keras"]


def test_few_queries_are_answered_about_the_model(signatures):
    """Each repeats the metadata: a short request could ask for gigabytes."""
    assert len(signatures["about"](query=tf.zeros(1024, tf.int32))["metadata"]) == 1024
    with pytest.raises(tf.errors.InvalidArgumentError, match="query has 1025 numbers; at most"):
        signatures["about"](query=tf.zeros(1025, tf.int32))


def test_warmup_requests_can_be_replayed(signatures, exported):
    path = exported / "assets.extra" / "tf_serving_warmup_requests"
    asked = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
        tensors = {name: tf.constant(value) for name, value in inputs.items()}
        answer = signatures[request.model_spec.signature_name](**tensors)
        asked[request.model_spec.signature_name] = answer
    assert set(asked) == set(signatures)
    mask = np.asarray(Image.open(io.BytesIO(asked["serving_default"]["mask_png_bytes"][0].numpy())))
    assert mask.shape == asked["predict_images"]["mask"].shape[1:]


def test_long_photographs_are_seen_smaller(signatures, untrained_run):
    """`exported` was made with a limit of 300 pixels per side."""
    image = draw_example(np.random.default_rng(7), (303, 601), void=False)[0]
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    [mask] = segment(signatures, file.getvalue())
    small = tf.image.resize(image, (151, 300), antialias=True)  # 303 * 300 / 601 = 151.2
    model = load_model(untrained_run / "best.keras")
    expected = model.predict_on_batch(small.numpy()[None])[0].argmax(axis=-1)
    # Nearest neighbour: the pixel whose cell holds the centre of the larger image's pixel.
    rows = ((np.arange(303) + 0.5) * 151 / 303).astype(int)
    columns = ((np.arange(601) + 0.5) * 300 / 601).astype(int)
    np.testing.assert_array_equal(mask, expected[rows][:, columns])


def test_a_broken_image_fails_its_own_request(signatures, photos):
    good = photos[0].read_bytes()
    for broken in (good[:-200], b"text", b""):
        with pytest.raises(tf.errors.InvalidArgumentError):
            segment(signatures, good, broken)
    file = io.BytesIO()
    Image.new("L", (1001, 1000)).save(file, "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[1\] has 1000x1001"):
        segment(signatures, good, file.getvalue())
    assert len(segment(signatures, good)) == 1
    assert segment(signatures, *[good] * 3)[2].shape == segment(signatures, good)[0].shape


def test_many_pixels_in_one_request_are_refused_before_any_is_decoded(signatures):
    file = io.BytesIO()
    Image.new("1", (1000, 1000)).save(file, "PNG")
    data = file.getvalue()[:100]  # whose pixels cannot be decoded
    with pytest.raises(tf.errors.InvalidArgumentError, match="have 513000000 pixels; at most 512"):
        segment(signatures, *[data] * 513)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid PNG"):
        segment(signatures, *[data] * 512)


def test_many_files_in_one_request_are_refused(signatures):
    """Each takes time, however small it is."""
    for count, reason in ((1025, "image_bytes has 1025 files; at most 1024"), (1024, "neither a")):
        with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
            segment(signatures, *[b""] * count)


@pytest.mark.parametrize("name", ["images", "float_images", "probabilities"])
@pytest.mark.parametrize("shape", [(2**14 + 1, 1, 1), (1, 1, 2**19 + 1), (1, 2**19 + 1, 1)])
def test_small_images_count_as_the_network_pads_them(signatures, name, shape):
    """Of a MiB of JSON, images of 1x1 would take a gigabyte."""
    signature = signatures[f"predict_{name}"]
    dtype = tf.float32 if name == "float_images" else tf.uint8
    with pytest.raises(tf.errors.InvalidArgumentError, match="images have 16778240 pixels with"):
        signature(images=tf.zeros((*shape, 3), dtype))
    [answer] = signature(
        images=tf.zeros((*[max(side // 16, 1) for side in shape], 3), dtype)
    ).values()
    assert answer.shape[:3] == [max(side // 16, 1) for side in shape]


def export_command(run, output, *flags):
    return [*FCN_KERAS, "export", "--model", run, "--output", output, *flags]


@pytest.mark.slow
def test_a_killed_export_leaves_no_version(untrained_run, tmp_path):
    output = tmp_path / "fcn"
    command = export_command(untrained_run, output)
    process = subprocess.Popen(command, cwd=ROOT, env=QUIET)
    while process.poll() is None and not list(output.glob(".partial-*/*/saved_model.pb")):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    [left] = output.iterdir()
    assert left.name.startswith(".partial-")
    os.utime(left, (0, 0))  # as if it had happened long ago
    for name in ("7", "old", "12.keep"):
        (output / name).mkdir()
    subprocess.run(command, cwd=ROOT, env=QUIET, check=True)
    assert sorted(path.name for path in output.iterdir()) == ["12.keep", "7", "8", "old"]


@pytest.mark.slow
def test_two_exports_at_once_make_two_versions(untrained_run, tmp_path):
    command = export_command(untrained_run, tmp_path)
    processes = [subprocess.Popen(command, cwd=ROOT, env=QUIET) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]
    for version in ("1", "2"):
        assert (tmp_path / version / "variables" / "variables.index").is_file()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max-side", "0"], "max_side must be at least 1. Received: 0."),
        (["--max-pixels", "-1"], "max_pixels must be at least 1. Received: -1."),
        (["--format", "onnx", "--max-side", "9"], "--max-pixels and --precision require"),
        (["--format", "keras", "--precision", "bfloat16"], "--precision require --format saved"),
    ],
)
def test_mistakes_are_named(untrained_run, tmp_path, flags, message, capfd):
    output = str(tmp_path / "fcn")
    assert main(["export", "--model", str(untrained_run), "--output", output, *flags]) == 1
    assert message in capfd.readouterr().err
    assert not (tmp_path / "fcn").exists()


def test_a_file_in_the_way_is_named(untrained_run, tmp_path, capfd):
    (tmp_path / "fcn").write_text("in the way")
    output = str(tmp_path / "fcn")
    assert main(["export", "--model", str(untrained_run), "--output", output]) == 1
    assert capfd.readouterr().err.startswith(f"error: {output}: cannot be written (Not a dir")
    with pytest.raises(UserError, match="fcn: the model cannot be written there"):
        export_saved_model(Segmenter.load(untrained_run), output)
