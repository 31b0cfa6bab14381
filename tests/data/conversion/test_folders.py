"""`fcn-keras data convert` on labelme's exports and on coloured masks."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.fake_folder import draw_example, save_palette_png

from fcn_keras.cli import main
from fcn_keras.data import load_split
from fcn_keras.data.conversion import convert
from fcn_keras.data.conversion.source import Options
from fcn_keras.errors import UserError

NAMES = ("_background_", "box", "bar")
COLORS = np.array([(0, 0, 0), (10, 20, 30), (200, 100, 0)], np.uint8)


def write_export(root, masks="SegmentationClass", count=5):
    """Writes what labelme2voc.py does, without its pictures for viewing; returns the true masks."""
    rng, truth = np.random.default_rng(0), {}
    for folder in ("JPEGImages", masks, "SegmentationClassNpy"):
        (root / folder).mkdir(parents=True)
    (root / "class_names.txt").write_text("\n".join(NAMES))  # without a newline at the end
    for index in range(count):
        name = f"photo {index}.v1"
        image, truth[name] = draw_example(rng, (20, 30), void=True)
        Image.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
        save_palette_png(truth[name], root / masks / f"{name}.png")
        np.save(root / "SegmentationClassNpy" / f"{name}.npy", truth[name])
    return truth


def paint_masks(export, folder):
    """Paints an export's masks in colours, and writes the list of colours."""
    folder.mkdir()
    for path in (export / "SegmentationClass").iterdir():
        ids = np.asarray(Image.open(path))
        rgb = np.where((ids == 255)[..., None], (224, 224, 192), COLORS[ids % 255]).astype(np.uint8)
        Image.fromarray(rgb).save(folder / path.name)
    lines = [f"{name}\t{' '.join(map(str, color))}" for name, color in zip(NAMES, COLORS)]
    (folder / "colors.txt").write_text("\n".join(lines))


def flags(export, output, **changes):
    paths = {
        "images": export / "JPEGImages",
        "masks": export / "SegmentationClass",
        "classes": export / "class_names.txt",
        "output": output,
    }
    chosen = {**paths, **changes}
    return [part for name, value in chosen.items() for part in (f"--{name}", str(value))]


def assert_holds(folder, truth):
    splits = [load_split(str(folder), name) for name in ("train", "val")]
    assert sorted([*splits[0].ids, *splits[1].ids]) == sorted(truth)
    for split in splits:
        assert split.labels.names == NAMES
        for index, name in enumerate(split.ids):
            np.testing.assert_array_equal(split.read(index)[1], truth[name])


@pytest.mark.parametrize("masks", ["SegmentationClass", "SegmentationClassPNG"])
def test_labelmes_export_becomes_a_data_set(masks, tmp_path, capfd):
    export, output = tmp_path / "export", tmp_path / "new" / "data"
    truth = write_export(export, masks)
    assert main(["data", "convert", *flags(export, output, masks=export / masks)]) == 0
    assert f"{output}: train 4, val 1 images." in capfd.readouterr().out
    assert_holds(output, truth)
    assert [path.name for path in output.parent.iterdir()] == ["data"]
    assert main(["data", "check", str(output)]) == 0


def test_masks_of_colours_become_ids(tmp_path):
    export, painted, output = tmp_path / "export", tmp_path / "painted", tmp_path / "data"
    truth = write_export(export)
    paint_masks(export, painted)
    changes = {"masks": painted, "classes": painted / "colors.txt"}
    assert main(["data", "convert", *flags(export, output, **changes)]) == 0
    assert_holds(output, truth)
    assert load_split(str(output), "val").labels.palette == tuple(map(tuple, COLORS.tolist()))
    picture = Image.open(next((output / "SegmentationClass").iterdir()))
    assert picture.mode == "P" and picture.getpalette()[3:6] == [10, 20, 30]


