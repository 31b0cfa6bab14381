"""The graph's decoder against Pillow's, which `predict` and training use."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.hostile_files import jpeg_of_scans
from support.image_files import chunk, encoded, png

from fcn_keras.data.decoding import decode_image
from fcn_keras.export.graph_decoding import decode_photograph

RNG = np.random.default_rng(0)


def smooth_photo(height=75, width=101):
    """Gradients and noise: JPEG's chroma and rounding matter in it."""
    y, x = np.mgrid[:height, :width]
    rgb = np.stack([2.5 * x, 255 - 3 * y, 128 + 60 * np.sin(x / 9) * np.cos(y / 7)], axis=-1)
    return Image.fromarray(np.clip(rgb + RNG.normal(0, 9, rgb.shape), 0, 255).astype(np.uint8))


PHOTO = smooth_photo()


def png_of_samples(samples, depth, color_type, **chunks):
    """A PNG of rows of big-endian samples."""
    height, width = samples.shape[:2]
    width = width * 8 // depth if depth < 8 else width
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    return png(width, height, depth, color_type, rows, **chunks)


def noise(channels, dtype):
    return RNG.integers(0, np.iinfo(dtype).max + 1, (12, 17, channels)).astype(dtype)


def exif(orientation, byte_order="II", kind=3, count=1):
    """As from a camera: a text tag before the orientation."""
    prefix = "<" if byte_order == "II" else ">"
    entries = struct.pack(prefix + "HHI4s", 0x010F, 2, 4, b"abc\0")
    value = "HH" if kind == 3 else "I"
    values = (orientation, 0) if kind == 3 else (orientation,)
    entries += struct.pack(prefix + "HHI" + value, 0x0112, kind, count, *values)
    header = byte_order.encode() + struct.pack(prefix + "HIH", 42, 8, 2)
    return b"Exif\0\0" + header + entries + b"\0\0\0\0"


CASES = {
    "jpeg, chroma 4:4:4": encoded(PHOTO, "JPEG", quality=95, subsampling=0),
    "jpeg, chroma 4:2:2": encoded(PHOTO, "JPEG", subsampling=1),
    "jpeg, chroma 4:2:0": encoded(PHOTO, "JPEG", quality=30, subsampling=2),
    "jpeg, progressive": encoded(PHOTO, "JPEG", progressive=True),
    "jpeg, grey": encoded(PHOTO.convert("L"), "JPEG"),
    "jpeg, cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "jpeg, bytes behind its end": encoded(PHOTO, "JPEG") + b"garbage" * 9,
    "png, rgb": encoded(PHOTO),
    "png, grey": encoded(PHOTO.convert("L")),
    "png, grey and alpha": encoded(PHOTO.convert("LA")),
    "png, alpha": encoded(Image.fromarray(noise(4, np.uint8))),
    "png, palette": encoded(PHOTO.convert("P")),
    "png, palette with a transparent colour": encoded(PHOTO.convert("P"), transparency=3),
    "png, palette of 16": encoded(PHOTO.quantize(16), bits=4),
    "png, black and white": encoded(PHOTO.convert("1")),
    "png, a transparent colour": encoded(PHOTO, transparency=(0, 0, 0)),
    "png, grey of 2 bits": png_of_samples(noise(1, np.uint8), 2, 0),
    "png, grey of 4 bits": png_of_samples(noise(1, np.uint8), 4, 0),
    "png, grey of 16 bits": png_of_samples(noise(1, np.uint16).astype(">u2"), 16, 0),
    "png, grey and alpha of 16 bits": png_of_samples(noise(2, np.uint16).astype(">u2"), 16, 4),
    "png, rgb of 16 bits": png_of_samples(noise(3, np.uint16).astype(">u2"), 16, 2),
    "png, rgba of 16 bits": png_of_samples(noise(4, np.uint16).astype(">u2"), 16, 6),
    "png, gamma": png_of_samples(
        noise(3, np.uint8), 8, 2, before=chunk(b"gAMA", struct.pack(">I", 20000))
    ),
    **{f"jpeg, orientation {n}": encoded(PHOTO, "JPEG", exif=exif(n)) for n in range(10)},
    **{f"png, orientation {n}": encoded(PHOTO, exif=exif(n)) for n in (1, 3, 6)},
    "jpeg, orientation 6, other byte order": encoded(PHOTO, "JPEG", exif=exif(6, "MM")),
    **{
        f"jpeg, orientation of type {kind}, {order}": encoded(
            PHOTO, "JPEG", exif=exif(6, order, kind)
        )
        for kind in (1, 4)
        for order in ("II", "MM")
    },
    "jpeg, two orientations": encoded(PHOTO, "JPEG", exif=exif(6, count=2)),
    "png, exif behind the pixels": png_of_samples(
        noise(3, np.uint8), 8, 2, behind=chunk(b"eXIf", exif(6)[6:])
    ),
    "jpeg, exif cut off": encoded(PHOTO, "JPEG", exif=exif(6)[:20]),
    "jpeg, xmp orientation only": encoded(PHOTO, "JPEG", xmp=b'<x tiff:Orientation="6"/>'),
}


