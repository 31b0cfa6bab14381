"""labelme's JSON, read by its rules."""

import base64
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.fake_folder import write_folder

from fcn_keras.data.conversion import convert, labelme
from fcn_keras.data.conversion.shapes import checked_points
from fcn_keras.data.conversion.source import Findings, Options
from fcn_keras.data.directory import directory_split
from fcn_keras.errors import UserError

FORMATS_DIR = os.environ.get("FORMATS_DIR")
BOX = [[2, 3], [6, 8]]


def encode(array, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(array)).save(file, kind, **options)
    return file.getvalue()


def shape(label="box", points=BOX, kind="rectangle", **more):
    return {"label": label, "points": points, "shape_type": kind, **more}


def write(folder, name, shapes, size=(20, 30), photograph=True, **changes):
    """Writes a JSON, and its photograph of this height and width; a key of `None` is dropped."""
    height, width = size
    content = {"version": "5.0.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.png"}
    content |= {"imageData": None, "imageHeight": height, "imageWidth": width, **changes}
    file = folder / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    if photograph:
        Image.new("RGB", (width, height)).save(file.with_suffix(".png"))
    return file


def read(place, **options):
    """The masks of a source by their names, its class names, and the findings."""
    findings = Findings()
    source = labelme.read(place, Options(**options), findings)
    masks = {}
    for example in source.examples:
        data = example.image if isinstance(example.image, Path) else io.BytesIO(example.image())
        with Image.open(data) as image:
            masks[example.name] = example.draw(image.height, image.width)
    return masks, source.labels.names, findings


def mask_of(folder, shapes, **options):
    write(folder, "a", shapes)
    masks, names, findings = read(folder, **options)
    assert not findings.problems
    return masks["a"], names


def test_corners_of_rectangles_in_any_order_belong_to_them(tmp_path):
    expected = np.zeros((20, 30), np.uint8)
    expected[3:9, 2:7] = 1
    for points in (BOX, BOX[::-1], [[2, 8], [6, 3]]):
        mask, names = mask_of(tmp_path, [shape(points=points)])
        np.testing.assert_array_equal(mask, expected)
        assert names == ("_background_", "box")


def test_every_kind_of_shape_is_drawn(tmp_path):
    corners = [[2, 3], [6, 3], [6, 8], [2, 8]]
    areas = {}
    for kind, points in {
        "polygon": corners,
        "oriented_rectangle": corners,
        "rotation": corners,
        "rectangle": corners,  # X-AnyLabeling's
        "circle": [[10, 10], [10, 13]],
        "line": [[0, 10], [29, 10]],
        "linestrip": [[0, 10], [15, 10], [29, 10]],
        "point": [[10, 10]],
    }.items():
        areas[kind] = int((mask_of(tmp_path, [shape(points=points, kind=kind)])[0] == 1).sum())
    assert areas.pop("circle") in range(25, 46)  # pi 3² = 28, and the outline
    assert areas.pop("point") in range(75, 102)
    assert areas.pop("line") == areas.pop("linestrip") == 30 * 10
    assert set(areas.values()) == {5 * 6}
    without_type = shape(points=corners, kind=None)
    assert (mask_of(tmp_path, [without_type])[0] == 1).sum() == 5 * 6


def test_a_mask_counts_where_it_is_not_zero(tmp_path):
    bitmap = np.array([[0, 7, 255], [1, 0, 0]], np.uint8)
    text = base64.b64encode(encode(bitmap)).decode()
    mask, _ = mask_of(tmp_path, [shape(points=[[4.9, 5.2], [6.7, 6.1]], kind="mask", mask=text)])
    np.testing.assert_array_equal(mask[5:7, 4:7], bitmap != 0)
    assert mask.sum() == 3


def test_later_shapes_lie_on_top_and_two_names_are_special(tmp_path):
    whole, inner = [[0, 0], [29, 19]], [[4, 4], [5, 5]]
    mask, names = mask_of(
        tmp_path,
        [shape("zebra", whole), shape("ape", BOX), shape("_background_", inner)]
        + [shape("__ignore__", [[20, 10], [20, 10]])],
    )
    assert names == ("_background_", "ape", "zebra")
    assert mask[0, 0] == 2 and mask[3, 2] == 1 and mask[4, 4] == 0 and mask[10, 20] == 255


