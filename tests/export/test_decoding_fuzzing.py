"""Damaged photographs: the graph's pixels are Pillow's, or one of the two refuses the file."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from support.image_files import encoded, png_of

from fcn_keras.data.decoding import decode_image
from fcn_keras.errors import UserError
from fcn_keras.export.graph_decoding import decode_photograph

MAX_PIXELS = 5000
SIGNATURE = b"\x89PNG\r\n\x1a\n"
RNG = np.random.default_rng(0)
PIXELS = Image.fromarray(RNG.integers(0, 256, (12, 17, 3)).astype(np.uint8))


def turned(image, format, **options):
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, format, exif=exif, **options)


JPEGS = [
    turned(PIXELS, "JPEG", quality=60),
    turned(PIXELS, "JPEG", progressive=True, subsampling=0),
    turned(PIXELS.convert("L"), "JPEG", restart_marker_blocks=1),
    turned(PIXELS.convert("CMYK"), "JPEG"),
]
PNGS = [
    turned(PIXELS, "PNG"),
    turned(PIXELS.convert("P"), "PNG", transparency=3),
    turned(PIXELS.convert("LA"), "PNG"),
    turned(PIXELS.quantize(4), "PNG", bits=2),
    turned(Image.fromarray(RNG.integers(0, 2**16, (5, 6)).astype(np.uint16)), "PNG"),
]


def chunks_of(png):
    """Kinds and data of a PNG's chunks."""
    chunks, position = [], len(SIGNATURE)
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        chunks.append((png[position + 4 : position + 8], png[position + 8 : position + 8 + length]))
        position += 12 + length
    return chunks


@st.composite
def damaged(draw, files):
    """Bytes that are changed, removed, inserted or repeated."""
    data = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(0, 20))
        new = draw(st.binary(max_size=4) | st.just(bytes(data[position:][:length])))
        data[position : position + draw(st.sampled_from([0, len(new), length]))] = new
    return bytes(data)


@st.composite
def damaged_chunks(draw):
    """PNGs with correct checksums, whatever else is wrong."""
    chunks = chunks_of(draw(st.sampled_from(PNGS)))
    index = draw(st.integers(0, len(chunks) - 1))
    kind, data = chunks[index]
    if kind == b"IDAT" and draw(st.booleans()):
        data = zlib.compress(draw(damaged([zlib.decompress(data)])))
    elif data:
        data = draw(damaged([data]))
    kinds = [kind, b"tRNS", b"eXIf", b"acTL", b"gAMA", b"PLTE", b"IDAT", b"zTXt"]
    chunks[index] = (draw(st.sampled_from(kinds)), data)
    if draw(st.booleans()):
        chunks.insert(draw(st.integers(0, len(chunks))), draw(st.sampled_from(chunks)))
    return png_of(chunks)


@pytest.fixture(scope="module")
def decode():
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def graph(data):
        return decode_photograph(data, tf.constant("photo"), MAX_PIXELS)

    def decode(data):
        try:
            return graph(tf.constant(data)).numpy()
        except tf.errors.InvalidArgumentError as error:
            assert str(error)
            return None

    return decode


def check(decode, data):
    found = decode(data)
    assert found is None or found.shape[0] * found.shape[1] <= MAX_PIXELS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF data
            expected = decode_image(data, "photo")
    except UserError:
        return
    if found is None:
        return
    # The graph reads beyond EXIF data that end within an entry, so it may turn the image.
    ways = [np.rot90(image, n) for image in (expected, expected[:, ::-1]) for n in range(4)]
    with Image.open(io.BytesIO(data)) as image:
        if image.mode == "CMYK":  # rounded differently, and inverted by other marks
            assert found.shape in {image.shape for image in ways}
        else:
            assert any(np.array_equal(found, image) for image in ways)


@given(damaged(JPEGS))
def test_jpegs(decode, data):
    check(decode, data)


@given(damaged(PNGS))
def test_pngs(decode, data):
    check(decode, data)


@given(damaged_chunks())
@example(png_of([chunk for chunk in chunks_of(PNGS[1]) if chunk[0] != b"PLTE"]))
def test_pngs_with_good_checksums(decode, data):
    check(decode, data)


@given(st.binary(max_size=100), st.sampled_from([b"", b"\xff\xd8\xff", SIGNATURE]))
def test_bytes(decode, data, start):
    check(decode, start + data)


WITH_EXIF = JPEGS[0]
BYTE_ORDER = WITH_EXIF.index(b"MM\0*")
COUNT = WITH_EXIF.index(b"\x01\x12\0\x03") + 4
MARKER = WITH_EXIF.index(b"\xff\xe1")
TWO_ORIENTATIONS = [
    (kind, data[:19] + bytes([number]) + data[20:])
    for kind, data in chunks_of(PNGS[0])
    if kind == b"eXIf"
    for number in (1, 8)
]


@pytest.mark.parametrize(
    "data",
    [
        WITH_EXIF[:BYTE_ORDER] + b"XY" + WITH_EXIF[BYTE_ORDER + 2 :],
        WITH_EXIF[: BYTE_ORDER + 3] + b"9" + WITH_EXIF[BYTE_ORDER + 4 :],
        WITH_EXIF[:COUNT] + b"\0\xb9\0\x01" + WITH_EXIF[COUNT + 4 :],
        WITH_EXIF[:MARKER] + b"junk" + WITH_EXIF[MARKER:],
        WITH_EXIF[:MARKER] + b"\xff\xd0" + WITH_EXIF[MARKER:],
        png_of(chunks_of(PNGS[0])[:1] + TWO_ORIENTATIONS + chunks_of(PNGS[0])[2:]),
    ],
)
def test_damaged_exif_data_turn_as_with_pillow(decode, data):
    """What fuzzing found."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(decode(data), decode_image(data, "photo"))
