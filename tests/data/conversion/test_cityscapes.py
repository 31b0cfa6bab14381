"""Cityscapes's numbers become train ids."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_keras.data import load_split
from fcn_keras.data.conversion import convert
from fcn_keras.errors import UserError

FORMATS = os.environ.get("FORMATS_DIR")


def write(root, names, numbers, kind="gtFine_labelIds", dtype=np.uint8):
    for name in names:
        photograph = root / f"leftImg8bit/{name}_leftImg8bit.png"
        mask = root / f"{kind.split('_')[0]}/{name}_{kind}.png"
        for path in (photograph, mask):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (len(numbers), 2)).save(photograph)
        Image.fromarray(np.tile(np.array(numbers, dtype), (2, 1))).save(mask)
        Image.new("RGB", (len(numbers), 2)).save(f"{mask}_color.png")
    return root


def test_numbers_of_labels(tmp_path):
    names = ("train/aachen/aachen_000000_000019", "val/ulm/ulm_1", "train_extra/bonn/bonn_2")
    root = write(tmp_path / "x", names, [0, 6, 7, 8, 10, 33, 29])
    done = convert(root, tmp_path / "out")
    assert done.format == "cityscapes" and done.sizes == {"train": 2, "val": 1}
    assert done.labels.names[:2] == ("road", "sidewalk") and len(done.labels) == 19
    assert done.labels.palette[13] == (0, 0, 142) and done.labels.names[13] == "car"
    split = load_split(str(tmp_path / "out"), "val")
    assert split.ids == ("ulm_1",)
    assert split.read(0)[1][0].tolist() == [255, 255, 0, 1, 255, 18, 255]


def test_numbers_of_instances_where_there_are_no_others(tmp_path):
    names = ("train/a/a_1", "val/a/a_1")
    numbers = [3, 7, 24000, 26012, 33999, 29001]
    root = write(tmp_path / "x", names, numbers, "gtFine_instanceIds", np.uint16)
    write(root, names[:1], [26] * 6)  # wins
    assert convert(root, tmp_path / "out").sizes == {"train": 1, "val": 1}
    for split, row in (("train", [13] * 6), ("val", [255, 0, 11, 13, 18, 255])):
        assert load_split(str(tmp_path / "out"), split).read(0)[1][0].tolist() == row


def test_coarse_labels(tmp_path):
    root = write(tmp_path / "x", ("train/a/a_1", "val/a/a_2"), [7, 8], "gtCoarse_labelIds")
    assert convert(root, tmp_path / "out").sizes == {"train": 1, "val": 1}


def test_what_is_something_else_is_a_problem(tmp_path):
    root = write(tmp_path / "x", ("train/a/a_1", "val/a/a_2"), [34, 200])
    write(root, ("val/a/a_3",), [999, 34000], "gtFine_instanceIds", np.uint16)
    Image.new("RGB", (2, 2)).save(root / "gtFine/val/a/a_2_gtFine_labelIds.png")
    found = convert(root, tmp_path / "out").findings.problems
    messages = ("the mask has 34, 200,", "mode RGB", "the mask has 999, 34000,")
    assert len(found) == 3
    assert all(any(message in line for line in found) for message in messages)


def test_missing_folders_and_masks_are_told(tmp_path):
    root = write(tmp_path / "x", ("train/a/a_1",), [7], "gtFine_polygons")
    with pytest.raises(UserError, match="no file ends in _gtFine_labelIds.png"):
        convert(root, tmp_path / "out")
    (root / "leftImg8bit").rename(root / "images")
    with pytest.raises(UserError, match="leftImg8bit: no such folder"):
        convert(root, tmp_path / "out")
    (root / "label_colors.txt").write_text("128 0 0 cat\n")
    with pytest.raises(UserError, match=r"not Cityscapes's.*Segmentation mask 1.1"):
        convert(root, tmp_path / "out")


@pytest.mark.skipif(not FORMATS, reason="FORMATS_DIR is not set")
def test_the_sample(tmp_path):
    done = convert(Path(FORMATS or "", "cityscapes"), tmp_path / "out")
    assert done.sizes == {"train": 1, "val": 1, "test": 2}
    assert {name for name, count in zip(done.labels.names, done.pixels) if count} == {
        "wall", "person", "truck", "train",
    }  # fmt: skip
