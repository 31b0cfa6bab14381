"""Label Studio's JSON: tasks, annotators, shapes in per cent and painted ones."""

import base64
import io
import itertools
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fcn_keras.data.conversion import convert, label_studio
from fcn_keras.data.conversion.rle_pack import decode_rle
from fcn_keras.data.conversion.source import Findings, Options
from fcn_keras.errors import UserError

FORMATS_DIR = os.environ.get("FORMATS_DIR")
WIDTH, HEIGHT = 40, 20
HALF = {"x": 0, "y": 0, "width": 47.5, "height": 95}  # columns 0 to 19, rows 0 to 19
TRIANGLE = [[0, 0], [50, 0], [0, 50]]


def bits(number: int, size: int) -> str:
    return format(number, f"0{size}b")


def encode_rle(values) -> list[int]:
    """rle-pack with lengths of 3, 4, 8 and 16 bits: runs of a value, and single values."""
    text = bits(len(values), 32) + bits(7, 5) + "".join(bits(n - 1, 4) for n in (3, 4, 8, 16))
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1), len(values)]
    for start, end in itertools.pairwise(starts):
        value, length = bits(int(values[start]), 8), end - start
        if length < 3:  # one after another
            text += "0" + "00" + bits(length - 1, 3) + value * length
        else:
            which = next(i for i, size in enumerate((3, 4, 8, 16)) if length <= 1 << size)
            text += "1" + bits(which, 2) + bits(length - 1, (3, 4, 8, 16)[which]) + value
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def painted(alpha) -> dict:
    rgba = np.zeros((*np.shape(alpha), 4), np.uint8)
    rgba[..., :3], rgba[..., 3] = 77, alpha
    return {"format": "rle", "rle": encode_rle(rgba.ravel())}


def result(value, label="Car", kind="rectangle", id=None, **more):
    value = {**value, f"{kind}labels": [label]} if label else value
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    given = {"id": id} if id else {}
    kind = f"{kind}labels" if label else kind
    return {**given, "type": kind, "value": value, "from_name": "x", **size, **more}


def annotation(*results, **more):
    return {"id": 1, "result": [*results], "was_cancelled": False, **more}


def task(*annotations, name="a.png", **more):
    data = {"data": {"image": f"/data/upload/1/{name}"}, "file_upload": name}
    return {"id": 1, "annotations": [*annotations], **data, **more}


def write(folder, *tasks, photographs=("a.png", "b.png")):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "export.json").write_text(json.dumps(tasks))
    for name in photographs:
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / name)
    return folder / "export.json"


def read(place, **options):
    findings = Findings()
    source = label_studio.read(place, Options(**options), findings)
    masks = {example.name: example.draw(HEIGHT, WIDTH) for example in source.examples}
    return masks, source.labels.names, findings


def mask_of(folder, *results):
    masks, names, findings = read(write(folder, task(annotation(*results))))
    assert not findings.problems
    return masks["a"], names


def test_run_lengths_are_decoded():
    rng = np.random.default_rng(0)
    values = np.repeat(rng.integers(0, 256, 300), rng.integers(1, 700, 300)).astype(np.uint8)
    data = bytes(encode_rle(values))
    np.testing.assert_array_equal(decode_rle(data, len(values)), values)
    np.testing.assert_array_equal(decode_rle(data + b"trailing", len(values)), values)
    for end in (0, 3, 20, len(data) - 1):
        with pytest.raises(ValueError, match="ends early"):
            decode_rle(data[:end], len(values))
    with pytest.raises(ValueError, match="but needs 7 of 8"):
        decode_rle(data, 7)
    for block in ("1" + "00" + "111" + bits(9, 8), "0" + "00" + "111" + bits(9, 8) * 5):
        text = bits(5, 32) + bits(7, 5) + bits(2, 4) * 4 + block
        data = bytes(int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8))
        assert decode_rle(data, 5).tolist() == [9] * 5  # although the block has eight


