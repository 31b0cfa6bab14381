"""`data convert` on COCO's JSON; pycocotools is the reference."""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import ExifTags, Image
from pycocotools import mask as pycocotools
from support.mutations import mutated

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.conversion import coco, coco_shapes, convert
from fcn_keras.data.conversion.source import Findings, Options
from fcn_keras.errors import UserError

SIZE = HEIGHT, WIDTH = 20, 30
FORMATS = os.environ.get("FORMATS_DIR")
CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 90, "name": "hat"}]


def box(left, top, right, bottom):
    """A polygon whose pixels are those of the half-open box."""
    return [left, top, right, top, right, bottom, left, bottom]


def pixels(left, top, right, bottom):
    mask = np.zeros(SIZE, np.uint8, order="F")
    mask[top:bottom, left:right] = 1
    return mask


def string(mask):
    rle = pycocotools.encode(np.asfortranarray(mask))
    return {"size": list(SIZE), "counts": rle["counts"].decode()}


def numbers(mask):
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(np.r_[0, flat])).tolist()  # where a run ends
    return {"size": list(SIZE), "counts": np.diff([0, *ends, flat.size]).tolist()}


def instances(*shapes, images=2, categories=CATEGORIES):
    """The JSON of images 0.jpg, 1.jpg, ... and of shapes (image, category, segmentation)."""
    return {
        "info": {"year": 2026},
        "images": [
            {"id": 100 + index, "file_name": f"{index}.jpg", "width": WIDTH, "height": HEIGHT}
            for index in range(images)
        ],
        "annotations": [
            {"id": i, "image_id": 100 + image, "category_id": category, "segmentation": shape}
            for i, (image, category, shape) in enumerate(shapes)
        ],
        "categories": categories,
    }


