"""`fcn-keras predict --polygons` on real files, checked from outside."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from support.runs import save_colour_run

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.conversion import convert
from fcn_keras.data.conversion.source import Options
from fcn_keras.data.split import voc_palette
from fcn_keras.files.finding import FoundImage
from fcn_keras.inference.annotations import path_from, write_coco

NAMES = ("background", "box", "ball")  # red, green, blue


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_colour_run(tmp_path_factory.mktemp("run"), NAMES, voc_palette(3))


@pytest.fixture
def photos(tmp_path):
    """A green square in a red picture, and in a folder a blue one, stored lying on its side."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, color, exif in (("a.png", (0, 255, 0), 1), ("more/b.png", (0, 0, 255), 6)):
        image = Image.new("RGB", (40, 30), (255, 0, 0))
        image.paste(color, (5, 5, 15, 25))
        orientation = Image.Exif()
        orientation[0x0112] = exif
        image.save(folder / name, exif=orientation)
    return folder


def predict(run, output, *arguments):
    return main(["predict", "--model", str(run), "--output", str(output), *map(str, arguments)])


def read(path):
    return json.loads(path.read_text())


def test_labelme(run, photos, tmp_path):
    assert predict(run, tmp_path / "out", photos, "--polygons", "labelme") == 0
    content = read(tmp_path / "out" / "labelme" / "a.json")
    [shape] = content.pop("shapes")
    assert content.pop("version").split(".")[0] == "5"
    size = {"imageHeight": 30, "imageWidth": 40}
    path = "../../photos/a.png"
    assert content == {"flags": {}, "imagePath": path, "imageData": None, **size}
    assert (shape["label"], shape["shape_type"]) == ("box", "polygon")
    assert shape["points"] == [[5, 5], [14, 5], [14, 24], [5, 24]]
    content = read(tmp_path / "out" / "labelme" / "more" / "b.json")
    assert content["imagePath"] == "../../../photos/more/b.png"
    assert (content["imageHeight"], content["imageWidth"]) == (40, 30)  # upright
    assert sorted(content["shapes"][0]["points"]) == [[5, 5], [5, 14], [24, 5], [24, 14]]


def test_coco(run, photos, tmp_path):
    (photos / "bad.png").write_text("no image")
    output = tmp_path / "out"
    assert predict(run, output, photos, photos / "a.png", "--polygons", "coco") == 1
    content = read(output / "coco.json")
    assert [(entry["id"], entry["name"]) for entry in content["categories"]] == [
        (1, "box"),
        (2, "ball"),
    ]
    assert content["images"] == [
        {"id": 1, "file_name": "more/b.png", "height": 40, "width": 30},
        {"id": 2, "file_name": "a.png", "height": 30, "width": 40},
    ]
    square = {"segmentation": [[5, 5, 15, 5, 15, 25, 5, 25]], "bbox": [5, 5, 10, 20]}
    assert content["annotations"][1] == {
        "id": 2,
        "image_id": 2,
        "category_id": 1,
        **square,
        "area": 200,
        "iscrowd": 0,
    }
    assert [entry["category_id"] for entry in content["annotations"]] == [2, 1]


def test_coco_is_merged_from_old_and_new_parts(run, photos, tmp_path, capfd):
    output = tmp_path / "out"
    flags = ["--polygons", "coco", "--skip-existing"]
    assert predict(run, output, photos, *flags) == 0
    whole = (output / "coco.json").read_bytes()
    (output / "coco.json").unlink()
    (output / "coco" / "a.json").unlink()
    before = (output / "coco" / "more" / "b.json").stat().st_mtime_ns
    assert predict(run, output, photos, *flags) == 0
    assert "1 of 2 images predicted, 1 already existed" in capfd.readouterr().out
    assert (output / "coco" / "more" / "b.json").stat().st_mtime_ns == before
    assert (output / "coco.json").read_bytes() == whole
    assert predict(run, output, photos, *flags) == 0  # nothing is left to predict
    assert (output / "coco.json").read_bytes() == whole
    assert predict(run, output, photos / "more", "--polygons", "coco", "--overwrite") == 0
    [record] = read(output / "coco.json")["images"]
    assert record["file_name"] == "b.png"


@pytest.mark.slow
def test_coco_with_ray_is_that_without(run, photos, tmp_path):
    pytest.importorskip("ray")
    (photos / "bad.png").write_text("no image")
    for output, flags in (("here", []), ("ray", ["--ray"])):
        assert predict(run, tmp_path / output, photos, "--polygons", "coco", *flags) == 1
    assert (tmp_path / "ray/coco.json").read_bytes() == (tmp_path / "here/coco.json").read_bytes()


def test_a_coco_file_of_others_is_kept(run, photos, tmp_path, capfd):
    output = tmp_path / "out"
    output.mkdir()
    (output / "coco.json").write_text("mine")
    assert predict(run, output, photos, "--polygons", "coco") == 1
    assert f"{output}/coco.json: the result would replace a file that" in capfd.readouterr().err
    assert os.listdir(output) == ["coco.json"]
    assert predict(run, output, photos) == 0  # does not touch it
    assert predict(run, output, photos, "--polygons", "coco", "--overwrite") == 0
    assert len(read(output / "coco.json")["images"]) == 2


