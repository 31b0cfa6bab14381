"""Bytes and names of all kinds: they are read as promised, or raise a `UserError`.

`HYPOTHESIS_PROFILE=long pytest tests/data/test_fuzzing.py` looks for more, for minutes.
"""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from support.hostile_files import IDS, MASKS, PHOTOS, PIXELS
from support.image_files import encoded

from fcn_keras.data.decoding import decode_image, decode_mask
from fcn_keras.data.directory import directory_split, read_class_list, read_ids
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError, printable
from fcn_keras.files.finding import found_images
from fcn_keras.runs.folder import RunFolder

LABELS = LabelSet(("a", "b", "c"))
RGB = Image.fromarray(PIXELS)
MODES = {
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "PNG": ("1", "L", "LA", "I;16", "P", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P", "RGB"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"),
    "WEBP": ("RGB", "RGBA"),
}
TIFF_PACKING = ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")


def _seeds() -> list[bytes]:
    """A file of each format and mode, and the small ones among the odd files."""
    files = [encoded(RGB.convert(mode), kind) for kind, modes in MODES.items() for mode in modes]
    files += [encoded(RGB, "TIFF", compression=packing) for packing in TIFF_PACKING]
    files += [content for _, content, _ in PHOTOS.values()] + [encoded(IDS)]
    files += [content for content, _ in MASKS.values()]
    return [data for data in files if 0 < len(data) < 9_000]


SEEDS = _seeds()


@st.composite
def damaged_files(draw):
    """A real file with bytes changed, removed or inserted, or with another file's end."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        # Headers, where most can go wrong, are at the beginning or, in TIFF, at the end.
        place = draw(st.integers(0, min(len(data), 200)) | st.integers(0, len(data)))
        how = draw(st.sampled_from(("change", "cut", "insert", "end", "splice")))
        if how == "change":
            new = draw(st.binary(min_size=1, max_size=4) | st.sampled_from(EXTREMES))
            data[place : place + len(new)] = new
        elif how == "cut":
            del data[place : place + draw(st.integers(1, 40))]
        elif how == "insert":
            data[place:place] = draw(st.binary(max_size=20))
        elif how == "end":
            del data[place:]
        else:
            other = draw(st.sampled_from(SEEDS))
            data[place:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data)


EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff\xff\0\0")


@given(st.binary(max_size=300) | damaged_files())
def test_an_image_is_decoded_or_refused(data):
    try:
        image = decode_image(data, "name")
    except UserError as error:
        assert str(error).startswith("name: ")
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size


@given(st.binary(max_size=300) | damaged_files())
def test_a_mask_is_decoded_or_refused(data):
    try:
        mask = decode_mask(data, LABELS, "name")
    except UserError as error:
        assert str(error).startswith("name: ")
    else:
        assert mask.dtype == np.uint8 and mask.ndim == 2 and mask.size
        assert set(np.unique(mask)) <= {0, 1, 2, 255}


TEXTS = st.binary(max_size=200) | st.text(max_size=200).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)
LINES = st.lists(
    st.text(st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(("a", "sub/b", "a\t1 2 3", "../a", "/", "a\0", "b\t300 0 0", "\t1 2 3"))
    | st.sampled_from(("name,r,g,b", "a,1,2,3", "1 2 3 a", "0 a", "1,b", "a:1,2,3::", "# a", "- a"))
    | st.sampled_from(("names:", "  0: a", '{"a":', "0}", "[", '"a"', "]", "<a>", "class")),
    max_size=300,
).map(lambda lines: "\n".join(lines).encode())


@given(TEXTS | LINES)
def test_a_list_of_classes_is_read_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "classes.txt")
        path.write_bytes(content)
        try:
            labels = read_class_list(path)
        except UserError as error:
            assert str(error).startswith(str(path))
        else:
            assert 1 <= len(labels) == len(labels.palette) <= 255
            assert all(name and name.isprintable() for name in labels.names)
            assert labels.colors().shape == (256, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder with the images a and sub/b."""
    root = tmp_path_factory.mktemp("fuzzed")
    for part, content in (("JPEGImages", encoded(PIXELS)), ("SegmentationClass", encoded(IDS))):
        for name in ("a", "sub/b"):
            path = root / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    (root / "classes.txt").write_text("a\nb\nc\n")
    return root


