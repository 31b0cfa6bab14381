"""`data convert --into`: a data set that gains photographs, whole or not at all."""

import errno
import fcntl
import os
import shutil
import types

import numpy as np
import pytest
from PIL import Image
from support import processes
from support.fake_folder import CLASSES, save_palette_png, write_folder

from fcn_keras.cli import main
from fcn_keras.data import conversion, load_split
from fcn_keras.data.check import check_directory
from fcn_keras.data.conversion import convert, growing
from fcn_keras.data.conversion.source import Example, Options, Source
from fcn_keras.data.directory import read_ids, read_labels
from fcn_keras.data.split import LabelSet
from fcn_keras.errors import UserError

COLORS = ((9, 8, 7), (10, 20, 30), (200, 100, 0))
SIZE = (20, 30)
# Kills itself before each change to the file system in turn, then converts again.
KILLED = """
import itertools, os, shutil, signal, sys
from pathlib import Path
from fcn_keras.data.conversion import convert
from fcn_keras.data.conversion.source import Options
from fcn_keras.files import writing

folder = Path(sys.argv[1])
data, work, source = folder / "data", folder / "work", folder / "source"
changes = ("os.mkdir", "os.link", "os.remove", "os.rename", "os.rmdir", "os.chmod", "ctypes.dlsym")
if sys.argv[2] == "fallback":
    writing._exchange = lambda *_: False

def content():
    files = sorted(path for path in (work / "data").rglob("*") if path.is_file())
    return {path.relative_to(work): path.read_bytes() for path in files}

def grow():
    paths = source / "images", source / "masks", source / "classes.txt"
    convert(None, work / "data", options=Options(*paths), into=True)

def is_killed(at):
    events = itertools.count(1)
    def kill(event, arguments):
        if event in changes or event == "open" and "w" in str(arguments[1]):
            if next(events) == at:
                os.kill(os.getpid(), signal.SIGKILL)
    process = os.fork()
    if not process:
        sys.addaudithook(kill)
        grow()
        os._exit(0)
    status = os.waitpid(process, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == signal.SIGKILL

shutil.copytree(data, work / "data")
before = content()
grow()
after, seen = content(), set()
assert before != after
for at in itertools.count(1):
    shutil.rmtree(work)
    shutil.copytree(data, work / "data")
    killed, now = is_killed(at), content()
    seen.add("before" if now == before else "after" if now == after else "absent")
    assert now in (before, after) or not (work / "data").exists()
    if not killed:
        break
    grow()
    assert content() == after and os.listdir(work) == ["data"]
print(at, *sorted(seen))
"""


@pytest.fixture
def data(tmp_path):
    """A data set with subfolders, a JPG in capitals, other lists, and files of its own."""
    root = write_folder(tmp_path / "data", size=SIZE)
    lines = (f"{name}\t{' '.join(map(str, color))}\n" for name, color in zip(CLASSES, COLORS))
    (root / "classes.txt").write_text("".join(lines))
    lists = root / "ImageSets/Segmentation"
    for split in ("train", "val"):
        for folder, suffix, copied in (
            ("JPEGImages", ".jpg", ".JPG"),
            ("SegmentationClass", ".png", ".png"),
        ):
            (root / folder / "a").mkdir(exist_ok=True)
            shutil.copy(root / folder / f"{split}_0{suffix}", root / folder / f"a/{split}{copied}")
        with (lists / f"{split}.txt").open("a") as file:
            file.write(f"a/{split}")  # without a line break
    (lists / "test.txt").write_text("train_5\n")
    (lists / "folds").mkdir()
    (lists / "folds" / "1.txt").write_text("val_0\n")
    (root / "README.md").write_text("by hand")
    (root / "notes").symlink_to("README.md")
    return root


