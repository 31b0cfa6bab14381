"""What all formats share: which one it is, names, splits, classes, photographs that EXIF turns."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import ExifTags, Image

from fcn_keras.data import load_split
from fcn_keras.data.check import check_directory
from fcn_keras.data.conversion import FORMATS, convert
from fcn_keras.data.conversion.files import files_below
from fcn_keras.data.conversion.source import Options
from fcn_keras.errors import UserError

SIZE = HEIGHT, WIDTH = 20, 30
CLASSES = "background\nbox\n"
CORNERS = ((2, 3), (7, 3), (7, 9), (2, 9))  # of the pixels of `expected_mask`
SAMPLES = os.environ.get("FORMATS_DIR")


def expected_mask():
    mask = np.zeros(SIZE, np.uint8)
    mask[3:9, 2:7] = 1
    return mask


def photograph(path, turn=1):
    """Writes a photograph that is bright where `expected_mask` is 1, before EXIF turns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    pixels = np.where(expected_mask()[..., None] == 1, 240, [40, 40, 41]).astype(np.uint8)
    Image.fromarray(pixels).save(path, exif=exif)


def write_folders(root, *names, suffix="png", turn=1):
    for name in names:
        photograph(root / f"images/{name}.{suffix}", turn)
        (root / f"masks/{name}").parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(expected_mask()).save(root / f"masks/{name}.png")
    (root / "classes.txt").write_text(CLASSES)
    return root


def write_labelme(root, *names, points=((2, 3), (6, 3), (6, 8), (2, 8))):
    for name in names:
        photograph(root / f"{name}.png")
        shape = {"label": "box", "points": points, "shape_type": "polygon"}
        content = {"shapes": [shape], "imagePath": Path(f"{name}.png").name, "imageData": None}
        (root / f"{name}.json").write_text(json.dumps(content))
    return root


def write_coco(root, *names, points=CORNERS, classes=("box",), suffix="png", turn=1):
    for name in names:
        photograph(root / f"{name}.{suffix}", turn)
    images = [{"id": n, "file_name": f"{name}.{suffix}"} for n, name in enumerate(names)]
    shape = [[number for point in points for number in point]]
    annotations = [
        {"id": n, "image_id": n, "category_id": n % len(classes), "segmentation": shape}
        for n in range(len(names))
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(classes)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "labels.json").write_text(json.dumps(content))
    return root


def write_yolo(root, *names, points=((2.5, 3.5), (6.5, 3.5), (6.5, 8.5), (2.5, 8.5))):
    line = " ".join(["0", *(f"{x / WIDTH} {y / HEIGHT}" for x, y in points)])
    for name in names:
        photograph(root / f"images/{name}.png")
        (root / f"labels/{name}").parent.mkdir(parents=True, exist_ok=True)
        (root / f"labels/{name}.txt").write_text(line)
    (root / "data.yaml").write_text(yaml.safe_dump({"names": ["box"], "train": "images"}))
    return root


def write_label_studio(root, *names, points=((2, 3), (6, 3), (6, 8), (2, 8))):
    points = [(100 * x / WIDTH, 100 * y / HEIGHT) for x, y in points]
    value = {"points": points, "polygonlabels": ["box"]}
    area = {"id": "r", "type": "polygonlabels", "from_name": "x", "value": value}
    tasks = []
    for name in names:
        photograph(root / f"{name}.png")
        data = {"image": f"/data/upload/1/{name}.png"}
        tasks.append({"id": name, "data": data, "annotations": [{"result": [area]}]})
    (root / "export.json").write_text(json.dumps(tasks))
    return root


def write_cvat(root, *names, points=CORNERS):
    text = ";".join(f"{x},{y}" for x, y in points)
    shape = f'<polygon label="box" points="{text}"/>'
    for name in names:
        photograph(root / f"images/{name}.png")
    images = "".join(f'<image name="{name}.png">{shape}</image>' for name in names)
    (root / "annotations.xml").write_text(f"<annotations>{images}</annotations>")
    return root


WRITERS = {
    "cvat": write_cvat,
    "folders": write_folders,
    "labelme": write_labelme,
    "coco": write_coco,
    "yolo": write_yolo,
    "label-studio": write_label_studio,
}
ODD_NAMES = ("ünï cödé (1)", "a b/c.d", "日本", "#1", "x\u2028y", "100%")


def masks(output):
    root = output / "SegmentationClass"
    files = {
        path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.png")
    }
    return {name: np.asarray(Image.open(path)) for name, path in sorted(files.items())}


