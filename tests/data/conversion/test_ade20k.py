"""ADE20K's scene parsing benchmark, and other ADE20Ks."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_keras.data import load_split
from fcn_keras.data.conversion import ade20k, convert
from fcn_keras.data.conversion.source import Findings, Options
from fcn_keras.errors import UserError

TABLE = "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t5\t6\twall\n2\t0.1\t5\t6\tbed , bunk\n"
FORMATS = os.environ.get("FORMATS_DIR")


def write(root, *names, numbers=(0, 1, 2, 2)):
    for name in names:
        for folder in ("images", "annotations"):
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3)).save(root / f"images/{name}.jpg")
        Image.fromarray(np.tile(np.uint8(numbers), (3, 1))).save(root / f"annotations/{name}.png")
    (root / "objectInfo150.txt").write_text(TABLE)
    return root


def test_numbers_less_one_are_ids_and_0_is_unlabelled(tmp_path):
    root = write(tmp_path / "x", "training/a", "validation/b", "training/c")
    (root / "annotations/training/c.png").unlink()
    (root / "annotations/validation").rename(tmp_path / "elsewhere")
    (root / "annotations/validation").symlink_to(tmp_path / "elsewhere")
    (root / "annotations/again").symlink_to(root / "annotations")
    done = convert(root, tmp_path / "out")
    assert done.format == "ade20k" and done.sizes == {"train": 1, "val": 1}
    assert done.labels.names == ("wall", "bed")
    assert len(done.findings.left_out["as it has no mask"]) == 1
    mask = load_split(str(tmp_path / "out"), "val").read(0)[1]
    np.testing.assert_array_equal(mask, [[255, 0, 1, 1]] * 3)


def test_folders_without_splits(tmp_path):
    assert convert(write(tmp_path / "x", "a", "b"), tmp_path / "out").sizes == {
        "train": 1, "val": 1,
    }  # fmt: skip


def test_numbers_of_no_class_and_colours_are_problems(tmp_path):
    root = write(tmp_path / "x", "training/a", "validation/b", numbers=(0, 1, 3, 255))
    Image.new("RGB", (4, 3)).save(root / "annotations/training/a.png")
    found = convert(root, tmp_path / "out").findings.problems
    assert len(found) == 2 and "mode RGB" in found[0] and "the mask has 3, 255," in found[1]


@pytest.mark.parametrize("name", ["index_ade20k.pkl", "images/ADE/training/a_seg.png"])
def test_full_ade20k_is_refused_by_name(name, tmp_path):
    path = tmp_path / "x" / name
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(UserError, match=r"full ADE20K.*ADEChallengeData2016"):
        convert(tmp_path / "x", tmp_path / "out")


@given(st.text("\t\n129Ia, ", max_size=60).map(str.encode) | st.binary(max_size=60))
def test_any_table_is_read_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder, "x"), "training/a", "validation/b")
        (root / "objectInfo150.txt").write_bytes(b"Idx\tRatio\tTrain\tVal\tName\n" + content)
        try:
            done = convert(root, Path(folder, "out"))
        except UserError as error:
            assert str(error).startswith(f"{root / 'objectInfo150.txt'}: not ADE20K's table")
        else:
            assert done.sizes or done.findings.problems


@pytest.mark.skipif(not FORMATS, reason="FORMATS_DIR is not set")
def test_the_sample():
    folder, findings = Path(FORMATS or "", "ade20k"), Findings()
    source = ade20k.read(folder, Options(), findings)
    assert len(source.labels) == 150 and source.labels.names[17] == "plant"
    for example in source.examples:
        expected = np.asarray(Image.open(folder / f"expected/{example.name}.png"))
        expected = np.where(expected == 255, 255, expected - 1)
        np.testing.assert_array_equal(example.draw(*expected.shape), expected)
    assert len(source.examples) == 3 and not findings.problems