def write(path, content, images=None, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    folder = images or path.parent
    folder.mkdir(parents=True, exist_ok=True)
    for name in {*(record["file_name"] for record in content["images"])}:
        Image.new("RGB", size[::-1], (90, 120, 30)).save(folder / name)
    return path


def masks(folder):
    files = (folder / "SegmentationClass").rglob("*.png")
    root = folder / "SegmentationClass"
    return {
        path.relative_to(root).with_suffix("").as_posix(): np.array(Image.open(path))
        for path in files
    }


VALID = instances(
    (0, 7, [box(1, 1, 9, 9)]), (1, 90, string(pixels(2, 2, 5, 5))), (1, 2, [box(0, 0, 4, 4)])
)


def test_random_shapes_have_the_pixels_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width = (int(side) for side in rng.integers(1, 60, 2))
        polygons = [
            (rng.uniform(-0.1, 1.1, (rng.integers(3, 12), 2)) * (width, height)).ravel().tolist()
            for _ in range(rng.integers(1, 4))
        ]
        rle = pycocotools.merge(pycocotools.frPyObjects(polygons, height, width))
        noise = (rng.random((height, width)) < rng.random()).astype(np.uint8)
        cases = [
            (polygons, pycocotools.decode(rle)),
            (string(noise) | {"size": [height, width]}, noise),
            (numbers(noise) | {"size": [height, width]}, noise),
        ]
        for segmentation, expected in cases:
            columns = np.zeros(height * width, np.uint8)
            runs = coco_shapes.run_lengths(segmentation, height, width)
            assert runs.sum() == height * width and runs[1::2].sum() == expected.sum()
            coco_shapes.draw(runs, 1, columns)
            np.testing.assert_array_equal(columns.reshape(width, height).T, expected)


def test_shapes_become_masks_in_the_order_of_ids_and_sizes(tmp_path, capfd):
    content = instances(
        (0, 2, [box(4, 4, 6, 6)]),  # small: above the next
        (0, 7, [box(2, 2, 12, 12), box(20, 2, 22, 4)]),
        (1, 90, string(pixels(0, 0, 8, 8))),
        (1, 2, numbers(pixels(7, 7, 10, 10))),
        (1, 7, []),
        (1, 7, [[3, 3, 3, 3, 3, 3]]),
    )
    content["annotations"][2]["iscrowd"] = 1
    write(tmp_path / "in" / "labels.json", content)
    assert main(["data", "convert", str(tmp_path / "in"), "--output", str(tmp_path / "new")]) == 0
    captured = capfd.readouterr()
    assert "Format: coco" in captured.out
    assert "left out, as it has no segmentation" in captured.err and "annotation 4" in captured.err
    assert "left out, as it covers the centre of no pixel: " in captured.err
    assert "crowd regions are drawn as their class: 1" in captured.err
    names = load_split(str(tmp_path / "new"), "train").labels.names
    assert names == ("background", "dog", "cat", "hat")  # ids 2, 7, 90
    first = 2 * pixels(2, 2, 12, 12) + 2 * pixels(20, 2, 22, 4) - pixels(4, 4, 6, 6)
    second = 3 * pixels(0, 0, 8, 8)
    second[7:10, 7:10] = 1
    found = masks(tmp_path / "new")
    np.testing.assert_array_equal(found["0"], first)
    np.testing.assert_array_equal(found["1"], second)


def test_a_category_may_be_the_background(tmp_path):
    categories = [*CATEGORIES, {"id": 91, "name": "_background_"}]
    content = instances(
        (0, 91, [box(0, 0, 5, 5)]), (1, 2, [box(0, 0, 5, 5)]), categories=categories
    )
    done = convert(write(tmp_path / "test" / "test.json", content), tmp_path / "new")
    assert done.sizes == {"train": 1, "val": 1}  # one file is no split, whatever its name
    assert done.labels.names == ("_background_", "dog", "cat", "hat")
    assert not masks(tmp_path / "new")["0"].any()


def test_files_are_splits_whose_images_may_have_the_same_names(tmp_path):
    root = tmp_path / "coco"
    for split, left in (("train", 0), ("val", 10)):
        content = instances((0, 7, [box(left, 0, left + 4, 4)]), (1, 7, [box(0, 0, 9, 9)]))
        name = f"instances_{split}2017.json"
        write(root / "annotations" / name, content, root / "images" / f"{split}2017")
    for kind in ("captions", "panoptic", "labels"):
        write(root / "annotations" / f"{kind}_val2017.json", content, root / "images/val2017")
    done = convert(root, tmp_path / "new")
    assert done.sizes == {"train": 2, "val": 2} and not done.findings.problems
    source = Options(images=root / "images")
    assert convert(root, tmp_path / "2", options=source).sizes == done.sizes
    assert [len(places) for places in done.findings.left_out.values()] == [1, 2]
    found = masks(tmp_path / "new")
    assert set(found) == {"train/0", "train/1", "val/0", "val/1"}
    np.testing.assert_array_equal(found["val/0"], 2 * pixels(10, 0, 14, 4))


def test_roboflows_folders(tmp_path):
    """The first category is the name of all, and the test images have no labels."""
    categories = [
        {"id": 0, "name": "cat", "supercategory": "none"},
        {"id": 1, "name": "cat", "supercategory": "cat"},
    ]
    for split in ("train", "valid", "test"):
        shapes = [] if split == "test" else [(0, 1, [box(0, 0, 4, 4)])]
        content = instances(*shapes, images=1, categories=categories)
        content["images"][0]["file_name"] = f"{split}.jpg"
        write(tmp_path / "in" / split / "_annotations.coco.json", content)
    done = convert(tmp_path / "in", tmp_path / "new")
    assert done.labels.names == ("background", "cat") and done.sizes == {"train": 1, "val": 1}
    assert {*done.findings.left_out} == {
        "as it has no annotations",
        "as Roboflow's name for all classes",
    }


def test_panoptic_pngs_become_masks(tmp_path, capfd):
    content = instances(images=3)
    ids = np.zeros((*SIZE, 3), np.uint8)
    ids[:, :10], ids[:, 10:20], ids[:3, 20:] = (1, 2, 3), (5, 0, 0), (9, 9, 9)
    known = [{"id": 1 + 2 * 256 + 3 * 65536, "category_id": 90}, {"id": 5, "category_id": 2}]
    content["annotations"] = [
        {"image_id": image["id"], "file_name": "0.png", "segments_info": known}
        for image in content["images"][:2]
    ]
    path = write(tmp_path / "panoptic_all.json", content)
    path.with_suffix("").mkdir()
    Image.fromarray(ids).save(tmp_path / "panoptic_all/0.png")
    assert main(["data", "convert", str(path), "--output", str(tmp_path / "new")]) == 0
    error = capfd.readouterr().err
    assert "without a segmentation are unlabelled everywhere: 1" in error
    assert "as segments_info lacks its id" in error and str(9 + 9 * 256 + 9 * 65536) in error
    expected = np.full(SIZE, 255, np.uint8)
    expected[:, :10], expected[:, 10:20] = 2, 0
    found = masks(tmp_path / "new")
    np.testing.assert_array_equal(found["0"], expected)
    assert (found["2"] == 255).all()


def test_all_faults_are_listed_and_nothing_is_written(tmp_path, capfd):
    far, nan = box(1, 1, 99999, 5), box(1, 1, float("nan"), 5)
    short = {"size": list(SIZE), "counts": [5, 10]}
    turned = {"size": [WIDTH, HEIGHT], "counts": [0, 600]}
    wrong = {
        "of 2 points; at least 3": [[1, 1, 5, 5]],
        "of 3.5 points": [[1, 1, 5, 5, 6, 6, 7]],
        "reaches far beyond the photograph of 20×30": [far],
        "is outside of the photograph": [box(40, 1, 45, 5)],
        "not a finite number": [nan],
        "list of lists of numbers": [[1, 2, [3]]],
        "neither a list nor": "polygon",
        "do not add up to its 600": short,
        "for the size [30, 20]": turned,
        "not a complete compressed": {"size": list(SIZE), "counts": "oo"},
        "of more than 32 bits": {"size": list(SIZE), "counts": "o" * 20 + "0"},
        "list of whole numbers": {"size": list(SIZE), "counts": [0.5, 5]},
        "an outline of": [[0, 0, 30, 20] * 50_000],
    }
    content = instances(*((0, 7, shape) for shape in wrong.values()), images=5)
    content["annotations"] += instances((1, 8, [box(0, 0, 4, 4)]))["annotations"]
    path = write(tmp_path / "a.json", content)
    (tmp_path / "2.jpg").unlink()
    (tmp_path / "3.jpg").write_bytes(b"no image")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "4.jpg")
    assert main(["data", "convert", str(path), "--output", str(tmp_path / "new")]) == 1
    error = capfd.readouterr().err
    others = (
        "category_id 8",
        "'2.jpg' is missing",
        "3.jpg: not a readable",
        "labelled at 20×30 (height×width), but the photograph is 21×30",
    )
    for text in (*wrong, *others):
        assert error.count(text) == 1, (text, error)
    assert not (tmp_path / "new").exists() and "Traceback" not in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {}}, "images is not a list of objects"),
        ({"images": {"1": {}}}, "images is not a list of objects"),
        ({"images": [5]}, "images is not a list of objects"),
        ({"annotations": [*VALID["annotations"], "x"]}, "annotations is not a list of objects"),
        ({"annotations": [VALID["annotations"]]}, "annotations is not a list of objects"),
        ({"images": [{"id": 1}]}, r"images\[0\] needs an id and a file_name"),
        ({"images": VALID["images"] * 2}, "two images have the id 100"),
        ({"annotations": None}, "no image has a segmentation.$"),
        ({"categories": CATEGORIES * 2}, "two categories have the id 7"),
        ({"categories": [{"id": 1}]}, r"categories\[0\] needs an id and a name"),
        ({"categories": [*CATEGORIES, {"id": 1, "name": "cat "}]}, "have the same name"),
        (
            {"categories": [{"id": i, "name": f"c{i}"} for i in range(10_000)]},
            "Received: 10001 classes",
        ),
        ({"annotations": []}, "no image has a segmentation.$"),
        ({"categories": []}, "it has no categories"),
        (
            {"annotations": [{**VALID["annotations"][0], "image_id": "a.jpg"}]},
            "No annotation has the image_id of one of its images",
        ),
        (
            {"annotations": [{"id": 1, "image_id": 100, "category_id": 7, "bbox": [1, 2, 3, 4]}]},
            "boxes alone",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(change, message, tmp_path):
    path = write(tmp_path / "a.json", VALID)
    path.write_text(json.dumps(VALID | change))
    with pytest.raises(UserError, match=message):
        convert(path, tmp_path / "new", "coco")
    assert not (tmp_path / "new").exists()


DAMAGED = (
    *("", "{", "[" * 100_000, "\xff", "5", '"' + '\\"' * 200_000, "[1]", "{}}"),
    *(json.dumps(VALID)[:-9], json.dumps(VALID).replace("}, {", "}\n<<<<<<<\n{", 1)),
    json.dumps(VALID).replace('"id": 0', '"id": ' + "[" * 100_000),
    json.dumps(VALID).replace('"id": 0', '"id": ' + "1" * 9999),
)


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_json_is_refused(text, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="a.json: not readable as COCO's JSON"):
        convert(path, tmp_path / "new", "coco")


def test_images_are_never_sought_outside_their_folder(tmp_path):
    content = instances(*((i, 7, [box(0, 0, 4, 4)]) for i in range(3)), images=3)
    path = write(tmp_path / "in" / "a.json", content)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "3.jpg")
    for record, name in zip(content["images"], ("../3.jpg", "C:\\x\\1.jpg", "/home/me/2.jpg")):
        record["file_name"] = name
    path.write_text(json.dumps(content))
    done = convert(path, tmp_path / "new")
    assert [f"{path}: image '../3.jpg' is missing" in text for text in done.findings.problems] == [
        1
    ]
    assert f"{path}: images found by their file names alone: 2." in done.findings.notes


