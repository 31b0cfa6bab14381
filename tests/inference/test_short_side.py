"""Photographs resized to a short side, and pixels that are too uncertain for a class."""

import io
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.fake_folder import CLASSES, write_folder
from support.processes import ROOT, environment
from support.runs import balanced_fcn

from fcn_keras import Segmenter, UserError
from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.sample.scenes import draw_scene
from fcn_keras.data.split import LabelSet
from fcn_keras.demo.prediction import segment
from fcn_keras.evaluation.scores import evaluate
from fcn_keras.inference.annotations import coco_part, labelme_file
from fcn_keras.inference.receptive_field import receptive_field
from fcn_keras.inference.resizing import resized_strips

LABELS = LabelSet(CLASSES)
SIDE = 96
SIZES = [(60, 83), (250, 170)]  # both are resized to 96 pixels: to 96×132 and 141×96


def photograph(height, width):
    return Image.fromarray(draw_scene(np.random.default_rng(3), (height, width))[0])


@pytest.fixture(scope="module")
def model():
    return balanced_fcn(np.asarray(photograph(96, 132)), short_side=SIDE)


def resized(image, height, width):
    return image.resize((width, height), Image.Resampling.BILINEAR)


def logits_of(model, image):
    return model(np.asarray(image, np.float32)[None]).numpy()[0]


@pytest.mark.parametrize(
    "sizes",
    [((5, 7), (131, 90)), ((200, 130), (70, 41)), ((1, 1), (3, 65)), ((2, 9), (3, 150_000))],
)
def test_strips_are_tensorflows_resize(sizes):
    logits = np.random.default_rng(0).normal(size=(*sizes[0], 4)).astype(np.float32)
    pieces = list(resized_strips(logits, *sizes[1]))
    assert [top for top, _, _ in pieces] == list(
        range(0, sizes[1][0], 64 if sizes[1][1] < 99 else 1)
    )
    actual = np.concatenate([piece for _, _, piece in pieces])
    np.testing.assert_allclose(actual, tf.image.resize(logits, sizes[1]), atol=1e-4)


@pytest.mark.parametrize(("size", "seen"), zip(SIZES, [(96, 132), (141, 96)]))
def test_photographs_are_resized_and_logits_back(model, size, seen):
    image = photograph(*size)
    expected = tf.image.resize(logits_of(model, resized(image, *seen)), size).numpy()
    segmenter = Segmenter(model, LABELS)
    assert segmenter.short_side == SIDE
    np.testing.assert_allclose(segmenter.logits(image), expected, atol=1e-4)
    np.testing.assert_array_equal(segmenter(image), expected.argmax(axis=-1))
    assert len(np.unique(segmenter(image))) == 3
    plain = Segmenter(model, LABELS, short_side=0)
    np.testing.assert_allclose(plain.logits(image), logits_of(model, image), atol=1e-4)
    assert (plain(image) != segmenter(image)).mean() > 0.01


def test_scales_and_flips_are_of_the_resized_photograph(model):
    image = photograph(60, 83)
    expected = 0
    for height, width in ((96, 132), (48, 66)):
        small = resized(image, height, width)
        mirrored = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        both = logits_of(model, small) + logits_of(model, mirrored)[:, ::-1]
        expected = expected + tf.image.resize(both, (60, 83)).numpy() / 4
    segmenter = Segmenter(model, LABELS, scales=(1, 0.5), flip=True)
    np.testing.assert_allclose(segmenter.logits(image), expected, atol=1e-4)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2)])
def test_extreme_photographs(model, size):
    image = resized(photograph(60, 83), *size)
    assert Segmenter(model, LABELS)(image).shape == size


@pytest.mark.parametrize("runtime", ["keras", "tensorflow", "onnx", "openvino"])
def test_every_runtime_resizes_once(model, runtime):
    pytest.importorskip({"onnx": "tf2onnx"}.get(runtime, "keras"))
    pytest.importorskip({"openvino": "openvino"}.get(runtime, "keras"))
    image = photograph(60, 83)
    other = Segmenter(model, LABELS, runtime=runtime)
    expected = Segmenter(model, LABELS).logits(image)
    np.testing.assert_allclose(other.logits(image), expected, atol=1e-3)