@pytest.mark.parametrize("format", WRITERS)
def test_odd_names_stay_as_they_are(format, tmp_path):
    done = convert(WRITERS[format](tmp_path / "in", *ODD_NAMES), tmp_path / "out")
    assert done.format == format and not done.findings.problems
    assert not check_directory(tmp_path / "out").problems
    found = masks(tmp_path / "out")
    assert {*found} == {*ODD_NAMES}
    for mask in found.values():
        np.testing.assert_array_equal(mask, expected_mask())


@pytest.mark.parametrize("format", WRITERS)
def test_one_photograph_can_be_added_but_makes_no_data_set(format, tmp_path):
    convert(write_folders(tmp_path / "first", "a", "s/b"), tmp_path / "data")
    source = WRITERS[format](tmp_path / "in", "s/a")  # has not the name of `a`
    with pytest.raises(UserError, match=r"validation: 1\. At least two .*--into DIR"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    options = Options()
    if format == "labelme":
        options = Options(classes=tmp_path / "data/classes.txt")
    done = convert(source, tmp_path / "data", options=options, into=True)
    assert done.changes == {"added": 1} and [*masks(tmp_path / "data")] == ["a", "s/a", "s/b"]


@pytest.mark.parametrize(
    ("image", "mask", "pairs"),
    [
        ("a.jpg", "a_mask.png", 1),
        ("a.png", "a_mask.png", 1),
        ("images/a.png", "masks/a_mask.png", 1),
        ("images/cat_1.png", "masks/dog_1.png", 0),
    ],
)
def test_the_mask_of_one_photograph_may_have_a_suffix(image, mask, pairs, tmp_path):
    convert(write_folders(tmp_path / "first", "x", "y"), tmp_path / "data")
    photograph(tmp_path / "in" / image)
    (tmp_path / "in" / mask).parent.mkdir(exist_ok=True)
    Image.fromarray(expected_mask()).save(tmp_path / "in" / mask)
    (tmp_path / "in/classes.txt").write_text(CLASSES)
    if pairs:
        assert convert(tmp_path / "in", tmp_path / "data", into=True).changes == {"added": 1}
    else:
        with pytest.raises(UserError, match="0 pairs of image and mask, among 1 images and 1 "):
            convert(tmp_path / "in", tmp_path / "data", into=True)


@pytest.mark.skipif(not SAMPLES, reason="FORMATS_DIR is not set")
def test_a_sample_of_one_photograph_can_be_added(tmp_path):
    source = Path(SAMPLES or "", "cvat_images")
    shutil.copytree(source, tmp_path / "two")
    text = (source / "annotations.xml").read_text()
    image = text[text.index("<image ") : text.rindex("</annotations>")]
    two = text.replace(image, image + image.replace("street_19", "other"))
    (tmp_path / "two/annotations.xml").write_text(two)
    shutil.copy(source / "images/street_19.jpg", tmp_path / "two/images/other.jpg")
    convert(tmp_path / "two", tmp_path / "data")
    assert convert(source, tmp_path / "data", into=True).changes == {"unchanged": 1}


@pytest.mark.parametrize("format", [name for name in WRITERS if name != "folders"])
def test_all_formats_have_one_rule_for_what_is_outside(format, tmp_path):
    over = [(-4, -4), (33, -4), (33, 9), (-4, 9)]
    done = convert(WRITERS[format](tmp_path / "over", "a", "b", points=over), tmp_path / "out")
    mask = masks(tmp_path / "out")["a"]
    assert not done.findings.problems and mask[:9].all() and not mask[11:].any()
    for name, (points, message) in {
        "outside": ([(31, 3), (40, 3), (40, 9)], "it is outside of the photograph of 20×30"),
        "above": ([(3, -9), (8, -9), (8, -2)], "it is outside of the photograph of 20×30"),
        "far": ([(3, 3), (61, 3), (61, 9)], "it reaches far beyond the photograph of 20×30"),
        "far up": ([(3, -31), (8, -31), (8, 9)], "it reaches far beyond the photograph of 20×30"),
    }.items():
        source = WRITERS[format](tmp_path / name, "a", "b", points=points)
        found = convert(source, tmp_path / "new").findings.problems
        assert len(found) == 2 and all(message in problem for problem in found)


def test_what_looks_like_several_formats_is_asked_for(tmp_path):
    write_labelme(tmp_path / "in", "a", "b")
    write_coco(tmp_path / "in", "a", "b")
    with pytest.raises(UserError, match="looks like coco and labelme. Choose by --format"):
        convert(tmp_path / "in", tmp_path / "out")
    for format in ("coco", "labelme"):
        assert convert(tmp_path / "in", tmp_path / format, format).format == format


@pytest.mark.skipif(not SAMPLES, reason="FORMATS_DIR is not set")
@pytest.mark.parametrize("name", os.listdir(SAMPLES) if SAMPLES else [])
def test_a_refinement_of_a_format_is_not_ambiguous(name):
    place = Path(SAMPLES or "", name)
    if place.is_dir() and name != "labelme_b" and name != "folders":
        found = [format for format, reader in FORMATS.items() if reader.recognizes(place)]
        assert len(found) == 2 and found[-1] == "folders"


def test_a_task_of_label_studio_is_not_coco(tmp_path):
    [task] = json.loads((write_label_studio(tmp_path / "in", "a") / "export.json").read_text())
    (tmp_path / "in/export.json").write_text(json.dumps(task))
    write_folders(tmp_path / "first", "x", "y")
    convert(tmp_path / "first", tmp_path / "data")
    assert convert(tmp_path / "in", tmp_path / "data", into=True).format == "label-studio"


def test_an_archive_is_to_be_unpacked(tmp_path):
    write_coco(tmp_path / "in", "a")
    for kind, suffix in (("zip", ".zip"), ("gztar", ".tar.gz")):
        path = Path(shutil.make_archive(str(tmp_path / "all"), kind, tmp_path / "in"))
        assert path.name.endswith(suffix)
        with pytest.raises(UserError, match=f"{path.name}: it is an archive. Unpack it first"):
            convert(path, tmp_path / "out", "coco")


@pytest.mark.parametrize("name", ["auto", *FORMATS])
def test_a_pipe_is_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / "annotations.xml")
    with pytest.raises(UserError, match=r"annotations.xml: neither a regular file nor a folder"):
        convert(tmp_path / "annotations.xml", tmp_path / "out", name)