def test_a_class_list_gives_the_order(tmp_path):
    classes = tmp_path / "labels.txt"
    classes.write_text("__ignore__\n_background_\nzebra\nbox\n")
    mask, names = mask_of(tmp_path / "data", [shape()], classes=classes)
    assert names == ("_background_", "zebra", "box") and mask[3, 2] == 2
    classes.write_text("zebra\nbox\n")
    write(tmp_path / "data", "a", [shape()])
    masks, _, findings = read(tmp_path / "data", classes=classes)
    assert masks["a"][0, 0] == 255 and masks["a"][3, 2] == 1
    assert any("unlabelled" in note for note in findings.notes)
    write(tmp_path / "data", "a", [shape(), shape("dog"), shape("dog")])
    [problem] = read(tmp_path / "data", classes=classes)[2].problems
    assert "a.json: the label 'dog' (shapes: 2) is not in" in problem


def test_the_background_may_be_called_otherwise_in_the_class_list(tmp_path):
    whole = [[0, 0], [29, 19]]
    shapes = [
        shape("box", whole),
        shape("_background_", BOX),
        shape("__ignore__", [[9, 9], [9, 9]]),
    ]
    classes = tmp_path / "classes.txt"
    for text, names, outside, hole in (
        ("background\nbox\n", ("background", "box"), 0, 0),
        ("box\n_background_\n", ("box", "_background_"), 1, 1),
        ("__ignore__\nbox\nBackground\n", ("box", "Background"), 1, 1),
        ("background\n_background_\nbox\n", ("background", "_background_", "box"), 1, 1),
    ):
        classes.write_text(text)
        mask, found = mask_of(tmp_path / "in", shapes, classes=classes)
        assert found == names and mask[3, 2] == hole and mask[9, 9] == 255
        assert mask[0, 0] == names.index("box")
        assert mask_of(tmp_path / "empty", [], classes=classes)[0][0, 0] == outside
    shapes[1] = shape("background", BOX)
    mask, names = mask_of(tmp_path / "in", shapes, classes=classes)
    assert mask[3, 2] == 0  # which is another class in this list
    assert mask_of(tmp_path / "in", shapes)[1] == ("background", "box")
    mask, names = mask_of(tmp_path / "in", [*shapes, shape("_background_", [[4, 4], [5, 5]])])
    assert names == ("_background_", "box") and mask[3, 2] == mask[4, 4] == 0


def test_labels_that_count_objects_are_told_with_the_command(tmp_path):
    write(tmp_path, "a", [shape("horse-1"), shape("horse-2"), shape("cow")])
    [_, note] = read(tmp_path)[2].notes
    assert "--map horse-1,horse-2=horse" in note
    write(tmp_path, "b", [])
    convert(tmp_path, tmp_path / "new", mapping=["horse-1,horse-2=horse"])
    assert directory_split(tmp_path / "new", "train").labels.names == (
        "_background_",
        "cow",
        "horse",
    )


def test_the_photograph_inside_wins(tmp_path):
    inside = encode(np.full((20, 30, 3), 9, np.uint8))
    data = base64.b64encode(inside).decode()
    write(tmp_path, "a", [shape()], imageData=data)
    write(tmp_path, "b", [shape()], imageData=data, photograph=False)
    done = convert(tmp_path, tmp_path / "new")
    assert done.findings.problems == [] and sum(done.sizes.values()) == 2
    for name in "ab":
        assert (tmp_path / f"new/JPEGImages/{name}.png").read_bytes() == inside


@pytest.mark.parametrize("path", ["/old/disk/a.png", "C:\\old\\a.png", "gone.png", "", None, 3])
def test_a_wrong_path_falls_back_on_the_photograph_beside(path, tmp_path):
    write(tmp_path / "sub", "a", [shape()], imagePath=path)
    write(tmp_path / "other", "a", [shape()])
    masks, _, findings = read(tmp_path)
    assert [*masks] == ["other/a", "sub/a"] and not findings.problems
    assert any("imagePath is wrong" in note for note in findings.notes) == bool(path and path != 3)


