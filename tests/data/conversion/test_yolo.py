"""`data convert` on YOLO's polygons."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.mutations import mutated

from fcn_keras.cli import main
from fcn_keras.data.conversion import convert
from fcn_keras.errors import UserError

SIZE = HEIGHT, WIDTH = 20, 40
FORMATS = os.environ.get("FORMATS_DIR")
SPLITS = {"train": "images/train", "val": "images/val"}
NAMES = {"names": ["cat", "dog", "hat"]}


def polygon(class_id, left, top, right, bottom):
    """A line whose pixels are those of the box, its last row and column included."""
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    # In the middle of pixels, as these begin at whole numbers and fractions are cut.
    values = (f"{(x + 0.5) / WIDTH:.6f} {(y + 0.5) / HEIGHT:.6f}" for x, y in corners)
    return " ".join([str(class_id), *values])


def box_mask(left, top, right, bottom):
    mask = np.zeros(SIZE, np.uint8)
    mask[top : bottom + 1, left : right + 1] = 1
    return mask


LABELS = {
    "images/train/a.jpg": [polygon(0, 2, 2, 9, 9)],
    "images/train/b.v1.jpg": [polygon(2, 20, 0, 25, 5)],
    "images/val/a.jpg": [polygon(1, 0, 0, 3, 3)],
}


def write(root, labels=LABELS, **description):
    """A data set: each image's path with the lines of its labels, or `None` for no file."""
    root.mkdir()
    for name, lines in labels.items():
        image = root / name
        label = (root / name.replace("images/", "labels/")).with_suffix(".txt")
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], (90, 120, 30)).save(image)
        if lines is not None:
            label.write_text("\n".join(lines))
    (root / "data.yaml").write_text(yaml.safe_dump(SPLITS | NAMES | description, sort_keys=False))
    return root


def masks(folder):
    root = folder / "SegmentationClass"
    return {
        path.relative_to(root).with_suffix("").as_posix(): np.array(Image.open(path))
        for path in root.rglob("*.png")
    }


def test_polygons_become_masks_with_the_splits_of_the_source(tmp_path, capfd):
    root = write(tmp_path / "in")
    assert main(["data", "convert", str(root), "--output", str(tmp_path / "new")]) == 0
    assert "Format: yolo" in capfd.readouterr().out
    found = masks(tmp_path / "new")
    assert {*found} == {"train/a", "b.v1", "val/a"}  # as two splits have an a.jpg
    np.testing.assert_array_equal(found["train/a"], box_mask(2, 2, 9, 9))
    np.testing.assert_array_equal(found["b.v1"], 3 * box_mask(20, 0, 25, 5))
    names = (tmp_path / "new/classes.txt").read_text().split()[::4]
    assert names == ["background", "cat", "dog", "hat"]


def test_smaller_objects_are_above_larger_ones(tmp_path):
    small, large = polygon(1, 4, 4, 6, 6), polygon(0, 2, 2, 19, 19)
    labels = {"images/a.jpg": [small, large], "images/b.jpg": [large, "", small]}
    convert(write(tmp_path / "in", labels, train="images", val=None), tmp_path / "new")
    found = masks(tmp_path / "new")
    expected = box_mask(2, 2, 19, 19) + box_mask(4, 4, 6, 6)
    np.testing.assert_array_equal(found["a"], expected)
    np.testing.assert_array_equal(found["b"], expected)


def test_edges_are_cut_at_the_border_and_include_the_outline(tmp_path):
    line = "0 -0.01 -0.01 1.01 -0.01 0.5 0.5"
    labels = {"images/a.jpg": [line], "images/b.jpg": [polygon(0, 5, 5, 5, 5)]}
    convert(write(tmp_path / "in", labels, train="images", val=None), tmp_path / "new")
    found = masks(tmp_path / "new")
    # Row y, of 10, is from column 2 y to 40 - 2 y, or one more: a line has two pixels per row.
    rows = found["a"].sum(axis=1)
    assert rows[0] == 40 and set(rows[1:11] - (41 - 4 * np.arange(1, 11))) <= {0, 1, 2}
    assert found["b"].sum() == 1


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({1: "dog", 0: "cat", 2: "3"}, ("background", "cat", "dog", "3")),
        (["cat", "Background", 5], ("Background", "cat", "5")),
    ],
)
def test_names(names, expected, tmp_path):
    done = convert(write(tmp_path / "in", names=names, nc=3), tmp_path / "new")
    assert done.labels.names == expected
    value = masks(tmp_path / "new")["val/a"].max()  # of class 1
    assert expected[value] == names[1]