@given(TEXTS | LINES)
def test_a_list_of_ids_is_read_or_refused(folder, content):
    (folder / "ImageSets/Segmentation/train.txt").write_bytes(content)
    try:
        ids = read_ids(folder, "train")
    except UserError:
        ids = []
    for name in ids:
        inside = os.path.normpath(folder / "JPEGImages" / name)
        assert inside == str(folder / "JPEGImages" / name)
    try:
        split = directory_split(folder, "train")
    except UserError as error:
        assert printable(str(error)).isprintable()
    else:
        assert list(split.ids) == ids and len(set(ids)) == len(ids) and set(ids) <= {"a", "sub/b"}
        assert split.read(0)[0].shape == PIXELS.shape


HISTORY = st.lists(
    st.lists(
        st.sampled_from(("epoch", "loss", "", "1", "nan", "inf", "-1e999", '"', "x\0", "9" * 400))
        | st.text(st.characters(codec="utf-8"), max_size=5),
        max_size=4,
    ).map(",".join),
    max_size=5,
).map(lambda lines: "\n".join(lines).encode())


@example(b"epoch\ninf\n")  # OverflowError
@example(b"epoch\n" + b"9" * 200_000)  # csv.Error
@given(TEXTS | HISTORY)
def test_a_history_is_read_or_refused(content):
    with tempfile.TemporaryDirectory() as place:
        run = RunFolder(place)
        run.history.write_bytes(content)
        try:
            rows = run.read_history()
        except UserError as error:
            assert str(error).startswith(str(run.history))
        else:
            assert all(isinstance(row["epoch"], int) for row in rows)
            assert all(isinstance(value, (int, float)) for row in rows for value in row.values())


JSONS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("train", "labels", "names", "palette")), inner, max_size=3
        )
    ),
)


@example(b"[" * 100_000)  # RecursionError
@given(TEXTS | JSONS.map(lambda value: json.dumps(value).encode()))
def test_a_config_is_read_or_refused(content):
    with tempfile.TemporaryDirectory() as place:
        run = RunFolder(place)
        run.config.write_bytes(content)
        for read in (run.read_config, run.read_labels):
            try:
                read()
            except UserError as error:
                assert str(error).startswith(str(run.config))


# Whatever the file system takes as a name: bytes but for "/" and NUL.
NAMES = st.binary(min_size=1, max_size=8).map(
    lambda name: name.replace(b"/", b"-").replace(b"\0", b"0")
)
KINDS = ("photo", "folder", "link", "loop", "pipe")


@given(st.lists(st.tuples(NAMES, st.sampled_from(KINDS), st.booleans()), max_size=8))
def test_images_of_all_names_are_found_once_and_named_apart(entries):
    with tempfile.TemporaryDirectory() as place:
        folder, photos = os.fsencode(place), set()
        for name, kind, deeper in entries:
            name += b".png"
            path = os.path.join(folder, name)
            if os.path.lexists(path):
                continue
            if kind == "photo":
                Path(os.fsdecode(path)).write_bytes(SEEDS[0])
            elif kind == "folder":
                os.mkdir(path)
                folder = path if deeper else folder
                continue
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                os.symlink(path if kind == "loop" else folder, path)
            if not name.startswith(b".") and kind != "link":
                photos.add(os.fsdecode(path))
        found = list(found_images([place], os.path.join(place, "out")))
        assert {image.path for image in found} == photos and len(found) == len(photos)
        names = [image.name for image in found]
        assert len(set(names)) == len(names)
        assert not any({".", ".."} & set(name.split("/")) for name in names)
