import numpy as np
import pytest
from PIL import Image
from support.fake_folder import save_palette_png
from support.image_files import encoded

from fcn_keras.data.decoding import decode_image, decode_mask
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError

LABELS = LabelSet(("sky", "tree"), ((10, 20, 30), (40, 50, 60)))
VOID = np.array([224, 224, 192], np.uint8)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3)).astype(np.uint8)


def test_image_modes_become_rgb():
    image = Image.fromarray(PIXELS)
    np.testing.assert_array_equal(decode_image(encoded(image), "a"), PIXELS)
    grey = np.asarray(image.convert("L"))
    expected = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_array_equal(decode_image(encoded(image.convert("L")), "a"), expected)
    transparent = Image.fromarray(np.dstack([PIXELS, np.zeros((6, 9), np.uint8)]))
    np.testing.assert_array_equal(decode_image(encoded(transparent), "a"), PIXELS)


@pytest.mark.parametrize(("format", "order"), [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">")])
def test_16_bits_keep_the_high_byte(format, order):
    values = np.arange(1 << 16).reshape(256, 256)
    mode = {"<": "I;16", ">": "I;16B"}[order]
    image = Image.frombytes(mode, (256, 256), values.astype(f"{order}u2").tobytes())
    decoded = decode_image(encoded(image, format), "a")
    np.testing.assert_array_equal(decoded[..., 0], values >> 8)


def test_exif_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to view
    decoded = decode_image(encoded(Image.fromarray(PIXELS), exif=exif), "a")
    np.testing.assert_array_equal(decoded, np.rot90(PIXELS, -1))


@pytest.mark.parametrize("cut", [0, 10, -20])
def test_broken_image_is_named(cut):
    data = encoded(Image.fromarray(PIXELS), "JPEG")[:cut]
    with pytest.raises(UserError, match=r"^folder/a.jpg: not a readable image"):
        decode_image(data, "folder/a.jpg")


def test_palette_and_grey_masks_are_ids(tmp_path):
    ids = np.array([[0, 1, 255], [1, 1, 0]], np.uint8)
    save_palette_png(ids, tmp_path / "mask.png")
    np.testing.assert_array_equal(
        decode_mask((tmp_path / "mask.png").read_bytes(), LABELS, "m"), ids
    )
    np.testing.assert_array_equal(decode_mask(encoded(Image.fromarray(ids)), LABELS, "m"), ids)


def test_coloured_masks_are_looked_up():
    colors = np.array([[(10, 20, 30), (40, 50, 60), (224, 224, 192)]], np.uint8)
    mask = decode_mask(encoded(Image.fromarray(colors)), LABELS, "m")
    assert mask.tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("pixels", [np.full((2, 2), 255, np.uint8), np.full((2, 2, 3), VOID)])
def test_a_predicted_mask_is_labelled_everywhere(pixels):
    data = encoded(Image.fromarray(pixels))
    assert (decode_mask(data, LABELS, "m.png") == 255).all()
    with pytest.raises(
        UserError, match=r"(id 255.*use 0 to 1|\(224, 224, 192\), which is no class's)\."
    ):
        decode_mask(data, LABELS, "m.png", predicted=True)


@pytest.mark.parametrize(
    ("pixels", "format", "message"),
    [
        (np.full((2, 2), 200, np.uint8), "PNG", "m.png: the mask has id 200, but there are 2"),
        (np.full((2, 2), 300, np.uint16), "PNG", "m.png: the mask has id 300, but there are 2"),
        (np.full((2, 2, 3), 7, np.uint8), "PNG", r"m.png: the mask has the colour \(7, 7, 7\)"),
        (np.zeros((2, 2), np.uint8), "JPEG", "m.png: a mask must not be a JPEG"),
    ],
)
def test_wrong_masks_are_named(pixels, format, message):
    with pytest.raises(UserError, match=message):
        decode_mask(encoded(Image.fromarray(pixels), format), LABELS, "m.png")