def test_paint_counts_where_it_is_not_transparent(tmp_path):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[3:7, 5:30], alpha[10, 1] = 255, 1
    mask, names = mask_of(tmp_path, result(painted(alpha), kind="brush"))
    np.testing.assert_array_equal(mask, alpha != 0)
    assert names == ("background", "Car")


def test_per_cent_become_pixels(tmp_path):
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:, :20] = 1
    np.testing.assert_array_equal(mask_of(tmp_path, result(HALF))[0], expected)
    corners = {"points": [[0, 0], [47.5, 0], [47.5, 95], [0, 95]]}
    np.testing.assert_array_equal(mask_of(tmp_path, result(corners, kind="polygon"))[0], expected)
    # Turned by a right angle about its first corner: 19 pixels down become 19 to the left.
    turned = {"x": 47.5, "y": 0, "width": 47.5, "height": 95, "rotation": 90}
    np.testing.assert_array_equal(mask_of(tmp_path, result(turned))[0], expected)


def test_ellipses_may_be_turned(tmp_path):
    lying = {"x": 50, "y": 50, "radiusX": 25, "radiusY": 25}  # 10 and 5 pixels
    mask, _ = mask_of(tmp_path, result(lying, kind="ellipse"))
    assert mask.sum() in range(157, 157 + 50)  # pi 10 5, and the outline
    assert mask[10, 11] and mask[10, 29] and not mask[3, 20] and not mask[5, 11]
    turned, _ = mask_of(tmp_path, result({**lying, "rotation": 90}, kind="ellipse"))
    assert turned[1, 20] and turned[19, 20] and not turned[10, 13]
    slanted, _ = mask_of(tmp_path, result({**lying, "rotation": 45}, kind="ellipse"))
    assert slanted[15, 25] and slanted[5, 15] and not slanted[5, 25]  # clockwise


def test_later_areas_lie_on_top_and_classes_are_sorted(tmp_path):
    mask, names = mask_of(
        tmp_path, result(HALF, "Tree"), result({"points": TRIANGLE}, "Car", "polygon")
    )
    assert names == ("background", "Car", "Tree") and mask[0, 0] == 1 and mask[19, 19] == 2
    classes = tmp_path / "classes.txt"
    classes.write_text("Tree\nCar\n")
    masks, _, findings = read(tmp_path / "export.json", classes=classes)
    assert masks["a"][0, 0] == 1 and masks["a"][19, 19] == 0 and masks["a"][0, 39] == 255
    assert any("unlabelled" in note for note in findings.notes)
    classes.write_text("background\nTree\n")
    [problem] = read(tmp_path / "export.json", classes=classes)[2].problems
    assert "the label 'Car' (shapes: 1) is not in" in problem


def test_a_label_of_its_own_belongs_to_the_area_of_the_same_id(tmp_path):
    labels = {**HALF, "labels": ["Car"]}
    own = {"id": "r1", "type": "labels", "value": labels}
    text = {"id": "r1", "type": "textarea", "value": {**HALF, "text": ["Test"]}}
    relation = {"type": "relation", "from_id": "r1", "to_id": "r2"}
    area = result(HALF, None, id="r1")
    inner = result({"points": TRIANGLE}, "Tree", "polygon")
    masks, names, findings = read(
        write(tmp_path, task(annotation(area, inner, own, text, relation)))
    )
    assert names == ("background", "Car", "Tree") and not findings.left_out
    assert masks["a"][0, 0] == 2 and masks["a"][19, 19] == 1