def test_corrections_are_not_replaced(run, photos, tmp_path, capfd):
    output = tmp_path / "out"
    for _ in range(2):
        assert predict(run, output, photos, "--polygons", "labelme") == 0
    file = output / "labelme" / "more" / "b.json"
    content = read(file)
    content["shapes"][0]["label"] = "box"
    file.write_text(json.dumps(content, indent=2))  # as labelme saves it
    corrected = file.read_bytes()
    capfd.readouterr()
    assert predict(run, output, photos, "--polygons", "labelme") == 1
    assert f"{file}: the result would replace a file that was corrected" in capfd.readouterr().err
    assert predict(run, output, photos, "--polygons", "labelme", "--skip-existing") == 0
    assert file.read_bytes() == corrected
    assert predict(run, output, photos, "--polygons", "labelme", "--overwrite") == 0
    assert read(file)["shapes"][0]["label"] == "ball"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ('"class": "box"', "a.json: has the class 'tree', but the model has not. Predict it again"),
        ('"width": 40', "a.json: not readable ("),
        ("}]}", "a.json: not readable ("),
    ],
)
def test_parts_that_do_not_fit_are_named(run, photos, tmp_path, damage, message, capfd):
    output = tmp_path / "out"
    assert predict(run, output, photos, "--polygons", "coco") == 0
    before = (output / "coco.json").read_bytes()
    part = output / "coco" / "a.json"
    text = part.read_text()
    wrong = text.replace(damage, '"class": "tree"' if "class" in damage else "")
    assert wrong != text
    part.write_text(wrong.replace(", ,", ",").replace(", }", "}"))
    capfd.readouterr()
    assert predict(run, output, photos, "--polygons", "coco", "--skip-existing") == 1
    [line] = capfd.readouterr().err.splitlines()
    assert message in line and (output / "coco.json").read_bytes() == before


def test_polygons_need_image_files(run, tmp_path, capfd):
    assert predict(run, tmp_path / "out", "--dataset", "sample", "--polygons", "coco") == 1
    assert "--polygons applies to image files, not to --dataset." in capfd.readouterr().err


@pytest.mark.parametrize(
    ("place", "image", "expected"),
    [
        ("out/labelme/x.json", "in/x.jpg", "../../in/x.jpg"),
        ("out/labelme/x.json", "out/labelme/x.jpg", "x.jpg"),
        ("s3://b/out/labelme/x.json", "s3://b/in/x.jpg", "../../in/x.jpg"),
        ("s3://b/labelme/in/x.json", "s3://b/in/x.jpg", "../../in/x.jpg"),
        ("s3://b/out/x.json", "s3://other/in/x.jpg", "x.jpg"),
        ("s3://b/out/x.json", "in/x.jpg", "x.jpg"),
        ("out/x.json", "gs://b/in/x.jpg", "x.jpg"),
    ],
)
def test_image_paths_are_relative_to_the_file(place, image, expected):
    assert path_from(place, image) == expected


def test_image_paths_lead_to_the_image_through_links(tmp_path):
    for name in ("deep/er/out", "in"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "deep/er/out")
    Image.new("RGB", (9, 9)).save(tmp_path / "in" / "x.png")
    path = path_from(str(tmp_path / "out" / "x.json"), str(tmp_path / "in" / "x.png"))
    assert os.path.samefile(os.path.join(tmp_path / "out", path), tmp_path / "in" / "x.png")


def test_no_image_gives_an_empty_coco_file(tmp_path):
    from fcn_keras.data.split import LabelSet

    write_coco(str(tmp_path), [], LabelSet(NAMES))
    content = read(tmp_path / "coco.json")
    assert content["images"] == content["annotations"] == [] and len(content["categories"]) == 2
    missing = [FoundImage(str(tmp_path / "x.png"), "x", 0.0)]
    with pytest.raises(Exception, match=r"x\.json: not readable"):
        write_coco(str(tmp_path), missing, LabelSet(NAMES))


def test_a_mask_of_every_kind_of_result_is_the_same(run, photos, tmp_path):
    for kind in ("labelme", "coco"):
        assert predict(run, tmp_path / kind, photos / "a.png", "--polygons", kind) == 0
    masks = [np.asarray(Image.open(tmp_path / kind / "a.png")) for kind in ("labelme", "coco")]
    np.testing.assert_array_equal(*masks)


@pytest.mark.parametrize(("kind", "place"), [("labelme", "labelme"), ("coco", "coco.json")])
def test_converted_again_they_give_the_masks(run, photos, tmp_path, kind, place):
    output = tmp_path / "out"
    assert predict(run, output, photos, "--polygons", kind) == 0
    done = convert(output / place, tmp_path / "data", options=Options(images=photos))
    assert not done.findings.problems and done.sizes == {"train": 1, "val": 1}
    ids = [done.labels.names.index(name) for name in done.labels.names if name in NAMES[1:]]
    table = np.zeros(256, np.uint8)
    table[ids] = [NAMES.index(done.labels.names[id]) for id in ids]
    for part in done.sizes:
        split = load_split(str(tmp_path / "data"), part)
        mask = Image.open(output / f"{split.ids[0]}.png")
        np.testing.assert_array_equal(table[split.read(0)[1]], mask)


def test_a_killed_call_is_continued(run, photos, tmp_path):
    output = tmp_path / "out"
    flags = [photos, "--polygons", "coco", "--skip-existing"]
    assert predict(run, output, *flags) == 0
    whole = (output / "coco.json").read_bytes()
    for path in (output / "coco.json", output / "a.png"):  # an image's mask comes last
        path.unlink()
    (output / "coco" / "a.json").write_text("{}")
    assert predict(run, output, *flags) == 0
    assert (output / "coco.json").read_bytes() == whole
