"""Roboflow's masks: numbers that `_classes.csv` names, beside the photographs."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_keras.data import load_split
from fcn_keras.data.conversion import convert
from fcn_keras.errors import UserError

CLASSES = 'Pixel Value, Class\n0, background\n3, cat, black\n2, "dog"\n'
FORMATS = os.environ.get("FORMATS_DIR")


def write(root, *names, classes=CLASSES, numbers=(0, 3, 2, 2)):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(f"{path}.jpg")
        Image.fromarray(np.tile(np.uint8(numbers), (3, 1))).save(f"{path}_mask.png")
        (path.parent / "_classes.csv").write_text(classes)
    return root


def test_numbers_become_ids_and_folders_splits(tmp_path):
    root = write(tmp_path / "x", "train/a", "train/b", "valid/a", "test/c_mask")
    Image.new("RGB", (4, 3)).save(root / "train/alone.jpg")
    done = convert(root, tmp_path / "out")
    assert done.format == "roboflow" and done.sizes == {"train": 2, "val": 1, "test": 1}
    assert done.labels.names == ("background", "dog", "cat, black")
    assert done.findings.left_out == {"as it has no mask": [str(root / "train/alone.jpg")]}
    split = load_split(str(tmp_path / "out"), "val")
    assert split.ids == ("val/a",)  # as train has an `a`, too
    np.testing.assert_array_equal(split.read(0)[1], [[0, 2, 1, 1]] * 3)


def test_a_folder_without_splits(tmp_path):
    done = convert(write(tmp_path / "x", "a", "b"), tmp_path / "out")
    assert done.sizes == {"train": 1, "val": 1}


def test_numbers_without_a_name_are_problems(tmp_path):
    root = write(tmp_path / "x", "train/a", "valid/b", numbers=(0, 1, 9, 255))
    done = convert(root, tmp_path / "out")
    assert len(done.findings.problems) == 2
    assert "a_mask.png: the mask has 1, 9, 255, which" in done.findings.problems[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "classes, message",
    [
        ("filename, cat, dog\na.jpg, 1, 0\n", "its columns are"),  # of multi-label classification
        ("", "not a list of classes"),
        ("Pixel Value, Class\n", "0 to 254"),
        ("Pixel Value, Class\n0, a\n0, b\n", "occurs twice"),
        ("Pixel Value, Class\n0, a\n1, a\n", "more than once"),
        ("Pixel Value, Class\n0, a\n-1, b\n", "0 to 254"),
        ("Pixel Value, Class\nx, a\n", "invalid literal"),
        ("Pixel Value, Class\n" + "".join(f"{n}, c{n}\n" for n in range(10_000)), "0 to 254"),
    ],
)
def test_other_lists_are_refused(classes, message, tmp_path):
    root = write(tmp_path / "x", "train/a", "train/b", classes=classes)
    with pytest.raises(UserError, match=f"_classes.csv: .*{message}"):
        convert(root, tmp_path / "out")


def test_lists_that_differ_are_refused(tmp_path):
    root = write(tmp_path / "x", "train/a", "valid/b")
    (root / "valid/_classes.csv").write_text(CLASSES.replace("dog", "fox"))
    with pytest.raises(UserError, match="not the classes of"):
        convert(root, tmp_path / "out")


@given(st.binary(max_size=80) | st.text("09, \"\n'ac", max_size=40).map(str.encode))
def test_any_list_is_read_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder, "x"), "a", "b")
        (root / "_classes.csv").write_bytes(b"Pixel Value, Class\n" + content)
        try:
            done = convert(root, Path(folder, "out"))
        except UserError as error:
            assert str(error).startswith(str(root))
        else:
            assert done.sizes or done.findings.problems


@pytest.mark.skipif(not FORMATS, reason="FORMATS_DIR is not set")
def test_the_sample(tmp_path):
    source = Path(FORMATS or "", "roboflow_masks")
    done = convert(source, tmp_path / "out")
    assert done.sizes == {"train": 8, "val": 4, "test": 4} and len(done.labels) == 11
    for split, folder in (("train", "train"), ("val", "valid"), ("test", "test")):
        written = load_split(str(tmp_path / "out"), split)
        for index, name in enumerate(written.ids):
            mask = np.asarray(Image.open(source / folder / f"{name}_mask.png"))
            np.testing.assert_array_equal(written.read(index)[1], mask)


@pytest.mark.parametrize("layout", ["images/{}.jpg masks/{}_mask.png", "{}.jpg {}.png"])
def test_other_layouts(layout, tmp_path):
    for split in ("train", "valid"):
        for name in "ab":
            image, mask = (tmp_path / "in" / split / part.format(name) for part in layout.split())
            image.parent.mkdir(parents=True, exist_ok=True)
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 3)).save(image)
            Image.fromarray(np.tile(np.uint8((0, 3, 2, 2)), (3, 1))).save(mask)
        (tmp_path / "in" / split / "_classes.csv").write_text(CLASSES)
    done = convert(tmp_path / "in", tmp_path / "out")
    assert done.format == "roboflow" and done.sizes == {"train": 2, "val": 2}
    np.testing.assert_array_equal(
        load_split(str(tmp_path / "out"), "val").read(0)[1], [[0, 2, 1, 1]] * 3
    )