def test_what_is_left_out_is_told(tmp_path):
    point = {"x": 1, "y": 2, "width": 0.5}
    several = result(HALF, id="r3")
    several["value"]["rectanglelabels"] = ["Car", "Red"]
    nothing = painted(np.zeros((HEIGHT, WIDTH)))
    parts = [
        result(HALF, None, id="r1"),
        result(point, "Tip", "keypoint", id="r2"),
        several,
        result(nothing, kind="brush", id="r4"),
    ]
    masks, names, findings = read(write(tmp_path, task(annotation(*parts))))
    place = f"{tmp_path}/export.json: task 1, region"
    assert findings.left_out == {
        "as it has no label": [f"{place} r1"],
        "as it is a keypoint, not an area": [f"{place} r2"],
        "as 'Car' is the first label": [f"{place} r3: Red"],
        "as nothing of it is painted": [f"{place} r4"],
    }
    assert names == ("background", "Car") and masks["a"].sum() == 20 * 20


def test_the_newest_annotation_that_was_not_skipped_is_taken(tmp_path):
    old = annotation(result(HALF, "Old"), id=7, updated_at="2023-01-31T07:40:19.861611Z")
    new = annotation(result(HALF, "New"), id=8, updated_at="2023-01-31T10:40:20+03:00")
    skipped = annotation(id=9, was_cancelled=True, updated_at="2024-01-31T07:40:19Z")
    tasks = [task(new, skipped, old), task(skipped, name="b.png", id=2), task(id=3)]
    masks, names, findings = read(write(tmp_path, *tasks))
    assert names == ("background", "New") and [*masks] == ["a"]
    title = f"{tmp_path}/export.json: task"
    assert findings.left_out == {
        "as the same image has a newer annotation": [f"{title} 1, annotation 7"],
        "as its annotations were skipped": [f"{title} 2"],
        "as it has no annotation": [f"{title} 3"],
    }


@pytest.mark.parametrize(
    "image",
    [
        "/data/upload/1/e97d4735-a.png",
        "/data/local-files/?d=photos/a.png",
        "s3://bucket/photos/a.png",
        "https://host/photos/a.png?X-Amz-Signature=b.png",
        "C:\\photos\\a.png",
        "%61.png",
    ],
)
def test_images_are_found_by_their_names(image, tmp_path):
    file = write(tmp_path, task(annotation(result(HALF)), data={"image": image, "text": "x"}))
    assert [*read(file)[0]] == ["a"]
    other = tmp_path / "other"
    other.mkdir()
    assert "is not in" in read(file, images=other)[2].problems[0]


def test_images_of_one_name_keep_their_folders(tmp_path):
    for folder in ("x", "y"):
        write(tmp_path / "local" / folder, photographs=["a.png"])
    tasks = [task(annotation(), data={"image": f"s3://b/far/{folder}/a.png"}) for folder in "xy"]
    file = write(tmp_path, *tasks, photographs=[])
    assert [*read(file)[0]] == ["local/x/a", "local/y/a"]
    file = write(tmp_path, task(annotation()), photographs=[])
    assert "may be" in read(file)[2].problems[0]


def test_older_and_single_files_are_read(tmp_path):
    old = task(name="a.png")
    old["completions"] = [annotation(result(HALF), skipped=False)]
    del old["annotations"]
    stored = {**annotation(result(HALF)), "task": {"id": 5, "data": {"image": "b.png"}}}
    write(tmp_path)
    (tmp_path / "1.json").write_text(json.dumps(old))
    (tmp_path / "2.json").write_text(json.dumps(stored))
    (tmp_path / "export.json").unlink()
    done = convert(tmp_path, tmp_path / "new")
    assert done.findings.problems == [] and done.format == "label-studio"
    assert done.sizes == {"train": 1, "val": 1}