def test_an_image_of_two_files_or_in_two_folders_is_named(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.json", VALID)
    problems = convert(tmp_path / "in", tmp_path / "new").findings.problems
    assert len(problems) == 2 and all("a.json: image" in text for text in problems)
    (tmp_path / "in/b.json").unlink()
    write(tmp_path / "in/images/x", VALID)
    problems = convert(tmp_path / "in/a.json", tmp_path / "new").findings.problems
    assert len(problems) == 2 and all("Name the folder by --images" in text for text in problems)


def test_a_missing_folder_is_one_line_and_can_be_named(tmp_path):
    path = write(tmp_path / "a.json", VALID, tmp_path / "elsewhere")
    assert main(["data", "convert", str(path), "--output", str(tmp_path / "new")]) == 1
    flags = ["--images", str(tmp_path / "elsewhere"), "--output", str(tmp_path / "new")]
    assert main(["data", "convert", str(path), *flags]) == 0


def test_annotations_of_a_turned_photograph_are_drawn_as_it_is_stored(tmp_path):
    path = write(tmp_path / "a.json", VALID)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "0.jpg", exif=exif)
    source = coco.read(path, Options(), Findings())
    np.testing.assert_array_equal(source.examples[0].draw(WIDTH, HEIGHT), 2 * pixels(1, 1, 9, 9))
    with pytest.raises(UserError, match="labelled at 20×30 .* photograph is 30×20"):
        source.examples[1].draw(WIDTH, HEIGHT)  # which has no orientation


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=r"pip install 'fcn_keras\[coco\]'"):
        convert(write(tmp_path / "a.json", VALID), tmp_path / "new")


