"""VOC's layout: PASCAL VOC itself, our own folders, labelme's export."""

import shutil

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES, write_folder

from fcn_keras.data import load_split
from fcn_keras.data.conversion import convert
from fcn_keras.data.conversion.source import Options
from fcn_keras.data.split import voc_palette
from fcn_keras.data.voc.labels import VOC_CLASSES
from fcn_keras.errors import UserError

LISTS = "ImageSets/Segmentation"


@pytest.fixture
def ours(tmp_path):
    return write_folder(tmp_path / "VOCdevkit/VOC2012", train=3, val=2)


def rename(root, rule):
    """Gives all images other names; returns the old name of each."""
    olds = {}
    for split in ("train", "val"):
        path = root / LISTS / f"{split}.txt"
        names = path.read_text().split()
        for number, name in enumerate(names):
            new = rule(split, number)
            (root / f"JPEGImages/{name}.jpg").rename(root / f"JPEGImages/{new}.jpg")
            (root / f"SegmentationClass/{name}.png").rename(root / f"SegmentationClass/{new}.png")
            olds[new] = name
        path.write_text("\n".join(rule(split, number) for number in range(len(names))))
    return olds


def voc_name(split, number):
    return f"2007_{number + 100 * (split == 'val'):06}"


def test_our_own_folder_stays_as_it_is(ours, tmp_path):
    done = convert(ours, tmp_path / "out", mapping=["bar,box=thing"])
    assert done.format == "voc" and done.sizes == {"train": 3, "val": 2}
    assert done.labels.names == (CLASSES[0], "thing")
    before, after = load_split(str(ours), "val"), load_split(str(tmp_path / "out"), "val")
    assert before.ids == after.ids
    old, new = before.read(0)[1], after.read(0)[1]
    np.testing.assert_array_equal(new, np.where(old == 2, 1, old))


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2012", "VOCdevkit", "."])
def test_pascal_voc_is_known_by_its_names(place, ours, tmp_path):
    rename(ours, voc_name)
    (ours / "classes.txt").unlink()
    both = "".join((ours / LISTS / f"{s}.txt").read_text() + "\n" for s in ("train", "val"))
    (ours / LISTS / "trainval.txt").write_text(both)
    (ours / LISTS / "test.txt").write_text("")
    done = convert(tmp_path / place, tmp_path / "out")
    assert done.labels.names == VOC_CLASSES and done.sizes == {"train": 3, "val": 2}
    assert any("test.txt: the list is empty" in note for note in done.findings.notes)


def test_lists_that_contain_another_are_not_used(ours, tmp_path):
    lists = {name: (ours / LISTS / f"{name}.txt").read_text() for name in ("train", "val")}
    (ours / LISTS / "test.txt").write_text(lists["val"])
    (ours / LISTS / "trainaug.txt").write_text(lists["train"] + "more\n")
    done = convert(ours, tmp_path / "out")
    assert done.sizes == {"train": 3, "val": 2}
    assert done.findings.notes == [
        "trainaug.txt is not used, as it contains all of train.txt.",
        "test.txt is not used, as it contains all of val.txt.",
    ]


def test_other_images_need_a_list_of_classes(ours, tmp_path):
    (ours / "classes.txt").rename(tmp_path / "mine.txt")
    with pytest.raises(UserError, match=r"no classes.txt, and train_0 is no image of PASCAL"):
        convert(ours, tmp_path / "out")
    done = convert(ours, tmp_path / "out", options=Options(classes=tmp_path / "mine.txt"))
    assert done.labels.names == CLASSES


def test_labelmes_export_has_no_lists(ours, tmp_path):
    shutil.rmtree(ours / "ImageSets")
    (ours / "classes.txt").rename(ours / "class_names.txt")
    (ours / "SegmentationClass").rename(ours / "SegmentationClassPNG")
    (ours / "SegmentationClass").mkdir()
    np.save(ours / "SegmentationClass/train_0.npy", np.zeros((2, 2)))
    done = convert(ours, tmp_path / "out")
    assert done.sizes == {"train": 4, "val": 1} and done.labels.names == CLASSES


def test_several_years_are_to_be_named(ours, tmp_path):
    write_folder(tmp_path / "VOCdevkit/VOC2007")
    with pytest.raises(UserError, match="Name one of those in it: VOC2007, VOC2012"):
        convert(tmp_path / "VOCdevkit", tmp_path / "out")


def test_faults_are_listed(ours, tmp_path):
    (ours / "JPEGImages/train_0.jpg").unlink()
    (ours / "SegmentationClass/train_1.png").unlink()
    Image.new("L", (64, 48), 9).save(ours / "SegmentationClass/val_0.png")
    Image.new("L", (60, 48)).save(ours / "SegmentationClass/val_1.png")
    Image.new("L", (64, 48)).save(ours / "SegmentationClass/extra.png")
    done = convert(ours, tmp_path / "out")
    messages = ("train_0.png is missing", "has id 9", "the mask is 48×60")
    assert len(done.findings.problems) == 3
    assert all(any(m in line for line in done.findings.problems) for m in messages)
    assert done.findings.left_out["as it has no mask"] == ["train_1"]
    assert len(done.findings.left_out["as no list names it"]) == 1
    (ours / LISTS / "val.txt").write_text("../../etc/passwd")
    with pytest.raises(UserError, match="is not the id of an image in this folder"):
        convert(ours, tmp_path / "out")


def test_a_palette_in_another_order_is_refused(ours, tmp_path):
    first, second, *rest = voc_palette()
    for path in (ours / "SegmentationClass").glob("*.png"):
        mask = Image.fromarray(np.array(Image.open(path)))
        mask.putpalette([level for color in (second, first, *rest) for level in color])
        mask.save(path)
    problems = convert(ours, tmp_path / "out").findings.problems
    assert len(problems) == 5 and "index 0 the colour of class" in problems[0]
    assert "--format folders --mask-values colors" in problems[0]
    with pytest.raises(UserError, match="does not apply to the format voc.*Add --format folders"):
        convert(ours, tmp_path / "out", options=Options(mask_values="colors"))
    convert(ours, tmp_path / "out", "folders", Options(mask_values="colors"))
    swapped = np.array([1, 0, *range(2, 256)])
    old, new = (load_split(str(root), "val").read(0)[1] for root in (ours, tmp_path / "out"))
    np.testing.assert_array_equal(new, swapped[old])