NAN = float("nan")
ALPHA = np.ones((HEIGHT, WIDTH))
BROKEN = {
    "two points": result({"points": TRIANGLE[:2]}, kind="polygon"),
    "NaN": result({**HALF, "x": NAN}),
    "infinite": result({"points": [[0, 0], [float("inf"), 0], [0, 50]]}, kind="polygon"),
    "absurd": result({**HALF, "width": 1e6}),
    "text": result({**HALF, "x": "1"}),
    "outside": result({**HALF, "x": 200}),
    "no shape": result({}),
    "other sizes": result(HALF, original_width=80),
    "turned": result(HALF, image_rotation=90),
    "bytes missing": result({"rle": painted(ALPHA)["rle"][:-1]}, kind="brush"),
    "no bytes": result({"rle": [1, 2, 300]}, kind="brush"),
    "rle of another type": result({"rle": "abc"}, kind="brush"),
    "another number of values": result(painted(ALPHA[1:]), kind="brush"),
    "values without end": result({"rle": [255] * 20}, kind="brush"),
}
BROKEN_RESULTS = {
    "not an object": [1],
    "no type": {"value": HALF},
    "no value": {"type": "rectanglelabels"},
    "labels of another type": {**result(HALF), "value": {**HALF, "rectanglelabels": [1]}},
    "labels that are text": {**result(HALF), "value": {**HALF, "rectanglelabels": "Car"}},
    "an unknown kind": result(HALF, kind="hologram"),
}


def test_all_faulty_areas_are_listed_and_nothing_is_written(tmp_path):
    results = [result(HALF), *BROKEN.values(), *BROKEN_RESULTS.values()]
    write(tmp_path, task(annotation(*results)), task(annotation(), name="b.png", id=2))
    done = convert(tmp_path, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    for problem in done.findings.problems:
        assert problem.startswith(f"{tmp_path}/export.json: task 1, region 'number ") or (
            problem.startswith(f"{tmp_path}/export.json: task 1, region number ")
        )
    assert len(done.findings.problems) == len(BROKEN) + len(BROKEN_RESULTS)


FILES = {
    "no JSON": "{",
    "nested": "[" * 100_000,
    "JSON-MIN": json.dumps([{"image": "a.png", "annotation_id": 1, "tag": []}]),
    "annotations are numbers": json.dumps([task(1)]),
    "annotations of another type": json.dumps([{**task(), "annotations": {"a": 1}}]),
    "no result": json.dumps([task({"id": 1})]),
    "result of another type": json.dumps([task(annotation(), id=[[[]]]), task({"result": "x"})]),
    "no image": json.dumps([task(annotation(), data={"text": "a"})]),
    "two images": json.dumps([task(annotation(), data={"a": "a.png", "b": "b.png"})]),
    "data of another type": json.dumps([task(annotation(), data=[1], file_upload=None)]),
    "image missing": json.dumps([task(annotation(), data={"a": "../../etc/c.png"})]),
    "address": json.dumps([task(annotation(), data={"a": "http://[a.png"})]),
    "the same image": json.dumps([task(annotation()), task(annotation(), id=2)]),
    "many labels": json.dumps([task(annotation(*[result(HALF, f"n{i}x") for i in range(300)]))]),
    "line break": json.dumps([task(annotation(result(HALF, "a\nb")))]),
}


@pytest.mark.parametrize("what", FILES)
def test_a_faulty_file_is_a_problem(what, tmp_path):
    file = write(tmp_path)
    file.write_text(FILES[what])
    done = convert(file, tmp_path / "new", "label-studio")
    assert done.findings.problems and not (tmp_path / "new").exists()
    assert all(problem.startswith(f"{file}: ") for problem in done.findings.problems)


def test_its_other_exports_are_refused(tmp_path):
    (tmp_path / "task-1-annotation-2-by-3-tag-Car-0.png").touch()
    with pytest.raises(UserError, match="Export the project as JSON"):
        convert(tmp_path, tmp_path / "new")


VALUES = st.sampled_from(
    (None, True, -1, 0, 50, 2.5, NAN, float("inf"), 1e300, 10**30, "", "a", [], {}, [[]], TRIANGLE)
    + ([255] * 30, ["Car"], "brush", "labels", "polygonlabels", [{}], "2023-01-31", "9999-12-31")
)
KEYS = "id type value x width points rle radiusX rotation rectanglelabels labels original_width "
KEYS += "image_rotation annotations result data file_upload updated_at was_cancelled task image"


@given(st.lists(st.tuples(st.integers(0, 30), st.sampled_from(KEYS.split()), VALUES), max_size=4))
def test_any_json_is_read_or_refused(changes):
    content = [task(annotation(result(HALF, id="r"), result(painted(ALPHA), kind="brush")))]
    for place, key, value in changes:
        objects = []
        stack = [content]
        while stack:
            item = stack.pop()
            objects += [item] if isinstance(item, dict) else []
            inner = item.values() if isinstance(item, dict) else item
            stack += [part for part in inner if isinstance(part, (dict, list))]
        objects[place % len(objects)][key] = value
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), *content, task(annotation(), name="b.png"))
        try:
            done = convert(name, Path(name, "new"))
        except UserError as error:
            assert "images" in str(error) or name in str(error)
        else:
            assert bool(done.findings.problems) != Path(name, "new").exists()