@given(mutated(VALID))
def test_what_is_odd_is_read_or_refused(content):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "in/a.json"), VALID)
        path.write_text(json.dumps(content))
        try:
            done = convert(path, Path(folder, "new"), "coco")
        except UserError as error:
            assert str(error)
        else:
            assert bool(done.findings.problems) != Path(folder, "new").exists()


@pytest.mark.skipif(not FORMATS, reason="needs FORMATS_DIR")
@pytest.mark.parametrize("name", ["coco", "coco_roboflow", "coco_rle", "coco_panoptic"])
def test_samples_are_read_as_their_tools_do(name, tmp_path):
    root = Path(FORMATS or "", name)
    done = convert(root, tmp_path / "new")
    assert done.format == "coco" and done.sizes == {"train": 1, "val": 1}
    if not (root / "expected").is_dir():
        return
    table = np.zeros(256, np.uint8)  # nothing there: background, id 0
    table[255] = 0 if done.labels.names[0] == "background" else 255
    for name, number in json.loads((root / "expected/ids.json").read_text()).items():
        table[number] = done.labels.names.index(name)
    for name, mask in masks(tmp_path / "new").items():
        expected = np.array(Image.open(root / f"expected/{name}.png"))
        np.testing.assert_array_equal(mask, table[expected])