def test_a_folder_without_anything_known_says_what_is_there(tmp_path):
    with pytest.raises(UserError, match="nor labels of a known format, but no files"):
        convert(tmp_path, tmp_path / "out")
    (tmp_path / "x.abc").touch()
    with pytest.raises(UserError, match=f"known format, but 1 .abc in {tmp_path}"):
        convert(tmp_path, tmp_path / "out")
    photograph(tmp_path / "a.png")
    with pytest.raises(UserError, match="known format, but 1 .png in .*, 1 .abc in"):
        convert(tmp_path, tmp_path / "out")


def test_files_below_a_folder(tmp_path):
    shown = ("b.png", "a/c.png", "a/d.txt")
    hidden = (".e.png", ".ipynb_checkpoints/b.png", "__MACOSX/._b.png", "a/.f/g.png")
    for name in (*shown, *hidden):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    (tmp_path / "in/z").symlink_to(tmp_path / "in/a")
    (tmp_path / "in/a/y").symlink_to(tmp_path / "in")
    (tmp_path / "in/lost.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in/pipe.png")
    found = [path.relative_to(tmp_path / "in").as_posix() for path in files_below(tmp_path / "in")]
    assert found == ["b.png", "lost.png", "a/c.png", "a/d.txt"]
    with pytest.raises(UserError, match="b.png: no such folder"):
        [*files_below(tmp_path / "in/b.png")]


@pytest.mark.parametrize("format", ["folders", "labelme", "yolo"])
def test_what_was_made_of_a_folder_in_it_is_no_part_of_it(format, tmp_path):
    source = WRITERS[format](tmp_path, "a", "b")
    for name in ("first", "second"):
        assert sum(convert(source, tmp_path / name).sizes.values()) == 2
    assert convert(source, tmp_path / "first", into=True).changes == {"unchanged": 2}


def test_names_that_two_splits_share_get_their_split(tmp_path):
    write_yolo(tmp_path / "in", "train/a", "train/b", "val/a")
    description = {"names": ["box"], "train": "images/train", "val": "images/val"}
    (tmp_path / "in/data.yaml").write_text(yaml.safe_dump(description))
    done = convert(tmp_path / "in", tmp_path / "out")
    assert [*masks(tmp_path / "out")] == ["b", "train/a", "val/a"]
    assert "1 names are in several splits, such as a" in done.findings.notes[0]


def test_files_of_coco_that_are_no_splits_are_kept_apart(tmp_path):
    for part in ("first", "second"):
        write_coco(tmp_path / "in" / part, "a")
        (tmp_path / "in" / part / "labels.json").rename(tmp_path / "in" / part / f"{part}.json")
    done = convert(tmp_path / "in", tmp_path / "out")
    assert [*masks(tmp_path / "out")] == ["first/a", "second/a"]
    assert done.sizes == {"train": 1, "val": 1}