@pytest.mark.skipif(not FORMATS_DIR, reason="needs the samples in FORMATS_DIR")
def test_the_sample_equals_masks_by_its_own_decoder(tmp_path):
    sample = Path(FORMATS_DIR, "label_studio")
    Image.new("RGB", (320, 240)).save(tmp_path / "plane.jpg")  # the sample lacks this one
    photograph = "e97d4735-000000000025.jpg"
    (tmp_path / photograph).write_bytes((sample / "images" / photograph).read_bytes())
    findings = Findings()
    source = label_studio.read(sample / "export.json", Options(images=tmp_path), findings)
    assert findings.problems == [] and source.labels.names == ("background", "Airplane")
    names = ("task-68501-annotation-211797", "task-68502-annotation-211799")
    for example, name in zip(source.examples, names, strict=True):
        expected = np.asarray(Image.open(sample / f"expected/{name}.png"))
        different = example.draw(*expected.shape) != expected
        # OpenCV, which drew the polygon, and Pillow differ at slanted edges.
        assert different.mean() < (4e-4 if "211797" in name else 1e-9)


def bitmask(alpha) -> dict:
    file = io.BytesIO()
    rgba = np.zeros((*np.shape(alpha), 4), np.uint8)
    rgba[..., 3] = alpha
    Image.fromarray(rgba).save(file, "PNG")
    return {"imageDataURL": "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()}


def test_a_bitmask_counts_where_it_is_not_transparent(tmp_path):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[3:7, 5:30] = 255
    mask, _ = mask_of(tmp_path, result(bitmask(alpha), kind="bitmask"))
    np.testing.assert_array_equal(mask, alpha != 0)
    wrong = {
        "has (20, 40) pixels": bitmask(alpha.T),
        "not a readable": {"imageDataURL": "data:image/png;base64,AAAA"},
        "is not text": {"imageDataURL": 5},
    }
    results = [result(value, kind="bitmask") for value in wrong.values()]
    problems = read(write(tmp_path, task(annotation(*results))))[2].problems
    for text, problem in zip(wrong, problems, strict=True):
        assert text in problem


def test_the_image_may_be_in_a_list_of_one(tmp_path):
    tasks = [task(annotation(result(HALF)), name=name) for name in ("a.png", "b.png")]
    for each in tasks:
        each["data"] = {"image": [each["data"]["image"]]}
    assert convert(write(tmp_path, *tasks), tmp_path / "new").sizes == {"train": 1, "val": 1}


def test_predictions_alone_are_told(tmp_path):
    write(tmp_path, task(predictions=[{"result": [result(HALF)]}]))
    with pytest.raises(UserError, match="Submit the predictions first"):
        convert(tmp_path, tmp_path / "new")


def test_very_many_faulty_results_are_counted(tmp_path):
    path = write(tmp_path, task(annotation(*[{"value": HALF}] * 5000)))
    problems = read(path)[2].problems
    assert len(problems) == 101 and "4900 more faulty shapes" in problems[-1]
