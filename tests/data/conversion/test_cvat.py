"""CVAT's two exports: shapes in XML, and masks in colours with a labelmap."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fcn_keras.data import load_split
from fcn_keras.data.conversion import convert, cvat, cvat_xml
from fcn_keras.data.conversion.filling import fill_polygon
from fcn_keras.data.conversion.source import Findings, Options
from fcn_keras.errors import UserError

SIZE = (20, 30)
LABELS = (("car", "#ff0000", "any"), ("pole", "#00ff00", "polygon"), ("rain", "#00ff00", "tag"))
FORMATS = os.environ.get("FORMATS_DIR")


def xml(images, labels=LABELS, holder="task"):
    rows = "".join(
        f"<label><name>{name}</name><color>{color}</color><type>{kind}</type><attributes>"
        "<attribute><name>age</name></attribute></attributes></label>"
        for name, color, kind in labels
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta>'
        f"<{holder}><labels>{rows}</labels></{holder}></meta>{images}</annotations>"
    )


def image(name, shapes, subset=""):
    subset = f' subset="{subset}"' if subset else ""
    return f'<image id="0" name="{name}"{subset} width="30" height="20">{shapes}</image>'


def box(label, xtl, ytl, xbr, ybr, **more):
    place = {"xtl": xtl, "ytl": ytl, "xbr": xbr, "ybr": ybr, **more}
    return f'<box label="{label}" ' + " ".join(f'{k}="{v}"' for k, v in place.items()) + "/>"


def write(root, text, *names, size=SIZE):
    """Writes an export; returns its XML."""
    for name in names:
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(path)
    root.mkdir(parents=True, exist_ok=True)
    (root / "annotations.xml").write_text(text)
    return root / "annotations.xml"


def masks(output):
    names = {path.stem: np.asarray(Image.open(path)) for path in output.glob("*Class/**/*.png")}
    return {name: names[name] for name in sorted(names)}


def problems(root, text, *names, **options):
    """The problems of converting an export with these photographs, which writes nothing."""
    write(root, text, *names)
    done = convert(root, root / "out", options=Options(**options))
    assert not (root / "out").exists() and not done.sizes
    return done.findings.problems


def drawn(root, shapes, labels=LABELS):
    """The mask of one image with these shapes."""
    findings = Findings()
    source = cvat.read(
        write(root, xml(image("a.png", shapes), labels), "a.png"), Options(), findings
    )
    mask = source.examples[0].draw(*SIZE)
    assert not findings.problems
    return mask


def test_shapes_lie_over_each_other_by_z_order(tmp_path):
    runs = "2, 2, 1, 3"  # of a box of 4 by 2: ..## .###
    shapes = (
        box("car", 2, 3, 12, 9, z_order=1)
        + '<polygon label="pole" points="0,0;30,0;30,10;0,10" z_order="-2"/>'
        + '<tag label="rain"/><polyline label="car" points="0,0;9,9"/>'
        + f'<mask label="pole" rle="{runs}" left="4" top="5" width="4" height="2" z_order="1">'
        + '<attribute name="age">3</attribute></mask>'
    )
    write(tmp_path, xml(image("a.png", shapes) + image("b.png", shapes)), "a.png", "b.png")
    done = convert(tmp_path, tmp_path / "out")
    expected = np.zeros(SIZE, np.uint8)
    expected[:10] = 2
    expected[3:9, 2:12] = 1
    expected[5, 6:8] = expected[6, 5:8] = 2
    np.testing.assert_array_equal(masks(tmp_path / "out")["a"], expected)
    assert done.format == "cvat" and done.labels.names == ("background", "car", "pole")
    assert done.labels.palette == ((0, 0, 0), (255, 0, 0), (0, 255, 0))
    left_out = {reason: len(places) for reason, places in done.findings.left_out.items()}
    assert left_out == {
        "as a tag has no area in CVAT's masks": 3,  # of two images, and a label
        "as a polyline has no area in CVAT's masks": 2,
    }


def test_a_rotated_box_is_turned_clockwise(tmp_path):
    mask = drawn(tmp_path, box("car", 5, 9, 25, 11, rotation=90) + box("pole", 14, 9, 16, 11))
    expected = np.zeros(SIZE, np.uint8)
    expected[:, 14:16] = 1  # over the other box, as in CVAT's own masks
    np.testing.assert_array_equal(mask, expected)
    mask = drawn(tmp_path, box("car", 5, 9, 25, 11, rotation=30))
    assert mask[13, 21] == 1 and mask[6, 21] == 0  # its right end is below


def test_an_ellipse_has_its_centre_and_radii(tmp_path):
    mask = drawn(tmp_path, '<ellipse label="car" cx="15" cy="10" rx="8" ry="4"/>')
    assert [*np.flatnonzero(mask[10])] == [*range(7, 24)]
    assert [*np.flatnonzero(mask[:, 15])] == [*range(6, 15)]
    assert mask.sum() == pytest.approx(np.pi * 8.5 * 4.5, rel=0.1)
    turned = drawn(tmp_path, '<ellipse label="car" cx="15" cy="10" rx="8" ry="4" rotation="90"/>')
    np.testing.assert_array_equal(turned[2:19, 11:20], mask[6:15, 7:24].T)


def test_polygons_are_filled_as_by_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width, count = (int(n) for n in rng.integers((5, 5, 3), (90, 90, 12)))
        points = (rng.uniform(-0.6, 1.6, (count, 2)) * (width, height)).round(2)
        points[0] = width / 2, height / 2
        left, top, inside = fill_polygon((height, width), points)
        mask = np.zeros((height, width), bool)
        mask[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
        runs = coco.frPyObjects([points.ravel().tolist()], height, width)
        np.testing.assert_array_equal(mask, coco.decode(runs)[..., 0])


def test_shapes_without_a_pixel_are_left_out(tmp_path):
    thin = '<polygon label="car" points="5,5;5,5;5,5"/>' + box("pole", 3, 3, 3.2, 9)
    shapes = box("car", 0, 0, 2, 2) + thin
    write(tmp_path, xml("".join(image(f"{n}.png", shapes) for n in "ab")), "a.png", "b.png")
    done = convert(tmp_path, tmp_path / "out")
    assert len(done.findings.left_out["as it covers the centre of no pixel"]) == 4
    assert masks(tmp_path / "out")["a"].sum() == 4


def test_several_files_are_to_be_named(tmp_path):
    place = write(tmp_path, xml(image("a.png", box("car", 0, 0, 9, 9))), "a.png")
    for name in ("one.xml", "two.xml"):
        (tmp_path / name).write_bytes(place.read_bytes())
    place.unlink()
    with pytest.raises(UserError, match="Found: one.xml, two.xml"):
        convert(tmp_path, tmp_path / "out")


def test_background_is_a_label_in_any_row(tmp_path):
    labels = (LABELS[0], ("Background", "#010101", "any"), LABELS[1])
    shapes = box("car", 0, 0, 30, 20) + box("Background", 0, 0, 10, 20)
    mask = drawn(tmp_path, shapes, labels)
    assert (mask[:, :10] == 0).all() and (mask[:, 10:] == 1).all()


def test_subsets_are_splits_and_may_repeat_names(tmp_path):
    names = ("Train/a.png", "Train/b.png", "Validation/a.png")
    images = "".join(
        image(name.split("/")[1], box("car", 0, 0, 30, column), name.split("/")[0])
        for column, name in enumerate(names, 1)
    )
    write(tmp_path, xml(images, holder="project"), *names)
    done = convert(tmp_path, tmp_path / "out")
    assert done.sizes == {"train": 2, "val": 1}
    assert any("each gets its split" in note for note in done.findings.notes)
    split = load_split(str(tmp_path / "out"), "val")
    assert split.ids == ("val/a",) and split.read(0)[1].sum() == 3 * 30


def test_photographs_may_be_elsewhere(tmp_path):
    text = xml("".join(image(f"server/{n}.png", box("car", 0, 0, 9, 9)) for n in "ab"))
    place = write(tmp_path / "x", text)
    for name in "ab":
        Image.new("RGB", SIZE[::-1]).save(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"none of its photographs.*--images"):
        convert(place, tmp_path / "out")
    done = convert(place, tmp_path / "out", options=Options(images=tmp_path))
    assert sum(done.sizes.values()) == 2 and [*masks(tmp_path / "out")] == ["a", "b"]


def test_images_without_an_area_are_left_out(tmp_path):
    shapes = (box("car", 0, 0, 9, 9), box("pole", 0, 0, 9, 9), '<tag label="rain"/>', "")
    images = "".join(image(f"{n}.png", shape) for n, shape in enumerate(shapes))
    write(tmp_path, xml(images), *(f"{n}.png" for n in range(4)))
    done = convert(tmp_path, tmp_path / "out")
    assert [*masks(tmp_path / "out")] == ["0", "1"]
    assert len(done.findings.left_out["as nothing in it is labelled by an area"]) == 2


def test_all_faults_of_shapes_are_listed(tmp_path):
    faults = {
        '<polygon label="car" points="1,1;2,2"/>': "it has 2 points",
        '<polygon label="car" points="1,1;2,2;nan,3"/>': "point is 'nan'",
        '<polygon label="car" points="1,1;2,2;3"/>': "not 'x,y;x,y;...'",
        '<polygon label="car" points="1,1;2,2;x,3"/>': "not a number",
        '<polygon label="car" points="90,1;95,2;99,3"/>': "outside of the photograph of 20×30",
        '<polygon label="car" points="-900000,1;900000,2;-900000,3"/>': "reaches far beyond",
        f'<polygon label="car" points="{"0,0;29,19;" * 40_000}0,9"/>': "outline is longer",
        '<polygon label="car"/>': "it has 1 points",
        f'<polygon label="car" points="{"1,1;" * 100_000}1,1"/>': "it has 100001 points",
        f'<mask label="car" rle="{"0," * 900}1" left="0" top="0" width="1" height="1"/>': "more r",
        box("car", 0, 0, "1e999", 3): "its xbr is '1e999'",
        box("car", 0, 0, 5, 5, z_order="high"): "its z_order is 'high'",
        '<box label="car" xtl="1"/>': "it has no ytl",
        '<ellipse label="car" cx="9" cy="9" rx="-2" ry="2"/>': "negative radius",
        '<mask label="car" rle="1,2" left="0" top="0" width="2" height="2"/>': "do not fill",
        '<mask label="car" rle="5,-1" left="0" top="0" width="2" height="2"/>': "do not fill",
        '<mask label="car" rle="a" left="0" top="0" width="1" height="1"/>': "rle is not numbers",
        '<mask label="car" rle="4" left="29" top="0" width="2" height="2"/>': "outside",
        '<mask label="car" rle="4" left="0" top="0" width="0" height="2"/>': "its box, 0×2",
        '<star label="car"/>': "an unknown kind of shape",
        '<box label="boat" xtl="0" ytl="0" xbr="9" ybr="9"/>': "'boat' is used, but not listed",
    }
    text = xml(image("a.png", "".join(faults)) + image("b.png", box("car", 0, 0, 9, 9)))
    found = problems(tmp_path, text, "a.png", "b.png")
    assert len(found) == len(faults)
    for message in faults.values():
        assert sum(message in line for line in found) >= 1, message


def test_all_faults_of_images_are_listed(tmp_path):
    good = box("car", 0, 0, 9, 9)
    names = ("../a.png", "/etc/a.png", "gone.png", "b.png", "b.png", "")
    text = xml("".join(image(name, good) for name in names))
    found = problems(tmp_path, text, "a.png", "b.png")
    messages = {"not the name of a file": 3, "no such photograph": 1, "already another image's": 1}
    assert len(found) == 5
    for message, count in messages.items():
        assert sum(message in line for line in found) == count


def test_photographs_are_upright(tmp_path):
    write(tmp_path, xml("".join(image(f"{n}.jpg", box("car", 0, 0, 9, 5)) for n in "ab")))
    for name in "ab":
        exif = Image.Exif()
        exif[0x0112] = 6  # stored as lying on its left side
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", SIZE).save(tmp_path / f"images/{name}.jpg", exif=exif)
    convert(tmp_path, tmp_path / "out")
    mask = load_split(str(tmp_path / "out"), "val").read(0)[1]
    assert mask.shape == SIZE and mask[:5, :9].all() and mask.sum() == 45


def test_a_photograph_of_another_size_is_refused(tmp_path):
    text = xml("".join(image(f"{n}.png", box("car", 0, 0, 9, 9)) for n in "ab"))
    write(tmp_path, text, "a.png", "b.png", size=(30, 20))
    found = convert(tmp_path, tmp_path / "out").findings.problems
    assert (
        len(found) == 2
        and "labelled at 20×30 (height×width), but the photograph is 30×20" in found[0]
    )


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotations>&b;</annotations>'
REFUSED = {
    "<annotations><track/></annotations>": "CVAT for video",
    BOMB: "DOCTYPE",
    "<annotations><image></annotations>": "mismatched tag",
    "<annotations>" + "<a>" * 100_000: "not an XML of CVAT",
    "<annotation><object/></annotation>": "not an XML of CVAT",
    xml("", [(f"c{n}", "", "any") for n in range(10_000)]): "1 to 255 classes",
    xml(image("a.png", "")): "no image with a mask",
    xml("", [("a\tb", "", "any")]): "control characters",
}


@pytest.mark.parametrize("text", REFUSED, ids=REFUSED.values())
def test_files_that_are_no_such_export_are_refused(text, tmp_path):
    place = write(tmp_path, text, "a.png")
    with pytest.raises(UserError) as caught:
        convert(place, tmp_path / "out", "cvat")
    assert REFUSED[text] in str(caught.value) and str(caught.value).count(str(place)) == 1


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_ELEMENTS"])
def test_a_file_that_is_too_large_is_refused(limit, tmp_path, monkeypatch):
    text = xml(image("a.png", box("car", 0, 0, 9, 9)))
    monkeypatch.setattr(cvat_xml, limit, 3)
    with pytest.raises(UserError, match="annotations.xml.*more than"):
        convert(write(tmp_path, text), tmp_path / "out")


# ---- Segmentation mask 1.1

LABELMAP = (
    "# label:color_rgb:parts:actions\ncar:48,112,32::\nbackground:0,0,0::\nbar: side:9,9,9:a:b\n"
)
COLORS = np.array([(0, 0, 0), (48, 112, 32), (9, 9, 9)], np.uint8)


def write_masks(root, lists, labelmap=LABELMAP, images="JPEGImages", mode="RGB"):
    for folder in (images, "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "labelmap.txt").write_text(labelmap)
    ids = np.arange(600, dtype=np.uint8).reshape(SIZE) % 3
    for split, names in lists.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(["", *names]))
        for name in names:
            Image.new("RGB", SIZE[::-1]).save(root / images / f"{name}.png")
            picture = Image.fromarray(COLORS[ids])
            picture = picture if mode == "RGB" else picture.quantize(8)
            picture.save(root / "SegmentationClass" / f"{name}.png")
            Image.new("RGB", SIZE[::-1], (128, 0, 0)).save(root / f"SegmentationObject/{name}.png")
    return ids


@pytest.mark.parametrize("mode", ["RGB", "P"])  # the second as an optimizer of PNGs saves it
def test_colours_become_ids_with_background_first(mode, tmp_path):
    ids = write_masks(tmp_path, {"train": ["a", "b"], "val": ["c"]}, mode=mode)
    done = convert(tmp_path, tmp_path / "out")
    assert done.format == "cvat" and done.sizes == {"train": 2, "val": 1}
    assert done.labels.names == ("background", "car", "bar: side")
    for mask in masks(tmp_path / "out").values():
        np.testing.assert_array_equal(mask, ids)


def test_a_list_of_any_name_and_images_elsewhere(tmp_path):
    write_masks(tmp_path / "x", {"default": ["a", "b"], "mine": ["c"]}, images="../photographs")
    with pytest.raises(UserError, match=r"JPEGImages: no such folder.*--images"):
        convert(tmp_path / "x", tmp_path / "out")
    done = convert(
        tmp_path / "x", tmp_path / "out", options=Options(images=tmp_path / "photographs")
    )
    assert done.sizes == {"train": 2, "val": 1}
    assert "does not name both training and validation" in done.findings.notes[0]


def test_what_lists_and_folders_lack_is_told(tmp_path):
    write_masks(tmp_path, {"train": ["a", "b"], "val": ["c", "d", "e"]})
    (tmp_path / "SegmentationClass/e.png").unlink()
    (tmp_path / "JPEGImages/c.png").unlink()
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nd\nd")
    done = convert(tmp_path, tmp_path / "out")
    texts = ("photograph of", "d is listed twice", "d is listed in train.txt as well")
    assert len(done.findings.problems) == 3
    assert all(any(text in line for line in done.findings.problems) for text in texts)
    assert done.findings.left_out["as it has no mask"] == ["e"]
    assert done.findings.left_out["as no list names it"] == [
        str(tmp_path / "SegmentationClass/b.png")
    ]


@pytest.mark.parametrize(
    "labelmap, message",
    [
        ("car:1,2,3::\nbus:1,2,3::", "the same colour"),
        ("car:::", "invalid literal"),
        ("car:1,2,900::\nbackground:0,0,0::", "0..255"),
        ("car 1 2 3", "not 'car 1 2 3'"),
        ("car:1,2,3::\ncar:1,2,4::", "car occurs twice"),
        ("car:1,2,3::", "lacks background"),
        ("\xff", "not a labelmap"),
    ],
)
def test_a_bad_labelmap_is_refused(labelmap, message, tmp_path):
    write_masks(tmp_path, {"default": ["a", "b"]}, labelmap)
    (tmp_path / "labelmap.txt").write_bytes(labelmap.encode("latin-1"))
    with pytest.raises(UserError, match=f"labelmap.txt.*{message}"):
        convert(tmp_path, tmp_path / "out")


# ---- damaged files, and samples

PIECES = (
    "nan",
    "1e308",
    "-1",
    "0",
    "",
    ";",
    '"',
    "<image>",
    "</image>",
    "&amp;",
    "../",
    "99999999",
)


@st.composite
def damaged(draw, text):
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 20))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=3)) + text[end:]
    return text


WHOLE = xml(
    image(
        "a.png",
        box("car", 2, 3, 12, 9, rotation=20, z_order=1)
        + '<polygon label="pole" points="0,0;30,0;30,10.5"/>'
        + '<ellipse label="car" cx="9" cy="9" rx="3" ry="2"/>'
        + '<mask label="pole" rle="2,2,1,3" left="4" top="5" width="4" height="2"/>',
        "train",
    )
    + image("b.png", box("car", 2, 3, 12, 9), "val")
)


@example(WHOLE.replace("utf-8", "nan"), LABELMAP)
@given(damaged(WHOLE), damaged(LABELMAP))
def test_damaged_files_are_read_or_refused(text, labelmap):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        place = root / "x/annotations.xml"
        write(root / "x", WHOLE, "a.png", "b.png")
        place.write_bytes(text.encode("utf-8", "surrogatepass"))
        write_masks(root / "y", {"train": ["a"], "val": ["b"]})
        (root / "y/labelmap.txt").write_bytes(labelmap.encode("utf-8", "surrogatepass"))
        for source in (place, root / "y"):
            try:
                done = convert(source, root / "out" / source.name, "cvat")
            except UserError as error:
                assert "\n" not in str(error)
            else:
                assert done.sizes or done.findings.problems


@pytest.mark.skipif(not FORMATS, reason="FORMATS_DIR is not set")
@pytest.mark.parametrize("name", ["cvat_images", "cvat_mask11_b"])
def test_samples_equal_cvats_own_masks(name):
    findings, folder = Findings(), Path(FORMATS or "", name)
    source = cvat.read(folder, Options(), findings)
    ids = json.loads((folder / "expected/ids.json").read_text())
    for one in source.examples:
        expected = np.asarray(Image.open(folder / f"expected/{one.name}.png"))
        new = np.zeros(256, np.uint8)  # the XML's expected masks have 255 for background
        for label in ids.keys() & {*source.labels.names}:
            new[ids[label]] = source.labels.names.index(label)
        mask = one.draw(*expected.shape)
        np.testing.assert_array_equal(mask, new[expected])
        assert mask.any()
    assert source.examples and not findings.problems


def test_the_frames_of_a_video_have_names_without_an_ending(tmp_path):
    names = [f"frame_{number:06}" for number in range(3)]
    text = xml("".join(image(name, box("car", 1, 1, 9, 9)) for name in names))
    write(tmp_path, text, *(f"{name}.PNG" for name in names))
    assert convert(tmp_path, tmp_path / "out").sizes == {"train": 2, "val": 1}
    assert [*masks(tmp_path / "out")] == names