@pytest.fixture(scope="module")
def decode():
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def graph(data):
        return decode_photograph(data, tf.constant("photo"), 100 * 101)

    return lambda data: graph(tf.constant(data)).numpy()


@pytest.mark.parametrize("case", CASES)
def test_it_gives_pillows_pixels(decode, case):
    expected = decode_image(CASES[case], case)
    np.testing.assert_array_equal(decode(CASES[case]), expected)


def test_black_ink_is_rounded_otherwise(decode):
    ink = Image.frombytes("CMYK", (12, 17), noise(4, np.uint8).tobytes())
    data = encoded(ink, "JPEG", quality=95)
    difference = decode(data).astype(int) - decode_image(data, "")
    assert np.abs(difference).max() == 1


def test_the_cases_differ_as_their_names_say():
    upright = decode_image(CASES["jpeg, orientation 1"], "")
    turned = decode_image(CASES["jpeg, orientation 6"], "")
    assert upright.shape == (75, 101, 3) and turned.shape == (101, 75, 3)
    np.testing.assert_array_equal(turned, np.rot90(upright, -1))
    assert decode_image(CASES["png, grey of 2 bits"], "").shape == (12, 68, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"photo is neither a JPEG nor a PNG file \(0 bytes\)"),
        (b"a text file", r"photo is neither a JPEG nor a PNG file \(11 bytes\)"),
        (encoded(PHOTO, "GIF"), "photo is neither a JPEG nor a PNG file"),
        (CASES["jpeg, progressive"][:3], "Invalid JPEG data, size 3"),
        (CASES["jpeg, progressive"][:-20], "Invalid JPEG data"),
        (CASES["png, rgb"][:20], "Invalid PNG"),
        (CASES["png, rgb"][:-20], "Invalid PNG data"),
        (CASES["png, rgb"][:500] + b"\0\0" + CASES["png, rgb"][502:], "Invalid PNG data"),
        (encoded(Image.new("L", (101, 101)), "JPEG"), "photo has 101x101 pixels; at most 10100"),
        (encoded(Image.new("L", (10101, 1))), "photo has 1x10101 pixels; at most 10100"),
    ],
)
def test_what_is_no_photograph_is_refused(decode, data, reason):
    with pytest.raises(tf.errors.InvalidArgumentError, match=reason):
        decode(data)
    assert decode(encoded(Image.new("L", (101, 100)))).shape == (100, 101, 3)


def test_a_bomb_is_refused_before_it_is_decoded(decode):
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    bomb = CASES["png, rgb"][:16] + header + CASES["png, rgb"][29:]
    with pytest.raises(tf.errors.InvalidArgumentError, match="2147483647x2147483647 pixels"):
        decode(bomb)
    bomb = bomb[:16] + b"\xff" * 8 + bomb[24:]  # a product beyond 64 bits
    with pytest.raises(tf.errors.InvalidArgumentError, match="4294967295x4294967295 pixels"):
        decode(bomb)


@pytest.mark.parametrize("options", [{"progressive": True}, {}])
def test_scans_are_counted(decode, options):
    data = jpeg_of_scans(101, **options)
    with pytest.raises(tf.errors.InvalidArgumentError, match="photo is a JPEG of 101 scans;"):
        decode(data)
    with pytest.raises(tf.errors.InvalidArgumentError, match="of 101 scans"):
        decode(data[:2] + b"\xff\xfe\0\3x" + data[2:])
    preview = b"\xff\xe2\0\x07\xff\xda\0\xff\xda"
    data = jpeg_of_scans(90, progressive=True)
    np.testing.assert_array_equal(decode(data[:2] + preview * 9 + data[2:]), decode(data))


def test_endless_headers_end(decode):
    """A megabyte of empty segments: their number is limited, so they are not all walked through."""
    data = CASES["jpeg, orientation 6"]
    padded = data[:2] + b"\xff\xfe\0\2" * 250_000 + data[2:]
    assert decode(padded).shape == (75, 101, 3)


@pytest.mark.parametrize("header", [b"\xff", b"\xff\xd0", b"\xff\xfe\0\2"])
def test_few_headers_are_searched(decode, header):
    """Each takes as long as a photograph's row, and filling is a byte each."""
    data = CASES["jpeg, orientation 6"]
    for count, shape in ((900, (101, 75, 3)), (1001, (75, 101, 3))):
        assert decode(data[:2] + header * count + data[2:]).shape == shape