@pytest.fixture
def grow(data, tmp_path, monkeypatch):
    """Converts photographs of noise and masks into the data set, as a format of the test."""

    def grow(masks, names=CLASSES, splits=(), suffix="png", **changes):
        examples = []
        for name, mask in masks.items():
            photograph = tmp_path / "source" / f"{name}.{suffix}"
            photograph.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(len(name)).integers(0, 255, (*SIZE, 3), np.uint8)
            Image.fromarray(noise).save(photograph)
            split = dict(splits).get(name)
            place = tmp_path / "labels.json"
            examples.append(Example(name, photograph, place, lambda *_, m=mask: m, split))
        source = Source(LabelSet(tuple(names)), examples)
        reader = types.SimpleNamespace(OPTIONS=set(), read=lambda *_: source)
        monkeypatch.setitem(conversion.FORMATS, "made up", reader)
        return convert(tmp_path / "source", data, "made up", into=True, **changes)

    return grow


def filled(class_id):
    return np.full(SIZE, class_id, np.uint8)


def files(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def ids(root, split):
    return read_ids(root, split)


def mask_of(root, split, name):
    part = load_split(str(root), split)
    return part.read(part.ids.index(name))[1]


def test_photographs_are_added_replaced_or_unchanged(data, grow, tmp_path):
    before = {name: ids(data, name) for name in ("train", "val", "test")}
    kept = data / "JPEGImages/train_1.jpg"
    inode = kept.stat().st_ino
    masks = {"new": filled(1), "a/val": filled(2), "train_0": filled(255), "a/d/e": filled(0)}
    done = grow(masks)
    assert done.changes == {"added": 2, "replaced": 2}
    assert done.sizes == {"train": 9, "val": 3, "test": 1}
    assert done.pixels.tolist() == [600, 600, 600, 600]
    assert ids(data, "train") == [*before["train"], "a/d/e", "new"]
    assert ids(data, "val") == before["val"] and ids(data, "test") == before["test"]
    for name, split in (("new", "train"), ("a/val", "val"), ("train_0", "train")):
        np.testing.assert_array_equal(mask_of(data, split, name), masks[name])
    assert not (data / "JPEGImages/a/val.JPG").exists()  # now a PNG
    assert not (data / "JPEGImages/train_0.jpg").exists()
    assert kept.stat().st_ino == inode and kept.stat().st_nlink == 1
    assert (data / "ImageSets/Segmentation/folds/1.txt").read_text() == "val_0\n"
    assert (data / "notes").is_symlink() and (data / "notes").read_text() == "by hand"
    assert check_directory(data).problems == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "source"]

    after, inode = files(data), data.stat().st_ino
    assert grow(masks).changes == {"unchanged": 4}
    assert files(data) == after and data.stat().st_ino == inode
    assert grow(masks | {"new": filled(2)}).changes == {"unchanged": 3, "replaced": 1}
    assert (mask_of(data, "train", "new") == 2).all()


def test_ids_and_colours_are_those_of_the_data_set(data, grow):
    masks = {"new": filled(0), "other": filled(1)}
    grow(masks, names=["bar", "ground", "truck"], mapping=["truck=box"])
    assert (mask_of(data, "train", "new") == 2).all()
    assert (mask_of(data, "train", "other") == 0).all()
    assert read_labels(data).palette == COLORS
    picture = Image.open(data / "SegmentationClass/new.png")
    assert picture.getpalette()[6:9] == list(COLORS[2])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((*CLASSES, "truck"), r"has no class truck; .*--map 'truck=NAME'.*--output"),
        (CLASSES[:2], r"classes lack bar of .*data.*--classes .*data/classes.txt"),
    ],
)
def test_other_classes_are_refused(names, message, data, grow):
    before = files(data)
    with pytest.raises(UserError, match=message):
        grow({"new": filled(0)}, names=names)
    assert files(data) == before


def test_a_problem_leaves_everything_as_it_was(data, grow, tmp_path):
    before = files(data)
    done = grow({"new": filled(0), "train_0": np.zeros((3, 3), np.uint8), "../out": filled(0)})
    assert len(done.findings.problems) == 2 and done.sizes == {}
    assert files(data) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.png", "source"]


def test_new_photographs_are_drawn(data, grow):
    masks = {f"new_{index}": filled(0) for index in range(10)}
    before = {split: ids(data, split) for split in ("train", "val")}
    done = grow(masks, val=0.3, seed=1)
    assert done.sizes["val"] == len(before["val"]) + 3
    first = ids(data, "val")[-3:]
    for split in ("train", "val"):
        (data / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(before[split]))
    grow(masks, val=0.3, seed=2)
    assert ids(data, "val")[-3:] != first