@pytest.mark.parametrize(
    "description",
    [
        {"path": "/home/me/in", "train": "images/train"},
        {"path": "../in", "train": ["./images/train/"]},
        {"train": "../images/train", "test": "../test/images"},
        {"train": "/content/in/images/train"},
        {"train": "train.txt", "val": None, "validation": "images\\val"},
    ],
)
def test_paths(description, tmp_path):
    root = write(tmp_path / "in", **description)
    (root / "train.txt").write_text("./images/train/a.jpg\r\ndata/images/train/b.v1.jpg\r\n\r\n")
    done = convert(root / "data.yaml", tmp_path / "new")
    assert done.sizes == {"train": 2, "val": 1} and not done.findings.problems


def test_the_last_folder_images_is_that_of_labels(tmp_path):
    root = write(tmp_path / "in", {}, train="images", val=None)
    for name in ("a", "b"):
        for folder in ("images", "labels"):
            (root / "images" / name / folder).mkdir(parents=True)
        Image.new("RGB", SIZE[::-1]).save(root / f"images/{name}/images/x.png")
        (root / f"images/{name}/labels/x.txt").write_text(polygon(0, 1, 1, 3, 3))
    convert(root, tmp_path / "new")
    found = masks(tmp_path / "new")
    assert {*found} == {"a/images/x", "b/images/x"} and all(mask.any() for mask in found.values())


def test_what_has_no_partner_is_told(tmp_path):
    labels = LABELS | {"images/val/empty.jpg": [], "images/val/none.jpg": None}
    root = write(tmp_path / "in", labels, test="images/val")
    (root / "labels/val/lost.txt").write_text(polygon(0, 1, 1, 5, 5))
    (root / "labels/val/none.txt").mkdir()
    (root / "images/val/.ipynb_checkpoints").mkdir()
    Image.new("RGB", (4, 4)).save(root / "images/val/.ipynb_checkpoints/a.jpg")
    done = convert(root, tmp_path / "new")
    assert done.findings.notes[0] == "images without labels are background everywhere: 2."
    left_out = {reason: len(places) for reason, places in done.findings.left_out.items()}
    assert left_out == {"as it has no image": 1, "from test, as it is in val": 3}
    assert not masks(tmp_path / "new")["empty"].any()


