"""`fcn-keras evaluate --masks` on real files, checked from outside."""

import argparse
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import CLASSES, write_folder
from support.image_files import encoded
from support.runs import save_colour_run

from fcn_keras.cli import main
from fcn_keras.cli.shared import add_model_flags, add_runtime_flags
from fcn_keras.data.split import voc_palette


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model as `run`, a data set as `data`, and the model's masks of its val as `masks`."""
    place = tmp_path_factory.mktemp("place")
    save_colour_run(place / "run", CLASSES, voc_palette(3))
    write_folder(place / "data", train=2, val=5)
    assert predict(place, "--dataset", place / "data", "--output", place / "masks") == 0
    return place


@pytest.fixture
def masks(place, tmp_path):
    """A copy of the masks."""
    return shutil.copytree(place / "masks", tmp_path / "masks")


def predict(place, *arguments):
    return main(["predict", "--model", str(place / "run"), *map(str, arguments)])


def evaluate(place, *arguments):
    return main(["evaluate", "--dataset", str(place / "data"), *map(str, arguments)])


def measured(place, folder, *arguments):
    """All that an evaluation writes."""
    folder.mkdir()
    files = ["--json", folder / "scores.json", "--confusion", folder / "confusion.png"]
    assert evaluate(place, *arguments, *files) == 0
    return json.loads((folder / "scores.json").read_text()), (folder / files[-1]).read_bytes()


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--limit", "3"],
        ["--split", "train"],
        ["--void", "background"],
        ["--boundary", "2"],
        ["--crop", "32", "40", "--boundary", "2", "--void", "background"],
    ],
    ids=" ".join,
)
def test_the_masks_that_predict_wrote_have_the_models_scores(place, masks, flags, tmp_path, capfd):
    data = place / "data"
    assert predict(place, "--dataset", data, "--split", "train", "--output", masks) == 0
    capfd.readouterr()
    by_model = measured(place, tmp_path / "a", "--model", place / "run", *flags)
    printed = capfd.readouterr().out
    # The model's classes depend on single pixels, so it sees in a crop what it sees around it.
    assert measured(place, tmp_path / "b", "--masks", masks, *flags) == by_model
    assert capfd.readouterr().out == printed
    assert 0 < by_model[0]["mean_iou"] < 1


def _palette_reversed(ids):
    """The same ids in other colours, with transparency."""
    image = Image.fromarray(ids).convert("P")
    image.putpalette([level for color in voc_palette()[::-1] for level in color])
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    "kind",
    [
        Image.fromarray,
        lambda ids: Image.fromarray(ids.astype(np.uint16)),
        lambda ids: Image.fromarray(np.array(voc_palette(3), np.uint8)[ids]),
        lambda ids: Image.fromarray(np.array(voc_palette(3), np.uint8)[ids]).convert("RGBA"),
        lambda ids: Image.fromarray(ids).convert("LA"),
        _palette_reversed,
    ],
    ids=["grey", "16 bits", "colours", "transparent colours", "transparent grey", "palette"],
)
def test_masks_may_be_written_in_each_way_that_truth_may(place, masks, kind, tmp_path):
    expected = measured(place, tmp_path / "a", "--masks", masks)
    for path in masks.glob("*.png"):
        path.write_bytes(encoded(kind(np.asarray(Image.open(path)))))
    assert measured(place, tmp_path / "b", "--masks", masks) == expected