def without_bar(pieces, total):
    return pieces


def test_rays_workers_know_it(model):
    options = {"min_confidence": 0.4, "progress": without_bar}
    segmenter = pickle.loads(pickle.dumps(Segmenter(model, LABELS, **options)))
    assert (segmenter.short_side, segmenter.min_confidence) == (SIDE, 0.4)
    image = photograph(60, 83)
    expected = Segmenter(model, LABELS, min_confidence=0.4)(image)
    np.testing.assert_array_equal(segmenter(image), expected)


def test_exact_tiles_of_the_dilated_network_equal_one_pass():
    image = photograph(300, 500)
    model = balanced_fcn(np.asarray(image), dilated=True, output_stride=None, short_side=SIDE)
    field = receptive_field(model)
    tile = 2 * field.halo + 4 * field.stride
    assert tile < 400
    whole = Segmenter(model, LABELS, short_side=0)
    tiled = Segmenter(model, LABELS, short_side=0, tile=tile)
    assert len(list(tiled.pieces(image))) > 2
    expected = whole.logits(image)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(tiled.logits(image), expected, atol=1e-3)
    np.testing.assert_array_equal(tiled(image), whole(image))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"short_side": -1}, "short_side must be 0 .* to 4096 pixels. Received: -1"),
        ({"short_side": 5000}, "short_side must be 0 .* to 4096 pixels. Received: 5000"),
        ({"min_confidence": 1.5}, "min_confidence must be 0 to 1. Received: 1.5"),
        ({"min_confidence": float("nan")}, "min_confidence must be 0 to 1. Received: nan"),
    ],
)
def test_values_out_of_range_are_refused(model, options, message):
    with pytest.raises(UserError, match=message):
        Segmenter(model, LABELS, **options)


@pytest.fixture(scope="module")
def place(model, tmp_path_factory):
    """The model as `run`, and a data set with photographs that are resized up and down."""
    place = tmp_path_factory.mktemp("place")
    (place / "run").mkdir()
    model.save(place / "run" / "best.keras")
    labels = {"names": CLASSES, "palette": LABELS.palette}
    (place / "run" / "config.json").write_text(json.dumps({"labels": labels}))
    write_folder(place / "data", train=1, val=2)
    for index, size in enumerate(SIZES):
        photograph(*size).save(place / "data" / "JPEGImages" / f"val_{index}.jpg", quality=95)
        mask = Image.new("P", size[::-1])
        mask.putpalette([level for color in LABELS.palette for level in color])
        mask.paste(1, (9, 9, 40, 40))
        mask.save(place / "data" / "SegmentationClass" / f"val_{index}.png")
    return place


def predict(place, output, *flags):
    photos = [str(place / "data" / "JPEGImages" / f"val_{i}.jpg") for i in range(2)]
    arguments = ["--model", str(place / "run"), "--output", str(output), *map(str, flags)]
    assert main(["predict", *photos, *arguments]) == 0
    return [np.asarray(Image.open(output / f"val_{i}.png")) for i in range(2)]


def test_predict_evaluate_and_the_page_agree(place, tmp_path):
    masks = predict(place, tmp_path / "masks")
    segmenter = Segmenter.load(place / "run")
    for index, mask in enumerate(masks):
        photo = place / "data" / "JPEGImages" / f"val_{index}.jpg"
        answer = Image.open(io.BytesIO(segment(segmenter, photo.read_bytes()).mask))
        np.testing.assert_array_equal(np.asarray(answer), mask)
    scores = []
    for name, flags in (
        ("own", ["--model", place / "run"]),
        ("masks", ["--masks", tmp_path / "masks"]),
        ("as they are", ["--model", place / "run", "--short-side", 0]),
    ):
        path = tmp_path / f"{name}.json"
        flags = ["--dataset", place / "data", *flags, "--json", path]
        assert main(["evaluate", *map(str, flags)]) == 0
        scores.append(json.loads(path.read_text()))
    assert scores[0] == scores[1] != scores[2]