def test_photographs_elsewhere_are_found(tmp_path):
    file = write(tmp_path / "json", "a", [shape()], imagePath="..\\photos\\B.JPG", photograph=False)
    [problem] = read(file)[2].problems
    assert problem.startswith(f"{file}: its photograph '..\\\\photos\\\\B.JPG' is not in")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (30, 20)).save(tmp_path / "photos/B.JPG")
    assert "--images" in read(tmp_path / "json")[2].problems[0]  # never outside of the source
    assert [*read(tmp_path)[0]] == ["json/a"]
    assert [*read(file, images=tmp_path / "photos")[0]] == ["a"]


def test_linked_folders_are_searched_once(tmp_path):
    write(tmp_path / "far", "a", [shape()])
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "far")
    (tmp_path / "far/loop").symlink_to(tmp_path / "data")
    masks, _, findings = read(tmp_path / "data")
    assert [*masks] == ["one/a"] and not findings.problems


def test_a_photograph_inside_of_another_format_becomes_a_png(tmp_path):
    pixels = np.full((20, 30, 3), 9, np.uint8)
    data = base64.b64encode(encode(pixels, "BMP")).decode()
    for name in ("a.v1", "b.v1"):
        write(tmp_path, name, [shape()], photograph=False, imageData=data)
    convert(tmp_path, tmp_path / "new")
    for name in ("a.v1", "b.v1"):
        written = Image.open(tmp_path / f"new/JPEGImages/{name}.png")
        assert written.format == "PNG" and (np.asarray(written) == pixels).all()


def test_a_mask_beside_is_not_taken_for_a_photograph_elsewhere(tmp_path):
    write(tmp_path / "json", "a", [], imagePath="gone.jpg", photograph=False)
    (tmp_path / "masks").mkdir()
    Image.new("L", (30, 20)).save(tmp_path / "masks/a.png")
    _, _, findings = read(tmp_path)
    assert len(findings.problems) == 1
    assert findings.left_out == {"as no labelme file refers to it": [str(tmp_path / "masks/a.png")]}