def test_via_writes_one_polygon_without_a_list_and_ids_as_text(tmp_path):
    content = instances((0, 7, box(2, 3, 9, 8)), (1, 2, box(0, 0, 4, 4)))
    for entry in content["annotations"]:
        entry["image_id"], entry["category_id"] = str(entry["image_id"]), entry["category_id"] + 0.0
    for record in content["images"]:
        record["width"] = str(record["width"])
    path = write(tmp_path / "in/a.json", content)
    done = convert(path, tmp_path / "new")
    assert not done.findings.problems and not done.findings.left_out
    np.testing.assert_array_equal(masks(tmp_path / "new")["0"], 2 * pixels(2, 3, 9, 8))


NAMES = ("i/a%20{}.jpg", "C:\\x\\a {}.jpg", "img/a {}.jpg", "A {}.JPG", "a {}")


@pytest.mark.parametrize("name", NAMES)
def test_images_are_found_by_other_names_of_the_same_file(name, tmp_path):
    content = instances((0, 7, [box(2, 3, 9, 8)]), (1, 2, [box(0, 0, 4, 4)]))
    for index, record in enumerate(content["images"]):
        record["file_name"] = f"a {index}.jpg"
    path = write(tmp_path / "in/a.json", content, tmp_path / "in/img")
    for index, record in enumerate(content["images"]):
        record["file_name"] = name.format(index)
    path.write_text(json.dumps(content))
    assert not convert(path, tmp_path / "new").findings.problems
    assert {"a 0", "a 1"} == {Path(found).name for found in masks(tmp_path / "new")}


def test_an_encoded_name_does_not_lead_out_of_the_folder(tmp_path):
    content = instances((0, 7, [box(2, 3, 9, 8)]), images=1)
    content["images"][0]["file_name"] = "..%2F0.jpg"
    path = write(tmp_path / "in/a.json", content, tmp_path / "in/other")
    (tmp_path / "in/other/..%2F0.jpg").rename(tmp_path / "0.jpg")
    assert "none of its images is in" in convert(path, tmp_path / "new").findings.problems[0]


def test_values_in_messages_are_short(tmp_path):
    content = instances((0, [7] * 9999, [box(2, 3, 9, 8)]), (1, 7, [box(0, 0, 4, 4)]))
    content["annotations"][1]["image_id"] = {"x": [1] * 9999}
    problems = convert(write(tmp_path / "a.json", content), tmp_path / "new").findings.problems
    assert [len(problem) < 300 for problem in problems] == [True, True]
    assert "the category_id [7, 7," in problems[0] and "is no image_id" in problems[1]