def test_the_flag_overrides_what_the_model_stores(place, tmp_path):
    masks = predict(place, tmp_path / "a", "--short-side", 64)
    segmenter = Segmenter.load(place / "run", short_side=64)
    for index, mask in enumerate(masks):
        photo = place / "data" / "JPEGImages" / f"val_{index}.jpg"
        np.testing.assert_array_equal(segmenter(photo), mask)
    assert any((a != b).any() for a, b in zip(masks, predict(place, tmp_path / "b")))


@pytest.mark.parametrize(
    ("pixels", "reason"), [(b"-5", "m.keras: .* damaged"), (b"9999", "Received: 9999")]
)
def test_a_file_with_an_absurd_short_side_is_refused(place, tmp_path, pixels, reason):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(place / "run" / "best.keras") as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name).replace(b'"pixels": 96', b'"pixels": ' + pixels))
    with pytest.raises(UserError, match=reason):
        Segmenter.load(path)


def test_uncertain_pixels_become_255(place, tmp_path):
    plain, segmenter = predict(place, tmp_path / "plain"), Segmenter.load(place / "run")
    photos = [place / "data" / "JPEGImages" / f"val_{i}.jpg" for i in range(2)]
    sure = [segmenter.probabilities(photo).max(axis=-1) for photo in photos]
    least = float(np.median(sure[0]))
    for name, flags in (("a", []), ("b", ["--probabilities", "--confidence", "--overlay"])):
        masks = predict(place, tmp_path / name, "--min-confidence", least, *flags)
        for mask, before, confidence in zip(masks, plain, sure):
            near = np.abs(confidence - least) < 1e-5
            expected = np.where(confidence < least, 255, before)
            np.testing.assert_array_equal(mask[~near], expected[~near])
        assert 0.4 < (masks[0] == 255).mean() < 0.6
    image = Image.open(tmp_path / "a" / "val_0.png")
    assert image.mode == "P" and image.getpalette()[765:] == [224, 224, 192]  # VOC's border
    overlays = [np.asarray(Image.open(tmp_path / "b" / "overlay" / "val_0.png"))]
    predict(place, tmp_path / "c", "--overlay")
    overlays.append(np.asarray(Image.open(tmp_path / "c" / "overlay" / "val_0.png")))
    assert overlays[0].shape != overlays[1].shape or (overlays[0] != overlays[1]).any()


def test_metrics_need_every_pixel(place, model):
    split = load_split(str(place / "data"), "val")
    with pytest.raises(UserError, match="has the id 255, which is no class.*without min_conf"):
        evaluate(Segmenter(model, LABELS, min_confidence=1.0), split)


def test_polygons_leave_out_255():
    mask = np.full((40, 60), 255, np.uint8)
    mask[5:35, 5:40] = 1
    mask[10:20, 10:20] = 255  # a hole
    mask[5:35, 45:55] = 0
    labels = LabelSet(("background", "box"))
    shapes = json.loads(labelme_file(mask, labels, "x.jpg"))["shapes"]
    assert [shape["label"] for shape in shapes] == ["box", "__ignore__"]
    assert shapes[1]["points"] == [[10, 10], [19, 10], [19, 19], [10, 19]]
    [entry] = json.loads(coco_part(mask, labels))["objects"]
    assert (entry["class"], entry["area"]) == ("box", 30 * 35 - 100)
    assert not json.loads(coco_part(np.full((9, 9), 255, np.uint8), labels))["objects"]


MEASURED = """
import resource, sys
import numpy as np
from PIL import Image
from fcn_keras import Segmenter, build_fcn
from fcn_keras.data.split import LabelSet

model = build_fcn("tiny", 21, 8, weights=None, short_side=520)
segmenter = Segmenter(model, LabelSet(tuple(f"c{i}" for i in range(21))))
photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8))
segmenter(photo)  # the network's own memory
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert segmenter(photo.resize((4000, 3000))).shape == (3000, 4000)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_12_megapixels_take_little_memory():
    """Their logits alone would take 1 GB."""
    command = [sys.executable, "-c", MEASURED]
    output = subprocess.check_output(command, cwd=ROOT, env=environment(), text=True)
    assert int(output.splitlines()[-1]) < 700