def test_all_faults_are_listed_and_nothing_is_written(tmp_path, capfd):
    good = polygon(0, 1, 1, 5, 5)
    wrong = {
        "not a line of numbers": "cat 0.1 0.2 0.3 0.4 0.5 0.6",
        "class 3, but the classes are 0 to 2": polygon(3, 1, 1, 5, 5),
        "class 0.5": polygon(0.5, 1, 1, 5, 5),
        "a box among polygons": "0 0.5 0.5 0.1 0.1",
        ": 7 coordinates": f"{good[:-9]}",
        ": 2 coordinates": "1 0.5 0.5",
        ": nan is not between": "0 nan 0.1 0.2 0.3 0.4 0.5",
        ": inf is not between": "0 1e999 0.1 0.2 0.3 0.4 0.5",
        "it is outside of the photograph": "0 1.2 0.1 1.3 0.3 1.4 0.5",
        "it reaches far beyond": "0 -12 0.1 0.2 0.3 0.4 0.5",
        ": 200002 coordinates": "0" + " 0.5" * 200_002,
    }
    root = write(tmp_path / "in", LABELS | {"images/train/c.jpg": [good, *wrong.values()]})
    (root / "labels/val/a.txt").write_bytes(b"\xff\xfe")
    (root / "images/train/a.jpg").write_bytes(b"no image")
    (root / "val.txt").write_text("../../secret.jpg\nimages/val/a.jpg")
    description = yaml.safe_load((root / "data.yaml").read_text()) | {"val": "val.txt"}
    (root / "data.yaml").write_text(yaml.safe_dump(description))
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.jpg")
    assert main(["data", "convert", str(root), "--output", str(tmp_path / "new")]) == 1
    error = capfd.readouterr().err
    others = ("a.txt: not readable", "a.jpg: not a readable image", "secret.jpg' is not in")
    for text in (*wrong, *others):
        assert error.count(text) == 1, (text, error)
    assert f"{root / 'labels/train/c.txt'}:2: not a line" in error
    assert not (tmp_path / "new").exists() and "Traceback" not in error


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"names": []}, "names are neither"),
        ({"names": {0: "a", 2: "b"}}, "keys of its names are not 0 to 1"),
        ({"names": ["a", True]}, "name 1 is not text; write it in quotation marks"),
        ({"names": [f"c{index}" for index in range(10_000)]}, "Received: 10001 classes"),
        ({"names": ["a", "a", "b"]}, "must differ"),
        ({"nc": 2}, "nc does not agree with its 3 names"),
        ({"train": "nowhere"}, "train is 'nowhere', which is not in"),
        ({"train": [["images"]]}, "train is not a path or a list of paths"),
        ({"train": "data.yaml/x"}, "which is not in"),
        ({"train": "images/train/a.jpg"}, "not readable as a list"),
        ({"train": "labels", "val": "labels"}, "none of its images is in"),
        ({"kpt_shape": [17, 3]}, "keypoints"),
        ({"masks_dir": "masks"}, "Convert them by --images, --masks and --classes"),
    ],
)
def test_what_cannot_be_read_is_refused(description, message, tmp_path):
    root = write(tmp_path / "in", **description)
    with pytest.raises(UserError, match=message):
        convert(root, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_one_yaml_file_is_needed(tmp_path):
    root = write(tmp_path / "in")
    (root / "b.yml").write_text((root / "data.yaml").read_text())
    with pytest.raises(UserError, match="Found: b.yml, data.yaml. Write data.yaml, or name"):
        convert(root, tmp_path / "new")
    assert convert(root / "b.yml", tmp_path / "new").sizes == {"train": 2, "val": 1}


def test_boxes_alone_are_refused_as_detection(tmp_path):
    labels = {"images/train/a.jpg": ["0 0.5 0.5 0.1 0.1"], "images/val/b.jpg": []}
    with pytest.raises(UserError, match="its labels are boxes. Boxes are for detection"):
        convert(write(tmp_path / "in", labels), tmp_path / "new")


def test_images_without_any_labels_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no labels, such as .*labels/train/a.txt"):
        convert(write(tmp_path / "in", dict.fromkeys(LABELS)), tmp_path / "new")


@pytest.mark.parametrize(
    "text", ["names: [", "[" * 10_000, "\xff", "a: &a [*a]\n<<: 5", "x: 2001-99-99", "- 1", "a\0b"]
)
def test_damaged_yaml_is_refused(text, tmp_path):
    root = write(tmp_path / "in")
    (root / "data.yaml").write_text(f"{text}\nnames: [a]\ntrain: b\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"data.yaml: (not readable|its|train)"):
        convert(root, tmp_path / "new")


LINES = st.lists(
    st.sampled_from((polygon(0, 1, 1, 5, 5), "0 0.5 0.5 0.1 0.1", "9 1 1 1 1 1 1", "1 nan 1"))
    | st.text(st.characters(codec="utf-8"), max_size=30)
    | st.lists(st.floats(-0.1, 1.1), min_size=5, max_size=9).map(lambda v: " ".join(map(str, v)))
)


@given(mutated(SPLITS | NAMES | {"nc": 3, "path": "."}), LINES)
def test_what_is_odd_is_read_or_refused(description, lines):
    with tempfile.TemporaryDirectory() as folder:
        root = write(Path(folder, "in"), LABELS | {"images/train/c.jpg": lines})
        try:
            (root / "data.yaml").write_text(yaml.safe_dump(description))
            done = convert(root / "data.yaml", Path(folder, "new"), "yolo")
        except (UserError, UnicodeEncodeError) as error:
            assert str(error)
        else:
            assert bool(done.findings.problems) != Path(folder, "new").exists()


@pytest.mark.skipif(not FORMATS, reason="needs FORMATS_DIR")
def test_the_sample_is_drawn_as_ultralytics_does(tmp_path):
    root = Path(FORMATS or "", "yolo_seg")
    assert convert(root, tmp_path / "new").sizes == {"train": 2, "val": 2}
    for path in (root / "expected").rglob("*.png"):
        expected = np.array(Image.open(path))
        np.testing.assert_array_equal(masks(tmp_path / "new")[path.stem], expected)
