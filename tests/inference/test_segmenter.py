import json

import keras
import matplotlib.cbook
import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES

from fcn_keras import Segmenter, UserError, build_fcn
from fcn_keras.data.overlay import overlay
from fcn_keras.data.split import LabelSet
from fcn_keras.inference.segmenter import as_image

LABELS = LabelSet(("a", "b", "c"))


@pytest.fixture(
    scope="module", params=[8, *(pytest.param(s, marks=pytest.mark.slow) for s in (16, 32))]
)
def model(request):
    keras.utils.set_random_seed(0)
    return build_fcn("tiny", 3, request.param, weights=None)


@pytest.fixture(scope="module")
def photo():
    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file:
        return Image.open(file).convert("RGB")


@pytest.mark.parametrize(
    ("size", "tiles"),  # with cores of 224, as the network's reach is 160 pixels
    [((1000, 850), 20), pytest.param((1500, 1100), 35, marks=pytest.mark.slow)],
)
def test_exact_tiles_equal_one_pass(model, photo, size, tiles):
    image = photo.resize(size)
    whole = Segmenter(model, LABELS, tile=1500)
    tiled = Segmenter(model, LABELS, tile=544)
    assert len(list(tiled.pieces(image))) == tiles
    expected = whole.logits(image)
    assert expected.std() > 0.05
    assert np.abs(tiled.logits(image) - expected).max() <= 1e-3
    np.testing.assert_array_equal(tiled(image), whole(image))


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(0)
    return Segmenter(build_fcn("tiny", 3, 8, weights=None), LABELS)


def test_averaged_tiles_cover_the_image_and_stay_near(small, photo):
    image = photo.resize((333, 517))
    for blend in ("average", "smooth"):
        tiled = Segmenter(small.model, LABELS, tile=256, overlap=128, blend=blend)
        logits = tiled.logits(image)
        assert np.isfinite(logits).all() and logits.shape == (517, 333, 3)
        assert np.corrcoef(logits.ravel(), small.logits(image).ravel())[0, 1] > 0.8
        assert np.abs(logits - small.logits(image)).max() > 1e-3


def test_a_tile_below_the_reach_is_refused(small, photo):
    tight = Segmenter(small.model, LABELS, tile=350)
    with pytest.raises(UserError, match="must be at least 352.*Received: tile 350"):  # 2 * 160 + 32
        tight(photo.resize((400, 400)))
    assert tight(photo.resize((300, 350))).shape == (350, 300)  # needs no tiles


def test_flip_makes_the_result_symmetric(small, photo):
    image = photo.resize((64, 64))
    both = Segmenter(small.model, LABELS, flip=True)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    np.testing.assert_allclose(both.logits(image), both.logits(mirrored)[:, ::-1], atol=1e-4)
    expected = (small.logits(image) + small.logits(mirrored)[:, ::-1]) / 2
    np.testing.assert_allclose(both.logits(image), expected, atol=1e-5)


def test_scales_are_averaged(small, photo):
    image = photo.resize((64, 48))
    pair = Segmenter(small.model, LABELS, scales=(1.0, 2.0))
    big = small.logits(image.resize((128, 96), Image.Resampling.BILINEAR))
    big = keras.ops.convert_to_numpy(keras.ops.image.resize(big[None], (48, 64)))[0]
    np.testing.assert_allclose(pair.logits(image), (small.logits(image) + big) / 2, atol=1e-5)


def test_probabilities_are_the_softmax(small, photo):
    image = photo.resize((40, 30))
    logits = small.logits(image).astype("float64")
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(small.probabilities(image), expected, atol=1e-6)


def test_kinds_of_images_give_the_same(small, photo, tmp_path):
    image = photo.resize((50, 40))
    pixels = np.asarray(image)
    image.save(tmp_path / "photo.png")
    expected = small(image)
    assert expected.dtype == np.uint8 and expected.shape == (40, 50)
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 7, np.uint8)])
    for same in (
        *(tmp_path / "photo.png", str(tmp_path / "photo.png"), pixels, pixels.astype(float)),
        *(pixels.astype("float32"), alpha, Image.fromarray(alpha)),
    ):
        np.testing.assert_array_equal(small(same), expected)
    grey = np.asarray(image.convert("L"))
    for same in (grey, grey[..., None], image.convert("L")):
        np.testing.assert_array_equal(small(same), small(np.repeat(grey[..., None], 3, axis=-1)))


def test_a_pillow_image_is_read_like_its_file(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20), (9, 9, 9)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.full((5, 6), 0x4080, np.uint16)).save(tmp_path / "deep.png")
    for name in ("turned.jpg", "deep.png"):
        from_file, from_image = as_image(tmp_path / name), as_image(Image.open(tmp_path / name))
        np.testing.assert_array_equal(from_file, from_image)
    assert as_image(tmp_path / "turned.jpg").size == (20, 30)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 4, 3), 0.5), "multiply values in 0..1 by 255"),
        (np.full((4, 4, 3), -1), "Received: -1 to -1"),
        (np.full((4, 4, 3), np.nan), "Received: nan"),
        (np.zeros((4, 4, 2)), r"shape \(4, 4, 2\)"),
        (np.zeros((0, 4, 3)), r"shape \(0, 4, 3\)"),
        (np.zeros(4), r"shape \(4,\)"),
        (np.zeros((4, 4, 3), bool), "Received: dtype bool"),
        (Image.new("F", (4, 4)), "an image of floats"),
    ],
)
def test_what_is_no_image_is_refused(array, message):
    with pytest.raises(UserError, match=message):
        as_image(array)


def test_overlay_paints_the_predicted_classes(small, photo):
    image, mask = photo.resize((50, 40)), small(photo.resize((50, 40)))
    for options in ({}, {"opacity": 0.9}, {"shown": [2]}):
        expected = overlay(np.asarray(image), mask, LABELS, **options)
        np.testing.assert_array_equal(np.asarray(small.overlay(image, **options)), expected)
    unpainted = np.asarray(small.overlay(image, shown=[]))
    np.testing.assert_array_equal(unpainted, np.asarray(image))
    assert (np.asarray(small.overlay(image)) != unpainted).any()


def test_load_takes_the_classes_of_the_run(small, tmp_path):
    small.model.save(tmp_path / "best.keras")
    assert Segmenter.load(tmp_path / "best.keras").labels.names == ("class_0", "class_1", "class_2")
    config = {"labels": {"names": CLASSES, "palette": LABELS.palette}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Segmenter.load(tmp_path).labels.names == CLASSES
    config["labels"] = {"names": ["x"], "palette": [[0, 0, 0]]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="it has 3 classes, but the config.json beside it has 1"):
        Segmenter.load(tmp_path)


def test_load_names_what_is_no_model(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"bad.keras: not a .keras model, or a damaged"):
        Segmenter.load(tmp_path / "bad.keras")
    with pytest.raises(UserError, match="no such model"):
        Segmenter.load(tmp_path / "none.keras")
