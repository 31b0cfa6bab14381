"""Faults that readers share, put into one scene in each format.

Others, such as polygons of two points, are in the tests of the formats that can have them.
"""

import base64
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from support import scene_formats as scenes

from fcn_keras.cli import main
from fcn_keras.data.check import check_directory
from fcn_keras.data.conversion import convert
from fcn_keras.data.conversion.source import Options
from fcn_keras.data.directory import read_class_list
from fcn_keras.errors import UserError


def text(name, old, new):
    """Replaces a regular expression in a file."""

    def damage(root):
        path = root / name
        changed, times = re.subn(old, lambda _: new, path.read_text(), count=1)
        assert times
        path.write_text(changed)

    return damage


def lines(name, made):
    def damage(root):
        (root / name).write_text("".join(map(made, range(10_000))))

    return damage


def double(name, suffix):
    """The same picture again, under the same name with another suffix."""

    def damage(root):
        Image.open(root / name).save((root / name).with_suffix(suffix))

    return damage


def huge(name):
    """A PNG whose header says 60,000×60,000 pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    def damage(root):
        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
        data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99)))
        (root / name).write_bytes(b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b""))

    return damage


def painted(name, value):
    """A mask in which one pixel has another value."""

    def damage(root):
        mask = np.array(Image.open(root / name))
        mask[2, 3] = value
        Image.fromarray(mask).save(root / name)

    return damage


def panoptic(change):
    def damage(root):
        path = root / "panoptic_all.json"
        content = json.loads(path.read_text())
        change(content["annotations"])
        path.write_text(json.dumps(content))

    return damage


TRAIN_A = "leftImg8bit/train/ulm/a_leftImg8bit"
MASK_A = "gtFine/train/ulm/a_gtFine_labelIds.png"
LIST = "ImageSets/Segmentation/train.txt"
LARGE = "more than 178,956,970 pixels"
FAULTS = [
    (scenes.labelme_polygons, text("a.json", '"a.jpg"', '"../secret.jpg"'), None),
    (scenes.labelme_polygons, text("a.json", '"imageWidth": 90', '"imageWidth": 1000000000'),
     "a.json: labelled at 60×1000000000"),
    (scenes.labelme_polygons, huge("a.jpg"), LARGE),
    (scenes.coco_polygons, text("instances.json", '"width": 90', '"width": 1000000000'),
     "labelled at 60×1000000000"),
    (scenes.coco_panoptic, panoptic(lambda found: found.append(found[0])),
     "another annotation has the same image_id"),
    (scenes.coco_panoptic, panoptic(lambda found: found[0].update(file_name="../secret.png")),
     "the PNG '../secret.png' is missing"),
    (scenes.coco_panoptic, panoptic(lambda found: found[0]["segments_info"][0].update(
        category_id=99)), "the category_id 99, which is unknown"),
    (scenes.coco_panoptic, huge("panoptic_all/a.png"), LARGE),
    (scenes.cvat_masks, painted("SegmentationClass/a.png", (1, 2, 3)), "(1, 2, 3)"),
    (scenes.cvat_masks, text(LIST, "a", "../secret"), "not the id of an image"),
    (scenes.cvat_masks, double("JPEGImages/a.jpg", ".png"), "has the same name"),
    (scenes.cvat_masks, huge("SegmentationClass/a.png"), LARGE),
    (scenes.cvat_masks, lines("labelmap.txt", lambda i: f"c{i}:0,{i % 256},{i // 256}::\n"),
     "lacks background"),
    (scenes.yolo, double("images/train/a.jpg", ".png"), "has the same name"),
    (scenes.label_studio_polygons, text("export.json", '"original_width": 90',
                                        '"original_width": 1000000000'), "(1000000000, 60)"),
    (scenes.roboflow, double("train/a.jpg", ".png"), "has the same name"),
    (scenes.roboflow, huge("valid/b_mask.png"), LARGE),
    (scenes.cityscapes, double(f"{TRAIN_A}.png", ".jpg"), "has the same name"),
    (scenes.cityscapes, huge(MASK_A), LARGE),
    (scenes.ade20k, double("images/training/a.jpg", ".png"), "has the same name"),
    (scenes.ade20k, huge("annotations/training/a.png"), LARGE),
    (scenes.ade20k, lines("objectInfo150.txt", lambda i: f"{i}\t0.1\t5\t6\tc{i}\n" if i else
                          "Idx\tRatio\tTrain\tVal\tName\n"), "Received: 9999 classes"),
    (scenes.voc, double("JPEGImages/a.jpg", ".png"), "has the same name"),
    (scenes.voc, huge("SegmentationClass/a.png"), LARGE),
    (scenes.voc, lines("classes.txt", "class {}\n".format), "Received: 10000 classes"),
    (scenes.folders_of_ids, huge("masks/a_mask.png"), LARGE),
    (scenes.folders_of_ids, lines("classes.txt", "class {}\n".format), "Received: 10000 classes"),
]  # fmt: skip


@pytest.mark.parametrize(("write", "damage", "message"), FAULTS, ids=range(len(FAULTS)))
def test_a_fault_is_one_line_and_nothing_is_written(write, damage, message, tmp_path, capfd):
    root = tmp_path / "in"
    root.mkdir()
    write(root)
    Image.new("RGB", (scenes.WIDTH, scenes.HEIGHT), (255, 0, 255)).save(tmp_path / "secret.jpg")
    shutil.copy(tmp_path / "secret.jpg", tmp_path / "secret.png")
    damage(root)
    status = main(["data", "convert", str(root), "--output", str(tmp_path / "out")])
    error = capfd.readouterr().err
    if message is None:
        assert status == 0
        pictures = [path.read_bytes() for path in tmp_path.glob("out/JPEGImages/*")]
        assert len(pictures) == 2 and (tmp_path / "secret.jpg").read_bytes() not in pictures
    else:
        assert status == 1 and not (tmp_path / "out").exists()
        problems = [
            line for line in error.splitlines() if line.startswith(("problem: ", "error: "))
        ]
        assert len(problems) == 1 and message in problems[0] and str(tmp_path) in problems[0]


@pytest.mark.parametrize(
    "names",
    ["#a b c", "'a' b c", '"a" b c', "[a] b c", "{a} b c", "<a> b c", "0_a 1_b 2_c", "x" * 300],
)
def test_class_names_come_back_or_are_refused(names, tmp_path):
    (tmp_path / "in").mkdir()
    scenes.ade20k(tmp_path / "in")
    for old, new in zip(scenes.NAMES, names.split()):
        text("objectInfo150.txt", f"\t{old},", f"\t{new.replace('_', ' ')},")(tmp_path / "in")
    try:
        done = convert(tmp_path / "in", tmp_path / "out")
    except UserError as error:
        assert "a" in str(error) or "x" in str(error)
    else:
        assert read_class_list(tmp_path / "out/classes.txt") == done.labels


def test_masks_of_16_bits_are_no_colours(tmp_path):
    (tmp_path / "in").mkdir()
    scenes.folders(tmp_path / "in", lambda mask: np.uint16(mask > 0) * np.uint16(40_000))
    with pytest.raises(UserError, match="_mask.png"):
        done = convert(tmp_path / "in", tmp_path / "out", options=Options(binary="sky"))
        raise UserError(done.findings.problems[0])


def test_a_damaged_png_within_labelmes_json_is_a_problem(tmp_path):
    (tmp_path / "in").mkdir()
    scenes.labelme_masks(tmp_path / "in")
    content = json.loads((tmp_path / "in/a.json").read_text())
    data = base64.b64decode(content["shapes"][0]["mask"])
    place = data.index(b"IDAT")
    damaged = data[: place - 4] + struct.pack(">I", 10) + data[place:]  # the chunk's length
    content["shapes"][0]["mask"] = base64.b64encode(damaged).decode()
    (tmp_path / "in/a.json").write_text(json.dumps(content))
    [problem] = convert(tmp_path / "in", tmp_path / "out").findings.problems
    assert problem.startswith(f"{tmp_path / 'in/a.json'}: shape 1 ('sky')")


def test_masks_without_a_labelled_pixel_are_refused_as_by_check(tmp_path):
    (tmp_path / "in").mkdir()
    scenes.coco_panoptic(tmp_path / "in")
    panoptic(lambda found: found[0]["segments_info"].clear())(tmp_path / "in")
    done = convert(tmp_path / "in", tmp_path / "out")
    assert done.findings.problems or not check_directory(tmp_path / "out").problems


@pytest.mark.parametrize(
    ("write", "name", "message"),
    [
        (scenes.cvat_polygons, "annotations.xml", "neither masks beside images"),
        (scenes.roboflow, "train/_classes.csv", "train/_classes.csv"),
        (scenes.ade20k, "objectInfo150.txt", "objectInfo150.txt"),
    ],
)
def test_a_pipe_is_not_waited_for(write, name, message, tmp_path):
    (tmp_path / "in").mkdir()
    write(tmp_path / "in")
    (tmp_path / "in" / name).unlink()
    os.mkfifo(tmp_path / "in" / name)

    command = [sys.executable, "-m", "fcn_keras", "data", "convert", "in", "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=10)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and message in done.stderr