def test_groups_stay_together_and_every_name_needs_one(tmp_path):
    source = write_folders(tmp_path / "in", *(f"v{n // 3}_{n}" for n in range(9)))
    convert(source, tmp_path / "out", group_by=r"v\d", val=0.3)
    for split in ("train", "val"):
        ids = load_split(str(tmp_path / "out"), split).ids
        assert len({name[:2] for name in ids}) * 3 == len(ids)
    for pattern, message in {
        r"v[01]_": "--group-by .*: not found in 'v2_6'",
        r"_(8)?": "--group-by .*: not found in 'v0_0'",
        r"v": "finds 1 groups in 9 names",
        "": "finds 1 groups in 9 names",
        "(": "not a regular expression",
    }.items():
        with pytest.raises(UserError, match=message):
            convert(source, tmp_path / "other", group_by=pattern)
        assert not (tmp_path / "other").exists()


def test_groups_do_not_change_the_splits_of_the_source(tmp_path):
    source = write_folders(tmp_path / "in", "train/a", "val/a")
    done = convert(source, tmp_path / "out", group_by="no such name")
    assert done.sizes == {"train": 1, "val": 1}
    assert any("--group-by is not used" in note for note in done.findings.notes)


@pytest.mark.parametrize(
    ("mapping", "names", "ids"),
    [
        (["box=thing", "thing=other"], ("background", "other", "a, b"), [0, 1]),
        (["box=background", "background=x"], ("x", "a, b"), [0, 0]),
        (["background=t", "box=background", "t=box"], ("box", "background", "a, b"), [0, 1]),
        (["a, b=box"], ("background", "box"), [0, 1]),
        (["a, b = c "], ("background", "box", "c"), [0, 1]),
        (["background="], ("box", "a, b"), [255, 0]),
    ],
)
def test_changes_of_classes_are_made_one_after_another(mapping, names, ids, tmp_path):
    source = write_coco(tmp_path / "in", "a", "b", classes=("box", "a, b"))
    done = convert(source, tmp_path / "out", mapping=mapping)
    assert done.labels.names == names
    changed = np.array(ids, np.uint8)[expected_mask()]
    np.testing.assert_array_equal(masks(tmp_path / "out")["a"], changed)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (["box"], "--map must be OLD,OLD=NEW"),
        (["box=", "box=thing"], r"classes of the source \(background\).*with 'box'"),
        (["background,box="], "--map leaves no class"),
        (["box=#1"], "names that a list cannot hold .'#1' would be read as something else"),
    ],
)
def test_other_changes_of_classes_are_refused(mapping, message, tmp_path):
    with pytest.raises(UserError, match=message):
        convert(write_coco(tmp_path / "in", "a", "b"), tmp_path / "out", mapping=mapping)


@pytest.mark.parametrize("name", ["# note", '"box"', "x" * 201, "names: y"])
def test_class_names_that_a_list_cannot_hold_are_refused(name, tmp_path):
    source = write_coco(tmp_path / "in", "a", "b", classes=(name,))
    with pytest.raises(UserError, match=r"in: class names that a list cannot hold.*--map"):
        convert(source, tmp_path / "out")
    assert convert(source, tmp_path / "out", mapping=[f"{name}=box"]).sizes


@pytest.mark.parametrize("turn", [3, 6])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
@pytest.mark.parametrize("write", [write_folders, write_coco])
def test_masks_of_stored_pixels_are_turned_with_their_photographs(write, suffix, turn, tmp_path):
    source = write(tmp_path / "in", "a", "b", suffix=suffix, turn=turn)
    convert(source, tmp_path / "out", options=Options(exif="ignore"))
    [path] = (tmp_path / "out/JPEGImages").glob("a.*")
    with Image.open(path) as image:
        assert image.getexif().get(ExifTags.Base.Orientation, 1) == 1
        bright = np.asarray(image)[..., 0] > 140
    upright = np.rot90(expected_mask(), {3: 2, 6: -1}[turn])
    np.testing.assert_array_equal(masks(tmp_path / "out")["a"], upright)
    np.testing.assert_array_equal(bright, upright == 1)
    if turn == 3 and suffix == "tif":
        notes = convert(source, tmp_path / "other").findings.notes
        assert any("EXIF turns photographs, and sizes do not tell" in note for note in notes)
