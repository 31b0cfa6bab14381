"""Photograph bytes -> pixels inside a TensorFlow graph, by the rule of `data.decoding`.

A server has no Pillow, so the rule is written a second time here, in TensorFlow's
operations; tests compare the two. JPEG and PNG only.
"""

from __future__ import annotations

import tensorflow as tf

from fcn_keras.files.images import MAX_SCANS, SCAN_START

# That are searched for EXIF data; a segment may be a single byte of filling, a chunk has 12.
MAX_SEGMENTS, MAX_CHUNKS = 1_000, 10_000
ORIENTATION_TAG, SHORT, LONG = 0x0112, 3, 4


def decode_photograph(data: tf.Tensor, name: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decodes a JPEG or PNG file as `data.decoding.decode_image` does.

    EXIF orientation is applied, grey is repeated, transparency is dropped, and
    16-bit samples keep their high byte.

    Args:
        data: The file's bytes, a string scalar.
        name: Its name in messages, a string scalar.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        uint8 `(H, W, 3)` in RGB. The graph raises `InvalidArgumentError` if the
        bytes are not such an image, or it is too large.
    """
    magic = tf.strings.substr(data, 0, 4)
    is_png = tf.equal(magic, b"\x89PNG")
    is_jpeg = tf.equal(tf.strings.substr(data, 0, 3), b"\xff\xd8\xff")
    length = tf.strings.as_string(tf.strings.length(data))
    readable = tf.debugging.Assert(
        is_jpeg | is_png,
        [tf.strings.join([name, " is neither a JPEG nor a PNG file (", length, " bytes)."])],
    )
    with tf.control_dependencies([readable]):
        raw_bytes = tf.io.decode_raw(data, tf.uint8)
        file_bytes = tf.cast(raw_bytes, tf.int64)

    scan_limit = f" scans; at most {MAX_SCANS} are allowed. Save it as a baseline JPEG."

    def decode(height, width, decoder):
        sides = [tf.strings.as_string(height), "x", tf.strings.as_string(width)]
        limit = f" pixels; at most {max_pixels} pixels in all are accepted."
        small = tf.debugging.Assert(
            height <= max_pixels // tf.maximum(width, 1),  # a product could overflow
            [tf.strings.join([name, " has ", *sides, limit])],
        )
        with tf.control_dependencies([small]):
            image = decoder(data)
            image.set_shape([None, None, 3])
            return image

    def jpeg():
        scans = _scans(raw_bytes)
        few = tf.debugging.Assert(
            scans <= MAX_SCANS,
            [tf.strings.join([name, " is a JPEG of ", tf.strings.as_string(scans), scan_limit])],
        )
        with tf.control_dependencies([few]):
            height, width = _jpeg_size(data)
        image = decode(
            height,
            width,
            # Pillow's way; TensorFlow's faster default differs by up to 9 levels.
            lambda data: tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"),
        )
        return _turned(image, _orientation(file_bytes, _find_jpeg_exif(file_bytes)))

    def png():
        height, width = _png_size(file_bytes)
        image = decode(height, width, lambda data: tf.io.decode_png(data, channels=3))
        return _turned(image, _orientation(file_bytes, _find_png_exif(file_bytes)))

    return tf.cond(is_png, png, jpeg)


def photograph_size(data: tf.Tensor) -> tf.Tensor:
    """Height and width by a JPEG or PNG file's header, int64 `(2,)`; any for other files."""
    start = tf.strings.join([tf.strings.substr(data, 0, 24), bytes(24)])
    header = tf.cast(tf.io.decode_raw(start, tf.uint8), tf.int64)
    is_jpeg = tf.equal(tf.strings.substr(data, 0, 3), b"\xff\xd8\xff")
    return tf.stack(tf.cond(is_jpeg, lambda: _jpeg_size(data), lambda: _png_size(header)))


def _jpeg_size(data):
    shape = tf.cast(tf.io.extract_jpeg_shape(data), tf.int64)
    return shape[0], shape[1]


def _png_size(file_bytes):
    return _number(file_bytes, 20, 4, False), _number(file_bytes, 16, 4, False)


def _scans(raw_bytes) -> tf.Tensor:
    """How often the bytes that begin a scan occur; there are at most so many scans."""
    first, second, third = SCAN_START
    begins = (raw_bytes[:-2] == first) & (raw_bytes[1:-1] == second) & (raw_bytes[2:] == third)
    return tf.math.count_nonzero(begins)


def _number(file_bytes, start, size: int, little_endian) -> tf.Tensor:
    """The unsigned number of `size` bytes at each `start`; bytes beyond the end are 0."""
    positions = tf.cast(start, tf.int64)[..., None] + tf.range(size, dtype=tf.int64)
    inside = (positions >= 0) & (positions < tf.size(file_bytes, tf.int64))
    values = tf.gather(file_bytes, tf.where(inside, positions, 0)) * tf.cast(inside, tf.int64)
    places = 256 ** tf.range(size, dtype=tf.int64)
    places = tf.where(little_endian, places, places[::-1])
    return tf.reduce_sum(values * places, axis=-1)


def _find_jpeg_exif(file_bytes) -> tf.Tensor:
    """Where the EXIF data begin, or -1."""

    def search(position, found):
        marker = _number(file_bytes, position, 2, False)
        length = _number(file_bytes, position + 2, 2, False)
        exif = _number(file_bytes, position + 4, 6, False) == int.from_bytes(b"Exif\0\0")
        found = tf.where((marker == 0xFFE1) & exif, position + 10, found)
        # Any number of bytes 0xFF may precede a marker, and damaged files have others.
        filling = (marker < 0xFF00) | (marker == 0xFFFF)
        bare = (marker == 0xFF00) | ((0xFFD0 <= marker) & (marker <= 0xFFD8))
        length = tf.where(bare, tf.zeros_like(length), length)
        return position + tf.where(filling, tf.ones_like(length), 2 + length), found

    def unfinished(position, found):
        marker = _number(file_bytes, position, 2, False)
        inside = position < tf.size(file_bytes, tf.int64)
        return (found < 0) & inside & (marker != 0xFFDA) & (marker != 0xFFD9)

    return _search(search, unfinished, 2, MAX_SEGMENTS)


def _find_png_exif(file_bytes) -> tf.Tensor:
    """Where the EXIF data begin, or -1."""

    def search(position, found):
        exif = _number(file_bytes, position + 4, 4, False) == int.from_bytes(b"eXIf")
        found = tf.where(exif, position + 8, found)
        return position + 12 + _number(file_bytes, position, 4, False), found

    def unfinished(position, _):  # the last one counts
        return position < tf.size(file_bytes, tf.int64)

    return _search(search, unfinished, 8, MAX_CHUNKS)


def _search(body, condition, start: int, most: int) -> tf.Tensor:
    none = tf.constant(-1, tf.int64)
    start = tf.constant(start, tf.int64)
    return tf.while_loop(condition, body, (start, none), maximum_iterations=most)[1]


def _orientation(file_bytes, exif) -> tf.Tensor:
    """The orientation, 1 to 8, in the EXIF data at this position; 1 if there are none."""
    little = _number(file_bytes, exif, 2, False) == int.from_bytes(b"II")
    big = _number(file_bytes, exif, 2, False) == int.from_bytes(b"MM")
    intact = (exif >= 0) & (little | big) & (_number(file_bytes, exif + 2, 2, little) == 42)
    directory = exif + _number(file_bytes, exif + 4, 4, little)
    count = _number(file_bytes, directory, 2, little)
    entries = directory + 2 + 12 * tf.range(tf.where(intact, count, tf.zeros_like(count)))
    kind = _number(file_bytes, entries + 2, 2, little)
    is_orientation = _number(file_bytes, entries, 2, little) == ORIENTATION_TAG
    number = _number(file_bytes, entries + 4, 4, little)
    short, long = (_number(file_bytes, entries + 8, size, little) for size in (2, 4))
    is_short = (kind == SHORT) & (1 <= number) & (number <= 2)  # more do not fit into the entry
    is_long = (kind == LONG) & (number == 1)
    values = tf.where(is_short, short, tf.where(is_long, long, 1))
    value = tf.concat([[1], tf.boolean_mask(values, is_orientation)], axis=0)[-1]
    return tf.where((1 <= value) & (value <= 8), value, 1)


def _turned(image, orientation) -> tf.Tensor:
    def flipped(image, orientations, axis):
        flip = tf.reduce_any(orientation == orientations)
        return tf.cond(flip, lambda: tf.reverse(image, [axis]), lambda: image)

    image = tf.cond(orientation >= 5, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    return flipped(flipped(image, [2, 3, 6, 7], axis=1), [3, 4, 7, 8], axis=0)