def test_new_photographs_take_the_split_of_the_source_or_of_their_group(data, grow):
    (data / "ImageSets/Segmentation/trainval.txt").write_text(
        "\n".join(ids(data, "train") + ids(data, "val"))
    )
    names = ["v", "t", "train_8", "val_9", "x_1", "val_0"]
    splits = {"v": "val", "t": "test", "val_0": "train"}
    done = grow({name: filled(0) for name in names}, splits=splits, group_by=r"^(\w+?)(_|$)")
    assert ids(data, "val")[-2:] == ["v", "val_9"]
    assert ids(data, "test")[-1:] == ["t"]
    assert ids(data, "train")[-2:] == ["train_8", "x_1"]
    assert ids(data, "trainval")[-4:] == ["train_8", "v", "val_9", "x_1"]
    assert (
        done.findings.notes[0]
        == "1 images, such as val_0, keep their split, which is not the source's."
    )


def test_a_command_tells_what_it_did(data, tmp_path, capfd):
    source = write_folder(tmp_path / "source", train=2, val=1, size=SIZE, seed=3)
    flags = ["--images", source / "JPEGImages", "--masks", source / "SegmentationClass"]
    flags += ["--classes", data / "classes.txt", "--into", data]
    assert main(["data", "convert", *map(str, flags)]) == 0
    output = capfd.readouterr().out
    assert "added: 0, replaced: 3, unchanged: 0\n" in output
    assert f"{data}: train 7, val 3, test 1 images. Format: folders.\n" in output
    assert main(["data", "convert", *map(str, flags)]) == 0
    assert "added: 0, replaced: 0, unchanged: 3\n" in capfd.readouterr().out


def test_another_call_is_not_disturbed(data, grow):
    staging = data.with_name(".partial-data")
    staging.mkdir()
    descriptor = os.open(staging, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another call is changing it"):
        grow({"new": filled(0)})
    os.close(descriptor)
    assert grow({"new": filled(0)}).changes == {"added": 1}
    assert not staging.exists()


def test_what_cannot_change_together_is_refused(data, grow, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such folder. Make a new data set by --output"):
        paths = data / "JPEGImages", data / "SegmentationClass", data / "classes.txt"
        convert(None, tmp_path / "no", options=Options(*paths), into=True)
    shutil.move(data / "JPEGImages/a", tmp_path / "elsewhere")
    (data / "JPEGImages/a").symlink_to(tmp_path / "elsewhere")
    before = files(data)
    with pytest.raises(UserError, match="JPEGImages/a: through a link"):
        grow({"a/new": filled(0)})
    assert grow({"new": filled(0)}).changes == {"added": 1}
    assert (data / "JPEGImages/a").is_symlink()
    (tmp_path / "link").symlink_to(data)  # the data set itself may be one

    def link(*_, **__):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(growing.os, "link", link)
    with pytest.raises(UserError, match="on another file system"):
        grow({"newer": filled(0)})
    assert len(files(data)) == len(before) + 2


def test_files_that_cannot_be_linked_are_copied(data, grow, monkeypatch):
    def link(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    before = {path.relative_to(data): content for path, content in files(data).items()}
    monkeypatch.setattr(growing.os, "link", link)
    grow({"new": filled(0)})
    after = {path.relative_to(data): content for path, content in files(data).items()}
    changed = {path for path in before if after[path] != before[path]}
    assert [path.name for path in changed] == ["train.txt"]


@pytest.mark.parametrize("way", ["exchange", "fallback"])
def test_no_kill_leaves_half_a_change(way, tmp_path):
    """And the next call ends what a killed one began."""
    write_folder(tmp_path / "data", train=1, val=1, size=SIZE)
    source = tmp_path / "source"
    for index, name in enumerate(("train_0", "new")):
        for part in ("images", "masks"):
            (source / part).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1]).save(source / "images" / f"{name}.png")
        save_palette_png(filled(index), source / "masks" / f"{name}.png")
    shutil.copy(tmp_path / "data" / "classes.txt", source)
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    count, *seen = processes.finish(program, tmp_path, way).split()
    assert int(count) > 40
    assert seen == (["after", "before"] if way == "exchange" else ["absent", "after", "before"])