def test_every_problem_is_named_and_nothing_evaluated(place, masks, tmp_path, capfd):
    ids = np.asarray(Image.open(masks / "val_0.png"))
    (masks / "val_0.png").unlink()
    (masks / "val_1.png").write_bytes(encoded(ids[:-1]))
    (masks / "val_2.png").write_bytes(encoded(ids + 1))
    (masks / "val_3.png").write_bytes(encoded(np.where(ids == 0, 255, ids).astype(np.uint8)))
    (masks / "val_4.png").write_bytes(encoded(np.stack([ids] * 3, axis=-1)))
    (masks / "other.png").write_bytes(b"no image of this split")
    json_path = tmp_path / "scores.json"
    assert evaluate(place, "--masks", masks, "--json", json_path) == 1
    out, err = capfd.readouterr()
    assert out == "5 problems. Nothing was evaluated.\n" and not json_path.exists()
    for line, message in zip(
        err.splitlines(),
        (
            "val_0.png: no such file. Write a mask for each image.",
            "val_1.png: the mask is 47×64, but its image is 48×64 (height×width). Draw the mask",
            "val_2.png: the mask has id 3, but there are 3 classes: use 0 to 2.",
            "val_3.png: the mask has id 255, but there are 3 classes: use 0 to 2.",
            "val_4.png: the mask has the colour (1, 1, 1), which is no class's, and 1 more. Use",
        ),
        strict=True,
    ):
        assert line.startswith(f"problem: {masks}/{message}")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a readable image"),
        (encoded(np.zeros((48, 64), np.uint8))[:-30], "not a readable image"),
        (encoded(np.zeros((48, 64), np.uint8), "JPEG"), "a mask must not be a JPEG"),
        (encoded(np.zeros((48, 64), np.uint8), "TIFF"), "a mask must be a PNG, not TIFF"),
        (encoded(np.full((48, 64), 256, np.uint16)), "the mask has id 256"),
        (encoded(np.full((48, 64, 3), (224, 224, 192), np.uint8)), "the colour (224, 224, 192)"),
        (None, "not a regular file"),
    ],
)
def test_a_mask_that_cannot_be_read_is_named(place, masks, data, message, capfd):
    path = masks / "val_1.png"
    path.unlink()
    path.write_bytes(data) if data is not None else path.mkdir()
    assert evaluate(place, "--masks", masks) == 1
    out, err = capfd.readouterr()
    assert out == "1 problem. Nothing was evaluated.\n" and len(err.splitlines()) == 1
    assert err.startswith(f"problem: {path}: ") and message in err


def test_a_damaged_photograph_or_truth_is_a_problem_too(place, masks, tmp_path, capfd):
    data = shutil.copytree(place / "data", tmp_path / "data")
    (data / "JPEGImages/val_0.jpg").write_bytes(b"")
    (data / "SegmentationClass/val_1.png").write_bytes(b"")
    assert evaluate(place, "--masks", masks, "--dataset", data) == 1
    lines = capfd.readouterr().err.splitlines()
    assert "JPEGImages/val_0.jpg: not" in lines[0] and "Class/val_1.png: not" in lines[1]
    assert len(lines) == 2


def test_masks_of_images_in_subfolders(place, tmp_path, capfd):
    data = shutil.copytree(place / "data", tmp_path / "data")
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png")):
        (data / folder / "sub").mkdir()
        (data / folder / f"val_0.{suffix}").rename(data / folder / f"sub/val_0.{suffix}")
    (data / "ImageSets/Segmentation/val.txt").write_text("sub/val_0\n")
    assert predict(place, "--dataset", data, "--output", tmp_path / "masks") == 0
    assert evaluate(place, "--dataset", data, "--masks", tmp_path / "masks") == 0


def _model_flags():
    parser = argparse.ArgumentParser(add_help=False)
    add_model_flags(parser)
    add_runtime_flags(parser)
    return [action for action in parser._actions if action.dest != "model"]


@pytest.mark.parametrize("action", _model_flags(), ids=lambda action: action.dest)
def test_flags_that_need_a_model_are_refused(place, action, capfd):
    [name] = action.option_strings
    value = [str(action.choices[-1] if action.choices else 2)] if action.nargs != 0 else []
    assert evaluate(place, "--masks", place / "masks", name, *value) == 1
    error = f"error: {name} requires --model: masks are evaluated as they are.\n"
    assert capfd.readouterr() == ("", error)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "one of the arguments --masks --model is required"),
        (["--masks", "a", "--model", "b"], "--model: not allowed with argument --masks"),
    ],
)
def test_either_a_model_or_masks(place, flags, message, capfd):
    with pytest.raises(SystemExit):
        evaluate(place, *flags)
    assert message in capfd.readouterr().err