def test_labels_txt_of_labelme_serves_as_well(tmp_path):
    export = tmp_path / "export"
    truth = write_export(export)
    (export / "labels.txt").write_text("\n".join(["__ignore__", *NAMES]))
    changes = {"classes": export / "labels.txt"}
    assert main(["data", "convert", *flags(export, tmp_path / "data", **changes)]) == 0
    assert_holds(tmp_path / "data", truth)


def test_all_problems_are_listed_and_nothing_is_written(tmp_path, capfd):
    export, output = tmp_path / "export", tmp_path / "data"
    write_export(export)
    save_palette_png(np.full((20, 30), 7, np.uint8), export / "SegmentationClass/photo 0.v1.png")
    save_palette_png(np.zeros((20, 31), np.uint8), export / "SegmentationClass/photo 1.v1.png")
    (export / "JPEGImages/photo 2.v1.jpg").write_bytes(b"no picture")
    assert main(["data", "convert", *flags(export, output)]) == 1
    captured = capfd.readouterr()
    assert "3 problems. Nothing was written." in captured.out
    for text in (
        "photo 0.v1.png: the id 7 is no class's, here or in other masks: 1 of 4",
        "the mask is 20×31",
        "not a readable image",
    ):
        assert text in captured.err
    assert not output.exists() and "Traceback" not in captured.err


def test_files_without_a_partner_are_named_and_left_out(tmp_path, capfd):
    export, output = tmp_path / "export", tmp_path / "data"
    truth = write_export(export)
    (export / "SegmentationClass/photo 3.v1.png").unlink()
    (export / "JPEGImages/photo 4.v1.jpg").unlink()
    assert main(["data", "convert", *flags(export, output)]) == 0
    stderr = capfd.readouterr().err
    assert "no partner" in stderr and stderr.count("\n") == 2
    assert "JPEGImages/photo 3.v1.jpg" in stderr and "SegmentationClass/photo 4.v1.png" in stderr
    assert_holds(output, {name: truth[name] for name in list(truth)[:3]})


def test_the_seed_draws_the_validation_images(tmp_path):
    write_export(tmp_path / "export", count=20)

    def val(seed, share=0.3):
        output = tmp_path / f"{seed}-{share}-{len(list(tmp_path.iterdir()))}"
        export = tmp_path / "export"
        parts = ("JPEGImages", "SegmentationClass", "class_names.txt")
        source = Options(*(export / part for part in parts))
        done = convert(None, output, options=source, val=share, seed=seed)
        ids = {name: load_split(str(output), name).ids for name in ("train", "val")}
        assert done.sizes == {name: len(found) for name, found in ids.items()}
        assert sum(done.sizes.values()) == 20
        return ids["val"]

    assert val(1) == val(1) != val(2)
    assert len(val(1)) == 6  # 0.3 of 20
    assert len(val(1, 0.001)) == 1 and len(val(1, 0.999)) == 19  # neither split is empty


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": 1.0}, "--val must be between 0 and 1. Received: 1.0"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"images": "no/such"}, "no/such: no such folder"),
        ({"classes": "no/such.txt"}, "no/such.txt: no such file"),
        ({"masks": "empty"}, "0 pairs of image and mask, among 5 images and 0 masks"),
    ],
)
def test_mistakes_are_named(changes, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    export = tmp_path / "export"
    write_export(export)
    source = {
        "images": export / "JPEGImages",
        "masks": export / "SegmentationClass",
        "classes": export / "class_names.txt",
    }
    with pytest.raises(UserError, match=message):
        given = {name: changes.pop(name, path) for name, path in source.items()}
        paths = {name: Path(path) for name, path in given.items()}
        convert(None, tmp_path / "data", options=Options(**paths), **changes)
    assert not (tmp_path / "data").exists()


def test_an_existing_folder_is_kept(tmp_path, capfd):
    write_export(tmp_path / "export")
    (tmp_path / "data").mkdir()
    assert main(["data", "convert", *flags(tmp_path / "export", tmp_path / "data")]) == 1
    assert "already exists and is never overwritten" in capfd.readouterr().err
    assert list((tmp_path / "data").iterdir()) == []