def test_labels_refer_to_the_turned_photograph_but_not_inside(tmp_path):
    pixels = np.zeros((20, 30, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    lying = encode(pixels, "JPEG", exif=exif)
    file = write(tmp_path, "a", [shape()], (30, 20), photograph=False, imagePath="a.jpg")
    file.with_suffix(".jpg").write_bytes(lying)
    data = base64.b64encode(lying).decode()
    write(tmp_path, "b", [shape()], (20, 30), photograph=False, imageData=data)
    done = convert(tmp_path, tmp_path / "new")
    assert done.findings.problems == []
    masks = {path.stem: np.asarray(Image.open(path)) for path in tmp_path.glob("new/Seg*/*")}
    expected = np.zeros((30, 20), np.uint8)
    expected[3:9, 2:7] = 1
    np.testing.assert_array_equal(masks["a"], expected)
    stored = np.zeros((20, 30), np.uint8)
    stored[3:9, 2:7] = 1
    np.testing.assert_array_equal(masks["b"], np.rot90(stored, -1))


NAN, LARGE = float("nan"), 1e9
SQUARE = [[2, 3], [6, 3], [6, 8]]
PNG = base64.b64encode(encode(np.ones((4, 4), np.uint8))).decode()
BROKEN = {
    "two points": shape(points=BOX, kind="polygon"),
    "a point": shape(points=[[1, 2]], kind="polygon"),
    "no points": {"label": "box"},
    "points of another type": shape(points={"x": 1}),
    "a point of three": shape(points=[[1, 2, 3], [3, 4]]),
    "a point that is text": shape(points=[["1", "2"], [3, 4]]),
    "NaN": shape(points=[[NAN, 2], [3, 4]]),
    "infinite": shape(points=[[float("inf"), 2], [3, 4]]),
    "absurd": shape(points=[[LARGE, 2], [3, 4]]),
    "huge integer": shape(points=[[10**400, 2], [3, 4]]),
    "outside": shape(points=[[300, 400], [310, 420], [305, 430]], kind="polygon"),
    "outside on the left": shape(points=[[-9, 3], [-5, 3], [-5, 9]], kind="polygon"),
    "above": shape(points=[[3, -9], [3, -5], [9, -5]], kind="polygon"),
    "radius": shape(points=[[0, 0], [90_000, 0]], kind="circle"),
    "circle of three": shape(points=SQUARE, kind="circle"),
    "unknown kind": shape(kind="cuboid"),
    "kind of another type": shape(kind=["polygon"]),
    "no label": {"points": BOX, "shape_type": "rectangle"},
    "label of another type": shape(label=3),
    "not a shape": [1, 2],
    "no mask": shape(kind="mask"),
    "mask that is no PNG": shape(kind="mask", mask="AAAA"),
    "mask that ends early": shape(points=[[0, 0], [3, 3]], kind="mask", mask=PNG[:64]),
    "mask of another size": shape(points=[[0, 0], [9, 9]], kind="mask", mask=PNG),
    "mask of a turned box": shape(points=[[9, 9], [0, 0]], kind="mask", mask=PNG),
}


def test_all_faulty_shapes_are_listed_and_nothing_is_written(tmp_path):
    write(tmp_path, "a", [shape(), *BROKEN.values()])
    write(tmp_path, "b", [shape()])
    done = convert(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists() and not done.sizes
    assert len(done.findings.problems) == len(BROKEN)
    for number, (what, problem) in enumerate(zip(BROKEN, done.findings.problems), 2):
        assert problem.startswith(f"{tmp_path}/a.json: shape {number} ("), what
        assert problem.endswith(" in labelme.") and "\n" not in problem, what


def test_of_very_many_faults_the_rest_is_counted(tmp_path):
    write(tmp_path, "a", [[]] * 1000)
    assert read(tmp_path)[2].problems[100:] == [f"{tmp_path}/a.json: 900 more faulty shapes."]


FILES = {
    "no JSON": b"{",
    "nested": b"[" * 100_000,
    "not UTF-8": b'{"shapes": ["\xff"]}',
    "shapes missing": b'{"imagePath": "a.png"}',
    "shapes of another type": b'{"shapes": {}}',
    "data that is no text": b'{"shapes": [], "imageData": [1]}',
    "data that is no base64": b'{"shapes": [], "imageData": "A"}',
    "data that is no image": b'{"shapes": [], "imageData": "AAAA"}',
    "label with a line break": b'{"shapes": [{"label": "a\\nb"}], "imagePath": "c.png"}',
    "another size": b'{"shapes": [], "imagePath": "c.png", "imageWidth": 3, "imageHeight": 3}',
    "the same photograph": b'{"shapes": [], "imagePath": "b.png"}',
}


@pytest.mark.parametrize("what", FILES)
def test_a_faulty_file_is_a_problem(what, tmp_path):
    write(tmp_path, "b", [shape()])
    Image.new("RGB", (30, 20)).save(tmp_path / "c.png")
    (tmp_path / "c.json").write_bytes(FILES[what])
    done = convert(tmp_path, tmp_path / "new")
    assert any(problem.startswith(f"{tmp_path}/c.json: ") for problem in done.findings.problems)
    assert not (tmp_path / "new").exists()


def test_ten_thousand_labels_are_one_problem(tmp_path):
    write(tmp_path, "a", [shape(f"{n}x") for n in range(10_000)])
    [problem] = read(tmp_path)[2].problems
    assert problem.startswith(f"{tmp_path}/a.json: 10000 different labels")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ({"info": {"description": "ISAT"}, "objects": []}, "an ISAT file"),
        ([{"name": "a", "labelIdx": 1, "color": [1, 2, 3], "points": []}], "an EISeg file"),
        ({"images": [], "annotations": []}, "a COCO file"),
        ([1], "another program's file"),
    ],
)
def test_relatives_are_refused_by_name_or_left_out(content, name, tmp_path):
    (tmp_path / "z.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"z.json: {name}, not labelme's"):
        read(tmp_path)
    write(tmp_path, "a", [shape()])
    assert read(tmp_path)[2].left_out == {f"as it is {name}": [str(tmp_path / "z.json")]}


def test_x_anylabelings_files_are_read_and_told(tmp_path):
    corners = [[2, 3], [6, 3], [6, 8], [2, 8]]
    write(tmp_path, "a", [shape(points=corners, kie_linking=[], flags=None, score=None)])
    masks, _, findings = read(tmp_path)
    assert masks["a"].sum() == 5 * 6 and "X-AnyLabeling, drawn as in" in findings.notes[0]


def test_it_is_recognized(tmp_path):
    assert not labelme.recognizes(tmp_path) and not labelme.recognizes(tmp_path / "gone")
    (tmp_path / ".a.json").write_text('{"shapes": []}')
    assert not labelme.recognizes(tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    file = write(tmp_path / "deep/er", "a", [])
    assert labelme.recognizes(tmp_path) and labelme.recognizes(file)


VALUES = st.sampled_from(
    (None, True, -1, 0, 1, 2.5, NAN, float("inf"), 1e300, 10**30, "", "a", "../b", [], {}, [[]])
    + ([[1, 2], [3, 4]], [[1, 2]] * 3, "polygon", "mask", "circle", "line", PNG)
)
KEYS = st.sampled_from(("label", "points", "shape_type", "mask", "imagePath", "imageData"))


@given(
    st.lists(st.tuples(KEYS | st.sampled_from(("shapes", "imageWidth")), VALUES), max_size=3),
    st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=2),
)
def test_any_json_is_read_or_refused(changes, shapes):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, "b", [shape()])
        file = write(folder, "a", [shape(), *({**shape(), **new} for new in shapes)])
        file.write_text(json.dumps({**json.loads(file.read_text()), **dict(changes)}))
        try:
            done = convert(folder, folder / "new")
        except UserError as error:
            assert folder.name in str(error) or "labels" in str(error)
        else:
            assert bool(done.findings.problems) != (folder / "new").exists()


@pytest.mark.skipif(not FORMATS_DIR, reason="needs the samples in FORMATS_DIR")
@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("labelme/data_annotated", {"classes": "labelme/labels.txt"}),
        ("labelme_b/1/Mandrill.json", {}),
        ("labelme_b/2/annotated", {"images": "labelme_b/2/images"}),
    ],
)
def test_samples_equal_labelmes_own_masks(place, options):
    root = Path(FORMATS_DIR)
    options = {name: root / path for name, path in options.items()}
    masks, names, findings = read(root / place, **options)
    expected = next(path for path in (root / place).parents if (path / "expected").exists())
    listed = (expected / "expected/class_names.txt").read_text().splitlines()
    assert findings.problems == [] and masks
    for name, mask in masks.items():
        own = np.asarray(Image.open(expected / f"expected/{name}.png"))
        ids = np.full(256, 255)
        ids[: len(names)] = [listed.index(name) for name in names]
        # Pillow's versions differ in single pixels of borders.
        assert np.mean(ids[mask] != own) < 1e-5


def test_corrections_take_the_classes_of_the_data_set(tmp_path):
    data = write_folder(tmp_path / "data", size=(20, 30))
    (data / "classes.txt").write_text("background\nbar\nbox\n")
    write(tmp_path / "new", "a", [shape("box", [[0, 0], [29, 19]]), shape("_background_", BOX)])
    assert convert(tmp_path / "new", data, into=True).changes == {"added": 1}
    split = directory_split(str(data), "train")
    mask = split.read(split.ids.index("a"))[1]
    assert mask[0, 0] == 2 and mask[3, 2] == 0


def test_missing_photographs_are_one_problem_if_there_is_none(tmp_path):
    for name in "abc":
        write(tmp_path / "in", name, [shape()], photograph=False)
    [problem] = convert(tmp_path / "in", tmp_path / "out").findings.problems
    assert f"{tmp_path / 'in'}: none of the 3 photographs is in {tmp_path / 'in'}." in problem
    write(tmp_path / "in", "d", [shape()])
    assert len(convert(tmp_path / "in", tmp_path / "out").findings.problems) == 3


def test_too_many_points_are_told_as_such():
    with pytest.raises(ValueError, match="it has 5 points, but needs at most 4"):
        checked_points([[0, 0]] * 5, 3, 4)
